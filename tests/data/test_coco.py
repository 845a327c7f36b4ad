"""COCO's panoptic, stuff and instances files as own data; nothing in them is trusted."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascadeclip.data.coco import decoded
from cascadeclip.data.folders import FolderDataset, collate
from cascadeclip.data.identity import data_identity
from cascadeclip.data.own import OwnData
from cascadeclip.errors import InputError

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 25, "name": "giraffe"}, {"id": 200, "name": "rug"}]
IMAGES = [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 6}, {"id": 8, "file_name": "b.jpg", "height": 4,
                                                                     "width": 6}]  # fmt: skip
SEGMENTS = [{"id": 1000, "category_id": 25}, {"id": 65_536 * 3 + 2, "category_id": 200}]
PANOPTIC = {
    "images": IMAGES, "categories": CATEGORIES,
    "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": SEGMENTS}],
}  # fmt: skip
RUNS = {"size": [4, 6], "counts": [8, 4, 12]}  # column after column: the third one
STUFF = {
    "images": IMAGES, "categories": CATEGORIES,
    "annotations": [
        {"image_id": 7, "category_id": 1, "segmentation": RUNS},
        {"image_id": 7, "category_id": 200, "segmentation": [[4, 0, 6, 0, 6, 4, 4, 4]]},
        {"image_id": 8, "category_id": 25, "segmentation": {"size": [4, 6], "counts": "84<"}},
    ],
}  # fmt: skip


@pytest.fixture
def own(tmp_path):
    (tmp_path / "images").mkdir(), (tmp_path / "masks").mkdir()
    for name in "ab":
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / f"{name}.jpg")
    numbers = np.full((4, 6), 1000)
    numbers[:, 3:], numbers[0] = 65_536 * 3 + 2, 0
    Image.fromarray(np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)).save(
        tmp_path / "masks" / "a.png"
    )

    def describe(content, **more):
        (tmp_path / "coco.json").write_text(json.dumps(content))
        where = dict(images=tmp_path / "images", masks=tmp_path / "masks", coco=tmp_path / "coco.json")
        return OwnData(**where, val_coco=tmp_path / "coco.json", **more)

    return describe


def test_a_panoptic_file(own):
    data = own(PANOPTIC)
    found, reader = data.find("train")
    assert data.words == ("person", "giraffe", "rug")
    assert [one.name for one, _ in found.pairs] == ["a.jpg"] and found.left == {"without a mask": ["b.jpg"]}
    assert reader.read(found.pairs[0][1]).tolist() == [[255] * 6] + [[1, 1, 1, 2, 2, 2]] * 3
    found, reader = own(PANOPTIC, names=["rug"]).find("train")
    assert reader.read(found.pairs[0][1]).tolist() == [[255] * 6] + [[255] * 3 + [0] * 3] * 3
    with pytest.raises(InputError, match=r"no category of .*coco.json: sofa"):
        own(PANOPTIC, names=["sofa"])


def test_a_stuff_file(own):
    found, reader = own(STUFF).find("train")
    assert [one.name for one, _ in found.pairs] == ["a.jpg", "b.jpg"]
    assert reader.read(found.pairs[0][1]).tolist() == [[255, 255, 0, 255, 2, 2]] * 4
    assert reader.read(found.pairs[1][1]).tolist() == [[255, 255, 1, 255, 255, 255]] * 4


@pytest.mark.parametrize("shape", [[], [[0, 0, 3, 3]]])
def test_polygons_of_fewer_than_three_points_cover_nothing(shape):
    pytest.importorskip("pycocotools")
    assert decoded(shape, 4, 6, Path("coco.json")).tolist() == np.zeros((4, 6), bool).tolist()


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 6], "counts": [1_000_000_000]},
        {"size": [40_000, 40_000], "counts": [1_600_000_000]},
        {"size": [4, 6], "counts": "_" * 4000},
        {"size": [4, 6], "counts": [-4, 28]},
        {"size": [4, 6], "counts": None},
        {"size": [4, 6]},
        [["x"] * 6],
        [[[0, 0, 6, 0, 6, 4]]],  # one list too many
        [[[0, 0], [6, 0], [6, 4], [0, 4], [0, 3], [0, 2]]],
        [[0, 0, 1e9, 0, 1e9, 1e9]],  # along whose edges memory is reserved
        [[0, 0, 1e300, 0, 5, 3]],
        [[0, 0, 6, 0, 6, 4] * 10_000],
        [[0, 0, 6, 0, 6, 4, 1]],
        3,
    ],
)
def test_run_lengths_and_polygons_that_would_leave_the_picture_are_refused(own, segmentation):
    content = copy.deepcopy(STUFF)
    content["annotations"] = [{"image_id": 7, "category_id": 1, "segmentation": segmentation}]
    found, reader = own(content).find("train")
    with pytest.raises(InputError, match=r"coco.json"):
        reader.read(found.pairs[0][1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(file_name="../../a.png"), "do not trust it"),
        (lambda c: c["images"][0].update(file_name="/etc/a.jpg"), "do not trust it"),
        (lambda c: c["annotations"][0].update(image_id=99), "picture 99"),
        (lambda c: c["annotations"][0]["segments_info"][0].pop("id"), "id is None"),
        (lambda c: c.update(images={}), "no list of images"),
        (lambda c: c["images"][0].update(id="7"), "id is '7'"),
    ],
)
def test_files_that_do_not_hold_together_are_refused(own, change, message):
    content = copy.deepcopy(PANOPTIC)
    change(content)
    with pytest.raises(InputError, match=message):
        own(content).find("train")


def test_pictures_too_large_to_be_meant_are_refused(own):
    content = copy.deepcopy(STUFF)
    content["images"][0].update(height=10**6, width=10**6)
    with pytest.raises(InputError, match="at most"):
        own(content).find("train")


def test_segments_that_the_file_does_not_know_are_refused(own):
    content = copy.deepcopy(PANOPTIC)
    content["annotations"][0]["segments_info"].pop()
    found, reader = own(content).find("train")
    with pytest.raises(InputError, match=r"segments \[196610\]"):
        reader.read(found.pairs[0][1])


def test_kept_work_knows_the_file_of_masks_that_are_no_files(own):
    found, reader = own(STUFF).find("train")
    data = FolderDataset(found, reader)
    before = data_identity(data, collate)
    assert data_identity(data, collate) == before
    content = copy.deepcopy(STUFF)
    content["annotations"].pop()
    found, reader = own(content).find("train")
    assert data_identity(FolderDataset(found, reader), collate) != before


@pytest.mark.parametrize("content", [PANOPTIC, STUFF], ids=["panoptic", "stuff"])
def test_what_work_depends_on_is_short_and_knows_no_folder(own, content, tmp_path, monkeypatch):
    """A state of a training would else hold all of the file, and not go on once its folder was moved."""

    def told(folder):
        found, reader = OwnData(folder / "images", folder / "masks", coco=folder / "coco.json").find("train")
        return data_identity(FolderDataset(found, reader), collate)

    monkeypatch.setattr("cascadeclip.data.own._share", lambda pairs, root, share, split: pairs)
    own(content)
    here = shutil.copytree(tmp_path, tmp_path / "here", ignore=lambda *_: {"here"})
    before = told(here)
    assert len(json.dumps(before)) < 300
    assert told(here.rename(tmp_path / "there")) == before


@pytest.mark.parametrize(
    "categories, fits",
    [
        ([{"id": 1, "name": "giraffe"}, {"id": 25, "name": "person"}], False),
        ([{"id": 2, "name": "person"}], False),
        ([{"id": 1, "name": "person"}, {"id": 3, "name": "tree"}], True),
    ],
)
def test_pictures_to_evaluate_on_number_their_categories_alike(own, tmp_path, categories, fits):
    data = own(STUFF)
    other = {**STUFF, "categories": categories, "annotations": STUFF["annotations"][:1]}
    (tmp_path / "val.json").write_text(json.dumps(other))
    data = OwnData(images=data.images, coco=data.coco, val_coco=tmp_path / "val.json")
    if fits:
        assert len(data.find("val")[0].pairs) == 1
    else:
        with pytest.raises(InputError, match=r"do not fit together: 1 is 'person' in .*coco.json, and in .*val.json"):
            data.find("val")


@pytest.mark.parametrize("content", [PANOPTIC, STUFF], ids=["panoptic", "stuff"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_name_categories_that_have_words(own, tmp_path, content, split):
    """Pixels of a category that only the pictures to evaluate on have were left out of the score without a word."""
    fewer = {**content, "categories": [one for one in CATEGORIES if one["id"] != 25]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    data = own(fewer if split == "train" else {**fewer, "annotations": []})
    data = replace(data, val_coco=tmp_path / "val.json")
    with pytest.raises(InputError, match=r"annotations of category 25, of which .*coco.json holds no word"):
        data.find(split)
    for more in ({"ignored": "others"}, {"ignored": [25]}, {"names": ["rug"]}):  # left out by intention
        assert replace(data, **more).find(split)[0].pairs


@pytest.mark.parametrize(
    "content, message",
    [
        ({**STUFF, "images": [IMAGES[0], {**IMAGES[1], "id": 7}]}, "two of the COCO file's images have the number 7"),
        ({**STUFF, "categories": [CATEGORIES[0], {"id": 1, "name": "dog"}]}, "categories have the number 1"),
        ({**STUFF, "images": [IMAGES[0], {**IMAGES[1], "file_name": "a.jpg"}]}, "two of its pictures are a.jpg"),
        ({**PANOPTIC, "annotations": PANOPTIC["annotations"] * 2}, "has two annotations"),
        (
            {**PANOPTIC, "annotations": [{**PANOPTIC["annotations"][0],
                                          "segments_info": [*SEGMENTS, {"id": 1000, "category_id": 1}]}]},
            "segments of a.png have the number 1000",
        ),
    ],
)  # fmt: skip
def test_what_is_there_twice_is_refused_and_not_mixed(own, content, message):
    with pytest.raises(InputError, match=message):
        own(content).find("train")
