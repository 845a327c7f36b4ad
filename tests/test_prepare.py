"""The data scripts, run whole on small archives in the original formats, and what they say of damaged data."""

import functools
import json
import os
import re
import runpy
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import archives
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cascadeclip.checkpoint import replace_file
from cascadeclip.data import fetch, prepare
from cascadeclip.data.benchmarks import BENCHMARKS
from cascadeclip.data.folders import IGNORE, FolderDataset
from cascadeclip.data.verify import verify
from cascadeclip.errors import InputError

ROOT = Path(__file__).parents[1]
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


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test may download gigabytes by mistake."""

    def download(url, target, *, md5=None):
        raise InputError(f"offline: {url}")

    monkeypatch.setattr(prepare, "download", download)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The archives of a kind, built once."""
    return functools.cache(lambda kind: KINDS[kind][0](tmp_path_factory.mktemp(kind)))


@pytest.fixture
def script(capsys, monkeypatch):
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


def test_context_from_mat_files_is_the_same_as_from_json(processes, prepared):
    root = prepared("context59-mat")
    check_layout("context59-mat", root)
    folders = [base / "VOCdevkit/VOC2010" for base in (processes["context59-json"].root, root)]
    for pattern in ("SegmentationClassContext/*.png", "ImageSets/SegmentationContext/*.txt"):
        one, other = ({path.name: path.read_bytes() for path in folder.glob(pattern)} for folder in folders)
        assert one == other and len(one) in (2, 5)


def test_voc_lists_are_those_of_the_paper(processes):
    lists = processes["voc12"].root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    parts = {name: (lists / f"{name}.txt").read_text().split() for name in ("train", "val", "aug", "trainaug")}
    assert parts["trainaug"] == sorted(VOC_SBD) and parts["aug"] == sorted(archives.VOC12_PICTURES["aug"])
    for name, whole in (("trainaug", "10,582"), ("aug", "9,118")):
        warning = f"WARNING {name} has {len(parts[name])} pictures; from the whole archives it has {whole}"
        assert warning in processes["voc12"].out


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


# --- again, stopped, or with a layout that is there -----------------------------------------------------------------


def snapshot(root):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_changes_nothing(prepared, kind):
    root = prepared(kind)
    before = snapshot(root)
    prepared(kind)
    assert snapshot(root) == before


@pytest.mark.parametrize("kind", ["voc12", "context59-json", "context59-mat"])
def test_a_finished_layout_needs_no_archive(prepared, script, kind):
    root = prepared(kind)
    before = snapshot(root)
    assert script(benchmark_of(kind).script, *arguments(root)).status == 0
    assert snapshot(root) == before


