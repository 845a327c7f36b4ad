"""Coarse scores read at the size of labels or of a large picture, band by band: the resized scores never exist at once.

Symbols: B pictures, C classes, h x w the size of the scores.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.schema import Count, checked

BAND_VALUES = 2**22  # scores that are resized at once, 16 MB in float32: what a processor has at hand


@checked(size=Sequence[Count])
def argmax_at(scores: Tensor, size: Sequence[int]) -> Tensor:
    """The class with the highest score after bilinear resizing to `size`: (B, C, h, w) -> (B, *size) int32.

    Done in bands of rows, so that the resized scores, gigabytes for a large picture and many classes, never exist. On a
    CPU, of each band only the classes are resized that can be the highest somewhere in it, which are few; a GPU resizes
    all sooner than the CPU is told which.
    """
    found = torch.empty(len(scores), *size, dtype=torch.int32, device=scores.device)
    possible = _can_be_highest(scores) if scores.device.type == "cpu" else None
    per_row = scores.shape[2] / size[0]
    for rows in _bands(scores, size):
        if possible is None:
            found[:, rows] = _rows_at(scores, size, rows).max(1).indices  # as argmax, which is much slower on a CPU
            continue
        cells = slice(max(int((rows.start - 0.5) * per_row) - 1, 0), int((rows.stop + 0.5) * per_row) + 1)
        classes = possible[:, cells].any(1).nonzero()[:, 0]
        found[:, rows] = classes[_rows_at(scores[:, classes], size, rows).max(1).indices]
    return found


def _can_be_highest(scores: Tensor) -> Tensor:
    """Which classes can be the highest in a row of cells, once (B, C, h, w) is resized: (C, rows of cells) bool.

    A cell is what four neighbours, or fewer at an edge, span. A score in it lies between their lowest and their highest
    score, so that a class whose highest is below another's lowest is not the highest there.
    """
    highest = lowest = scores
    for side in (2, 3):
        if (length := scores.shape[side]) > 1:
            highest, lowest = (
                better(values.narrow(side, 0, length - 1), values.narrow(side, 1, length - 1))
                for better, values in ((torch.maximum, highest), (torch.minimum, lowest))
            )
    rounding = 1e-5 * scores.abs().amax()
    return (~(highest < lowest.amax(1, keepdim=True) - rounding)).any(3).any(0)


def bands_at(scores: Tensor, size: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
    """Scores (B, C, h, w) after bilinear resizing to `size`, a band of rows at a time.

    Yields:
        which rows, and their scores (B, C, rows, width): at most `BAND_VALUES` numbers, or one row.
    """
    for rows in _bands(scores, size):
        yield rows, _rows_at(scores, size, rows)


def _bands(scores: Tensor, size: Sequence[int]) -> Iterator[slice]:
    height, width = size
    band = max(1, BAND_VALUES // (scores.shape[0] * scores.shape[1] * width))
    return (slice(start, min(start + band, height)) for start in range(0, height, band))


def _rows_at(scores: Tensor, size: Sequence[int], rows: slice) -> Tensor:
    """Some rows of what bilinear resizing to `size` makes of scores."""
    (height, width), length = size, scores.shape[2]
    if tuple(scores.shape[2:]) == (height, width):
        return scores[:, :, rows]
    place = torch.arange(rows.start, rows.stop, dtype=torch.float32, device=scores.device)
    place = (place + 0.5) * length / height - 0.5
    above = place.clamp(min=0).floor().long()
    below = (above + 1).clamp(max=length - 1)
    weight = (place.clamp(min=0) - above).to(scores.dtype)[:, None]
    lines = torch.lerp(scores[:, :, above], scores[:, :, below], weight)
    return F.interpolate(lines, (lines.shape[2], width), mode="bilinear", align_corners=False)
