"""Pictures from files and arrays."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cascadeclip.data.labels import spread_of
from cascadeclip.errors import InputError
from cascadeclip.files import check_file, check_no_folder, exists, size_of

logger = logging.getLogger(__name__)

ORIENTATION = 0x0112  # EXIF's number for how a picture was held


def read_image(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Any accepted image as (H, W, 3) uint8 RGB, turned as its EXIF says; transparency lies on white.

    Raises:
        InputError: no image, a damaged, closed or too large one, an array of another shape or type, or with masked
            pixels, or numbers that are no brightness.
    """
    if isinstance(image, str | Path):
        return _decoded(check_file(image, "image"), str(image))
    if isinstance(image, Image.Image):
        return _decoded(image, "the image")
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"an image array must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; "
            "for floats in 0..1 use (255 * array).round().astype('uint8'), for anything else give a PIL image"
        )
    if np.ma.is_masked(image):
        raise InputError("an image array has masked pixels: say what they show, as array.filled(255) does for white")
    return np.asarray(image)


def _decoded(given: Path | Image.Image, source: str) -> np.ndarray:
    """(H, W, 3) uint8 of a file or a PIL image, which may not have been read to its end yet."""
    try:
        if isinstance(given, Image.Image):
            return _rgb(given, source)
        with Image.open(given) as file:
            return _rgb(file, source)
    except Image.DecompressionBombError as error:
        raise InputError(f"{source} is too large ({error}); make it smaller") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what Pillow raises depends on the format, and on what is wrong with it
        told = str(error) or "closed before it was read"
        raise InputError(f"{source} is no image or a damaged one ({told}); convert it to PNG or JPEG") from error


def _rgb(image: Image.Image, source: str) -> np.ndarray:
    """The pixels, copied no more often than they have to be."""
    _load(image)
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("La", "RGBa"):  # colours that are multiplied with their opacity
        image = image.convert(image.mode.upper())
    if image.mode.startswith("I") or image.mode == "F":
        grey, clear = np.asarray(image), image.info.get("transparency")
        shown = _eight_bits(grey, source)
        if isinstance(clear, int):
            shown[grey == clear] = 255
        image = Image.fromarray(shown)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _load(image: Image.Image) -> None:
    """Decode the pixels, and bring the colour that a PNG calls clear to 8 bits, as Pillow does with pixels alone."""
    spread, deep = spread_of(image), any(tile[3] == "RGB;16B" for tile in getattr(image, "tile", ()))
    image.load()
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        image.info["transparency"] = clear * spread
    elif isinstance(clear, tuple) and deep:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def written_in(path: Path, name: str) -> str | None:
    """The text that a PNG file holds under a name; None if there is none, or no such file."""
    try:
        with Image.open(path) as picture:
            text = picture.info.get(name)
    except (OSError, SyntaxError, ValueError):
        return None
    return text if isinstance(text, str) else None


def check_own_png(path: Path, mark: str) -> None:
    """An `InputError` if a file is there that the package did not write: one without a text of the name `mark`.

    An empty one may be written over: it is what a power cut leaves of ours.
    """
    check_no_folder(path)
    if exists(path) and written_in(path, mark) is None and size_of(path, "picture"):
        raise InputError(f"cannot write {path}: a file of yours is there; choose another output folder")


def _eight_bits(grey: np.ndarray, source: str) -> np.ndarray:
    """Greys of more than 8 bits, or floats, as uint8. White is the smallest of 1 (floats), 255 and 65535 that is not
    exceeded."""
    low, high = grey.min(), grey.max()  # NaN, if there is one
    if not (low >= 0 and high <= 65_535):
        raise InputError(
            f"{source} holds greys from {low:g} to {high:g}; expected 0..1 (floats), 0..255 or 0..65535: scale it first"
        )
    top = 255 if high <= 255 else 65_535
    if grey.dtype.kind == "f" and high <= 1:
        top = 1
        logger.warning("%s holds floats from %g to %g: 1 is taken for white", source, low, high)
    return (grey.astype(np.float32) / top * 255).round().astype(np.uint8)
