"""Focal and dice loss of sigmoid masks, written without one-hot targets.

Every class of every image has one mask: target 1 where the label is that class, 0 elsewhere. Symbols: B images, C
classes, p = sigmoid(x) the probability of a mask pixel, M the number of (image, class) pairs present in the batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.errors import InputError

ALPHA, GAMMA = 0.25, 2  # of the focal loss
SMOOTHING = 1.0  # of the dice loss


def segmentation_loss(
    mask_logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    *,
    focal_weight: float = 100.0,
    dice_weight: float = 1.0,
    ignored_are_negatives: bool = True,
    pairs: Tensor | None = None,
) -> dict[str, Tensor]:
    """`focal_weight` * focal + `dice_weight` * dice, at the labels' resolution.

    Args:
        mask_logits: (B, C, h, w) float, upsampled bilinearly to the labels' size here.
        labels: (B, H, W) int64, classes 0..C-1 or `ignore_index`.
        ignored_are_negatives: True is a quirk of the authors' code: ignored pixels, and with them every pixel of an
            unseen class, are negatives of every class. False leaves them out.
        pairs: M to divide by, where this batch is one part of a larger one; by default `present_pairs` of the labels.

    Returns:
        `focal` and `dice` (both weighted) and `total`, their sum; scalars, float32.

    Raises:
        InputError: shapes that do not belong together, or a label out of range.
    """
    labels = _checked(mask_logits, labels, ignore_index)
    logits = F.interpolate(mask_logits.float(), labels.shape[1:], mode="bilinear", align_corners=False).flatten(2)
    labels = labels.flatten(1)  # (B, pixels)
    positive = labels != ignore_index
    counted = torch.ones_like(positive) if ignored_are_negatives else positive
    own = torch.where(positive, labels, 0)
    own_logit = logits.gather(1, own[:, None])[:, 0]  # (B, pixels): logit of each pixel's own class

    pixels = torch.zeros(logits.shape[:2], device=logits.device).scatter_add_(1, own, positive.float())  # (B, C)
    masks = _average_over_ranks((pixels > 0).sum() if pairs is None else pairs).clamp(min=1)  # M

    # Focal, -a_t (1 - p_t)^gamma log p_t: every pixel as a negative of every class, then each pixel's own class
    # corrected from negative to positive.
    correction = (_positive(own_logit) - _negative(own_logit)) * positive
    focal = (_negative(logits).sum(1) * counted + correction).sum(1) / counted.sum(1).clamp(min=1)

    # Dice, 1 - (2 sum p t + 1) / (sum p + sum t + 1), for the classes present
    overlap = torch.zeros_like(pixels).scatter_add(1, own, own_logit.sigmoid() * positive)
    area = (logits.sigmoid() * counted[:, None]).sum(2)
    dice = (1 - (2 * overlap + SMOOTHING) / (area + pixels + SMOOTHING))[pixels > 0].sum()

    focal, dice = focal_weight * focal.sum() / masks, dice_weight * dice / masks
    return {"focal": focal, "dice": dice, "total": focal + dice}


def present_pairs(labels: Tensor, ignore_index: int = 255) -> Tensor:
    """How many (image, class) pairs have a pixel: labels (B, H, W) int64 -> scalar int64."""
    images = torch.arange(len(labels), device=labels.device)[:, None, None]
    numbered = (images * (ignore_index + 1) + labels)[labels != ignore_index]
    return (torch.bincount(numbered) > 0).sum()


def _negative(logits: Tensor) -> Tensor:
    """Focal loss of a pixel outside the mask: -(1 - alpha) p^gamma log(1 - p)."""
    return (1 - ALPHA) * logits.sigmoid() ** GAMMA * F.softplus(logits)


def _positive(logits: Tensor) -> Tensor:
    """Focal loss of a pixel inside the mask: -alpha (1 - p)^gamma log p."""
    return ALPHA * (-logits).sigmoid() ** GAMMA * F.softplus(-logits)


def _average_over_ranks(count: Tensor) -> Tensor:
    """Mean of `count` over the processes of a distributed run, so that all divide by the same number."""
    count = count.float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count


def _checked(mask_logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    if mask_logits.ndim != 4 or labels.ndim != 3 or len(mask_logits) != len(labels):
        raise InputError(
            f"mask_logits {tuple(mask_logits.shape)} and labels {tuple(labels.shape)} do not belong together; "
            "expected (B, C, h, w) and (B, H, W)"
        )
    labels, classes = labels.long(), mask_logits.shape[1]
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if wrong.any():
        found = labels[wrong].unique().tolist()
        raise InputError(f"labels hold {found[:10]}; expected 0..{classes - 1}, or {ignore_index} for ignored pixels")
    return labels
