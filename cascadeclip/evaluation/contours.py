"""Boundary F: how much of the contours between masks is drawn where it belongs.

Symbols: n pictures of H x W px.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.data.labels import IGNORE
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import boundary_width


def contour_counts(predicted: Tensor, labels: Tensor, width: int | None = None, ignored: int = IGNORE) -> Tensor:
    """Pixels of contours, per picture: (4, n) float64, what `contour_f` takes.

    A pixel is on a contour if the one right of it or below it is of another class (Csurka et al., BMVC 2013, without
    telling classes apart). A contour pixel is matched if the other segmentation has one in the square of side
    2 width + 1 around it. Contours within that reach of ignored pixels count nowhere.

    Args:
        predicted, labels: (n, H, W) integer; labels may hold `ignored`.
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
    counted = ~_near(labels == ignored, width)
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
