"""Photometric distortion of training pictures: what changes is drawn picture by picture, and done to a whole batch on
its device, where it costs next to nothing. A CPU needs longer for the hue alone than for all else that a picture needs.

Symbols: B pictures, H rows, W columns.
"""

import torch
from torch import Tensor

from cascadeclip.schema import Count, checked

SHARE = 0.5  # of the pictures have a property changed, independently of the other properties
# Least and most of the factors of brightness, contrast and saturation, and of the turn of the hue, in whole turns.
RANGES = ((1 - 32 / 255, 1 + 32 / 255), (0.5, 1.5), (0.5, 1.5), (-0.1, 0.1))
UNCHANGED = (1.0, 1.0, 1.0, 0.0)
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in a grey, as torchvision weighs them


@checked(rows=Count, columns=Count)
def draw_change(rows: int, columns: int) -> Tensor:
    """What is to be done to one picture, (6,) float32: factors of brightness, contrast and saturation, turn of the hue,
    and the rows and columns that it is done to, from the upper left corner: the rest is padding.

    Draws from torch's global state, as crops do, so that it belongs to the picture, whoever reads it.
    """
    low, high = torch.tensor(RANGES).T
    drawn = torch.where(torch.rand(4) < SHARE, low + (high - low) * torch.rand(4), torch.tensor(UNCHANGED))
    return torch.cat([drawn, torch.tensor([rows, columns])])


def distort(images: Tensor, changes: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of a batch changed, in this order: what torchvision's `ColorJitter` does
    to one picture after another.

    Args:
        images: (B, 3, H, W) uint8.
        changes: (B, 6) float32 on the same device, one `draw_change` a picture.

    Returns:
        (B, 3, H, W) uint8.
    """
    brightness, contrast, saturation, turn = changes[:, :4, None, None, None].unbind(1)  # each (B, 1, 1, 1)
    rows, columns = changes[:, 4:, None].unbind(1)  # each (B, 1)
    height, width = (torch.arange(length, device=images.device) for length in images.shape[2:])
    inside = ((height < rows)[:, :, None] & (width < columns)[:, None, :])[:, None]  # (B, 1, H, W)
    x = (images.float() / 255 * brightness).clamp(0, 1)
    mean = (_grey(x) * inside).sum((1, 2, 3), keepdim=True) / (rows * columns)[:, :, None, None]
    x = torch.lerp(mean, x, contrast).clamp(0, 1)
    x = torch.lerp(_grey(x), x, saturation).clamp(0, 1)
    x = _turned(x, turn)
    return torch.where(inside, (255 * x).round().to(torch.uint8), images)


def _grey(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = x.split(1, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """(B, 3, H, W) of 0..1 with another hue, and the value (the largest of a pixel's three) and chroma (largest less
    smallest) that it had. Hue counts in sixths of a turn from red: green is 2, blue is 4."""
    red, green, blue = x.split(1, 1)
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    is_red, is_green = value == red, value == green
    difference = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    start = torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0)) + 6 * turn
    hue = (difference / chroma.clamp_min(1e-6) + start).remainder(6)
    shares = torch.cat([(hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()], 1).clamp(0, 1)
    return value - chroma * (1 - shares)
