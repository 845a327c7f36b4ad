"""Brightness and transparency in every number format: nothing becomes black, or white, without a word."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cascadeclip.data.images import read_image
from cascadeclip.errors import InputError


def test_floats_from_0_to_1_are_scaled_and_told_of(tmp_path, caplog):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "f.tif")
    assert read_image(tmp_path / "f.tif")[0, :, 0].tolist() == [0, 128, 255]
    assert "f.tif holds floats from 0 to 1: 1 is taken for white" in caplog.text


def test_floats_from_0_to_255_are_taken_as_they_are(caplog):
    assert read_image(Image.fromarray(np.array([[0, 100, 255]], np.float32)))[0, :, 1].tolist() == [0, 100, 255]
    assert not caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 70_000])
def test_numbers_that_are_no_brightness_are_refused(value):
    with pytest.raises(InputError, match="holds greys from"):
        read_image(Image.fromarray(np.array([[0, value]], np.float32)))


def test_greys_of_32_bits(caplog):
    assert read_image(Image.fromarray(np.array([[0, 255]], np.int32)))[0, :, 0].tolist() == [0, 255]
    assert read_image(Image.fromarray(np.array([[0, 65_535]], np.int32)))[0, :, 0].tolist() == [0, 255]
    with pytest.raises(InputError, match="from -5 to 9"):
        read_image(Image.fromarray(np.array([[-5, 9]], np.int32)))


def png(depth, colour, row, clear):
    """A PNG of two pixels: bits, kind of colour, the row's bytes, and the colour that is clear."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    parts = (b"IHDR", head), (b"tRNS", clear), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def rgb(*greys):
    """Pixels of 16 bits a colour."""
    return b"".join(struct.pack(">3H", grey, grey, grey) for grey in greys)


CLEAR = {  # the first pixel is clear, the second is not
    "1 bit": (png(1, 0, b"\x00", b"\0\0"), None),
    "2 bits": (png(2, 0, b"\x60", b"\0\1"), 170),
    "4 bits": (png(4, 0, b"\x5a", b"\0\5"), 170),
    "8 bits": (png(8, 0, b"\5\7", b"\0\5"), 7),
    "16 bits": (png(16, 0, struct.pack(">2H", 1000, 40_000), struct.pack(">H", 1000)), 156),
    "colours": (png(8, 2, b"\1\1\1\7\7\7", rgb(1)), 7),
    "colours, 16 bits": (png(16, 2, rgb(1000, 51_400), rgb(1000)), 200),
    "colours, 16 bits, dark": (png(16, 2, rgb(2, 512), rgb(2)), 2),
}


@pytest.mark.parametrize("way", ["file", "picture", "picture read before"])
@pytest.mark.parametrize("kind", CLEAR)
def test_the_colour_that_a_png_calls_clear_is_white(kind, way, tmp_path):
    content, other = CLEAR[kind]
    (tmp_path / "p.png").write_bytes(content)
    given = tmp_path / "p.png" if way == "file" else Image.open(tmp_path / "p.png")
    if way == "picture read before":
        read_image(given)
    found = read_image(given)[0].tolist()
    assert found[0] == [255] * 3
    assert other is None or found[1] == [other] * 3


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGBA", (1, 1), (9, 9, 9, 0)),
        Image.new("RGBA", (1, 1), (9, 9, 9, 0)).convert("RGBa"),
        Image.new("LA", (1, 1), (9, 0)),
        Image.new("LA", (1, 1), (9, 0)).convert("La"),
        Image.new("PA", (1, 1), (9, 0)),
    ],
    ids=lambda picture: picture.mode,
)
def test_clear_pixels_are_white_in_every_mode(picture):
    assert read_image(picture).tolist() == [[[255] * 3]]


def test_half_clear_pixels_are_the_same_in_every_mode():
    half = Image.new("RGBA", (1, 1), (200, 100, 0, 128))
    one, other = read_image(half).astype(int), read_image(half.convert("RGBa")).astype(int)
    assert abs(one - other).max() <= 1 and one[0, 0, 0] > 220


def test_a_palette_may_hold_clear_colours():
    picture = Image.new("P", (1, 1))
    picture.putpalette([1, 2, 3, 0], "RGBA")
    assert read_image(picture).tolist() == [[[255] * 3]]


def test_masked_pixels_are_refused():
    array = np.ma.masked_array(np.zeros((2, 2, 3), np.uint8), mask=False)
    assert type(read_image(array)) is np.ndarray
    array[0, 0] = np.ma.masked
    with pytest.raises(InputError, match=r"masked pixels: .*filled\(255\)"):
        read_image(array)
    assert read_image(array.filled(255))[0, 0].tolist() == [255] * 3


def stored():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def cut_short():
    return Image.open(io.BytesIO(stored()[: len(stored()) // 2]))


def closed():
    picture = Image.new("RGB", (4, 4))
    picture.close()
    return picture


def closed_before_it_was_read():
    with Image.open(io.BytesIO(stored())) as picture:
        return picture


def whose_file_was_closed():
    file = io.BytesIO(stored())
    picture = Image.open(file)
    file.close()
    return picture


@pytest.mark.parametrize("make", [cut_short, closed, closed_before_it_was_read, whose_file_was_closed])
def test_a_picture_that_fails_late_is_one_line(make):
    with pytest.raises(InputError, match=r"^the image is no image or a damaged one \(.+\); convert it to PNG or JPEG$"):
        read_image(make())
