"""Label maps: how the numbers or colours of a mask on disk become class indices. The one place where this happens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascadeclip.errors import InputError
from cascadeclip.files import check_file, open_file
from cascadeclip.schema import Natural, check_fields, checked

IGNORE = 255  # the label of pixels that belong to no class, as long as this is no class's index
WIDE_IGNORE = 65_535  # their label among more classes than a byte has numbers for
MOST = 65_535  # classes
LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")  # formats that change numbers, or may and do not say so
LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp", "jp2k")
SPREAD = {"L;2": 85, "L;4": 17}  # greys of 2 and 4 bits, which Pillow spreads over 0..255


@checked(classes=Natural)
def ignored_label(classes: int) -> int:
    """The label of pixels that belong to none of `classes` classes, whose indices are 0..classes - 1."""
    return IGNORE if classes <= IGNORE else WIDE_IGNORE


def wide_labels(labels: Tensor) -> Tensor:
    """Labels, integers of any shape and dtype, as they have to be before they are compared with a number: int32 or
    int64. PyTorch brings the number to the tensor's dtype: among bytes 65,535 would be 255, and 300 would be 44.
    """
    return labels if labels.dtype in (torch.int32, torch.int64) else labels.long()


@dataclass(frozen=True)
class LabelMap:
    """What the numbers of a label map mean.

    Attributes:
        classes: C, at most 65,535.
        first: number of class 0; 1 where 0 is a background that counts for nothing.
        ignored: numbers that belong to no class; None: 255 and 65,535, where they are no classes.
        numbers: the number of each class, where they do not count up from `first`.
        colours: the colour (red, green, blue) of each class, where masks are pictures in colours; an ignored number
            is then an ignored grey.
        others_ignored: everything that is no class belongs to none; otherwise it is an error.

    Raises:
        InputError: fields of other kinds, no or too many classes, a number or colour of two classes, or of a class and
            ignored at once.
    """

    classes: int
    first: int = 0
    ignored: tuple[int, ...] | None = None
    numbers: tuple[int, ...] | None = None
    colours: tuple[tuple[int, int, int], ...] | None = None
    others_ignored: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.classes <= MOST:
            raise InputError(f"{self.classes} classes do not fit into labels: at least 1 and at most {MOST:,}")
        values, most = self.values, 0xFFFFFF if self.colours else 0xFFFF
        if len(values) != self.classes:
            raise InputError(f"{len(values)} numbers or colours for {self.classes} classes: give every class one")
        outside = [value for value in (*values, *self.without_class) if not 0 <= value <= most]
        if outside:
            raise InputError(f"label numbers {_few(outside)} do not fit: a label map holds numbers from 0 to 65,535")
        if len(set(values)) < len(values):
            twice = sorted(value for value, times in Counter(values).items() if times > 1)
            raise InputError(f"label values {self._said(twice)} stand for two classes at once")
        both = sorted(set(self.without_class) & set(values))
        if both:
            raise InputError(f"label values {self._said(both)} are ignored and classes at once")

    @cached_property
    def values(self) -> list[int]:
        """Per class what stands for it on disk: a number, or red, green and blue as one number of 24 bits."""
        if self.colours is not None:
            return [red << 16 | green << 8 | blue for red, green, blue in self.colours]
        return list(range(self.first, self.first + self.classes) if self.numbers is None else self.numbers)

    @cached_property
    def without_class(self) -> tuple[int, ...]:
        """Values on disk that are ignored."""
        if self.ignored is None:
            return () if self.colours else tuple(v for v in (IGNORE, WIDE_IGNORE) if v not in set(self.values))
        return tuple(grey * 0x010101 for grey in self.ignored) if self.colours else tuple(self.ignored)

    @property
    def ignore(self) -> int:
        """The label of pixels that belong to no class."""
        return ignored_label(self.classes)

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """All values that have a meaning, ascending, and the label of each."""
        values = np.array([*self.values, *self.without_class], dtype=np.int64)
        labels = np.array([*range(self.classes), *[self.ignore] * len(self.without_class)], dtype=np.int32)
        order = values.argsort()
        return values[order], labels[order]

    @cached_property
    def _table(self) -> np.ndarray:
        """Label of every value of a small file, -1 for none: much faster than a search."""
        table = np.full(int(self._known[0].max()) + 1, -1, dtype=np.int32)
        table[self._known[0]] = self._known[1]
        return table

    def read(self, path: str | Path) -> np.ndarray:
        """(H, W) int32: class indices 0..C-1, or `ignore`.

        Raises:
            InputError: no picture, one that holds no numbers (or no colours, where colours are the classes), one that
                lossy compression has changed, or a value that is neither a class nor ignored.
        """
        return self.convert(open_mask(path, colours=self.colours is not None), str(path))

    def convert(self, values: np.ndarray, source: str) -> np.ndarray:
        """The same for an array (H, W) of integers or, with `colours`, (H, W, 3); `source` is named in the error."""
        values = values.astype(np.int64)
        if self.colours is not None:
            values = values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]
            labels = self._searched(values)
        elif values.size and values.min() >= 0 and values.max() < len(self._table):
            labels = self._table[values]
        else:
            labels = self._searched(values)
        strange = labels < 0
        if strange.any() and not self.others_ignored:
            found = np.unique(values[strange]).tolist()
            raise InputError(f"{source} holds the values {self._said(found)}; expected {self._expected()}")
        return np.where(strange, np.int32(self.ignore), labels) if strange.any() else labels

    def _searched(self, values: np.ndarray) -> np.ndarray:
        known, labels = self._known
        place = np.searchsorted(known, values).clip(max=len(known) - 1)
        return np.where(known[place] == values, labels[place], np.int32(-1))

    def _said(self, values: Sequence[int]) -> str:
        """Values as people write them, the first ten."""
        if self.colours is None:
            return _few(values)
        return _few([f"{value >> 16} {value >> 8 & 255} {value & 255}" for value in values])

    def _expected(self) -> str:
        values = self.values
        counting = self.colours is None and values == list(range(values[0], values[0] + len(values)))
        said = f"{values[0]}..{values[-1]}" if counting else self._said(values)
        ignored = self._said(self.without_class) if self.without_class else "none"
        return f"{said} for the {self.classes} classes, and for ignored pixels {ignored}"


def _few(values: Sequence[object], most: int = 10) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return f"[{', '.join(map(str, values[:most]))}]{more}"


def open_mask(path: str | Path, *, colours: bool = False) -> np.ndarray:
    """A mask as it lies on disk: (H, W) integers, the index for a palette, or (H, W, 3) uint8 with `colours`.

    Raises:
        InputError: no picture, no numbers, or compressed with loss.
    """
    path = check_file(path, "label map")
    try:
        with Image.open(path) as file:
            if kind := _lossy(file, path):
                raise InputError(f"{path} is a {kind}, which changes numbers and colours: save label maps as PNG")
            step = 1 if colours else spread_of(file)
            values = np.asarray(file.convert("RGB") if colours else file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read the label map {path}: {error}") from error
    if not colours and (values.ndim != 2 or values.dtype.kind not in "bui"):
        raise InputError(
            f"{path} is no label map: expected one number per pixel (PNG in greys or with a palette), found "
            f"{values.shape} {values.dtype}; if its colours are the classes, say which: "
            '"values": {"128 0 0": "aeroplane"}'
        )
    return values if step == 1 else values // step


def _lossy(file: Image.Image, path: Path) -> str | None:
    """The kind of a file that was compressed with loss, or may have been; None for all others."""
    inner = str(file.info.get("compression"))
    if file.format in LOSSY or (file.format == "TIFF" and inner in LOSSY_IN_TIFF):
        return str(file.format) if file.format in LOSSY else f"TIFF with {inner} inside"
    if file.format == "WEBP":
        with open_file(path, "label map") as content:
            return None if b"VP8L" in content.read(2**12) else "WEBP with loss"
    return None


def spread_of(file: Image.Image) -> int:
    """What Pillow multiplies the numbers of a file with that has fewer than 8 bits for each; before it is loaded."""
    for tile in getattr(file, "tile", ()):
        mode = tile[3] if isinstance(tile[3], str) else tile[3][0] if isinstance(tile[3], tuple) and tile[3] else None
        return SPREAD.get(mode, 1) if isinstance(mode, str) else 1
    return 1


def parsed_values(values: Mapping[object, str] | Sequence[Sequence[Any]]) -> tuple[list[str], dict[str, Any]]:
    """Class words and the `numbers` or `colours` of a `LabelMap` from what people write.

    Args:
        values: number or colour ("128 0 0", "#800000", (128, 0, 0)) -> class word, or pairs of the two.

    Raises:
        InputError: something else, or numbers and colours mixed.
    """
    try:
        pairs = [(key, word) for key, word in (values.items() if isinstance(values, Mapping) else values)]
    except (TypeError, ValueError) as error:
        raise InputError('values: give {"1": "person", "25": "giraffe"} or [[1, "person"], ...]') from error
    keys = [_parsed(key) for key, _ in pairs]
    if len({type(key) for key in keys}) > 1:
        raise InputError("values: either numbers or colours, not both")
    kind = "colours" if keys and isinstance(keys[0], tuple) else "numbers"
    return [word for _, word in pairs], {kind: tuple(keys)}


def _parsed(key: object) -> int | tuple[int, int, int]:
    text = key if isinstance(key, str) else " ".join(map(str, key)) if isinstance(key, list | tuple) else str(key)
    try:
        if text.startswith("#") and len(text) == 7:
            text = " ".join(map(str, bytes.fromhex(text[1:])))
        parts = [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        parts = []
    if len(parts) == 3 and all(0 <= part <= 255 for part in parts):
        return parts[0], parts[1], parts[2]
    if len(parts) != 1:
        raise InputError(f'values: {key!r} is neither a number nor a colour; write 25, "128 0 0" or "#800000"')
    return parts[0]


def positions_among(kept: Sequence[int]) -> np.ndarray:
    """A table (65,536,) int64 from label to position among the class indices `kept`; all others, and the label of
    ignored pixels, become the ignored label of so few classes."""
    table = np.full(WIDE_IGNORE + 1, ignored_label(len(kept)), dtype=np.int64)
    table[list(kept)] = np.arange(len(kept))
    return table
