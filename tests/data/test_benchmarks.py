"""The benchmarks' presets, from a VOC tree on disk to a table, at the full depth and width of ViT-B/16."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import cascadeclip
from cascadeclip.checkpoints.authors import save_authors
from cascadeclip.cli.commands import app
from cascadeclip.cli.options import chosen_preset
from cascadeclip.clip.load import load_clip
from cascadeclip.data.benchmarks import VOC12
from cascadeclip.errors import InputError
from cascadeclip.evaluation.run import score
from cascadeclip.presets import NAMES, get_preset, own_preset
from cascadeclip.training.run import fit, on_tower_of, open_clip_of
from tests.support.archives import voc_tree

# The same commands as at full size, but for what the machine can do: random weights, small crops, few steps.
SMALL = ("--image-size", "64", "--clip-weights", "random", "--precision", "fp32", "--workers", "0")
TRAIN = ("train", "--preset", "voc12", "--steps", "4", "--batch-size", "2", "--checkpoint-every", "1", *SMALL)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    voc_tree(root)
    return root


def cli(*arguments):
    """The command line in this process; returns what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def trained(voc, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    cli(*TRAIN, "--data-root", voc, "--out", out, "--keep-every", 2)
    return out


@pytest.mark.parametrize(
    ("name", "classes", "unseen", "steps", "prompts", "templates"),
    [
        ("voc12", 20, 5, 20_000, 10, 1),
        ("context59", 59, 10, 40_000, 35, 15),
        ("coco-stuff", 171, 15, 80_000, 50, 15),
    ],
)
def test_presets_hold_the_authors_settings(name, classes, unseen, steps, prompts, templates):
    preset, again = get_preset(name), get_preset(f"{name}-transductive")
    assert (len(preset.names), len(preset.unseen), len(preset.templates)) == (classes, unseen, templates)
    model, training = preset.model, preset.training
    assert (training.steps, model.prompt_tokens, training.batch_size) == (steps, prompts, 16)
    assert (training.learning_rate, training.weight_decay, training.warmup) == (2e-4, 0.01, 1500)
    assert (training.focal_weight, training.dice_weight, training.keep_every) == (100, 1, steps // 2)
    assert model.stages == ((6, 7, 8), (9, 10, 11), (12,)) and model.class_embedding_twice and not model.train_taps
    assert (model.tower.image_size, preset.window, preset.stride, preset.seen_offset) == (512, 512, 426, 0.1)
    assert again.training.transductive and not training.transductive
    assert (again.training.steps, again.seen_offset) == (steps // 2, 0.0)


def test_unknown_presets_and_options_are_refused():
    with pytest.raises(InputError, match="choose from mini, mini-transductive, mini-strict, mini-frozen, "):
        get_preset("voc")
    with pytest.raises(InputError, match="takes no data root"):
        get_preset("mini", "data")
    with pytest.raises(InputError, match="needs the folder with its data"):
        get_preset("voc12").eval_data("val")
    assert len(NAMES) == 5 * 3 + 4 and all(get_preset(name).name == name for name in NAMES)


def test_another_split_of_the_classes():
    preset = get_preset("voc12").with_unseen(["cat", "dog"])
    assert len(preset.seen) == 18 and "cat" not in preset.seen
    with pytest.raises(InputError, match="unseen but no class: unicorn"):
        preset.with_unseen(["unicorn"])


def test_training_data_follow_the_seed_and_evaluation_data_do_not(voc):
    preset = get_preset("voc12", voc, image_size=64)
    image, labels, _ = preset.train_data(0)[0]
    assert image.shape == (3, 64, 64) and labels.shape == (64, 64)
    data = preset.eval_data("val")
    assert len(data) == 6
    image, labels = data[1]
    assert min(image.shape[1:]) == 64 and labels.shape == (64, 72)


def test_strict_presets_train_without_the_pictures_that_show_an_unseen_class(voc):
    usual, strict = (get_preset(name, voc, image_size=64) for name in ("voc12", "voc12-strict"))
    hidden = [strict.names.index(name) for name in strict.unseen]

    def shown(data):
        return [set(np.unique(data.label_map.read(path)).tolist()) & set(hidden) for _, path in data.pairs]

    assert any(shown(usual.training_data(0)))
    assert not any(shown(strict.training_data(0)))
    assert len(strict.training_data(0)) == sum(not found for found in shown(usual.training_data(0)))
    assert len(strict.eval_data("val")) == len(usual.eval_data("val"))  # every picture is scored
    first = usual.names[min(set(range(len(usual.names))) - set(hidden))]
    other = strict.with_unseen([first])  # another split: other pictures are left out
    assert len(other.training_data(0)) == sum(
        usual.names.index(first) not in np.unique(usual.train_data(0).label_map.read(path))
        for _, path in usual.train_data(0).pairs
    )


def test_the_strict_mini_world_has_no_unseen_class_and_no_self_training():
    strict = get_preset("mini-strict")
    world = strict.training_data(3)
    assert not set(world.options["things"] + world.options["stuff"]) & set(strict.unseen)
    assert set(strict.eval_data("val").options["things"]) & set(strict.unseen)
    training = replace(strict.training, transductive=True)
    with pytest.raises(InputError, match="self-training needs a preset that is not strict"):
        fit(strict, None, strict.model, training, "out", start=object())


def test_fit_trains_on_the_presets_training_data(monkeypatch, tmp_path):
    strict, given = get_preset("mini-strict"), []
    monkeypatch.setattr(
        "cascadeclip.training.run.train", lambda model, data, *rest, **options: given.append(data) or []
    )
    fit(strict, open_clip_of(strict), strict.model, strict.training, tmp_path)
    assert not set(given[0].options["things"]) & set(strict.unseen)


def test_own_pictures_can_be_strict(tmp_path):
    folders = dict(images="a", masks="b", val_images="c", val_masks="d")
    assert own_preset(names=["cat", "dog"], unseen=["dog"], strict=True, **folders).strict
    assert not own_preset(names=["cat", "dog"], unseen=["dog"], **folders).strict


@pytest.mark.slow
def test_a_small_voc_tree_is_trained_on_and_evaluated(voc, trained, tmp_path):
    state = load_file(trained / "model.safetensors")
    assert state["encoder.prompts"].shape == (12, 10, 768)
    assert load_file(trained / "model-2.safetensors").keys() == state.keys()
    out = tmp_path / "scores"
    printed = cli(
        "evaluate", "--checkpoint", trained / "model.safetensors", "--preset", "voc12", "--data-root", voc, *SMALL,
        "--out", out, "--predictions", "--per-class",
    )  # fmt: skip
    report = json.loads((out / "scores.json").read_text())
    assert list(report["per_class"]) == list(VOC12.names)
    assert all(value is not None for value in report["per_class"].values())  # the tree shows every class
    assert "mIoU(S)" in printed and "sofa (unseen)" in printed
    assert any("ViT-B-16-quickgelu" in line for line in report["origins"])
    drawn = sorted((out / "predictions").iterdir())
    data = get_preset("voc12", voc, image_size=64).eval_data("val")
    assert [path.stem for path in drawn] == sorted(
        os.path.splitext(os.path.basename(data.source(i)))[0] for i in range(6)
    )
    with Image.open(drawn[0]) as picture:
        assert picture.mode == "P" and np.asarray(picture).max() < 20


@pytest.mark.slow
def test_self_training_starts_from_a_model_half_way(voc, trained, tmp_path):
    arguments = ("train", "--preset", "voc12-transductive", "--steps", 2, "--batch-size", 2, *SMALL, "--data-root", voc)
    with pytest.raises(InputError, match="give it one that was trained inductively"):
        cli(*arguments, "--out", tmp_path)
    cli(*arguments, "--out", tmp_path, "--from-checkpoint", trained / "model-2.safetensors")
    before, after = load_file(trained / "model-2.safetensors"), load_file(tmp_path / "model.safetensors")
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved and all((before[name] - after[name]).abs().max() < 0.1 for name in before)


@pytest.mark.slow
def test_the_authors_checkpoint_is_evaluated_in_one_line(voc, trained, tmp_path):
    """A `.pth` in their layout, made from our model, gives the very scores of ours."""
    preset = get_preset("voc12", voc, image_size=64)
    preset = replace(preset, clip={**preset.clip, "pretrained": None})
    ours = cascadeclip.load(trained / "model.safetensors", preset=preset)
    save_authors(tmp_path / "theirs.pth", ours.model)
    printed = cli(
        "evaluate", "--checkpoint", tmp_path / "theirs.pth", "--preset", "voc12", "--data-root", voc, *SMALL,
        "--out", tmp_path,
    )  # fmt: skip
    assert "theirs.pth" in printed
    report = json.loads((tmp_path / "scores.json").read_text())
    expected = score(preset, ours.clip, ours.model)
    assert report["pAcc"] == pytest.approx(expected.pAcc) and report["hIoU"] == pytest.approx(expected.hIoU)


@pytest.mark.slow
def test_a_checkpoint_of_other_classes_needs_cross(voc, trained):
    arguments = ("evaluate", "--checkpoint", trained / "model.safetensors", "--preset", "voc12", "--data-root", voc)
    with pytest.raises(InputError, match="--cross"):
        cli(*arguments, *SMALL, "--unseen", "cat")
    assert "mIoU(S)" in cli(*arguments, *SMALL, "--unseen", "cat", "--cross")


@pytest.mark.slow
def test_own_pictures_and_masks(voc, tmp_path):
    folder = voc / VOC12.folder
    (tmp_path / "images").mkdir(), (tmp_path / "masks").mkdir()
    for picture, mask in VOC12.pairs(voc, "val"):
        (tmp_path / "images" / picture.name).write_bytes(picture.read_bytes())
        (tmp_path / "masks" / mask.name).write_bytes(mask.read_bytes())
    assert folder.is_dir()
    described = dict(
        images="images", masks="masks", val_images="images", val_masks="masks", names=list(VOC12.names),
        unseen=["sofa"], first=1, ignored=[0, 255],
    )  # fmt: skip
    (tmp_path / "own.json").write_text(json.dumps(described))
    cli("train", "--own", tmp_path / "own.json", *TRAIN[3:], "--out", tmp_path / "run")
    printed = cli(
        "evaluate", "--own", tmp_path / "own.json", *SMALL, "--checkpoint", tmp_path / "run" / "model.safetensors"
    )
    assert "mIoU(U)" in printed
    (tmp_path / "own.json").write_text(json.dumps(described | {"colour": "red"}))
    with pytest.raises(InputError, match="colour"):
        chosen_preset("mini", None, tmp_path / "own.json", None, None, None, None)
    (tmp_path / "own.json").write_text("{")
    with pytest.raises(InputError, match=r"own.json is damaged, no JSON"):
        chosen_preset("mini", None, tmp_path / "own.json", None, None, None, None)


def test_own_words_must_fit_together():
    folders = dict(images="a", masks="b", val_images="c", val_masks="d")
    with pytest.raises(InputError, match="unseen but no class: fish"):
        own_preset(names=["cat", "dog"], unseen=["fish"], **folders)
    with pytest.raises(InputError, match="no folder a"):
        own_preset(names=["cat", "dog"], unseen=["dog"], **folders).train_data(0)


def test_a_deeper_tower_gets_scaled_stages(register):
    clip = load_clip(register("small", layers=12, patch_size=16), None)
    found = on_tower_of(clip, get_preset("voc12").model)
    assert found.tower == clip.tower != get_preset("voc12").model.tower
    assert found.stages == get_preset("voc12").model.stages
    deeper = replace(get_preset("voc12").model.tower, layers=24)

    class Deep:
        tower = deeper

    assert on_tower_of(Deep, get_preset("voc12").model).stages == ((12, 14, 16), (18, 20, 22), (24,))
