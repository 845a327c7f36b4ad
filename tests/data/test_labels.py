"""Label maps in every encoding that people have: bits, bytes, 16 bits, palettes, colours; gaps in the numbers."""

import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cascadeclip.data.folders import FolderDataset, collate
from cascadeclip.data.labels import IGNORE, WIDE_IGNORE, LabelMap, ignored_label, parsed_values
from cascadeclip.data.transforms import Augment
from cascadeclip.data.words import seen_positions
from cascadeclip.errors import InputError
from cascadeclip.evaluation.predictions import Predictions
from cascadeclip.evaluation.scores import ConfusionMatrix
from cascadeclip.model.losses import present_pairs, segmentation_loss
from cascadeclip.presets import own_preset
from cascadeclip.training.loop import seen_only

GAPS = LabelMap(3, numbers=(1, 25, 200))


def saved(path, values, mode=None):
    Image.fromarray(np.asarray(values), mode).save(path)
    return path


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(classes=True), "classes=True must be a whole number"),
        (dict(classes=2.0), r"classes=2\.0 must be a whole number"),
        (dict(classes=2, first=True), "first=True must be a whole number"),
        (dict(classes=2, ignored=(True,)), r"ignored\[0\]=True must be a whole number"),
        (dict(classes=1, numbers=("1",)), r"numbers\[0\]='1' must be a whole number"),
        (dict(classes=1, colours=((0, 0, 1.5),)), r"colours\[0\]\[2\]=1\.5 must be a whole number"),
    ],
)
def test_a_label_map_is_of_whole_numbers(wrong, said):
    with pytest.raises(InputError, match=f"^{said}$"):
        LabelMap(**wrong)


def test_masks_of_one_bit_are_read(tmp_path):
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1").save(tmp_path / "m.png")
    assert LabelMap(2).read(tmp_path / "m.png").tolist() == [[0, 1], [1, 0]]


def test_palettes_with_transparency_and_interlaced_files_are_read(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "m.png", transparency=0)
    assert LabelMap(3).read(tmp_path / "m.png").tolist() == [[0, 1, 2]]


def test_numbers_may_have_gaps():
    assert GAPS.convert(np.array([[1, 25, 200, 255]], np.uint8), "m").tolist() == [[0, 1, 2, IGNORE]]
    with pytest.raises(InputError, match=r"m holds the values \[2\]; expected \[1, 25, 200\] for the 3 classes"):
        GAPS.convert(np.array([[1, 2]], np.uint8), "m")
    rest = LabelMap(3, numbers=(1, 25, 200), others_ignored=True)
    assert rest.convert(np.array([[1, 2, 65_000]], np.uint16), "m").tolist() == [[0, IGNORE, IGNORE]]


def test_colours_are_classes(tmp_path):
    names, meaning = parsed_values({"128 0 0": "aeroplane", "#00ff00": "grass", "0,0,255": "sky"})
    colours = LabelMap(3, ignored=(0, 255), **meaning)
    raw = np.array([[[128, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255]]], np.uint8)
    assert names == ["aeroplane", "grass", "sky"]
    assert colours.read(saved(tmp_path / "m.png", raw)).tolist() == [[0, 1, 2, IGNORE, IGNORE]]
    palette = Image.fromarray(raw).quantize()
    palette.save(tmp_path / "palette.png")
    assert colours.read(tmp_path / "palette.png").tolist() == [[0, 1, 2, IGNORE, IGNORE]]
    raw[0, 0] = (127, 0, 0)
    with pytest.raises(InputError, match=r"values \[127 0 0\]; expected \[128 0 0, 0 255 0, 0 0 255\]"):
        colours.convert(raw, "m")
    with pytest.raises(InputError, match=r'if its colours are the classes.*"128 0 0"'):
        GAPS.read(tmp_path / "m.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"1": "a", "1 2 3": "b"}, "not both"),
        ({"x": "a"}, "'x' is neither a number nor a colour"),
        ({"1 2": "a"}, "neither a number"),
        ({"0 0 256": "a"}, "neither a number"),
        ([[1, "a", 3]], "give"),
        (7, "give"),
    ],
)
def test_values_that_mean_nothing_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        parsed_values(values)


@pytest.mark.parametrize(
    ("meaning", "message"),
    [
        (dict(numbers=(1, 1)), r"values \[1\] stand for two classes"),
        (dict(numbers=(1, 2, 3)), "3 numbers or colours for 2 classes"),
        (dict(numbers=(1, 255), ignored=(255,)), "ignored and classes at once"),
        (dict(numbers=(-1, 2)), "do not fit"),
        (dict(numbers=(1, 70_000)), "do not fit"),
        (dict(colours=((1, 2, 3), (1, 2, 3))), "1 2 3.* stand for two classes"),
    ],
)
def test_meanings_that_cannot_be(meaning, message):
    with pytest.raises(InputError, match=message):
        LabelMap(2, **meaning)


def test_jpeg_masks_are_refused(tmp_path):
    path = saved(tmp_path / "m.jpg", np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"m.jpg is a JPEG, which changes numbers"):
        LabelMap(2).read(path)


