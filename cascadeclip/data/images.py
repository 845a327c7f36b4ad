"""Pictures from files and arrays."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cascadeclip.errors import InputError


def read_image(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Any accepted image as (H, W, 3) uint8 RGB, turned as its EXIF says; transparency lies on white."""
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file():
            raise InputError(f"no image at {path}" + (": that is a folder" if path.is_dir() else ""))
        try:
            with Image.open(path) as file:
                file.load()
                return _rgb(file)
        except Image.DecompressionBombError as error:
            raise InputError(f"{path} is too large ({error}); make it smaller") from error
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise InputError(f"{path} is no image or a damaged one ({error}); convert it to PNG or JPEG") from error
    if isinstance(image, Image.Image):
        return _rgb(image)
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"an image array must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; "
            "for floats in 0..1 use (255 * array).round().astype('uint8'), for anything else give a PIL image"
        )
    return image


def _rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float greys
        grey = np.asarray(image, dtype=np.float64)
        top = 65535 if grey.max() > 255 else 255
        image = Image.fromarray((grey / top * 255).clip(0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
