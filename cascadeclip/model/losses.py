"""Focal and dice loss of sigmoid masks, written without one-hot targets and without masks at the labels' size.

Every class of every image has one mask: target 1 where the label is that class, 0 elsewhere. Symbols: B images, C
classes, p = sigmoid(x) the probability of a mask pixel, M the number of (image, class) pairs present in the batch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cascadeclip.errors import InputError
from cascadeclip.model.resize import bilinear_matrix

ALPHA, GAMMA = 0.25, 2  # of the focal loss; `_MaskSums` squares where the power is GAMMA
SMOOTHING = 1.0  # of the dice loss
# Upsampled logits that are worked on at once: few on a CPU, so that its cache holds them; on any other device many, so
# that starting the kernels costs little, yet not so many that a third of a gigabyte would be needed.
CHUNK = {"cpu": 2**18, "other": 2**24}


def segmentation_loss(
    mask_logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    *,
    focal_weight: float = 100.0,
    dice_weight: float = 1.0,
    ignored_are_negatives: bool = True,
    pairs: Tensor | None = None,
    trusted: bool = False,
) -> dict[str, Tensor]:
    """`focal_weight` * focal + `dice_weight` * dice, at the labels' resolution.

    Args:
        mask_logits: (B, C, h, w) float, upsampled bilinearly to the labels' size here.
        labels: (B, H, W) integer, classes 0..C-1 or `ignore_index`.
        ignore_index: label of pixels of no class, and no class's index.
        ignored_are_negatives: True is a quirk of the authors' code: ignored pixels, and with them every pixel of an
            unseen class, are negatives of every class. False leaves them out.
        pairs: M to divide by, where this batch is one part of a larger one (`mean_over_ranks`, where several processes
            train); by default `present_pairs` of the labels, averaged over the processes.
        trusted: leave out the look at the labels' values, for which the host waits on a GPU, where they are known.

    Returns:
        `focal` and `dice` (both weighted) and `total`, their sum; scalars, float32.

    Raises:
        InputError: shapes that do not belong together, a label out of range, or an `ignore_index` that is a class's.
    """
    labels = _checked(mask_logits, labels, ignore_index, trusted)
    logits, positive = mask_logits.float(), labels != ignore_index
    counted = torch.ones_like(positive) if ignored_are_negatives else positive
    own = torch.where(positive, labels, 0)
    own_logit = _own_logits(logits, own)  # (B, pixels): logit of each pixel's own class
    own, positive = own.flatten(1), positive.flatten(1).float()

    pixels = logits.new_zeros(logits.shape[:2]).scatter_add_(1, own, positive)  # (B, C)
    present = pixels > 0
    masks = (mean_over_ranks(present.sum()) if pairs is None else pairs).clamp(min=1)  # M
    negatives, area = _MaskSums.apply(logits, counted.float())  # (B, C): sums of _negative and of p

    # Focal, -a_t (1 - p_t)^gamma log p_t: every pixel as a negative of every class, then each pixel's own class
    # corrected from negative to positive.
    correction = (_positive(own_logit) - _negative(own_logit)) * positive
    focal = (negatives.sum(1) + correction.sum(1)) / counted.sum((1, 2)).clamp(min=1)

    # Dice, 1 - (2 sum p t + 1) / (sum p + sum t + 1), for the classes present
    overlap = torch.zeros_like(pixels).scatter_add(1, own, own_logit.sigmoid() * positive)
    dice = torch.where(present, 1 - (2 * overlap + SMOOTHING) / (area + pixels + SMOOTHING), 0).sum()

    focal, dice = focal_weight * focal.sum() / masks, dice_weight * dice / masks
    return {"focal": focal, "dice": dice, "total": focal + dice}


def present_pairs(labels: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """How many (image, class) pairs have a pixel: labels (B, H, W) integer, in range or ignored -> scalar int64."""
    _check_ignored(ignore_index, classes)
    labels = labels.long()  # PyTorch would bring `ignore_index` to a narrower dtype before it compares
    found = torch.where(labels != ignore_index, labels, classes).flatten(1)  # the ignored ones in a place of their own
    present = torch.zeros(len(labels), classes + 1, dtype=torch.bool, device=labels.device)
    return present.scatter_(1, found, True)[:, :classes].sum()


def mean_over_ranks(count: Tensor) -> Tensor:
    """Mean of a count over the processes of a distributed run, so that all divide by the same number; float32."""
    count = count.to(torch.float32, copy=True)  # a copy: it is changed in place
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count


def _negative(logits: Tensor) -> Tensor:
    """Focal loss of a pixel outside the mask: -(1 - alpha) p^gamma log(1 - p)."""
    return (1 - ALPHA) * logits.sigmoid() ** GAMMA * F.softplus(logits)


def _positive(logits: Tensor) -> Tensor:
    """Focal loss of a pixel inside the mask: -alpha (1 - p)^gamma log p."""
    return ALPHA * (-logits).sigmoid() ** GAMMA * F.softplus(-logits)


class _MaskSums(torch.autograd.Function):
    """Sums of `_negative` and of p over the counted pixels of every mask.

    A sum depends on its own mask only. Its derivative there, as small as the mask logits, is computed beside it, so
    that nothing of size B x C x H x W waits for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C, h, w) and counted pixels (B, H, W), both float32 -> two (B, C)."""
        rows, columns = (
            bilinear_matrix(n, m, logits.device) for n, m in zip(logits.shape[2:], counted.shape[1:], strict=True)
        )
        counted, at_once = counted[:, None], CHUNK["cpu" if logits.device.type == "cpu" else "other"]
        step = max(1, at_once // counted.numel())
        # made beforehand: small results left between large ones that come and go would tear up the heap
        negatives, area = (logits.new_empty(logits.shape[:2]) for _ in range(2))
        negatives_slope, area_slope = (torch.empty_like(logits) for _ in range(2))
        with torch.autocast(logits.device.type, enabled=False):
            for part in (slice(first, first + step) for first in range(0, logits.shape[1], step)):
                (
                    negatives[:, part], area[:, part], negatives_slope[:, part], area_slope[:, part],
                ) = _mask_sums(logits[:, part], counted, rows, columns)  # fmt: skip
        ctx.save_for_backward(negatives_slope, area_slope)
        return negatives, area

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_negatives: Tensor, of_area: Tensor) -> tuple[Tensor, None]:
        negatives_slope, area_slope = ctx.saved_tensors
        # written out: the gradient of an einsum makes PyTorch compile a kernel on CUDA, even in eager mode
        slope = negatives_slope * of_negatives[..., None, None] + area_slope * of_area[..., None, None]
        return slope, None


def _mask_sums(logits: Tensor, counted: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both sums (B, C), and their derivatives by the logits (B, C, h, w), of a few classes."""
    x = rows @ logits @ columns.T
    p = x.sigmoid().mul_(counted)
    softplus = F.logsigmoid(x.neg_()).neg_().mul_(counted)  # F.softplus is several times as slow
    square = p * p  # p ** GAMMA
    negatives = torch.linalg.vecdot(square.flatten(2), softplus.flatten(2)) * (1 - ALPHA)
    focal_slope = torch.addcmul(p, 1 - p, softplus, value=GAMMA).mul_(square)
    return (
        negatives, p.sum((2, 3)), rows.T @ focal_slope @ columns * (1 - ALPHA), rows.T @ (p - square) @ columns,
    )  # fmt: skip


