"""For the tests of the data scripts: the kinds of original data, and fixtures that run the scripts on them."""

import functools
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cascadeclip.data.benchmarks import BENCHMARKS
from cascadeclip.data.folders import FolderDataset
from cascadeclip.data.labels import IGNORE
from cascadeclip.data.prepare import originals
from cascadeclip.errors import InputError
from tests.support import archives

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "data_scripts"
VOC_SBD = archives.VOC12_PICTURES["train"] | archives.VOC12_PICTURES["aug"]
# Per kind of original data: script, builder of archives, pictures of each split, original values by name, around.
KINDS = {
    "voc12": (
        archives.make_voc12,
        {"train": VOC_SBD, "val": archives.VOC12_PICTURES["val"]},
        archives.VOC12_VALUES,
    ),
    "context59-json": (
        functools.partial(archives.make_context59, form="json"),
        archives.CONTEXT59_PICTURES,
        archives.CONTEXT_IDS | archives.CONTEXT_OTHERS,
    ),
    "context59-mat": (
        functools.partial(archives.make_context59, form="mat"),
        archives.CONTEXT59_PICTURES,
        archives.CONTEXT_IDS | archives.CONTEXT_OTHERS,
    ),
    "coco-stuff": (archives.make_coco_stuff, archives.COCO_PICTURES, archives.COCO_VALUES),
}


def benchmark_of(kind):
    return BENCHMARKS[re.sub("-(json|mat)$", "", kind)]


def arguments(root, given=()):
    return ["--root", str(root), "--jobs", "2", *(text for path in given for text in ("--archive", str(path)))]


@pytest.fixture
def offline(monkeypatch):
    """No test may download gigabytes by mistake."""

    def download(url, target, *, md5=None):
        raise InputError(f"offline: {url}")

    monkeypatch.setattr(originals, "download", download)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The archives of a kind, built once."""
    return functools.cache(lambda kind: KINDS[kind][0](tmp_path_factory.mktemp(kind)))


@pytest.fixture
def script(capsys, monkeypatch, offline):
    """Runs a data script in this process, as `python data_scripts/...` would; returns its status and output."""

    def run(name, *given):
        monkeypatch.setattr(sys, "argv", [name, *map(str, given)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        return SimpleNamespace(status=ended.value.code, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def prepared(script, built, tmp_path):
    """Runs the script of a kind on its archives; returns the data root."""

    def run(kind, root=tmp_path):
        done = script(benchmark_of(kind).script, *arguments(root, built(kind)))
        assert done.status == 0, done.err
        return root

    return run


def snapshot(root):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*") if path.is_file()}


def check_layout(kind, root):
    """Every pixel of every label map is what was drawn, compared by the classes' names."""
    benchmark, (_, splits, values) = benchmark_of(kind), KINDS[kind]
    names = {value: name for name, value in values.items()}
    for split, pictures in splits.items():
        pairs = benchmark.pairs(root, split)
        assert [picture.stem for picture, _ in pairs] == sorted(pictures)
        for (picture, _), (image, labels) in zip(pairs, FolderDataset(pairs, benchmark.label_map), strict=True):
            original = archives.drawn(pictures[picture.stem], values, around=IGNORE)
            assert image.shape[1:] == labels.shape == original.shape
            for value in np.unique(original).tolist():
                (found,) = np.unique(labels.numpy()[original == value]).tolist()
                said = names.get(value, "around")
                assert (benchmark.names[found] if found != IGNORE else "nothing") == (
                    said if said in benchmark.names else "nothing"
                )
