"""Each data script as a process of its own, on small archives in the original formats; what verification counts."""

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cascadeclip.data.labels import IGNORE
from cascadeclip.data.prepare.verifying import verify
from tests.support import archives, preparing
from tests.support.preparing import KINDS, ROOT, SCRIPTS, VOC_SBD, arguments, benchmark_of, check_layout

built, offline, prepared, script = preparing.built, preparing.offline, preparing.prepared, preparing.script


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download of one file asks for."""

    content = b"weights" * 1000

    def do_HEAD(self, body=b""):
        is_there = "/resolve/" in self.path and self.path.endswith("open_clip_model.safetensors")
        self.send_response(200 if is_there else 404)
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content) if is_there else 0))
        self.end_headers()
        self.wfile.write(body if is_there else b"")

    def do_GET(self):
        self.do_HEAD(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def processes(built, tmp_path_factory):
    """Every script as a process of its own, all at the same time: by kind what it printed, and its root."""
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    commands = {kind: [benchmark_of(kind).script] for kind in KINDS if kind != "context59-mat"}
    commands["prefetch"] = ["prefetch_clip.py"]
    started = {}
    for kind, command in commands.items():
        root = tmp_path_factory.mktemp("root")
        command += arguments(root, built(kind)) if kind in KINDS else []
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(root), "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_DISABLE_XET": "1"}
        process = subprocess.Popen(
            [sys.executable, SCRIPTS / command[0], *command[1:]], cwd=root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started[kind] = root, process
    done = {}
    for kind, (root, process) in started.items():
        out, err = process.communicate(timeout=120)
        done[kind] = SimpleNamespace(root=root, status=process.returncode, out=out, err=err)
    hub.shutdown()
    hub.server_close()
    return done


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "context59-mat"])
def test_each_script_makes_the_layout_from_archives(processes, kind):
    done = processes[kind]
    assert done.status == 0, done.err
    check_layout(kind, done.root)
    benchmark, splits = benchmark_of(kind), KINDS[kind][1]
    for split, pictures in splits.items():
        assert re.search(rf"^{split} +{len(pictures)} of {benchmark.splits[split].size:,} ", done.out, re.MULTILINE)
    assert set(benchmark.names) <= {line.split("  ")[0] for line in done.out.splitlines()}
    assert "every file is there and sound" in done.out
    assert not (done.root / "downloads").exists()


@pytest.mark.slow
def test_context_from_mat_files_is_the_same_as_from_json(processes, prepared):
    root = prepared("context59-mat")
    check_layout("context59-mat", root)
    folders = [base / "VOCdevkit/VOC2010" for base in (processes["context59-json"].root, root)]
    for pattern in ("SegmentationClassContext/*.png", "ImageSets/SegmentationContext/*.txt"):
        one, other = ({path.name: path.read_bytes() for path in folder.glob(pattern)} for folder in folders)
        assert one == other and len(one) in (2, 5)


@pytest.mark.slow
def test_voc_lists_are_those_of_the_paper(processes):
    lists = processes["voc12"].root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    parts = {name: (lists / f"{name}.txt").read_text().split() for name in ("train", "val", "aug", "trainaug")}
    assert parts["trainaug"] == sorted(VOC_SBD) and parts["aug"] == sorted(archives.VOC12_PICTURES["aug"])
    for name, whole in (("trainaug", "10,582"), ("aug", "9,118")):
        warning = f"WARNING {name} has {len(parts[name])} pictures; from the whole archives it has {whole}"
        assert warning in processes["voc12"].out


@pytest.mark.slow
def test_weights_are_fetched_into_the_cache(processes):
    done = processes["prefetch"]
    assert done.status == 0, done.err
    path = re.fullmatch(r"ViT-B-16-quickgelu openai: (.+) \(0\.0 MB\)\n", done.out)[1]
    assert Path(path).read_bytes() == Hub.content and done.root in Path(path).parents


def test_weights_that_cannot_be_had_are_named(script, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "unknown CLIP 'ViT-X'" in script("prefetch_clip.py", "--clip", "ViT-X", "--weights", "openai").err
    done = script("prefetch_clip.py", "--clip", "ViT-B-16", "--weights", "opinai")
    assert done.status == 2 and "no weights 'opinai'; choose from openai, " in done.err
    done = script("prefetch_clip.py")
    assert done.status == 2 and "error: cannot download the weights 'openai' of CLIP 'ViT-B-16-quickgelu'" in done.err
    done = script("prefetch_clip.py", "--clip", "ViT-B-16", "--clip", "ViT-B-32", "--weights", "openai")
    assert done.status == 2 and "2 times --clip and 1 times --weights" in done.err


@pytest.mark.parametrize("name", ["prepare_voc12", "prepare_context59", "prepare_coco_stuff", "prefetch_clip"])
def test_help_shows_a_command_to_copy(script, name):
    done = script(f"{name}.py", "--help")
    assert done.status == 0 and f"    python data_scripts/{name}.py" in done.out
    for option in ("--root", "--archive", "--verify", "--jobs") if name != "prefetch_clip" else ("--clip", "--weights"):
        assert option in done.out
    if name != "prefetch_clip":
        assert script(f"{name}.py", "--jobs", "0").status == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["voc12", "context59-json", "coco-stuff"])
def test_counts_are_those_of_what_was_drawn(processes, kind):
    report, (_, splits, values) = verify(benchmark_of(kind), processes[kind].root), KINDS[kind]
    names = benchmark_of(kind).names
    for split, pictures in splits.items():
        found, maps = report.splits[split], [archives.drawn(p, values, around=IGNORE) for p in pictures.values()]
        assert (found.pictures, found.maps, found.listed) == (len(pictures),) * 3
        for index, name in enumerate(names):
            drawn = [int((map_ == values.get(name, -1)).sum()) for map_ in maps]
            assert found.pixels[index] == sum(drawn) and found.maps_with[index] == np.count_nonzero(drawn)
        assert set(found.absent) == set(names) - {name for *_, some in pictures.values() for name in some}
        pairs = benchmark_of(kind).pairs(processes[kind].root, split)
        assert found.size == sum(path.stat().st_size for pair in pairs for path in pair)
    assert report.is_sound and not report.is_whole
