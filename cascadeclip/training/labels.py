"""What training is told of the truth: seen classes' masks, pseudo labels of the unseen ones, at the loss's size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.data.labels import positions_among, wide_labels
from cascadeclip.data.words import seen_positions
from cascadeclip.schema import Count, checked


def seen_only(names: Sequence[str], unseen: Sequence[str]) -> tuple[list[int], Tensor]:
    """What inductive training may know.

    Returns:
        indices of the seen classes, and a table (65,536,) int64 from label to position among them; unseen classes and
        unused labels map to `ignored_label` of so many classes.

    Raises:
        InputError: unseen words that are none of the names.
    """
    seen = seen_positions(names, unseen)
    return seen, torch.from_numpy(positions_among(seen))


def pseudo_labels(mask_logits: Tensor, labels: Tensor, unseen: Sequence[int] | Tensor) -> Tensor:
    """Labels of transductive self-training: unseen classes' pixels are known to be unseen, but not which class.

    Args:
        mask_logits: (B, C, h, w), current scores of all classes.
        labels: (B, H, W) integer, true classes.
        unseen: their indices.

    Returns:
        (B, H, W) int64: a pixel whose true class is unseen takes the unseen class with the highest probability.
    """
    unseen, labels = torch.as_tensor(unseen, device=labels.device), wide_labels(labels)
    scores = mask_logits.index_select(1, unseen).float()
    scores = F.interpolate(scores, labels.shape[1:], mode="bilinear", align_corners=False)
    return torch.where(torch.isin(labels, unseen), unseen[scores.argmax(1)], labels)


@checked(side=Count | None)
def reduce_labels(labels: Tensor, side: int | None) -> Tensor:
    """(B, H, W) labels -> (B, side, side), nearest pixel; unchanged for None."""
    if side is None:
        return labels
    return F.interpolate(labels[:, None].float(), (side, side), mode="nearest-exact")[:, 0].long()
