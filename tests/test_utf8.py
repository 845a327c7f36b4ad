"""Names that are no UTF-8, as a shell on Linux gives them, in all that is written and printed."""

import io
import json
import os
import subprocess
import sys

import pytest

import cascadeclip
from cascadeclip.checkpoints.own import save_checkpoint
from cascadeclip.cli.commands import main
from cascadeclip.clip.load import Clip
from cascadeclip.errors import InputError
from cascadeclip.files import read_json, read_text, replace_file, write_json, write_text
from cascadeclip.plots.figure import Figure, save_figure
from cascadeclip.sharing.onnx import export_onnx
from cascadeclip.tensors import read_safetensors
from cascadeclip.training.launcher import accelerator_for
from cascadeclip.utf8 import as_utf8, is_utf8, print_every_letter

ODD = os.fsdecode(b"caf\xe9")


@pytest.fixture
def odd(tmp_path):
    """A folder whose name is not UTF-8."""
    folder = tmp_path / ODD
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    return folder


def test_what_is_no_utf8_is_told_apart():
    assert is_utf8("café") and not is_utf8(ODD)
    assert as_utf8("café") == "café" and as_utf8(ODD) == r"caf\udce9"


def test_texts_take_any_name(tmp_path):
    write_text(tmp_path / "a.md", f"--out {ODD}")
    assert read_text(tmp_path / "a.md") == r"--out caf\udce9"


def test_json_gives_the_name_back(tmp_path):
    write_json(tmp_path / "a.json", {"images": ODD})
    assert read_json(tmp_path / "a.json") == {"images": ODD}


def test_an_index_of_comparisons_run_into_such_a_folder_is_written(odd):
    from importlib.resources import files

    from cascadeclip.experiments.comparisons import COMPARISONS
    from cascadeclip.experiments.report import read_report, write_index

    stored = files("cascadeclip") / "assets" / "results"
    for name in (name for name in COMPARISONS if (stored / f"{name}.json").is_file()):
        report = read_report(str(stored / f"{name}.json"))
        write_json(odd / f"{name}.json", report | {"command": f"cascadeclip experiments {name} --out {ODD}"})
        write_text(odd / f"{name}.md", "table")
    assert r"--out caf\udce9" in read_text(write_index(odd))


def test_a_figure_takes_any_word_and_any_folder(odd):
    figure = Figure()
    figure.head(ODD)
    figure.subplots().set_xlabel(ODD)
    save_figure(figure, str(odd / "a.png"))
    assert (odd / "a.png").stat().st_size


def test_checkpoints_are_read_from_any_folder(odd):
    shipped = cascadeclip.load("mini")
    path = odd / "model.safetensors"
    save_checkpoint(path, shipped.model, clip={"name": "mini", "pretrained": ODD}, seen=("cat",))
    metadata, tensors = read_safetensors(path)
    assert json.loads(metadata["clip"])["pretrained"] == ODD and tensors
    assert cascadeclip.load(path).seen == ("cat",)


def test_a_model_card_takes_any_name_of_weights(tmp_path):
    shipped = cascadeclip.load("mini")
    shipped.clip = Clip("mini", ODD, shipped.clip.model, shipped.clip.tokenize)
    shipped.save_pretrained(tmp_path)
    assert r"caf\udce9" in read_text(tmp_path / "README.md")


def test_what_cannot_go_there_is_told_of_before_the_work(odd):
    pytest.importorskip("onnxscript")
    with pytest.raises(InputError, match="onnxruntime opens no file whose name is not UTF-8"):
        export_onnx(cascadeclip.load("mini"), odd / "model.onnx")
    pytest.importorskip("tensorboard")
    with pytest.raises(InputError, match="TensorBoard writes into no folder whose name is not UTF-8"):
        accelerator_for(odd, tensorboard=True)


def test_a_writer_that_takes_no_such_name_is_one_line(odd):
    with pytest.raises(InputError, match="cannot write"):
        replace_file(odd / "a", lambda scratch: str(scratch).encode())
    assert not list(odd.iterdir())


def test_any_name_is_printed(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="utf-8"))
    print_every_letter()
    print(ODD, flush=True)
    assert shown.getvalue() == b"caf\\udce9\n"


def test_a_command_in_a_deleted_folder_ends_in_one_line(monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    monkeypatch.setattr(sys, "argv", ["cascadeclip", "info"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert str(stop.value.code).startswith("cascadeclip: no folder here") and "\n" not in str(stop.value.code)


@pytest.mark.slow
def test_it_does_so_before_pytorch_is_imported(tmp_path):
    """Intel's MKL ends a process that imports PyTorch there."""
    script = "import os, sys; os.rmdir(os.getcwd()); sys.argv[1:] = ['info']; from cascadeclip.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.startswith("cascadeclip: no folder here") and not ran.stdout
