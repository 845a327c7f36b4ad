"""The scripts that make the shipped assets, run whole on small input."""

import contextlib
import importlib.util
import io
import json
import math
import runpy
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

import cascadeclip
from cascadeclip.clip.mini import MiniTokenizer, build_mini_clip
from cascadeclip.data.emojiscenes import CLASSES, draw_scene
from cascadeclip.evaluation.run import COLUMNS
from cascadeclip.experiments import get_comparison, run_comparison, write_report
from cascadeclip.presets import FROZEN
from cascadeclip.segmenter import RECOMMENDED, SHIPPED

SCRIPTS = Path(__file__).parents[3] / "data_scripts"


def run(script, *arguments):
    """A script in this process, as `python data_scripts/...` would run it; returns what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    return printed.getvalue()


def run_alone(script, *arguments):
    """The same in a process of its own: a worker of a data loader may have to import the script."""
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sprites_are_built_from_packages_in_the_published_layout(tmp_path):
    script = load_script("build_sprites")
    for row, source in enumerate(script.STYLES.values()):
        name, version = source["npm"].lstrip("@").rsplit("@", 1)
        with tarfile.open(tmp_path / f"{name.replace('/', '-')}-{version}.tgz", "w:gz") as archive:
            for column, code in enumerate(script.THINGS.values()):
                member, file = source["member"].format(code=code), io.BytesIO()
                picture = Image.new("RGBA", (128, 128) if row == 2 else (64, 64), (column, row, 0, 255))
                picture.save(file, format=Path(member).suffix[1:], lossless=True)
                entry = tarfile.TarInfo(member)
                entry.size = len(file.getvalue())
                archive.addfile(entry, io.BytesIO(file.getvalue()))
    script.build(tmp_path, tmp_path / "out")
    atlas = np.asarray(Image.open(tmp_path / "out" / "sprites.png"))
    assert atlas.shape == (3 * 64, len(script.THINGS) * 64, 4)
    for row in range(3):
        assert atlas[row * 64 + 32, 32::64, :2].tolist() == [[column, row] for column in range(len(script.THINGS))]
    index = json.loads((tmp_path / "out" / "sprites.json").read_text())
    assert list(index["things"]) == list(script.THINGS)
    assert all(len(source["tarball_sha256"]) == 64 for source in index["provenance"].values())


def test_shipped_index_is_what_the_script_says():
    script = load_script("build_sprites")
    index = json.loads((script.ASSETS / "sprites.json").read_text())
    assert index["things"] == script.THINGS
    assert index["styles"] == list(script.STYLES)


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(SystemExit, match="npm pack emoji-datasource-google"):
        load_script("build_sprites").build(tmp_path, tmp_path / "out")


@pytest.mark.slow
def test_mini_clip_is_pretrained_and_resumed(tmp_path):
    budget = ("--batch", 4, "--eval-scenes", 4, "--out", tmp_path)
    run_alone("train_mini_clip.py", "--steps", 2, *budget)
    first = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert first[-1]["step"] == 2
    assert {"top1_noto", "top1_twemoji", "top1_fluent", "patch_last", "patch_value"} < set(first[-1])
    assert "resuming at step 2" in run_alone("train_mini_clip.py", "--steps", 3, *budget)
    build_mini_clip().load_state_dict(load_file(tmp_path / "mini_clip.safetensors"))


def test_nouns_come_from_the_caption_and_unsaid_stuff_is_not_called_absent():
    script = load_script("train_mini_clip")
    scenes = script.CaptionedScenes(seed=1, total=40, start_at=1.0)
    unsaid = 0
    for index in range(40):
        _, tokens, named = scenes[index]
        scene = draw_scene(1, index)
        assert tokens.tolist() == MiniTokenizer()(scene.caption)[0].tolist()
        assert {CLASSES[i] for i in named[:62].nonzero()[:, 0].tolist()} == set(scene.things)
        if " on " in scene.caption:
            assert {CLASSES[62 + i] for i in named[62:].nonzero()[:, 0].tolist()} == set(scene.stuff)
        else:
            unsaid += 1
            assert named[62:].isnan().all()
    assert 0 < unsaid < 20


def test_noun_loss_is_cross_entropy_with_the_named_nouns_sharing_the_target():
    image = F.normalize(torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    nouns = F.normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)), dim=-1)
    named = torch.tensor([[1.0, 0, 1, 0], [0.0, 1, math.nan, math.nan]])
    first, second = (7 * image @ nouns.T).tolist()
    expected = -(first[0] + first[2]) / 2 + math.log(sum(map(math.exp, first)))
    expected += -second[1] + math.log(math.exp(second[0]) + math.exp(second[1]))
    loss = load_script("train_mini_clip").noun_loss(image, nouns, named, torch.tensor(7.0))
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.slow
def test_results_and_models_of_a_run_are_stored(tmp_path, monkeypatch):
    """A whole comparison of two steps; the script refuses its table, for it is no result, and ships its models."""
    short = replace(FROZEN, training=replace(FROZEN.training, steps=2, batch_size=2))
    script = load_script("store_mini_results")
    for name in ("ASSETS", "SHOWN"):
        (tmp_path / name / "mini").mkdir(parents=True)
        monkeypatch.setattr(script, name, tmp_path / name)
    rows = run_comparison(get_comparison("fusion"), short, tmp_path, seeds=(0,), limit=5, progress=False)
    write_report(get_comparison("fusion"), rows, short, tmp_path, command="c", limit=5)
    with pytest.raises(SystemExit, match=r"fusion\.json is not of the preset's whole budget"):
        script.store_reports(tmp_path)
    monkeypatch.setattr(script, "FROZEN", short)
    script.ship_models(tmp_path)
    shipped = {
        path.name: cascadeclip.load(path).model.config.stages
        for path in (tmp_path / "ASSETS" / "mini").glob("*.safetensors")
    }
    assert shipped["last-layer.safetensors"] == ((12,),) and len(shipped) == 4
    assert shipped["cascade.safetensors"] == FROZEN.model.stages


@pytest.mark.slow
def test_shipped_models_are_scored(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    load_script("score_shipped").main(tmp_path, limit=3)
    clip = json.loads((tmp_path / "mini_clip.json").read_text())
    assert clip["scenes"] == 3 and all(0 <= found <= 1 for found in clip["scores"].values())
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores) == list(SHIPPED) and set(COLUMNS) - {"mIoU"} <= set(scores[RECOMMENDED])


@pytest.mark.slow
def test_the_study_hides_seen_classes_and_scores_every_stage(tmp_path):
    run("study_why.py", "--steps", 1, "--seeds", 1, "--only", "random start, cascade", "--out", tmp_path)
    (row,) = json.loads((tmp_path / "why.json").read_text())["rows"]
    assert (row["factor"], row["model"], row["seed"]) == ("random start", "cascade", 0)
    assert set(row["scores"]) == {"all", "1", "2", "3"}
    assert all(math.isfinite(part[key]) for part in row["scores"].values() for key in ("seen", "unseen", "margin"))
    assert all(0 <= part[key] <= 1 for part in row["scores"].values() for key in ("lost", "named"))
    assert row["curve"] == {"1": row["scores"]}
    names, hidden = load_script("study_why").classes_of(1)
    assert not set(names) & set(FROZEN.unseen) and len(hidden) == 11 and 3 in hidden


@pytest.mark.slow
def test_mini_cascade_is_trained_and_shipped(tmp_path):
    report = json.loads(run("train_mini_cascade.py", "--steps", 1, "--limit", 20, "--out", tmp_path))
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["bytes"] < 8e6
