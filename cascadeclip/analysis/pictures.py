"""Pictures to look at, and pictures as a CLIP tower reads them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis.lenses import Tower
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.images import read_image
from cascadeclip.data.transforms import LONGEST, normalise, to_tensor, working_size
from cascadeclip.errors import InputError
from cascadeclip.schema import Count, checked


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to explore. Two of them are equal only if they are the same object.

    Attributes:
        title: for people.
        image: (H, W, 3) uint8.
        words: to start with.
        labels: (H, W) integer, the truth as indices into the world's class names, or 255; None if nobody knows.
    """

    title: str
    image: np.ndarray
    words: tuple[str, ...] = ()
    labels: np.ndarray | None = None


@checked(count=Count)
def scene_pictures(count: int = 24, split: str = "test") -> list[Picture]:
    """The first scenes of a fixed set of EmojiScenes; labels are indices into `CLASSES`."""
    scenes = EmojiScenes.split(split)
    found = [(index, scenes[index]) for index in range(count)]
    return [Picture(f"{i}: {', '.join(s.things)}", s.image, s.things + s.stuff, s.labels) for i, s in found]


@checked(longest=Count)
def picture_from_file(name: str, content: bytes, longest: int = 1024) -> Picture:
    """A picture from the content of an image file, as a browser sends it; brought down to `longest` px.

    Raises:
        InputError: no image, a damaged one, one too large to open, or one too long to be read as it is.
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            file.load()
            whole = Image.fromarray(read_image(file))
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large ({error}); make it smaller") from error
    except UnidentifiedImageError as error:  # its own message names an object in memory
        raise InputError(f"{name} is no image of a known kind; convert it to PNG or JPEG") from error
    except (OSError, SyntaxError) as error:
        raise InputError(f"{name} is no image or a damaged one ({error}); convert it to PNG or JPEG") from error
    if max(whole.size) > LONGEST * min(whole.size):
        size = f"{whole.width} x {whole.height} px"
        raise InputError(f"{name} has {size}, one side more than {LONGEST} times the other: cut a piece out of it")
    whole.thumbnail((longest, longest))
    return Picture(f"yours: {name}", np.asarray(whole))


def to_batch(image: np.ndarray, visual: Tower) -> Tensor:
    """A picture (H, W, 3) uint8 as the tower reads it: (1, 3, h, w) float32, normalised, on the tower's device.

    Its short side is the tower's picture size; the long one is cut down to whole patches.
    """
    side, patch = visual.image_size[0], visual.patch_size[0]
    size = [length // patch * patch for length in working_size(image.shape[0], image.shape[1], side)]
    pixels = to_tensor(image)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return normalise(pixels).to(visual.proj.device)


def one_batch(images: Sequence[np.ndarray], visual: Tower) -> Tensor:
    """Pictures together, (n, 3, h, w); an `InputError` if there are none or they come out at several sizes."""
    batches = [to_batch(image, visual) for image in images]
    sizes = sorted({tuple(batch.shape[2:]) for batch in batches})
    if len(sizes) != 1:
        raise InputError(f"pictures of the sizes {sizes}: give at least one picture, and all of one size")
    return torch.cat(batches)


def grid_of(batch: Tensor, visual: Tower) -> tuple[int, int]:
    """(h, w), rows and columns of patches."""
    return tuple(side // patch for side, patch in zip(batch.shape[2:], visual.patch_size, strict=True))
