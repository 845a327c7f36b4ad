"""Scores refined along a picture's edges, for whoever segments.

Symbols: B images of H x W px, C classes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.errors import InputError
from cascadeclip.schema import checked

MOST_ITERATIONS = 1000  # papers take 10; after so many, masks have long stopped to change
AT_ONCE = 2**24  # values that are held beside the scores at once


@torch.inference_mode()
@checked(iterations=int, dilations=Sequence[int])
def pamr(images: Tensor, masks: Tensor, iterations: int = 10, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020, arXiv 2005.08104).

    Formula: masks are replaced `iterations` times by m(p) <- sum_q a(p, q) m(q), over the eight neighbours q of pixel p
    at each distance of
    `dilations`. a(p, .) is a softmax over them of the mean over the colours of
    -|I(p) - I(q)| / (0.1 s(p) + 1e-8), where s(p) is the standard deviation of the colour over p, once per distance,
    and all q. The picture's edge is repeated beyond it.

    Memory besides the result: as many values per pixel as there are neighbours, and `AT_ONCE` values; classes are
    refined a few at a time.

    Args:
        images: (B, 3, H, W) float, normalised.
        masks: (B, C, h, w) float, brought to the pictures' size first.

    Returns:
        (B, C, H, W) float32.

    Raises:
        InputError: less than one iteration or more than `MOST_ITERATIONS`, no dilations, or any below 1.
    """
    if not 1 <= iterations <= MOST_ITERATIONS or not dilations or min(dilations) < 1:
        raise InputError(
            f"pamr={iterations} iterations at distances of {tuple(dilations)} px: give at least 1 of each, and at most "
            f"{MOST_ITERATIONS} iterations"
        )
    weights = _affinities(images.float(), dilations)
    masks = F.interpolate(masks.float(), images.shape[2:], mode="bilinear", align_corners=True)
    step = max(1, AT_ONCE // masks[:, 0].numel())
    for start in range(0, masks.shape[1], step):
        part = masks[:, start : start + step]
        for _ in range(iterations):
            part = sum(w * m for w, m in zip(weights, _neighbours(part, dilations), strict=True))
        masks[:, start : start + step] = part
    return masks


def _affinities(images: Tensor, dilations: Sequence[int]) -> Tensor:
    """a(p, q) for each neighbour q: (8 x dilations, B, 1, H, W); they sum to 1 over the first."""
    count, total, squares = 9 * len(dilations), torch.zeros_like(images), torch.zeros_like(images)
    for q in _neighbours(images, dilations):  # moments around the pixel itself, which loses no digits in flat areas
        total, squares = total + (q - images), squares + (q - images) ** 2
    deviation = ((squares - total**2 / count).clamp(min=0) / (count - 1)).sqrt()
    scale = 1e-8 + 0.1 * deviation
    logits = [-((images - q).abs() / scale).mean(1, keepdim=True) for q in _neighbours(images, dilations)]
    return torch.stack(logits).softmax(0)


def _neighbours(values: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Each pixel's eight neighbours at every distance, as maps of the same shape (B, K, H, W)."""
    height, width = values.shape[2:]
    for distance in dilations:
        padded = F.pad(values, (distance,) * 4, mode="replicate")
        for down in (0, distance, 2 * distance):
            for right in (0, distance, 2 * distance):
                if (down, right) != (distance, distance):
                    yield padded[:, :, down : down + height, right : right + width]
