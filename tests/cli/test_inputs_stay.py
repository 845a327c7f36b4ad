"""No command writes over what it reads, by whatever name; nor over files of others that have the names of ours."""

import json
import os
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import cascadeclip
from cascadeclip.checkpoints.own import save_checkpoint
from cascadeclip.cli import options
from cascadeclip.cli.commands import app
from cascadeclip.clip.load import Clip
from cascadeclip.errors import InputError
from cascadeclip.evaluation.predictions import Predictions
from cascadeclip.experiments.comparisons import COMPARISONS
from cascadeclip.experiments.report import can_be_written, write_index
from cascadeclip.files import check_apart
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import MINI
from cascadeclip.sharing.onnx import export_onnx
from cascadeclip.training.run import fit, open_clip_of


@pytest.fixture(autouse=True)
def at_work(tmp_path, monkeypatch):
    """A folder with a picture, where no model computes anything."""

    def forward(*args, **more):
        raise AssertionError("the work began")

    monkeypatch.setattr(CascadeCLIP, "forward", forward)
    monkeypatch.chdir(tmp_path)
    picture("p.png")
    return tmp_path


def picture(path, values=(8, 6, 3)):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 2, values, dtype=np.uint8)).save(path)


def run(command):
    return CliRunner().invoke(app, command.split(), catch_exceptions=False)


def refused(command, match="is read here; choose another output"):
    with pytest.raises(InputError, match=match):
        run(command)


