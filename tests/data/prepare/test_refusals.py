"""Archives under other names, and archives and files that do not fit."""

import json
import re
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cascadeclip.data.benchmarks import BENCHMARKS, VOC12
from cascadeclip.data.labels import IGNORE
from cascadeclip.data.prepare import fetch, originals
from cascadeclip.data.prepare.originals import Job, Source
from cascadeclip.errors import InputError
from tests.support import archives, preparing
from tests.support.preparing import KINDS, ROOT, arguments, benchmark_of, check_layout

built, offline, prepared, script = preparing.built, preparing.offline, preparing.prepared, preparing.script


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

    monkeypatch.setattr(originals, "download", download)
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
    monkeypatch.setattr(originals, "download", lambda url, target, md5: maps)
    done = script("prepare_coco_stuff.py", *arguments(tmp_path, pictures))
    assert done.status == 0 and f"its SHA-256 is {fetch.digest(maps, 'sha256')}" in done.out
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
    given = arguments(tmp_path, built("context59-json"))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    done = script("prepare_context59.py", *given)
    assert done.status == 2 and 'pip install "cascadeclip[data]"' in done.err


@pytest.mark.parametrize("line", ["/etc/passwd", "../../../escaped", "..\\escaped", "C:\\escaped"])
def test_a_list_inside_an_archive_never_leads_outside(script, built, tmp_path, line):
    """Neither the lists of VOC nor those of SBD become paths before they were looked at."""
    lists = tmp_path / "root" / BENCHMARKS["voc12"].folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"2007_000032\n{line}\n")
    done = script("prepare_voc12.py", *arguments(tmp_path / "root", built("voc12")))
    assert done.status == 2 and "train.txt holds" in done.err and "would lie outside" in done.err
    assert not list(tmp_path.rglob("*escaped*"))
    (lists / "trainaug.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match="would lie outside"):
        BENCHMARKS["voc12"].pairs(tmp_path / "root", "train")


def test_a_given_archive_is_compared_with_the_published_checksum(tmp_path, capsys):
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("maps/1.png", b"")
    for published, said in [
        (fetch.digest(archive), "its MD5 checksum is the published one of maps"),
        ("0" * 32, f"WARNING {archive}: its MD5 checksum is {fetch.digest(archive)}, not {'0' * 32}, the published"),
        (None, f"no checksum is published for maps; its SHA-256 is {fetch.digest(archive, 'sha256')}"),
    ]:
        Job(VOC12, tmp_path).accept([Source("maps", None, published, r"maps/(.*)")], [archive])
        assert said in capsys.readouterr().out
