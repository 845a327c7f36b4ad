"""The command line end to end, on budgets of seconds."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import cascadeclip
from cascadeclip.cli.commands import app, main
from cascadeclip.cli.options import chosen_preset
from cascadeclip.data.emojiscenes import SPLITS, EmojiScenes
from cascadeclip.errors import InputError
from cascadeclip.evaluation.run import table
from cascadeclip.presets import MINI

SCORES = {"pAcc", "mIoU_seen", "mIoU_unseen", "mIoU_unseen_things", "mIoU_unseen_stuff", "hIoU"}


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_demo_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(SPLITS, "val", (SPLITS["val"][0], 20))  # the live curve's scores
    printed = run("demo", "--out", tmp_path, "--steps", 2, "--limit", 20, "--model", "last layer")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"] == "last layer" and report["live"]["steps"] == [2]
    for name in ("last layer", "sum", "concat", "cascade"):
        assert set(report["shipped"][name]) == SCORES
        assert all(0 <= value <= 1 for value in report["shipped"][name].values())
        assert f"\n{name}" in printed
    for picture in ("curves.png", "scores.png", "predictions.png"):
        with Image.open(tmp_path / picture) as image:
            assert image.width > 400


@pytest.mark.slow
def test_train_then_evaluate_what_it_wrote(tmp_path):
    printed = run(
        "train", "--out", tmp_path, "--steps", 2, "--batch-size", 2, "--stages", "11,12", "--aggregation", "sum",
        "--prompt-tokens", 3, "--validate-limit", 10,
    )  # fmt: skip
    checkpoint = tmp_path / "model.safetensors"
    assert str(checkpoint) in printed
    config = cascadeclip.load(checkpoint).model.config
    assert (config.stages, config.aggregation, config.prompt_tokens) == (((11, 12),), "sum", 3)
    out = tmp_path / "scored"
    printed = run("evaluate", "--checkpoint", checkpoint, "--limit", 30, "--per-class", "--out", out)
    written = json.loads((out / "scores.json").read_text())
    assert set(written) == SCORES | {"per_class", "origins"}
    assert (out / "scores.png").stat().st_size > 10_000
    assert "tensors from model.safetensors" in printed and "tensors from mini" in printed
    assert list(written["per_class"]) == list(MINI.names)
    assert "tiger (unseen)" in printed


def test_segment_writes_a_picture_and_names_the_unseen(tmp_path):
    scene = EmojiScenes.split("test")[0]
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    printed = run("segment", tmp_path / "scene.png", "sand", "balloon", "--out", tmp_path / "result.png")
    assert "sand" in printed and "(unseen in training)" in printed
    with Image.open(tmp_path / "result.png") as picture:
        assert np.asarray(picture).std() > 10


def test_bad_input_ends_in_one_line_and_status_1(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cascadeclip", "segment", "no.png", "cat"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == "cascadeclip: no image at no.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--preset", "maxi"], "no preset 'maxi'; choose from mini"),
        (["train", "--stages", "6,x"], "commas between blocks"),
        (["train", "--stages", "6,13"], "the tower has blocks 1..12, not"),
        (["evaluate", "--split", "train"], "no split 'train'"),
        (["train", "--steps", "0"], "steps=0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another output folder"):
        CliRunner().invoke(app, ["train", "--out", str(tmp_path / "file" / "run")], catch_exceptions=False)


def test_checkpoint_of_another_split_is_not_scored_as_if_it_were_this_one(tmp_path):
    from cascadeclip.checkpoints.own import save_checkpoint

    path = tmp_path / "cats.safetensors"
    save_checkpoint(path, cascadeclip.load("mini").model, clip=MINI.clip, seen=("cat",))
    with pytest.raises(InputError, match="saw other classes"):
        CliRunner().invoke(app, ["evaluate", "--checkpoint", str(path)], catch_exceptions=False)


def test_words_of_a_checkpoint_are_the_presets_however_they_are_written(monkeypatch):
    from cascadeclip.cli import scoring

    seen = tuple(name.upper() for name in reversed(MINI.seen))
    own = {"templates": MINI.templates, "seen_offset": MINI.seen_offset}
    loaded = SimpleNamespace(seen=seen, clip=None, model=None, origins=(), **own)
    monkeypatch.setattr(scoring, "load", lambda *_, **__: loaded)
    monkeypatch.setattr(scoring, "score", lambda *_, **__: "scores")
    assert scoring.score_checkpoint(MINI, "file", {}, False, None, 0, {})[1] == "scores"


def test_help_works_as_a_module():
    printed = subprocess.run([sys.executable, "-m", "cascadeclip", "--help"], capture_output=True, text=True)
    assert printed.returncode == 0
    assert all(command in printed.stdout for command in ("demo", "train", "evaluate", "segment"))


@pytest.mark.parametrize("name", [None, "demo", "train", "evaluate", "experiments", "bench", "segment"])
def test_help_is_whole_in_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    group = typer.main.get_command(app)
    printed = CliRunner().invoke(app, [*([name] if name else []), "--help"]).output
    assert max(map(len, printed.splitlines())) <= 80
    if name is None:
        promised = [one.help.partition(".")[0] for one in group.commands.values()]  # the first sentence
    else:
        promised = [group.commands[name].help, *(one.help for one in group.commands[name].params)]
    for text in promised:
        assert "".join(text.split()) in "".join(printed.split())


def test_table_gives_per_cent_per_model():
    lines = table({"one": dict.fromkeys(SCORES, 0.5), "seconds": 3.0}).splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["one"] + ["50.0"] * 6


@pytest.mark.parametrize(("command", "said"), [("train", "goes on from what was saved last"), ("bench", "stopped")])
def test_ctrl_c_says_what_is_left(monkeypatch, capsys, command, said):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("cascadeclip.cli.commands.chosen_preset", interrupted)
    monkeypatch.setattr("cascadeclip.experiments.bench_report.run_bench", interrupted)
    monkeypatch.setattr(sys, "argv", ["cascadeclip", command])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr().err
    assert stop.value.code == 130 and said in printed and "Aborted" not in printed


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/there"), "Permission denied: '/there'"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (EOFError("Ran out of input"), "ended before its time"),
        (RuntimeError("[/pytorch/third_party/gloo/pair.cc:544] Connection closed by peer"), "another process"),
        (torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:94"), "another process"),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), "another process"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_system_refuses_is_one_line(monkeypatch, error, said):
    def fail(*args):
        raise error

    monkeypatch.setattr("cascadeclip.cli.commands.chosen_preset", fail)
    monkeypatch.setattr(sys, "argv", ["cascadeclip", "train"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert said in stop.value.code and "\n" not in stop.value.code


def test_unseen_words_of_an_option():
    def chosen(text):
        return chosen_preset("mini", None, None, None, None, None, text).unseen

    assert chosen("tiger, balloon,") == ("tiger", "balloon") and chosen("") == ()
    with pytest.raises(InputError, match="tiger given twice"):
        chosen("tiger,tiger")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --clip-weights random", "'mini' comes with its weights"),
        ("evaluate --clip-weights nowhere.pt", "'mini' comes with its weights"),
        ("evaluate --method naclip --clip mini --clip-weights openai", "'mini' comes with its weights"),
        ("segment picture.png cat --method naclip --clip mini --clip-weights random", "'mini' comes with its weights"),
        ("train --clip ViT-B-32", "--clip ViT-B-32: which weights"),
    ],
)
def test_weights_are_not_passed_over(arguments, said):
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(app, arguments.split(), catch_exceptions=False)


def test_mini_clip_takes_the_place_of_another_with_its_own_weights():
    chosen = chosen_preset("voc12", None, None, 64, "mini", None, None)
    assert chosen.clip == {"name": "mini", "pretrained": None}


def test_random_weights_are_called_so_as_load_clip_calls_them():
    chosen = chosen_preset("voc12", None, None, 64, None, "random", None)
    assert chosen.clip == {"name": "ViT-B-16-quickgelu", "pretrained": "random"}


def test_another_clip_is_not_passed_over_in_evaluate():
    with pytest.raises(InputError, match="was trained on CLIP 'mini', not on 'nope'"):
        CliRunner().invoke(app, ["evaluate", "--clip", "nope"], catch_exceptions=False)
