"""The rims of masks, and Boundary F: how much of the contours between masks is drawn where it belongs.

Symbols: n pictures of H x W px.
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.data.labels import ignored_label, wide_labels
from cascadeclip.errors import InputError
from cascadeclip.schema import Count, Range, checked


@checked(height=Count, width=Count, ratio=Annotated[float, Range(0, 1)])
def boundary_width(height: int, width: int, ratio: float = 0.02) -> int:
    """d in px: `ratio` times the picture's diagonal, rounded, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


@checked(width=int)
def rim(maps: Tensor, width: int, frame: bool = True) -> Tensor:
    """Pixels of each mask within `width` px of its contour, for all masks of a segmentation at once.

    A pixel is in its mask's rim if the square of side 2 width + 1 around it holds another class or, with `frame`,
    leaves the picture: what `width` erosions by 3 x 3 pixels take away.

    Args:
        maps: (n, H, W) integer.
        width: px.
        frame: the picture's edge counts as contour, as in the code of Boundary IoU's paper. A mask that is cut off
            there has a rim along the cut, which every segmentation finds; without, only what lies between two masks
            counts, and a picture of one class has no rim at all.

    Returns:
        (n, H, W) bool.

    Raises:
        InputError: a width below 1 px.
    """
    if width < 1:
        raise InputError(f"boundary width={width} px must be at least 1")
    values, side, beyond = maps[:, None].float(), 2 * width + 1, width
    if frame:
        values, beyond = F.pad(values, (width,) * 4, value=-1.0), 0  # -1 is no class: beyond the picture

    def largest(values: Tensor) -> Tensor:  # columns, then rows; padding never wins
        columns = F.max_pool2d(values, (side, 1), stride=1, padding=(beyond, 0))
        return F.max_pool2d(columns, (1, side), stride=1, padding=(0, beyond))

    return (largest(values) != -largest(-values))[:, 0]


@checked(classes=Count, width=int | None)
def contour_counts(predicted: Tensor, labels: Tensor, classes: int, width: int | None = None) -> Tensor:
    """Pixels of contours, per picture: (4, n) float64, what `contour_f` takes.

    A pixel is on a contour if the one right of it or below it is of another class (Csurka et al., BMVC 2013, without
    telling classes apart). A contour pixel is matched if the other segmentation has one in the square of side
    2 width + 1 around it. Contours within that reach of ignored pixels count nowhere.

    Args:
        predicted, labels: (n, H, W) integer; labels may hold the label of ignored pixels.
        classes: how many there are, which says what that label is.
        width: px; None takes 2 % of the picture's diagonal, at least 1.

    Returns:
        found and matched, found, true and matched, true.

    Raises:
        InputError: two shapes, not (n, H, W), or a width below 1.
    """
    if predicted.shape != labels.shape or labels.ndim != 3:
        raise InputError(f"predicted {tuple(predicted.shape)}, labels {tuple(labels.shape)}: expected one (n, H, W)")
    width = boundary_width(*labels.shape[1:]) if width is None else width
    if width < 1:
        raise InputError(f"contour width={width} px must be at least 1")
    counted = ~_near(wide_labels(labels) == ignored_label(classes), width)
    found, true = (_contours(maps) & counted for maps in (predicted, labels))
    parts = (found & _near(true, width), found, true & _near(found, width), true)
    return torch.stack([part.flatten(1).sum(1).double() for part in parts])


def contour_f(counts: Tensor) -> float:
    """F = 2 P R / (P + R) from `contour_counts` summed over the pictures; nan without any true contour."""
    found_right, found, true_right, true = counts.sum(-1).tolist()
    if true == 0:
        return float("nan")
    precision, recall = found_right / found if found else 0.0, true_right / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _contours(maps: Tensor) -> Tensor:
    """(n, H, W) integer -> (n, H, W) bool."""
    edge = torch.zeros_like(maps, dtype=torch.bool)
    edge[:, :, :-1] |= maps[:, :, :-1] != maps[:, :, 1:]
    edge[:, :-1] |= maps[:, :-1] != maps[:, 1:]
    return edge


def _near(where: Tensor, width: int) -> Tensor:
    """Pixels with one of `where` in the square of side 2 width + 1 around them."""
    return F.max_pool2d(where[:, None].float(), 2 * width + 1, stride=1, padding=width)[:, 0] > 0