def _own_logits(logits: Tensor, own: Tensor) -> Tensor:
    """Logits (B, C, h, w), upsampled bilinearly and read at one class per pixel, (B, H, W) -> (B, H * W)."""
    (height, width), flat = logits.shape[2:], logits.flatten(1)
    read = flat.new_zeros(own.shape[0], own.shape[1] * own.shape[2])
    (row_weights, rows), (column_weights, columns) = (
        bilinear_matrix(n, m, logits.device).topk(min(n, 2))
        for n, m in zip(logits.shape[2:], own.shape[1:], strict=True)
    )
    for row_weight, row in zip(row_weights.T, rows.T, strict=True):
        for column_weight, column in zip(column_weights.T, columns.T, strict=True):
            at = (own * height + row[:, None]) * width + column
            read = read + (row_weight[:, None] * column_weight).flatten() * flat.gather(1, at.flatten(1))
    return read


def _checked(mask_logits: Tensor, labels: Tensor, ignore_index: int, trusted: bool) -> Tensor:
    if mask_logits.ndim != 4 or labels.ndim != 3 or len(mask_logits) != len(labels):
        raise InputError(
            f"mask_logits {tuple(mask_logits.shape)} and labels {tuple(labels.shape)} do not belong together; "
            "expected (B, C, h, w) and (B, H, W)"
        )
    labels, classes = labels.long(), mask_logits.shape[1]
    _check_ignored(ignore_index, classes)
    if trusted:
        return labels
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if wrong.any():
        found = labels[wrong].unique().tolist()
        raise InputError(f"labels hold {found[:10]}; expected 0..{classes - 1}, or {ignore_index} for ignored pixels")
    return labels


def _check_ignored(ignore_index: int, classes: int) -> None:
    """The default, 255, would take the 256th of many classes for none."""
    if 0 <= ignore_index < classes:
        raise InputError(
            f"ignore_index={ignore_index} is the index of one of the {classes} classes: give the label of pixels that "
            "belong to none, data.ignored_label(classes)"
        )