class Stopped(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on(prepared, script, built, monkeypatch, kind, tmp_path):
    whole = prepared(kind, tmp_path / "whole")
    files = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    for stop in range(0, len(files), 3):
        root, left = tmp_path / str(stop), iter(range(stop))

        def stopping(path, write, left=left):
            def write_and_stop(scratch):
                write(scratch)
                if next(left, None) is None:
                    scratch.write_bytes(scratch.read_bytes()[:10])
                    raise Stopped

            replace_file(path, write_and_stop)

        with monkeypatch.context() as patch, pytest.raises(Stopped):
            for module in (fetch, prepare):
                patch.setattr(module, "replace_file", stopping)
            script(benchmark_of(kind).script, *arguments(root, built(kind)))
        before = snapshot(root)
        assert len(before) == stop
        prepared(kind, root)
        assert before.items() <= snapshot(root).items()
        assert {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()} == files


def test_a_layout_of_others_is_used_as_it_is(prepared, script):
    """Labels of SBD unpacked where mmsegmentation has them, its own choice of pictures, no list `aug`."""
    root = prepared("voc12")
    folder = root / "VOCdevkit/VOC2012"
    lists = folder / "ImageSets/Segmentation"
    (lists / "aug.txt").unlink()
    chosen = (lists / "trainaug.txt").read_text().split()[:-1]
    (lists / "trainaug.txt").write_text("\n".join(chosen))
    removed = folder / "SegmentationClassAug/2008_000003.png"
    removed.unlink()
    assert verify(BENCHMARKS["voc12"], root).problems == [f"train: 1 missing: {removed}"]
    before = snapshot(root)
    assert script("prepare_voc12.py", *arguments(root)).status == 0
    after = snapshot(root)
    assert before.items() <= after.items() and set(after) - set(before) == {removed, lists / "aug.txt"}
    assert (lists / "aug.txt").read_text().split() == sorted({*chosen} & {*archives.VOC12_PICTURES["aug"]})


def test_converted_maps_of_coco_are_enough(prepared):
    root = prepared("coco-stuff")
    annotations = root / "coco_stuff164k/annotations"
    for path in annotations.rglob("*.png"):
        if "_labelTrainIds" not in path.name:
            path.unlink()
    (annotations / "val2017/000000000139_labelTrainIds.png").unlink()
    before = snapshot(root)
    prepared("coco-stuff")
    new = {path.name for path in set(snapshot(root)) - set(before)}
    assert new == {"000000000139.png", "000000000139_labelTrainIds.png"}


def test_original_maps_of_coco_are_converted_where_they_lie(prepared, script, built):
    root = prepared("coco-stuff")
    before = snapshot(root)
    converted = list(root.rglob("*_labelTrainIds.png"))
    for path in converted:
        path.unlink()
    assert script("prepare_coco_stuff.py", *arguments(root, built("coco-stuff")[:2])).status == 0
    assert set(snapshot(root)) == set(before) and len(converted) == 5
    check_layout("coco-stuff", root)


def test_lists_of_pascal_context_that_are_there_are_kept(prepared, tmp_path):
    lists = tmp_path / "VOCdevkit/VOC2010/ImageSets/SegmentationContext"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2010_003947\n2008_000008\n")
    prepared("context59-json")
    assert (lists / "train.txt").read_text() == "2010_003947\n2008_000008\n"
    assert (lists / "val.txt").read_text().split() == sorted(archives.CONTEXT59_PICTURES["val"])
    assert len(list(tmp_path.rglob("*.png"))) == 4


# --- verification ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["voc12", "context59-json", "coco-stuff"])
def test_verify_reports_all_that_is_wrong_at_once_and_repairs_follow(prepared, script, kind):
    root, benchmark = prepared(kind), benchmark_of(kind)
    command = benchmark.script, *arguments(root), "--verify"
    assert script(*command).status == 1  # far fewer pictures than the benchmark has
    assert script(*command, "--subset").status == 0
    before = snapshot(root)
    pairs = {split: benchmark.pairs(root, split) for split in ("train", "val")}
    good = {path: path.read_bytes() for pair in (*pairs["train"], *pairs["val"]) for path in pair}
    gone, cut, odd, small = pairs["val"][0][0], pairs["train"][0][1], pairs["train"][1][1], pairs["train"][2][1]
    lost_map = pairs["val"][1][1]
    gone.unlink()
    lost_map.unlink()
    cut.write_bytes(cut.read_bytes()[:60])
    Image.fromarray(np.full(Image.open(odd).size[::-1], 199, dtype=np.uint8)).save(odd)
    Image.fromarray(np.full((7, 9), 1, dtype=np.uint8)).save(small)
    done = script(*command, "--subset")
    assert done.status == 1
    lines = [line for line in done.out.splitlines() if line.startswith("PROBLEM")]
    assert len(lines) == 3
    assert f"PROBLEM val: 2 missing: {gone}; {lost_map}" in lines
    assert re.search(rf"train: 2 damaged: .*{cut}.*; .*{odd} holds the values \[199\]", done.out)
    width, height = Image.open(pairs["train"][2][0]).size
    assert f"train: 1 of different sizes: {pairs['train'][2][0]} ({width} x {height} and 9 x 7)" in done.out
    for path in (cut, odd, small):
        path.unlink()
    prepared(kind)
    assert script(*command, "--subset").status == 0
    assert {path: path.read_bytes() for path in good} == good
    assert set(snapshot(root)) == set(before)


@pytest.mark.parametrize(("pictures", "side"), [(6, 64), (2, 48)])
def test_the_small_tree_for_other_tests_is_sound_and_shows_every_class(tmp_path, pictures, side):
    archives.voc_tree(tmp_path, pictures, side)
    report = verify(BENCHMARKS["voc12"], tmp_path, jobs=2)
    assert report.is_sound
    for split in report.splits.values():
        assert split.listed == pictures and not split.absent


def test_verify_says_what_is_not_there_at_all(script, tmp_path):
    for kind, missing in (
        ("voc12", "VOC2012/ImageSets/Segmentation/trainaug.txt"),
        ("context59-mat", "VOC2010/ImageSets/SegmentationContext/train.txt"),
        ("coco-stuff", "coco_stuff164k/images/train2017; "),
    ):
        done = script(benchmark_of(kind).script, *arguments(tmp_path), "--verify", "--subset")
        assert done.status == 1 and missing in done.out
    assert not list(tmp_path.iterdir())


def test_a_split_without_pictures_is_a_problem(prepared):
    root = prepared("voc12")
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("\n")
    report = verify(BENCHMARKS["voc12"], root)
    assert len(report.problems) == 1 and "val.txt names or holds none" in report.problems[0]


def test_the_shorter_lists_of_pascal_context_are_whole():
    report = verify(BENCHMARKS["context59"], "nowhere")
    for split, sizes in (("train", (4996, 4998)), ("val", (5104, 5105))):
        for size in (*sizes, sizes[0] - 1, sizes[1] + 1):
            report.splits[split].listed = size
            assert report.splits[split].is_whole == (size in sizes)


# --- archives and files that do not fit -----------------------------------------------------------------------------


def test_archives_are_recognised_by_what_is_in_them(script, built, tmp_path):
    """Under other names, and in another order."""
    given = []
    for number, path in enumerate(reversed(built("voc12"))):
        given.append(tmp_path / f"{number}.bin")
        given[-1].symlink_to(path)
    assert script("prepare_voc12.py", *arguments(tmp_path / "root", given)).status == 0
    check_layout("voc12", tmp_path / "root")


def test_archives_of_no_use_are_refused(script, built, tmp_path):
    voc, _ = built("voc12")
    cases = {
        (built("context59-mat")[0],): "VOCtrainval_03-May-2010.tar is none of: VOC 2012 .*; SBD",
        (voc, voc): "are both VOC 2012",
        (tmp_path / "x.tar",): "no archive at .*x.tar",
        (built("context59-json")[1],): "trainval_merged.json is a damaged archive, or none",
        (ROOT / "README.md",): "README.md is a damaged archive, or none",
    }
    for given, message in cases.items():
        done = script("prepare_voc12.py", *arguments(tmp_path / "root", given))
        assert done.status == 2 and re.search(f"^error: .*{message}", done.err), done.err
    assert not (tmp_path / "root").exists()


def test_what_is_not_given_is_downloaded_with_its_checksum(script, built, tmp_path, monkeypatch):
    asked = []

    def download(url, target, *, md5=None):
        asked.append((url, target, md5))
        raise InputError("offline")

    monkeypatch.setattr(prepare, "download", download)
    for kind, given in (("voc12", built("voc12")[:1]), ("context59-json", []), ("coco-stuff", built("coco-stuff")[:2])):
        done = script(benchmark_of(kind).script, *arguments(tmp_path, given))
        assert done.status == 2 and "error: offline" in done.err
        assert ("--archive" in done.err) == (kind == "context59-json")
    assert [(target.relative_to(tmp_path).as_posix(), md5) for _, target, md5 in asked] == [
        ("downloads/benchmark.tgz", "82b4d87ceb2ed10f6038a1cba92111cb"),
        ("downloads/trainval_merged.json", "3c2d0c0656b7be9eb61928ffe885d8ce"),
        ("downloads/stuffthingmaps_trainval2017.zip", None),
    ]
    assert all(url.endswith(target.name) for url, target, _ in asked)


def test_the_checksum_is_told_where_none_is_published(script, built, tmp_path, monkeypatch):
    *pictures, maps = built("coco-stuff")
    monkeypatch.setattr(prepare, "download", lambda url, target, md5: maps)
    done = script("prepare_coco_stuff.py", *arguments(tmp_path, pictures))
    assert done.status == 0 and f"SHA-256 checksum {fetch.digest(maps, 'sha256')}" in done.out
    check_layout("coco-stuff", tmp_path)


def test_pictures_of_sbd_that_voc_lacks_are_named(script, built, tmp_path):
    voc, sbd = built("voc12")
    (tmp_path / "all").mkdir()
    fetch.extract(voc, tmp_path / "all")
    members = {
        path.relative_to(tmp_path / "all").as_posix(): path.read_bytes()
        for path in (tmp_path / "all").rglob("*.*")
        if path.name != "2011_003276.jpg"
    }
    voc = archives.write_tar(tmp_path / "less.tar", members)
    done = script("prepare_voc12.py", *arguments(tmp_path / "root", [voc, sbd]))
    assert done.status == 2 and "1 files are not in" in done.err and "2011_003276.jpg" in done.err


@pytest.mark.parametrize("value", [11, 90, 182, 254])
def test_ids_that_coco_never_used_are_named(prepared, script, built, value):
    root = prepared("coco-stuff")
    path = root / "coco_stuff164k/annotations/val2017/000000581781.png"
    path.with_name("000000581781_labelTrainIds.png").unlink()
    values = np.array(Image.open(path))
    values[5, 7] = value
    Image.fromarray(values).save(path)
    done = script("prepare_coco_stuff.py", *arguments(root, built("coco-stuff")))
    assert done.status == 2 and re.search(rf"{path} holds the values \[{value}\]", done.err)


def edited_json(built, tmp_path, edit):
    voc, path = built("context59-json")
    content = json.loads(path.read_text())
    edit(content)
    (tmp_path / "edited.json").write_text(json.dumps(content))
    return [voc, tmp_path / "edited.json"]


def test_a_class_of_another_name_is_refused(script, built, tmp_path):
    def rename(old, new):
        def edit(content):
            (entry,) = (entry for entry in content["categories"] if entry["name"] == old)
            entry["name"] = new

        return edit

    for old, new in (("sofa", "stool"), ("diningtable", "tablecloth")):
        done = script(
            "prepare_context59.py", *arguments(tmp_path / "no", edited_json(built, tmp_path, rename(old, new)))
        )
        assert done.status == 2 and re.search(rf"^error: .*json calls class \d+ {new!r} instead of", done.err)
    for old, new in (("pottedplant", "Potted plant"), ("tvmonitor", "TV/monitor"), ("bedclothes", "bedcloth")):
        root = tmp_path / new.replace("/", "")
        assert (
            script("prepare_context59.py", *arguments(root, edited_json(built, tmp_path, rename(old, new)))).status == 0
        )
    voc, mats = built("context59-mat")
    members = {member.name: member.open().read() for member in fetch.members(mats)}
    members["labels.txt"] = members["labels.txt"].replace(b": sky", b": cloud")
    done = script(
        "prepare_context59.py", *arguments(tmp_path / "m", [voc, archives.write_tar(tmp_path / "m.tar", members)])
    )
    assert done.status == 2 and "labels.txt calls class 360 'cloud' instead of 'sky'" in done.err
    del members["labels.txt"]  # need not be there
    fine = archives.write_tar(tmp_path / "fine.tar", members)
    assert script("prepare_context59.py", *arguments(tmp_path / "f", [voc, fine])).status == 0


def test_later_shapes_of_the_json_file_lie_on_earlier_ones(script, built, tmp_path):
    """Also shapes of the classes that are background."""
    covered = {"2008_000008": ("aeroplane", "sky"), "2010_003947": ("grass", "accordion")}
    ids = KINDS["context59-json"][2]

    def edit(content):
        for stem, (below, above) in covered.items():
            number = int(stem.replace("_", ""))
            (shape,) = (
                shape
                for shape in content["annos_segmentation"]
                if (shape["image_id"], shape["category_id"]) == (number, ids[below])
            )
            content["annos_segmentation"].append(shape | {"category_id": ids[above]})

    assert script("prepare_context59.py", *arguments(tmp_path, edited_json(built, tmp_path, edit))).status == 0
    benchmark = BENCHMARKS["context59"]
    for picture, labels in benchmark.pairs(tmp_path, "train"):
        if picture.stem in covered:
            below, above = covered[picture.stem]
            place = archives.drawn(archives.CONTEXT59_PICTURES["train"][picture.stem], ids) == ids[below]
            found = np.unique(benchmark.label_map.read(labels)[place]).tolist()
            assert found == [benchmark.names.index(above) if above in benchmark.names else IGNORE]


def test_damaged_labels_are_named(script, built, tmp_path):
    def spoil(content):
        content["annos_segmentation"][0]["segmentation"] = {"size": [3, 3]}

    cases = {
        "is cut short or not Pascal Context's file": lambda content: content.pop("images"),
        "has no readable labels of 2008_000015": lambda content: content["images"][1].update(width=33),
        "has no readable labels of 2008_000008": spoil,
    }
    for number, (message, edit) in enumerate(cases.items()):
        given = edited_json(built, tmp_path, edit)
        done = script("prepare_context59.py", *arguments(tmp_path / str(number), given))
        assert done.status == 2 and message in done.err, done.err
    (tmp_path / "cut.json").write_text('{"images": [')
    done = script(
        "prepare_context59.py", *arguments(tmp_path / "cut", [built("context59-json")[0], tmp_path / "cut.json"])
    )
    assert done.status == 2 and "cut.json is cut short" in done.err


def test_damaged_mat_files_are_named(prepared, script, built):
    root = prepared("voc12")
    folder, mat = root / "VOCdevkit/VOC2012/SegmentationClassAug", root / "VOCdevkit/VOCaug/dataset/cls/2008_000002.mat"
    (folder / "2008_000002.png").unlink()
    good = mat.read_bytes()
    bad = {"GTcls": {"Segmentation": np.full((36, 44), 21, dtype=np.uint8)}}
    for damage, message in (
        (lambda: mat.write_bytes(good[: len(good) // 2]), "holds no GTcls.Segmentation"),
        (lambda: savemat(mat, {"GTinst": {"Segmentation": np.zeros((3, 3))}}), "holds no GTcls.Segmentation"),
        (lambda: savemat(mat, bad), r"holds the values \[21\]"),
    ):
        damage()
        done = script("prepare_voc12.py", *arguments(root))
        assert done.status == 2 and re.search(rf"2008_000002\.mat.*{message}", done.err), done.err
    root = prepared("context59-mat")
    mat = root / "VOCdevkit/VOC2010/trainval/2008_000015.mat"
    (root / "VOCdevkit/VOC2010/SegmentationClassContext/2008_000015.png").unlink()
    savemat(mat, {"LabelMap": np.full((44, 36), 460, dtype=np.uint16)})
    done = script("prepare_context59.py", *arguments(root, built("context59-mat")))
    assert done.status == 2 and re.search(r"2008_000015\.mat holds the ids \[460\]; expected 0\.\.459", done.err)


def test_pycocotools_is_asked_for_by_the_name_of_the_extra(script, built, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    done = script("prepare_context59.py", *arguments(tmp_path, built("context59-json")))
    assert done.status == 2 and 'pip install "cascadeclip[data]"' in done.err
