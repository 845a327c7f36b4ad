"""`--method`: segment and evaluate with a frozen CLIP."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from cascadeclip.analysis.dense import METHODS
from cascadeclip.cli.commands import app
from cascadeclip.cli.options import background_of, blocks_of
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.errors import InputError


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def scene(tmp_path):
    Image.fromarray(EmojiScenes.split("test")[0].image).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_segment_by_a_method(scene, tmp_path):
    printed = run(
        "segment", scene, "tiger|cat", "sand", "--method", "naclip", "--blocks", "11,12", "--pamr", 2,
        "--background", "0.6", "--out", tmp_path / "result.png",
    )  # fmt: skip
    assert "tiger " in printed and "background " in printed and "unseen" not in printed
    assert (tmp_path / "result.png").stat().st_size > 5000


def test_all_methods_side_by_side(scene, tmp_path):
    printed = run("segment", scene, "tiger", "sand", "--method", "all", "--out", tmp_path / "result.png")
    assert all(f"{method}:\n" in printed for method in METHODS)
    with Image.open(tmp_path / "result.png") as picture:
        assert picture.height > 800


def test_background_and_refinement_of_a_checkpoint(scene, tmp_path):
    printed = run(
        "segment", scene, "tiger", "--background", "sand,grass", "--pamr", 1, "--out", tmp_path / "result.png"
    )
    assert "(unseen in training)" in printed.splitlines()[0] and "unseen" not in printed.splitlines()[1]


@pytest.mark.slow
def test_segment_with_a_clip_of_open_clip(scene, tmp_path):
    printed = run(
        "segment", scene, "an owl", "a sofa", "--method", "sc_clip", "--clip", "ViT-B-32", "--clip-weights", "random",
        "--templates", "one", "--out", tmp_path / "result.png",
    )  # fmt: skip
    assert "a sofa" in printed


def test_evaluate_a_method(tmp_path):
    printed = run("evaluate", "--method", "maskclip", "--limit", 4, "--out", tmp_path)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert 0 < written["mIoU"] < 1 and "mIoU(U)" in printed and "maskclip" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "SCENE", "cat", "--method", "naclp"], "did you mean naclip"),
        (["segment", "SCENE", "cat", "--method", "naclip", "--blocks", "x"], "commas between them"),
        (["segment", "SCENE", "cat", "--method", "naclip", "--blocks", "13"], "1..12"),
        (["segment", "SCENE", "cat", "--method", "naclip", "--checkpoint", "x"], "leave out --checkpoint"),
        (["segment", "SCENE", "cat", "--method", "naclip", "--background", "1.5"], "lies in 0..1"),
        (["segment", "SCENE", "cat", "--method", "naclip", "--templates", "two"], "choose from one"),
        (["segment", "SCENE", "cat", "--clip", "ViT-B-32"], "belong to --method"),
        (["evaluate", "--method", "naclip", "--cross"], "leave out --checkpoint and --cross"),
        (["evaluate", "--pamr", "3"], "belong to --method"),
        (["evaluate", "--method", "nclip"], "did you mean"),
        (["evaluate", "--method", "naclip", "--preset", "training-free"], "needs the folder with its data"),
    ],
)
def test_options_that_do_not_fit_are_refused(scene, arguments, message, monkeypatch):
    if "training-free" in arguments:  # no weights are fetched in tests
        from cascadeclip.analysis.dense import scoring
        from cascadeclip.clip.load import load_clip

        monkeypatch.setattr(scoring, "load_clip", lambda **_: load_clip())
        monkeypatch.setattr(scoring, "read_vocabulary", lambda clip, *_: __import__("types").SimpleNamespace(
            embeddings=clip.visual.proj.detach()))  # fmt: skip
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, [str(scene) if a == "SCENE" else a for a in arguments], catch_exceptions=False)


def test_texts_of_options():
    assert blocks_of("10,11") == (10, 11) and blocks_of(None) is None
    assert background_of("0.1") == 0.1 and background_of("sky, wall") == ["sky", "wall"]
    assert background_of(None) is None


@pytest.mark.parametrize("text", ["", ",", "sky,", "sky,,wall", " "])
def test_an_empty_background_is_refused_by_the_options_name(text):
    with pytest.raises(InputError, match=f"--background '{text}': a threshold such as 0.1, or words with commas"):
        background_of(text)
