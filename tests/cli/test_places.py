"""A folder where a command is going to write a file is told of before the work, and not after it."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cascadeclip.cli.commands import app
from cascadeclip.errors import InputError
from cascadeclip.experiments import bench_report
from cascadeclip.experiments import run as compare
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import MINI
from cascadeclip.training.loop import train
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate
from tests.training.test_loop import CONFIG


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """No model computes anything."""

    def forward(*args, **more):
        raise AssertionError("the work began")

    monkeypatch.setattr(CascadeCLIP, "forward", forward)
    monkeypatch.setattr(bench_report, "bench", forward)


COMMANDS = {
    "train --steps 4 --batch-size 2 --keep-every 2 --out": (
        "model.safetensors", "log.jsonl", "state.pt", "state.previous.pt", "model-2.safetensors",
    ),
    "evaluate --limit 4 --predictions --out": (
        "scores.json", "scores.png", "counts-0.safetensors", "predictions/0.png", "predictions/3.png",
    ),
    "experiments fusion setting --smoke --seeds 1 --out": (
        "fusion.json", "fusion.md", "fusion.png", "fusion-curves.png", "setting.json", "README.md",
    ),
    "bench --preset mini --growth --out": ("bench.json", "growth.json", "growth.png"),
    "demo --steps 1 --out": ("report.json", "curves.png", "scores.png", "predictions.png"),
    "segment picture.png cat --out result.png": ("",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, names in COMMANDS.items() for name in names]
)
def test_a_folder_in_the_place_of_a_file_is_told_of_before_the_work(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("picture.png")
    words = command.split() if name == "" else [*command.split(), "out"]
    place = tmp_path / words[-1] / name
    (place / "content").mkdir(parents=True)
    with pytest.raises(InputError, match=r"that is a folder(; choose another output folder|; there is no other)"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_file_in_the_place_of_the_folder_of_segmentations_is_told_of_before_the_work(tmp_path):
    (tmp_path / "predictions").touch()
    words = ["evaluate", "--limit", "4", "--predictions", "--out", str(tmp_path)]
    with pytest.raises(InputError, match=r"cannot write into .*predictions"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_another_folder_in_the_output_folder_is_none_of_ours(tmp_path):
    (tmp_path / "model-old").mkdir()
    (tmp_path / "predictions" / "mine.png").mkdir(parents=True)
    for command in ("train --steps 1 --batch-size 1 --out", "evaluate --limit 1 --predictions --out"):
        with pytest.raises(AssertionError, match="the work began"):
            CliRunner().invoke(app, [*command.split(), str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize("name", ["log.jsonl", "state.previous.pt"])
def test_training_in_python_tells_of_it_as_well(name, tmp_path):
    (tmp_path / name).mkdir()
    torch.manual_seed(0)
    with pytest.raises(InputError, match="that is a folder"):
        train(CascadeCLIP(MODEL), Noise(), TEXT, NAMES, UNSEEN, CONFIG, collate=collate, out=tmp_path, progress=False)


def test_kept_counts_of_a_comparison_are_no_folder(tmp_path, monkeypatch):
    runs = compare._Runs(MINI, compare.open_clip_of(MINI), tmp_path, 2, progress=False)
    monkeypatch.setattr(runs, "trained", lambda *args: tmp_path)
    compare.save_file({"weight": torch.ones(1)}, tmp_path / compare.TRAINED)
    monkeypatch.setattr(compare, "digest_of", lambda settings: "same")
    (tmp_path / "counts-same.safetensors").mkdir()
    with pytest.raises(InputError, match="that is a folder"):
        runs.counts(compare.Variant("one"), 0)
