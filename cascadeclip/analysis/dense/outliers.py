"""Patches that do not fit their picture: found by local density, filled from their neighbours.

Symbols: B images, N = h * w patches, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def local_outliers(patches: Tensor, neighbours: int = 30, share: float = 0.05) -> Tensor:
    """The patches that lie loneliest among the tokens of their picture: (B, N, D) -> (B, N) bool.

    The local outlier factor (Breunig et al. 2000) in the short form that SC-CLIP's code has: with r(i) the squared
    distance from token i to its `neighbours`-th nearest, LOF(i) = r(i) * mean of 1 / r(j) over those neighbours j. A
    `share` of the patches, those with the largest factor, are outliers.

    In a picture of no more than `neighbours` patches, all others are neighbours.
    """
    count = min(neighbours, patches.shape[1] - 1)
    if count < 1:
        return torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
    patches = patches.float()
    squared = torch.cdist(patches, patches, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    distance, index = squared.topk(count + 1, largest=False)  # the nearest one is the patch itself
    radius, index = distance[..., -1].clamp(min=1e-12), index[..., 1:]
    of_neighbours = radius.gather(1, index.flatten(1)).view_as(index)
    factor = radius * (1 / of_neighbours).mean(-1)
    return factor > factor.quantile(1 - share, dim=1, keepdim=True)


def fill_from_neighbours(
    patches: Tensor, outlier: Tensor, grid: tuple[int, int], otherwise: Tensor | None = None
) -> Tensor:
    """Outliers become the mean of their up to eight neighbours in the picture that are none: (B, N, D) -> (B, N, D).

    Args:
        outlier: (B, N) bool.
        grid: (h, w) with N = h * w.
        otherwise: what an outlier among outliers becomes, (B, 1, D); None leaves it.
    """
    good = (~outlier)[..., None].to(patches.dtype)  # an outlier itself adds nothing to its neighbourhood
    total, count = (_sum_of_neighbours(part, grid) for part in (patches * good, good))
    filled = torch.where(count > 0, total / count.clamp(min=1), patches if otherwise is None else otherwise)
    return torch.where(outlier[..., None], filled, patches)


def _sum_of_neighbours(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, K) -> the sum over each patch's eight neighbours inside the picture, and itself: (B, N, K)."""
    (rows, columns), padded = grid, F.pad(values.unflatten(1, grid), (0, 0, 1, 1, 1, 1))
    shifts = [(down, right) for down in range(3) for right in range(3)]
    total = torch.zeros_like(values).unflatten(1, grid)
    for down, right in shifts:
        total += padded[:, down : down + rows, right : right + columns]
    return total.flatten(1, 2)
