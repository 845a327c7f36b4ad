"""Data scripts given again, stopped, or run where a layout lies; what `--verify` says of damaged data."""

import re

import numpy as np
import pytest
from PIL import Image

from cascadeclip import files as door
from cascadeclip.data.benchmarks import BENCHMARKS
from cascadeclip.data.prepare import fetch, originals
from cascadeclip.data.prepare.verifying import verify
from cascadeclip.files import replace_file
from tests.support import archives, preparing
from tests.support.preparing import KINDS, arguments, benchmark_of, check_layout, snapshot

built, offline, prepared, script = preparing.built, preparing.offline, preparing.prepared, preparing.script


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

        def stopping(path, write, left=left, **options):
            def write_and_stop(scratch):
                write(scratch)
                if next(left, None) is None:
                    scratch.write_bytes(scratch.read_bytes()[:10])
                    raise Stopped

            replace_file(path, write_and_stop, **options)

        with monkeypatch.context() as patch, pytest.raises(Stopped):
            for module in (fetch, originals, door):
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
