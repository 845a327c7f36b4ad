"""A description of own data, `own.json`, begun from what lies in a folder."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cascadeclip.data.folders import IMAGE_SUFFIXES, STEM, find_pairs, walked
from cascadeclip.data.labels import open_mask
from cascadeclip.errors import InputError
from cascadeclip.files import is_file, listed

LOOKED_AT = 5  # files of a folder that tell whether it holds pictures or masks
MASKS_READ = 200  # whose numbers are collected
MOST_COLOURS = 512  # of a picture in colours that may be a mask
PIXELS_PER_COLOUR = 16  # at least, in a mask
VALIDATION = re.compile(r"(^|[^a-z])(val|valid|validation)([^a-z]|\d|$)", re.IGNORECASE)


@dataclass(frozen=True)
class _Match:
    """A folder of pictures with a folder of masks, and what a mask is called."""

    images: Path
    masks: Path
    mask_name: str
    count: int


def describe_folder(folder: str | Path) -> dict[str, Any]:
    """Arguments of `own_preset` for what lies in a folder, its paths relative to it; the words are to be edited.

    Raises:
        InputError: no folder, or no pictures with masks in it.
    """
    folder = Path(folder)
    matches = _matches(folder)
    if not matches:
        raise InputError(
            f"no pictures with masks in {folder}: a mask is a PNG of one number or one colour per class, whose name "
            "holds the picture's"
        )
    train = [match for match in matches if not VALIDATION.search(str(match.images.relative_to(folder)))]
    best = max(train or matches, key=lambda match: match.count)
    described: dict[str, Any] = {"images": _relative(best.images, folder), "masks": _relative(best.masks, folder)}
    if best.mask_name != f"{STEM}.png":
        described["mask_name"] = best.mask_name
    held_out = [match for match in matches if match not in train and match.mask_name == best.mask_name]
    if held_out and train:
        val = max(held_out, key=lambda match: match.count)
        described |= {"val_images": _relative(val.images, folder), "val_masks": _relative(val.masks, folder)}
    else:
        described["val_share"] = 0.1
    values, ignored = _values(best)
    return described | {"values": values, "ignored": ignored, "unseen": []}


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _matches(folder: Path) -> list[_Match]:
    """Every pair of folders below that holds pictures and masks of the same names."""
    some = {path: first for path, files in walked(folder) if (first := _some(files))}
    pictures = [path for path, files in some.items() if any(not _may_be_mask(file) for file in files)]
    masks = [path for path, files in some.items() if any(_may_be_mask(file) for file in files)]
    found = []
    for images in pictures:
        for other in masks:
            for name in _mask_names(some[images], other):
                pairs = find_pairs(images, other, mask_name=name, deep=False).pairs
                if pairs and _may_be_mask(pairs[0][1]):
                    found.append(_Match(images, other, name, len(pairs)))
    best: dict[Path, _Match] = {}
    for match in found:  # of several names of masks, the one that fits most pictures
        if match.count > best.get(match.images, match).count or match.images not in best:
            best[match.images] = match
    return list(best.values())


def _some(files: Sequence[Path]) -> list[Path]:
    """The first pictures among a folder's files."""
    pictures = (path for path in sorted(files) if path.suffix.lower() in IMAGE_SUFFIXES)
    return list(islice((path for path in pictures if not path.name.startswith(".") and is_file(path)), 2 * LOOKED_AT))


def _may_be_mask(path: Path) -> bool:
    """Whether a file holds one number per pixel, or few colours."""
    try:
        with Image.open(path) as file:
            if file.format == "JPEG":
                return False
            if file.mode in ("1", "L", "P") or file.mode.startswith("I"):
                return True
            return file.mode in ("RGB", "RGBA") and _has_few_colours(file)
    except (OSError, SyntaxError, ValueError):
        return False


def _has_few_colours(picture: Image.Image) -> bool:
    most = min(MOST_COLOURS, picture.width * picture.height // PIXELS_PER_COLOUR)
    return picture.convert("RGB").getcolors(max(most, 1)) is not None


def _mask_names(pictures: Sequence[Path], masks: Path) -> list[str]:
    """What masks may be called, from files whose names hold a picture's: "a_mask.png" beside "a.jpg"."""
    stems = sorted({path.stem for path in pictures}, key=len)
    names = {path.name for path in listed(masks) if path.suffix.lower() == ".png"}
    found = Counter(name.replace(stem, STEM, 1) for stem in stems for name in names if stem in name)
    return [pattern for pattern, _ in found.most_common(3)]


def _values(match: _Match) -> tuple[dict[str, str], list[int]]:
    """The numbers or colours of masks, each with a word to be edited; 255 and 0 count as none where that is usual."""
    pairs = find_pairs(match.images, match.masks, mask_name=match.mask_name, deep=False).pairs
    in_colours, found = _in_colours(pairs[0][1]), set()
    for _, path in pairs[:: max(1, len(pairs) // MASKS_READ)]:
        pixels = open_mask(path, colours=in_colours)
        found |= set(map(tuple, np.unique(pixels.reshape(-1, 3), axis=0).tolist())) if in_colours else set(
            np.unique(pixels).astype(int).tolist()
        )  # fmt: skip
    if in_colours:
        return {" ".join(map(str, one)): f"class {' '.join(map(str, one))}" for one in sorted(found)}, []
    ignored = [number for number in (255, 65_535) if number in found]
    return {str(number): f"class {number}" for number in sorted(found - set(ignored))}, ignored


def _in_colours(path: Path) -> bool:
    with Image.open(path) as file:
        return file.mode in ("RGB", "RGBA")
