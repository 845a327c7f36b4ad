"""Paths that the system refuses, at every door: one line that names them, no error of the system's, and no waiting."""

import ast
import errno
import json
import os
import re
import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cascadeclip
from cascadeclip.checkpoints.authors import from_authors
from cascadeclip.checkpoints.own import load_any, read_checkpoint, save_checkpoint
from cascadeclip.cli.commands import main
from cascadeclip.clip.load import load_clip
from cascadeclip.data.benchmarks import VOC12
from cascadeclip.data.coco import coco_pairs, read_categories
from cascadeclip.data.folders import FolderDataset, collate, find_pairs, listed_pairs, listed_stems, matching_pairs
from cascadeclip.data.identity import data_identity
from cascadeclip.data.images import read_image
from cascadeclip.data.labels import LabelMap
from cascadeclip.data.look import describe_folder
from cascadeclip.data.own import read_pairs
from cascadeclip.data.prepare.fetch import digest, download, extract, members
from cascadeclip.data.prepare.originals import Job
from cascadeclip.data.prepare.verifying import verify
from cascadeclip.errors import InputError
from cascadeclip.evaluation.run import score_with
from cascadeclip.experiments.curves import read_curve
from cascadeclip.experiments.report import read_report, write_index
from cascadeclip.files import check_writable, listed, move, open_file, read_json, replace_together, write_text
from cascadeclip.locks import locked
from cascadeclip.plots.figure import Figure, save_figure
from cascadeclip.presets import MINI, get_preset, own_arguments, own_preset, read_own_preset
from cascadeclip.sharing.onnx import difference
from cascadeclip.tensors import write_pth
from cascadeclip.training.run import fit

PACKAGE = Path(cascadeclip.__file__).parent
segmenter = cache(lambda: cascadeclip.load("mini"))


def too_long(folder, _):
    return folder / ("n" * 300)


def with_a_null(folder, _):
    return folder / "nu\0ll"