def described(folder="."):
    """An own.json of four pictures with masks in `pictures` and `masks`."""
    for number in range(4):
        picture(f"{folder}/pictures/{number}.png"), picture(f"{folder}/masks/{number}.png", (8, 6))
    content = {"images": "pictures", "masks": "masks", "names": ["a", "b"], "unseen": ["b"]}
    Path(f"{folder}/own.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("method", ["", " --method maskclip"])
@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_segment_keeps_its_picture(link, method):
    before = Path("p.png").read_bytes()
    if link is not None:
        link("p.png", "other.png")
    refused(f"segment p.png cat --out {'other.png' if link else './p.png'}{method}")
    assert Path("p.png").read_bytes() == before


def test_segment_keeps_a_picture_of_the_usual_name_and_its_checkpoint():
    os.rename("p.png", "segmentation.png")
    refused("segment segmentation.png cat")
    os.rename("segmentation.png", "weights.png")
    picture("p.png")
    refused("segment p.png cat --checkpoint weights.png --out weights.png")
    refused("segment p.png cat --method maskclip --clip ViT-B-32 --clip-weights weights.png --out weights.png")


def test_another_picture_may_be_written_over():
    picture("old.png")
    with pytest.raises(AssertionError, match="the work began"):
        run("segment p.png cat --out old.png")


@pytest.mark.parametrize("name", ["model.safetensors", "model-2.safetensors", "state.pt", "log.jsonl"])
def test_train_keeps_what_it_starts_from(name):
    os.makedirs("out")
    os.rename("p.png", f"out/{name}")
    refused(f"train --steps 4 --keep-every 2 --from-checkpoint out/{name} --out out")
    refused(f"train --steps 4 --keep-every 2 --clip ViT-B-32 --clip-weights out/{name} --out out")


def test_train_keeps_the_model_of_a_folder_it_starts_from():
    os.makedirs("out")
    os.rename("p.png", "out/model.safetensors")
    refused("train --steps 4 --from-checkpoint out --out out")


def test_training_in_python_keeps_the_weights_of_its_clip(at_work):
    clip = replace(open_clip_of(MINI), pretrained=str(at_work / "model.safetensors"))
    os.rename("p.png", "model.safetensors")
    with pytest.raises(InputError, match="is read here"):
        fit(MINI, clip, MINI.model, MINI.training, at_work)
    assert os.listdir() == ["model.safetensors"]


@pytest.mark.parametrize("name", ["scores.json", "scores.png", "counts-0.safetensors"])
def test_evaluate_keeps_its_checkpoint_and_description(name):
    os.makedirs("out")
    os.rename("p.png", f"out/{name}")
    refused(f"evaluate --checkpoint out/{name} --out out")
    described()
    os.replace("own.json", "scores.json")
    refused("evaluate --own scores.json --out .")


def test_evaluate_keeps_pictures_and_masks():
    described()
    os.symlink("pictures/2.png", "scores.png")
    refused("evaluate --own own.json --split train --out .")


@pytest.mark.parametrize("name", ["predictions/0.png", "predictions/3.png"])
def test_evaluate_keeps_files_of_others_among_its_segmentations(name):
    picture(name)
    before = Path(name).read_bytes()
    refused("evaluate --limit 4 --predictions --out .", "a file of yours is there")
    assert Path(name).read_bytes() == before


def test_segmentations_that_are_masks_now_are_kept(at_work):
    described()
    preset = options.chosen_preset("mini", None, at_work / "own.json", None, None, None, None)
    data, names = preset.train_data(0), preset.names
    written = Predictions(at_work / "masks-to-be", data, range(len(data)), names, "first")
    for index in range(len(data)):
        written.save(index, torch.zeros(8, 6))
    os.rename("masks", "before"), os.rename("masks-to-be", "masks")
    Predictions(at_work / "elsewhere", data, range(len(data)), names, "second")
    with pytest.raises(InputError, match="is read here"):
        Predictions(at_work / "masks", data, range(len(data)), names, "second")


@pytest.mark.parametrize("folder", ["pictures", "masks", "./pictures/../masks", "linked"])
def test_check_draws_nothing_among_pictures_and_masks(folder):
    described()
    os.symlink("pictures", "linked")
    before = sorted(os.listdir("pictures") + os.listdir("masks"))
    refused(f"data check own.json --out {folder}")
    assert sorted(os.listdir("pictures") + os.listdir("masks")) == before


def test_check_draws_over_its_own_overlays_only():
    described()
    picture("out/0.png")
    before = Path("out/0.png").read_bytes()
    for _ in range(2):
        assert run("data check own.json --out out").exit_code == 0
    assert Path("out/0.png").read_bytes() == before and os.path.exists("out/overlay-0.png")
    picture("out/overlay-0.png")
    refused("data check own.json --out out", "a file of yours is there")
    Path("out/overlay-0.png").write_bytes(b"")  # what a power cut may leave
    assert run("data check own.json --out out").exit_code == 0


def test_an_index_of_comparisons_takes_no_other_files_place(at_work):
    Path("README.md").write_text("# My project\n", encoding="utf-8")
    refused("experiments fusion --smoke --seeds 1 --out .", "a file of yours is there")
    os.remove("README.md")
    for name in COMPARISONS:
        Path(f"{name}.md").write_text("table", encoding="utf-8")
    write_index(at_work, files("cascadeclip") / "assets" / "results")
    assert can_be_written([], at_work)


def segmenter(weights):
    shipped = cascadeclip.load("mini")
    shipped.clip = Clip("mini", weights, shipped.clip.model, shipped.clip.tokenize)
    return shipped


def test_a_shared_folder_keeps_the_weights_of_clip_and_models_of_trainings(at_work):
    os.rename("p.png", "config.json")
    with pytest.raises(InputError, match="is read here"):
        segmenter(str(at_work / "config.json")).save_pretrained(at_work)
    Path("config.json").write_text('{"format": "of a language model"}', encoding="utf-8")
    with pytest.raises(InputError, match="of another kind"):
        segmenter(None).save_pretrained(at_work)
    os.remove("config.json")
    trained = segmenter(None)
    save_checkpoint("model.safetensors", trained.model, clip={"name": "mini"}, seen=("cat",))
    with pytest.raises(InputError, match="of another kind"):
        trained.save_pretrained(at_work)
    os.remove("model.safetensors")
    trained.save_pretrained(at_work), trained.save_pretrained(at_work)  # over its own


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_an_export_keeps_the_weights_of_clip(name, at_work):
    pytest.importorskip("onnxscript")
    os.rename("p.png", name)
    with pytest.raises(InputError, match="is read here"):
        export_onnx(segmenter(str(at_work / name)), at_work / "model.onnx")


def test_names_that_the_system_takes_for_one_are_one(at_work, monkeypatch):
    """As where capitals do not count: another name, the same file."""
    stat = type(at_work).stat
    monkeypatch.setattr(type(at_work), "stat", lambda path, **how: stat(path.with_name(path.name.lower()), **how))
    with pytest.raises(InputError, match=r"cannot write P\.PNG: that is p\.png, which is read here"):
        check_apart(["P.PNG"], [None, "nothing", "p.png"])
