"""Label maps and pictures in folders: one mapping from values on disk to classes, and clear words for what is wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from cascadeclip.data import classes
from cascadeclip.data.benchmarks import BENCHMARKS, COCO_STUFF, CONTEXT59, VOC12
from cascadeclip.data.folders import FolderDataset, collate, listed_pairs, matching_pairs
from cascadeclip.data.labels import LabelMap
from cascadeclip.errors import InputError
from tests.support.archives import save_palette, voc_tree


@pytest.fixture
def voc(tmp_path):
    voc_tree(tmp_path)
    return tmp_path


def write(path, values, mode=None):
    Image.fromarray(np.asarray(values, dtype=np.uint8), mode).save(path)
    return path


def test_background_becomes_ignored_once_and_classes_start_at_nought(tmp_path):
    raw = np.array([[0, 1, 2], [20, 19, 255]], dtype=np.uint8)
    save_palette(raw, tmp_path / "map.png")
    labels = VOC12.label_map.read(tmp_path / "map.png")
    assert labels.tolist() == [[255, 0, 1], [19, 18, 255]]
    assert VOC12.names[labels[1, 0]] == "tvmonitor" and VOC12.names[labels[0, 1]] == "aeroplane"
    again = VOC12.label_map.convert(labels, "converted")  # a second shift would be 0 -> 255 and 19 -> 18
    assert again.tolist() != labels.tolist()


def test_coco_values_are_the_indices(tmp_path):
    raw = np.array([[0, 170, 255]], dtype=np.uint8)
    assert COCO_STUFF.label_map.read(write(tmp_path / "map.png", raw)).tolist() == [[0, 170, 255]]


@pytest.mark.parametrize(
    ("benchmark", "value"), [(VOC12, 21), (VOC12, 254), (CONTEXT59, 60), (COCO_STUFF, 171), (COCO_STUFF, 182)]
)
def test_a_value_that_is_no_class_is_named_with_its_file(tmp_path, benchmark, value):
    path = write(tmp_path / "map.png", [[1, value]])
    with pytest.raises(InputError, match=rf"map.png holds the values \[{value}\]"):
        benchmark.label_map.read(path)


def test_a_picture_in_colours_is_no_label_map(tmp_path):
    path = write(tmp_path / "map.png", np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match="is no label map"):
        VOC12.label_map.read(path)


def test_a_damaged_or_missing_label_map_is_named(tmp_path):
    (tmp_path / "map.png").write_bytes(b"\x89PNG and then nothing")
    for name, said in {"map.png": "cannot read the label map", "none.png": "no label map at"}.items():
        with pytest.raises(InputError, match=f"{said} .*{name}"):
            VOC12.label_map.read(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "do not fit"), ((65_536,), "do not fit"), ((60_000, 6_000), "do not fit"), ((3, 0, (2, 255)), "at once")],
)
def test_label_maps_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        LabelMap(*arguments)


def test_sixteen_bit_label_maps_are_read(tmp_path):
    Image.fromarray(np.array([[1, 20]], dtype=np.uint16)).save(tmp_path / "map.png")
    assert VOC12.label_map.read(tmp_path / "map.png").tolist() == [[0, 19]]


@pytest.mark.parametrize(
    ("benchmark", "sizes", "unseen"),
    [
        (VOC12, (20, 5), {"pottedplant", "sheep", "sofa", "train", "tvmonitor"}),
        (CONTEXT59, (59, 10), {"aeroplane", "cow", "keyboard", "plate"}),
        (COCO_STUFF, (171, 15), {"cow", "giraffe", "frisbee", "clouds", "grass", "road", "wall-concrete"}),
    ],
)
def test_class_lists_and_splits(benchmark, sizes, unseen):
    assert (len(set(benchmark.names)), len(set(benchmark.unseen))) == sizes
    assert unseen <= set(benchmark.unseen) <= set(benchmark.names)
    assert benchmark.label_map.classes == len(benchmark.names)


def test_class_lists_are_in_the_order_of_the_label_maps():
    assert list(classes.VOC12) == sorted(classes.VOC12)
    assert list(classes.CONTEXT59) == sorted(classes.CONTEXT59)
    assert (classes.COCO_STUFF.index("toothbrush"), classes.COCO_STUFF.index("banner")) == (79, 80)
    assert len(classes.TEMPLATES) == len(set(classes.TEMPLATES)) == 15
    assert set(classes.CONTEXT59_UNSEEN_ELSEWHERE) < set(classes.CONTEXT59)


def test_a_voc_tree_is_read(voc):
    data = FolderDataset(VOC12.pairs(voc, "train"), VOC12.label_map)
    assert len(data) == 6
    folders = {path.parent.name for _, path in data.pairs}
    assert folders == {"SegmentationClass", "SegmentationClassAug"}
    found = set()
    for image, labels in data:
        assert image.dtype == torch.uint8 and labels.dtype == torch.int32 and image.shape[1:] == labels.shape
        found |= set(labels.unique().tolist())
    assert found == {*range(20), 255}
    assert data.source(0).endswith(".jpg")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_missing_data_say_which_script_makes_them(tmp_path, name):
    with pytest.raises(InputError, match=f"{BENCHMARKS[name].script} --root"):
        BENCHMARKS[name].pairs(tmp_path, "val")


def test_an_unknown_split_names_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="choose from train, val"):
        VOC12.pairs(tmp_path, "test")


def test_missing_files_are_counted_and_named(voc):
    folder = voc / VOC12.folder
    victims = sorted((folder / "JPEGImages").iterdir())[:2]
    for victim in victims:
        victim.unlink()
    with pytest.raises(InputError, match=f"2 files are missing, .*{victims[0].name}"):
        VOC12.pairs(voc, "train") and VOC12.pairs(voc, "val")


def test_an_empty_list_of_pictures_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(InputError, match="names no picture"):
        listed_pairs(tmp_path / "list.txt", tmp_path, [tmp_path])


def test_pictures_and_masks_are_matched_by_name(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir(), masks.mkdir()
    for name in ("b.png", "a.JPG", "notes.txt"):
        (images / name).write_bytes(b"")
    with pytest.raises(InputError, match="2 files are missing"):
        matching_pairs(images, masks)
    for name in ("a.png", "b.png"):
        (masks / name).write_bytes(b"")
    assert [(i.name, m.name) for i, m in matching_pairs(images, masks)] == [("a.JPG", "a.png"), ("b.png", "b.png")]
    with pytest.raises(InputError, match="no folder"):
        matching_pairs(images, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no picture"):
        matching_pairs(masks.parent, masks)


def test_a_mask_of_another_size_is_refused(tmp_path):
    image, mask = write(tmp_path / "i.png", np.zeros((4, 6, 3))), write(tmp_path / "m.png", np.ones((6, 4)))
    with pytest.raises(InputError, match=r"6 x 4 px, its label map .* 4 x 6"):
        FolderDataset([(image, mask)], VOC12.label_map)[0]


def test_no_pictures_at_all_are_refused():
    with pytest.raises(InputError, match="without a picture"):
        FolderDataset([], VOC12.label_map)


def test_a_batch_is_stacked():
    items = [(torch.zeros(3, 4, 5, dtype=torch.uint8), torch.ones(8, 10, dtype=torch.uint8))] * 2
    images, labels = collate(items)
    assert images.shape == (2, 3, 4, 5) and labels.shape == (2, 8, 10)


def test_pictures_without_classes_are_those_whose_whole_label_map_is_without_them(tmp_path):
    maps = {"a": [[1, 2]], "b": [[1, 3]], "c": [[0, 1]], "d": [[3, 3]], "e": [[0, 0]]}
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, values in maps.items():
        write(tmp_path / "images" / f"{name}.png", np.zeros((1, 2, 3)))
        write(tmp_path / "masks" / f"{name}.png", values)
    pairs = matching_pairs(tmp_path / "images", tmp_path / "masks")
    cut = FolderDataset(pairs, LabelMap(3, 1, (0,)), lambda image, labels: (image[:, :, :1], labels[:, :1]))
    strict = cut.without([2])  # the third class, 3 on disk: in the corner that the transform cuts off, too
    assert [strict.source(i)[-5] for i in range(len(strict))] == ["a", "c", "e"]
    assert strict[0][0].shape == (3, 1, 1)
    assert len(cut) == 5
    with pytest.raises(InputError, match="all 5 pictures hold pixels of the classes to leave out"):
        FolderDataset(pairs, LabelMap(4), None).without([0, 1, 2, 3])