def linked_to_itself(folder, _):
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def below_a_lock(folder, monkeypatch):
    """A name in a folder that may not be looked into; this user may look into all, so the system's answer is made."""
    path, answers = folder / "locked" / "name", {name: getattr(os, name) for name in ("stat", "lstat", "mkdir")}
    path.parent.mkdir()

    def refusing(name, where, *args, **how):
        if str(where).startswith(str(path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(where))
        return answers[name](where, *args, **how)

    for name in answers:
        monkeypatch.setattr(os, name, partial(refusing, name))
    return path


def below_a_file(folder, _):
    (folder / "file").write_text("x")
    return folder / "file" / "below"


def pipe(folder, _):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def other_kind_than_a_file(folder, _):
    (folder / "folder").mkdir()
    return folder / "folder"


def other_kind_than_a_folder(folder, _):
    (folder / "plain").write_text("x")
    return folder / "plain"


REFUSED = (too_long, with_a_null, linked_to_itself, below_a_lock)  # by the system, whatever is wanted of them
UNFIT = (*REFUSED, below_a_file, pipe)


def pairs_with(path):
    """A data set whose only picture is that one."""
    data = FolderDataset([(path, path)], LabelMap(2))
    return data_identity(data, collate, every="time")


FILES = {
    "read_image": read_image,
    "a label map": LabelMap(2).read,
    "listed_stems": listed_stems,
    "listed_pairs": lambda path: listed_pairs(path, path.parent, [path.parent]),
    "read_pairs": lambda path: read_pairs(path, path.parent, path.parent),
    "own pairs": lambda path: own_preset(names=["a", "b"], pairs=path).train_data(0),
    "own words of COCO": lambda path: own_preset("i", coco=path),
    "coco_pairs": lambda path: coco_pairs(path, path.parent, None, LabelMap(2)),
    "read_categories": read_categories,
    "read_own_preset": read_own_preset,
    "data_identity": pairs_with,
    "load_any": load_any,
    "read_checkpoint": read_checkpoint,
    "from_authors": partial(from_authors, heads=12, decoder_heads=8),
    "read_report": read_report,
    "read_json": read_json,
    "open_file": partial(open_file, what="file"),
    "digest": digest,
    "members": lambda path: list(members(path)),
    "extract": lambda path: extract(path, path.parent / "out"),
    "archives given": lambda path: Job(VOC12, path.parent).accept([], [path]),
    "onnx": lambda path: difference(path, None, None, None),
}
FOLDERS = {
    "pictures": lambda path: find_pairs(path, Path()),
    "masks": lambda path: find_pairs(Path(), path, deep=False),
    "matching_pairs": lambda path: matching_pairs(path, path),
    "own_preset": lambda path: own_preset(path, path, ["a", "b"]).train_data(0),
    "own_preset to evaluate": lambda path: own_preset(".", ".", ["a", "b"], val_images=path).eval_data("val"),
    "describe_folder": describe_folder,
    "a benchmark": lambda path: get_preset("voc12", path).train_data(0),
    "read_curve": read_curve,
    "listed": listed,
}
MAYBE = {  # nothing there would be no mistake, or is told of otherwise
    "load": cascadeclip.load,
    "load_clip": lambda path: load_clip("ViT-B-32", str(path)),
    "from_pretrained": cascadeclip.Segmenter.from_pretrained,
    "download": lambda path: download("nonsense", path),
    "verify": lambda path: verify(VOC12, path),
    "write_index": lambda path: write_index(path.parent / "out", path),
}
WRITTEN = {
    "write_text": lambda path: write_text(path / "a", "text"),
    "replace_together": lambda path: replace_together(path / "a", lambda scratch: scratch.write_text("x")),
    "write_pth": lambda path: write_pth(path / "a", {}),
    "save_figure": lambda path: save_figure(Figure(), path / "a.png"),
    "save_checkpoint": lambda path: save_checkpoint(path / "a.safetensors", segmenter().model, clip=MINI.clip, seen=()),
    "save_pretrained": lambda path: segmenter().save_pretrained(path),
    "check_writable": check_writable,
    "move": lambda path: move(__file__, path),
    "locked": lambda path: locked(path).__enter__(),
    "score_with": lambda path: score_with(MINI, None, "", out=path),
    "fit": lambda path: fit(MINI, None, MINI.model, MINI.training, path),
}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(call, path):
    with pytest.raises(InputError) as error:
        call(path)
    assert names(str(error.value), path)


def names(said, path):
    """Whether a message of one line names a path."""
    return "\n" not in said and (str(path) in said or repr(str(path))[1:-1] in said)


@pytest.mark.parametrize("kind", [*UNFIT, other_kind_than_a_file])
@pytest.mark.parametrize("entry", FILES)
def test_files_that_cannot_be_read(entry, kind, alone, monkeypatch):
    refused(FILES[entry], kind(alone, monkeypatch))


@pytest.mark.parametrize("kind", [*UNFIT, other_kind_than_a_folder])
@pytest.mark.parametrize("entry", FOLDERS)
def test_folders_that_cannot_be_read(entry, kind, alone, monkeypatch):
    refused(FOLDERS[entry], kind(alone, monkeypatch))


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("entry", MAYBE)
def test_what_the_system_does_not_tell(entry, kind, alone, monkeypatch):
    refused(MAYBE[entry], kind(alone, monkeypatch))


@pytest.mark.parametrize("kind", [*UNFIT, other_kind_than_a_folder])
@pytest.mark.parametrize("entry", WRITTEN)
def test_places_that_cannot_be_written(entry, kind, alone, monkeypatch):
    if entry == "move" and kind in (pipe, other_kind_than_a_folder, linked_to_itself, below_a_lock):
        pytest.skip("a file may take their place")
    refused(WRITTEN[entry], kind(alone, monkeypatch))


COMMANDS = (
    "train --own",
    "train --preset voc12 --data-root",
    "train --from-checkpoint",
    "train --out",
    "evaluate --checkpoint",
    "evaluate --out",
    "experiments fusion --smoke --out",
    "bench --preset mini --out",
    "demo --out",
    "segment",
    "segment picture.png cat --checkpoint",
    "segment picture.png cat --method maskclip --clip ViT-B-32 --clip-weights",
    "data check",
    "data init",
    "data init . --out",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [too_long, linked_to_itself])  # what a shell can give and a system refuse
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_end_in_one_line(command, kind, alone, monkeypatch):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("picture.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("mask.png")
    path, words = kind(alone, monkeypatch), command.split()
    monkeypatch.setattr(sys, "argv", ["cascadeclip", *words, str(path), *(["cat"] if words == ["segment"] else [])])
    with pytest.raises(SystemExit) as stop:
        main()
    said = str(stop.value.code)
    assert said.startswith("cascadeclip: ") and "the system refuses" not in said and names(said, path)


def test_paths_may_be_text(alone):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for folder, content in (("pictures", noise), ("masks", noise[..., 0] // 128)):
        (alone / folder).mkdir()
        for number in range(4):
            Image.fromarray(content).save(alone / folder / f"{number}.png")
    (alone / "pictures" / "0.png").rename(alone / "pictures" / "0.jpg")
    (alone / "list.txt").write_text("0\n")
    (alone / "pairs.csv").write_text("1.png,1.png\n")
    (alone / "own.json").write_text('{"images": "pictures", "masks": "masks", "names": ["a", "b"]}')
    segments = [{"image_id": 1, "file_name": "1.png", "segments_info": []}]
    content = {"categories": [{"id": 1, "name": "a"}], "images": [{"id": 1, "file_name": "1.png"}]}
    (alone / "coco.json").write_text(json.dumps(content | {"annotations": segments}))
    for call, *names in (
        (own_arguments, "own.json"), (lambda path: read_own_preset(path).names, "own.json"), (describe_folder, "."),
        (find_pairs, "pictures", "masks"), (matching_pairs, "pictures", "masks"), (read_categories, "coco.json"),
        (lambda listing, images, masks: listed_pairs(listing, images, [masks]), "list.txt", "pictures", "masks"),
        (read_pairs, "pairs.csv", "pictures", "masks"),
        (lambda *paths: coco_pairs(*paths, LabelMap(1))[0].pairs, "coco.json", "pictures", "masks"),
        (lambda path: LabelMap(2).read(path).tolist(), "masks/1.png"),
        (lambda *pair: FolderDataset([pair], LabelMap(2)).files, "pictures/1.png", "masks/1.png"),
        (lambda path: save_figure(Figure(), path), "figure.png"),
    ):  # fmt: skip
        paths = [alone / name for name in names]
        assert call(*map(str, paths)) == call(*paths)


def test_one_picture_that_cannot_be_read_does_not_end_a_verification(tmp_path):
    from tests.support.archives import voc_tree

    picture = next((voc_tree(tmp_path) / "JPEGImages").iterdir())
    picture.unlink()
    picture.symlink_to(picture)
    report = verify(replace(VOC12), tmp_path)
    assert sum(str(picture) in line for split in report.splits.values() for line in split.damaged) >= 1


BARE = {"is_file", "is_dir", "exists", "stat", "lstat", "iterdir", "glob", "rglob", "is_symlink", "resolve"}
ALLOWED = {"files.py", "locks.py"}
OTHERS = {  # of what is no path, or of a file just checked, or of the package's own
    ("data/prepare/fetch.py", "is_dir"),
    ("data/identity.py", "stat"),
    ("exercises/build.py", "glob"),
    ("exercises/answering.py", "resolve"),
    ("cli/data.py", "resolve"),
}


def test_no_file_asks_the_system_past_the_door():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name in ALLOWED:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in BARE:
                found.add((name, node.func.attr))
    assert found <= OTHERS


def test_the_network_breaking_off_is_one_line(monkeypatch):
    httpx = pytest.importorskip("httpx")

    def broken(*args, **options):
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    monkeypatch.setattr("cascadeclip.sharing.hub.hf_hub_download", broken)
    with pytest.raises(
        InputError, match=re.escape("owner/name is no folder here, and cannot be had from the Hub: peer")
    ):
        cascadeclip.Segmenter.from_pretrained("owner/name")
