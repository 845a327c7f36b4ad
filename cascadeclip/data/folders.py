"""Pictures and label maps in folders: the benchmarks' layouts on disk, or anybody's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cascadeclip.data.images import read_image
from cascadeclip.data.transforms import IGNORE, to_tensor
from cascadeclip.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class LabelMap:
    """How the values of a label map on disk become class indices: the one place where this happens.

    Attributes:
        classes: C.
        first: value of class 0; 1 where 0 is a background that counts for nothing.
        ignored: values that belong to no class; they become 255.

    Raises:
        InputError: a value that is a class and ignored at once, or values that do not fit into a byte.
    """

    classes: int
    first: int = 0
    ignored: tuple[int, ...] = (IGNORE,)

    def __post_init__(self):
        values = range(self.first, self.first + self.classes)
        if not self.classes or self.first < 0 or values[-1] >= IGNORE:
            raise InputError(f"{self.classes} classes from value {self.first} on do not fit into labels of 0..254")
        both = sorted(set(self.ignored) & set(values))
        if both:
            raise InputError(f"label values {both} are ignored and classes at once")

    def read(self, path: Path) -> np.ndarray:
        """(H, W) uint8: class indices 0..C-1, or 255.

        Raises:
            InputError: no picture, a picture in colours, or a value that is neither a class nor ignored.
        """
        try:
            with Image.open(path) as file:
                values = np.asarray(file)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"cannot read the label map {path}: {error}") from error
        if values.ndim != 2 or values.dtype.kind not in "bui":
            raise InputError(
                f"{path} is no label map: expected one number per pixel (PNG in greys or with a palette), "
                f"found {values.shape} {values.dtype}"
            )
        return self.convert(values, str(path))

    def convert(self, values: np.ndarray, source: str) -> np.ndarray:
        """The same for an array (H, W) of integers; `source` is named in the error."""
        table = np.full(256, -1, dtype=np.int16)
        table[list(self.ignored)] = IGNORE
        table[self.first : self.first + self.classes] = np.arange(self.classes)
        found = np.unique(values).astype(np.int64)
        strange = [value for value in found.tolist() if not 0 <= value <= 255 or table[value] < 0]
        if strange:
            raise InputError(
                f"{source} holds the values {strange[:10]}; expected {self.first}..{self.first + self.classes - 1} "
                f"for the {self.classes} classes, and for ignored pixels {list(self.ignored)}"
            )
        return table[values].astype(np.uint8)


class FolderDataset(Dataset):
    """Pictures with label maps.

    Args:
        pairs: picture and label map of every item.
        label_map: from values on disk to class indices.
        transform: (picture (3, H, W) uint8, labels (H, W) uint8) -> the same two kinds of tensors; None leaves them.

    Raises:
        InputError: no pairs; when read: a damaged picture, or sizes that differ.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        label_map: LabelMap,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ):
        if not pairs:
            raise InputError("a data set without a picture")
        self.pairs, self.label_map, self.transform = list(pairs), label_map, transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture, label_file = self.pairs[index]
        image, labels = read_image(picture), self.label_map.read(label_file)
        if image.shape[:2] != labels.shape:
            raise InputError(
                f"{picture} has {image.shape[1]} x {image.shape[0]} px, its label map {label_file} "
                f"{labels.shape[1]} x {labels.shape[0]}"
            )
        item = to_tensor(image), torch.from_numpy(labels)
        return item if self.transform is None else self.transform(*item)

    def source(self, index: int) -> str:
        """What item `index` was read from, for messages and for naming results."""
        return str(self.pairs[index][0])


def collate(items: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A batch of pictures of one size: (B, 3, H, W) uint8 and labels (B, H', W') uint8."""
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)


def matching_pairs(images: Path, labels: Path, label_suffix: str = ".png") -> list[tuple[Path, Path]]:
    """Every picture of a folder with the label map of the same name; sorted.

    Raises:
        InputError: a folder that is missing or holds no picture, or a picture without a label map.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"no folder {folder}")
    pictures = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        raise InputError(f"no picture ({', '.join(IMAGE_SUFFIXES)}) in {images}")
    pairs = [(path, labels / f"{path.stem}{label_suffix}") for path in pictures]
    return _existing(pairs)


def listed_pairs(
    listing: Path, images: Path, labels: Sequence[Path], label_suffix: str = ".png"
) -> list[tuple[Path, Path]]:
    """The pictures that a text file names, one stem per line; each label map from the first folder that has it.

    Raises:
        InputError: a missing or empty list, or a missing picture or label map.
    """
    if not listing.is_file():
        raise InputError(f"no list of pictures at {listing}")
    stems = [stem for line in listing.read_text().splitlines() if (stem := line.strip())]
    if not stems:
        raise InputError(f"{listing} names no picture")
    pairs = []
    for stem in stems:
        candidates = [folder / f"{stem}{label_suffix}" for folder in labels]
        pairs.append((images / f"{stem}.jpg", next((path for path in candidates if path.is_file()), candidates[0])))
    return _existing(pairs)


def _existing(pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    missing = [str(path) for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise InputError(f"{len(missing)} files are missing, the first of them {', '.join(missing[:3])}")
    return pairs