def test_labels_of_sixteen_bits_have_room_for_every_class(tmp_path):
    many = LabelMap(847)
    raw = np.array([[0, 255, 256, 846, 65_535]], np.uint16)
    labels = many.read(saved(tmp_path / "m.png", raw))
    assert labels.dtype == np.int32 and labels.tolist() == [[0, 255, 256, 846, WIDE_IGNORE]]
    assert LabelMap(65_535).convert(np.array([[65_534, 65_535]], np.uint16), "m").tolist() == [[65_534, WIDE_IGNORE]]
    assert LabelMap(255).convert(np.array([[254, 255]], np.uint8), "m").tolist() == [[254, 255]]
    assert (ignored_label(255), ignored_label(256)) == (255, 65_535)


@pytest.mark.slow
def test_presets_of_so_many_classes_are_made_in_seconds():
    names = [f"class {number}" for number in range(65_535)]
    start = time.process_time()
    preset = own_preset("images", "masks", names, names[::2])
    assert len(preset.seen) == 32_767 and seen_positions(preset.names, preset.unseen)[:2] == [1, 3]
    with pytest.raises(InputError, match="words given twice: class 0; give each once"):
        own_preset("images", "masks", [*names[1:], "class 0", "Class 0"])
    with pytest.raises(InputError, match="stand for two classes at once"):
        LabelMap(65_535, numbers=(0, *range(65_534)))
    assert time.process_time() - start < 100  # several minutes where each is compared with each


def test_class_255_is_learnt_and_counted_like_any_other(tmp_path):
    """From the file to the loss and to the score: with 300 classes, 255 is a class and 65,535 is none."""
    raw = np.full((40, 40), 255, np.uint16)
    raw[:20], raw[:, :10] = 299, 65_535
    mask = saved(tmp_path / "m.png", raw)
    picture = saved(tmp_path / "i.png", np.zeros((40, 40, 3), np.uint8))
    many = LabelMap(300)
    torch.manual_seed(0)
    images, labels, _ = collate([FolderDataset([(picture, mask)], many, Augment(32, many.ignore))[0]])
    assert labels.dtype == torch.int32 and set(labels.unique().tolist()) <= {255, 299, WIDE_IGNORE}
    names = [str(index) for index in range(300)]
    seen, table = seen_only(names, ["3"])
    known = table[torch.tensor([[[255, 299, 3, WIDE_IGNORE]]])]
    assert known.tolist() == [[[254, 298, WIDE_IGNORE, WIDE_IGNORE]]]
    assert present_pairs(known, len(seen), ignored_label(len(seen))) == 2
    losses = segmentation_loss(torch.zeros(1, 299, 1, 4), known, ignored_label(len(seen)))
    assert losses["dice"] > 0 and losses["total"].isfinite()
    confusion = ConfusionMatrix(300)
    confusion.update(torch.tensor([[255, 299, 0]]), torch.tensor([[255, 255, WIDE_IGNORE]]))
    assert (confusion.counts[255, 255], confusion.counts[255, 299], confusion.counts.sum()) == (1, 1, 2)
    assert images.shape == (1, 3, 32, 32)


def test_predictions_of_many_classes_keep_their_numbers(tmp_path):
    Predictions(tmp_path, [None], range(1), range(847), "this one").save(0, torch.tensor([[0, 255, 846]]))
    assert np.asarray(Image.open(tmp_path / "0.png")).tolist() == [[0, 255, 846]]


def png_of_greys(path, values, bits):
    """A PNG of greys with so few bits, which Pillow does not write."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    rows = ["".join(f"{value:0{bits}b}" for value in row) for row in values.tolist()]
    content = b"".join(b"\0" + int(row, 2).to_bytes(len(row) // 8) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(content)) + part(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_numbers_of_few_bits_are_read_as_they_are(tmp_path, bits):
    values = np.arange(32).reshape(2, 16) % 2**bits
    png_of_greys(tmp_path / "mask.png", values, bits)
    assert LabelMap(2 ** min(bits, 5)).read(tmp_path / "mask.png").tolist() == values.tolist()


@pytest.mark.parametrize(
    "kind, how", [("JPEG2000", {"irreversible": True}), ("WEBP", {"quality": 50}), ("TIFF", {"compression": "jpeg"})]
)
def test_masks_of_other_formats_with_loss_are_refused(tmp_path, kind, how):
    Image.new("RGB", (16, 16), (128, 0, 0)).save(tmp_path / "mask.png", format=kind, **how)
    with pytest.raises(InputError, match=f"is a {kind}.*which changes numbers"):
        LabelMap(1, colours=((128, 0, 0),), others_ignored=True).read(tmp_path / "mask.png")


def test_a_webp_mask_without_loss_is_read(tmp_path):
    Image.new("RGB", (16, 16), (128, 0, 0)).save(tmp_path / "mask.png", format="WEBP", lossless=True)
    assert (LabelMap(1, colours=((128, 0, 0),)).read(tmp_path / "mask.png") == 0).all()
