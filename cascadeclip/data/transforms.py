"""Pixels to tensors. One normalisation for both worlds: ImageNet's mean and deviation, as the authors trained with."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from cascadeclip.data.distortion import draw_change
from cascadeclip.schema import Count, checked

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
BAND_PIXELS = 2**22  # of a picture that are floats at once, 50 MB
LONGEST = 4  # a picture's long side goes through the model at most this many times as long as its short side
MEAN_COLOUR = tuple(round(255 * value) for value in IMAGE_MEAN)  # becomes 0 when normalised


def normalise(images: Tensor, mean: Sequence[float] = IMAGE_MEAN, std: Sequence[float] = IMAGE_STD) -> Tensor:
    """(..., 3, H, W) uint8 or float 0..255 -> float32 of the same shape: with mean 0 and deviation 1 per channel, where
    the pictures have these `mean` and `std` (of 0..1); ImageNet's by default."""
    middle, spread = (_by_channel(values, images.device) for values in (mean, std))
    return (images.float() / 255 - middle) / spread


def _by_channel(values: Sequence[float], device: torch.device) -> Tensor:
    """(3, 1, 1) float32, filled in on the device: a list would have to be waited for on its way to a GPU."""
    return torch.cat([torch.full((1, 1, 1), value, dtype=torch.float32, device=device) for value in values])


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 array -> (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def resized(image: np.ndarray, rows: int, columns: int) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, rows, columns) float32 in 0..255, bilinearly with antialiasing.

    First every row, a band of rows at a time, then every column: the same numbers as at once, without a float copy of a
    large picture.
    """
    band = max(1, BAND_PIXELS // image.shape[1])
    bilinear = partial(interpolate, mode="bilinear", align_corners=False, antialias=True)
    bands = (to_tensor(image[start : start + band])[None].float() for start in range(0, len(image), band))
    lines = torch.cat([bilinear(part, (part.shape[2], columns)) for part in bands], dim=2)
    return bilinear(lines, (rows, columns))


@checked(height=Count, width=Count, side=Count)
def working_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns at which a picture goes through the model: short side = `side`, long side at most LONGEST x."""
    scale = side / min(height, width)
    longest = LONGEST * side
    rows, columns = (max(side, min(round(length * scale), longest)) for length in (height, width))
    return rows, columns


class ToWorkingSize:
    """The picture at the size it goes through the model; the labels keep theirs, scores are read at it."""

    @checked(side=Count)
    def __init__(self, side: int):
        self.side = side

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W) uint8 -> (3, h, w) uint8 with a short side of `side`; labels (H, W) as they are."""
        size = working_size(image.shape[1], image.shape[2], self.side)
        return F.resize(image, list(size), antialias=False), labels  # the authors' resize has no antialiasing


class Augment:
    """A random square of a training picture, as the authors cut it: resize, crop, flip, pad; and how its colours are to
    change, which is done later, to a whole batch (`distortion.distort`).

    Short side `side` and long side at most 4 x `side`, both times a number from 0.5 to 2; of up to ten crops the first
    in which no class covers more than 3/4 of the labelled pixels; mirrored in one half of the cases; brightness,
    contrast, saturation and hue changed in one half each. What is missing to the square is filled with the mean colour
    and with ignored pixels. Brightness is a factor here (0.87 to 1.13) where the authors add -32 to 32.
    """

    SCALES, MOST_OF_ONE, TRIES = (0.5, 2.0), 0.75, 10

    @checked(side=Count, ignore=int)
    def __init__(self, side: int, ignore: int):
        self.side, self.ignore = side, ignore

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(3, H, W) uint8 and (H, W) int -> (3, side, side), (side, side), and the change of colours (6,) float32.

        Draws from torch's global state. The picture is resized as a whole before it is cropped: that takes less time
        than to compute the pixels of a crop at the places that they have in the whole.
        """
        size = self._size(*image.shape[1:])
        top, left, labels = self._crop(size, labels)
        image = F.resize(image, list(size), antialias=False)[:, top : top + self.side, left : left + self.side]
        change = draw_change(*image.shape[1:])
        if torch.rand(()) < 0.5:
            image, labels = image.flip(2), labels.flip(1)
        padding = [0, 0, self.side - image.shape[2], self.side - image.shape[1]]  # left, top, right, bottom
        image, labels = (
            F.pad(image, padding, fill=list(MEAN_COLOUR)),
            F.pad(labels[None], padding, fill=self.ignore)[0],
        )
        return image, labels, change

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that a picture is resized to."""
        ratio = torch.empty(()).uniform_(*self.SCALES).item()
        short, long = int(self.side * ratio), int(LONGEST * self.side * ratio)
        scale = min(short / min(height, width), long / max(height, width))
        rows, columns = (max(1, int(length * scale + 0.5)) for length in (height, width))
        return rows, columns

    def _crop(self, size: tuple[int, int], labels: Tensor) -> tuple[int, int, Tensor]:
        """Where the crop starts in a picture of this size, and its labels; those outside of it are never resized."""
        rows, columns = (_nearest(old, new) for old, new in zip(labels.shape, size, strict=True))
        given = labels.numpy()
        for _ in range(self.TRIES):
            top, left = (torch.randint(max(length - self.side, 0) + 1, ()).item() for length in size)
            part = given[rows[top : top + self.side]][:, columns[left : left + self.side]]
            found = np.bincount(part.ravel(), minlength=self.ignore + 1)
            found[self.ignore] = 0
            if (found > 0).sum() > 1 and found.max() < self.MOST_OF_ONE * found.sum():
                break
        return int(top), int(left), torch.from_numpy(part)


def _nearest(old: int, new: int) -> np.ndarray:
    """(new,) which of `old` pixels in a row each of `new` ones takes its label from."""
    places = torch.arange(old, dtype=torch.float32)[None, None]
    return interpolate(places, new, mode="nearest").flatten().long().numpy()
