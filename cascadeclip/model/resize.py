"""Bilinear resizing as products with two small matrices: on a CPU several times as fast as `F.interpolate`."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def bilinear_matrix(small: int, large: int, device: torch.device) -> Tensor:
    """Matrix (large, small) that brings one side of a picture from `small` to `large` pixels, as `F.interpolate`."""
    one = torch.eye(small, dtype=torch.float32, device=device)
    return F.interpolate(one[None], large, mode="linear", align_corners=False)[0].T


def bilinear(values: Tensor, size: Sequence[int]) -> Tensor:
    """(..., h, w) float32 -> (..., *size), as `F.interpolate(mode="bilinear", align_corners=False)`, in float32."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    rows, columns = (bilinear_matrix(n, m, values.device) for n, m in zip(values.shape[-2:], size, strict=True))
    with torch.autocast(values.device.type, enabled=False):
        return rows @ values @ columns.T
