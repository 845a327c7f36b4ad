"""Own data looked through: every picture and mask is read, counted by class, and what is wrong or left out is said."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cascadeclip.data.folders import FolderDataset, Found
from cascadeclip.data.prepare.verifying import in_parallel
from cascadeclip.errors import InputError

SHOWN = 5  # files named per kind of problem


@dataclass
class SplitCheck:
    """What was found of one split.

    Attributes:
        found: the pictures with masks, and what was left out.
        pixels: (C,) int64, pixels of each class.
        masks_with: (C,) int64, masks that hold it.
        unlabelled: pixels of no class.
        sizes: (width, height) -> pictures of that size.
        damaged: what is wrong with files that cannot be used.
    """

    found: Found
    pixels: np.ndarray
    masks_with: np.ndarray
    unlabelled: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)


def check_split(data: FolderDataset, classes: int, *, jobs: int = 4, limit: int | None = None) -> SplitCheck:
    """Read the pictures and masks of a split (the first `limit`), on `jobs` threads."""
    none = np.zeros(classes, dtype=np.int64)
    check = SplitCheck(data.found, pixels=none, masks_with=none.copy())

    def read(index: int) -> tuple[tuple[int, int], np.ndarray, int] | str:
        try:
            image, labels = data.read(index)
        except InputError as error:
            return str(error)
        own = labels[labels != data.label_map.ignore]
        return (image.shape[1], image.shape[0]), np.bincount(own, minlength=classes), labels.size - own.size

    indices = range(len(data) if limit is None else min(limit, len(data)))
    for result in in_parallel(read, indices, jobs, "reading"):
        if isinstance(result, str):
            check.damaged.append(result)
        else:
            size, pixels, unlabelled = result
            check.sizes[size] += 1
            check.pixels += pixels
            check.masks_with += pixels > 0
            check.unlabelled += unlabelled
    return check


def report(checks: dict[str, SplitCheck], names: Sequence[str], unseen: Sequence[str], *, by_share: bool) -> list[str]:
    """Lines for people: pictures, sizes, pixel shares of the classes, and what to look at.

    Args:
        checks: by split, `train` and `val`.
        by_share: whether the split was drawn, rather than given.
    """
    lines = []
    for split, check in checks.items():
        how = ", a share of the pictures" if by_share else ""
        lines.append(f"{split}{how}: {check.found}")
        if check.sizes:
            (small, large), ((width, height), most) = _extremes(check.sizes), check.sizes.most_common(1)[0]
            lines.append(f"  sizes from {small} to {large} px; {most:,} of {width} x {height}")
    lines += ["", f"{'class':<28}" + "".join(f"{split + ' pixels':>16}{'masks':>9}" for split in checks)]
    for index, name in enumerate(names):
        row = f"{name + (' (unseen)' if name in unseen else ''):<28}"
        for check in checks.values():
            row += f"{_share(check.pixels[index], check):>16}{check.masks_with[index]:>9,}"
        lines.append(row)
    none = "".join(f"{_share(check.unlabelled, check):>16}{'':>9}" for check in checks.values())
    return [*lines, f"{'of no class':<28}{none}", "", *_warnings(checks, names, unseen)]


def _extremes(sizes: Counter[tuple[int, int]]) -> tuple[str, str]:
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    small, large = (f"{width} x {height}" for width, height in (ordered[0], ordered[-1]))
    return small, large


def _share(pixels: int, check: SplitCheck) -> str:
    total = int(check.pixels.sum()) + check.unlabelled
    return f"{100 * int(pixels) / total:.2f} %" if total else "-"


def _warnings(checks: dict[str, SplitCheck], names: Sequence[str], unseen: Sequence[str]) -> list[str]:
    lines = []
    for split, check in checks.items():
        absent = [name for name, masks in zip(names, check.masks_with, strict=True) if not masks]
        if absent and check.sizes:
            lines.append(f"WARNING {split}: in no mask: {_first(absent, ', ')}")
        if check.damaged:
            lines.append(f"PROBLEM {split}: {len(check.damaged)} cannot be used: {_first(check.damaged, '; ')}")
    pictures = [{os.path.realpath(picture) for picture, _ in check.found.pairs} for check in checks.values()]
    if len(pictures) == 2 and (both := pictures[0] & pictures[1]):
        lines.append(f"WARNING {len(both):,} pictures are trained on and evaluated on: scores will be too high")
    if not unseen:
        lines.append("WARNING no class is unseen: nothing is zero-shot; name some as unseen")
    return lines


def _first(texts: Sequence[str], between: str) -> str:
    return between.join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN:,} more" if len(texts) > SHOWN else "")
