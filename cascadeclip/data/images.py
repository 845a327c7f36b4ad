"""Pictures from files and arrays."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cascadeclip.errors import InputError
from cascadeclip.files import check_file

logger = logging.getLogger(__name__)

ORIENTATION = 0x0112  # EXIF's number for how a picture was held


def read_image(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Any accepted image as (H, W, 3) uint8 RGB, turned as its EXIF says; transparency lies on white.

    Raises:
        InputError: no image, a damaged or too large one, an array of another shape or type, or numbers that are no
            brightness.
    """
    if isinstance(image, str | Path):
        path = check_file(image, "image")
        try:
            with Image.open(path) as file:
                file.load()
                return _rgb(file, str(path))
        except Image.DecompressionBombError as error:
            raise InputError(f"{path} is too large ({error}); make it smaller") from error
        except InputError:
            raise
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path} is no image or a damaged one ({error}); convert it to PNG or JPEG") from error
    if isinstance(image, Image.Image):
        return _rgb(image, "the image")
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"an image array must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; "
            "for floats in 0..1 use (255 * array).round().astype('uint8'), for anything else give a PIL image"
        )
    return image


def _rgb(image: Image.Image, source: str) -> np.ndarray:
    """The pixels, copied no more often than they have to be."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image), source))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


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
