"""What stands behind a score: any seen offset from one pass, uncertainty, boundaries, confusions, kinds of error.

Symbols: n pictures of H x W px, C classes. A segmentation is an integer tensor (n, H, W) of class indices.
Counts are (3, n, C) float64: per picture and class the pixels that are right, truly of the class, and given to it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascadeclip.data.labels import ignored_label, wide_labels
from cascadeclip.data.words import check_embeddings, positions_of
from cascadeclip.errors import InputError
from cascadeclip.evaluation.contours import boundary_width, rim
from cascadeclip.evaluation.resampling import Resampled, bootstrap
from cascadeclip.evaluation.scores import (
    ConfusionMatrix,
    Scores,
    check_indices,
    harmonic_mean,
    iou_of_counts,
    predict_batches,
)
from cascadeclip.model.cascade import CascadeCLIP, CascadeOutput
from cascadeclip.schema import Count, checked

ERROR_KINDS = ("seen as another seen", "seen as unseen", "unseen as seen", "unseen as another unseen")


@dataclass(frozen=True)
class Readout:
    """What one pass over a set of pictures leaves: enough to segment them under any seen offset.

    Attributes:
        labels: (n, H, W) integer, the truth.
        seen_class, unseen_class: (n, H, W) int32, the best class of either group at each pixel.
        seen_score, unseen_score: (n, H, W) float32, its probability; -inf where the group may not be chosen.
    """

    labels: Tensor
    seen_class: Tensor
    unseen_class: Tensor
    seen_score: Tensor
    unseen_score: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def segmentation(self, seen_offset: float = 0.1) -> Tensor:
        """(n, H, W) int64: the argmax over all classes once `seen_offset` is taken off the seen ones.

        A constant taken off every seen class leaves the best seen class the best one, so that only the two winners
        have to be compared. This holds for pictures read whole and for averaged windows alike.
        """
        if math.isnan(seen_offset):
            raise InputError("seen_offset=nan must be a number")
        return torch.where(self.seen_score - seen_offset > self.unseen_score, self.seen_class, self.unseen_class).long()


@torch.inference_mode()
def read_out(
    model: CascadeCLIP,
    batches: Iterable[tuple[Tensor, Tensor]],
    text: Tensor,
    names: Sequence[str],
    unseen: Sequence[str],
    *,
    present_only: bool = False,
    window: int | None = None,
    stride: int | None = None,
    precision: str = "fp32",
) -> Readout:
    """Run a model once over pictures of one size.

    Args:
        model: put into eval mode here, and back afterwards.
        batches: images (B, 3, H, W) uint8 and labels (B, H, W) integer, indices into `names` or the label of ignored
            pixels.
        text: (C, E) float, in the order of `names`.
        present_only: tell the model which classes each picture holds; it chooses among those alone.
        window, stride: as in `evaluation.predict`.
        precision: see `TrainConfig`.

    Raises:
        InputError: no picture, pictures of several sizes, no seen or no unseen class, an unknown unseen name.
    """
    check_embeddings(text, names)
    hidden = positions_of(unseen, names)
    seen = [index for index in range(len(names)) if index not in set(hidden)]
    if not seen or not hidden:
        raise InputError(f"{len(seen)} seen and {len(hidden)} unseen classes: name at least one of each")
    parts = []
    for scores, labels in predict_batches(model, batches, text, [], 0.0, window, stride, precision):
        if present_only:
            scores = scores.masked_fill(~_present(labels, len(names)).to(scores.device)[..., None, None], -math.inf)
        parts.append((labels.cpu(), *_best(scores, seen), *_best(scores, hidden)))
    sizes = {tuple(part[0].shape[1:]) for part in parts}
    if len(sizes) != 1:
        raise InputError(f"pictures of the sizes {sorted(sizes)}: give at least one picture, and all of one size")
    labels, seen_class, seen_score, unseen_class, unseen_score = (torch.cat(part) for part in zip(*parts, strict=True))
    return Readout(labels, seen_class, unseen_class, seen_score, unseen_score)


class OneStage(nn.Module):
    """A trained cascade of which only one stage's mask logits are used; `stage` counts from 0."""

    def __init__(self, cascade: CascadeCLIP, stage: int):
        super().__init__()
        self.cascade, self.stage, self.config = cascade, stage, cascade.config

    def forward(self, images: Tensor, text: Tensor) -> CascadeOutput:
        output = self.cascade(images, text)
        return replace(output, mask_logits=output.stage_logits[self.stage])


def _best(scores: Tensor, group: list[int]) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> index of the best class of `group` (B, H, W) int32, and its score (B, H, W)."""
    value, place = scores[:, group].max(1)
    return torch.tensor(group, dtype=torch.int32)[place.cpu()], value.cpu()


def _present(labels: Tensor, classes: int) -> Tensor:
    """(B, H, W) -> (B, C) bool: which classes each picture holds."""
    present = torch.zeros(len(labels), classes + 1, dtype=torch.bool)  # the last for ignored pixels
    present.scatter_(1, labels.flatten(1).long().cpu().clamp(max=classes), True)
    return present[:, :classes]


def right_unseen_names(readout: Readout, hidden: Sequence[int]) -> float:
    """Share of the pixels of the unseen classes `hidden` whose best unseen class is right, as pseudo labels need."""
    labels = wide_labels(readout.labels)
    where = torch.isin(labels, torch.tensor(list(hidden), device=labels.device))
    return (readout.unseen_class[where] == labels[where]).double().mean().item()


# --- one offset, many offsets ---------------------------------------------------------------------------------------


def confusion_of(predicted: Tensor, labels: Tensor, classes: int) -> ConfusionMatrix:
    """The joint confusion matrix of a segmentation; raises as `ConfusionMatrix.update` does."""
    confusion = ConfusionMatrix(classes)
    confusion.update(predicted, labels)
    return confusion


def scores_at(readout: Readout, names: Sequence[str], unseen: Sequence[str], seen_offset: float = 0.1) -> Scores:
    """Scores of a readout under one seen offset."""
    return confusion_of(readout.segmentation(seen_offset), readout.labels, len(names)).scores(names, unseen)


def sweep_offsets(
    readout: Readout, names: Sequence[str], unseen: Sequence[str], offsets: Sequence[float]
) -> list[Scores]:
    """Scores under each of several seen offsets, all from the one pass that made the readout."""
    if not len(offsets):
        raise InputError("offsets is empty: give at least one seen offset, for example [0.0, 0.1]")
    return [scores_at(readout, names, unseen, float(offset)) for offset in offsets]


# --- counts per picture, boundaries, bootstrap ----------------------------------------------------------------------


@checked(classes=Count)
def picture_counts(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts (3, n, C) over whole masks; ignored pixels count nowhere.

    Raises:
        InputError: shapes that differ or are not (n, H, W), or an index out of range.
    """
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    return _counts(predicted, labels, classes, everywhere, everywhere)


@checked(classes=Count, width=int | None)
def boundary_counts(
    predicted: Tensor, labels: Tensor, classes: int, width: int | None = None, *, frame: bool = True
) -> Tensor:
    """Counts (3, n, C) of Boundary IoU (Cheng et al., CVPR 2021), which looks at the rim of the masks only.

    The rim of a mask G is G_d, its pixels within d px of its contour; the score of one class is
    |G_d and P_d| / |G_d or P_d|. Here G_d and P_d are summed over the pictures first, as mIoU does.

    Args:
        predicted, labels: (n, H, W) integer; labels may hold the label of ignored pixels.
        width: d in px; None takes the paper's 2 % of the picture's diagonal, at least 1.
        frame: the picture's edge counts as contour, as in the paper's code; see `contours.rim`.

    Raises:
        InputError: as in `picture_counts`, or a width below 1 px.
    """
    _check_maps(predicted, labels)
    width = boundary_width(*labels.shape[1:]) if width is None else width
    return _counts(predicted, labels, classes, rim(predicted, width, frame), rim(labels, width, frame))


@checked(classes=Count, side=Count)
def through_grid(labels: Tensor, classes: int, side: int) -> Tensor:
    """The truth, said with one number per patch and class: what a grid of side x side patches can hold of it.

    Each class's mask is averaged over every patch, brought back bilinearly, and the largest class wins: the same way
    that mask logits take. Ignored pixels belong to no class.

    Args:
        labels: (n, H, W) integer, class indices or the label of ignored pixels.

    Returns:
        (n, H, W) int64.
    """
    _check_maps(labels, labels)
    found = []
    for picture in labels.long():
        present = [index for index in picture.unique().tolist() if index < classes]
        masks = torch.stack([picture == index for index in present or [0]])[None].float()
        coarse = F.adaptive_avg_pool2d(masks, (side, side))
        fine = F.interpolate(coarse, tuple(picture.shape), mode="bilinear", align_corners=False)
        found.append(torch.tensor(present or [0], device=labels.device)[fine[0].argmax(0)])
    return torch.stack(found)


def _check_maps(predicted: Tensor, labels: Tensor) -> None:
    if predicted.shape != labels.shape or labels.ndim != 3 or not labels.numel():
        raise InputError(
            f"predicted {tuple(predicted.shape)} and labels {tuple(labels.shape)}: expected two tensors of one shape "
            "(pictures, height, width)"
        )


def _counts(predicted: Tensor, labels: Tensor, classes: int, in_guess: Tensor, in_truth: Tensor) -> Tensor:
    _check_maps(predicted, labels)
    predicted, labels = wide_labels(predicted), wide_labels(labels)
    counted = labels != ignored_label(classes)
    check_indices(labels[counted], predicted[counted], classes)
    guessed, truth = in_guess & counted, in_truth & counted
    right = guessed & truth & (predicted == labels)
    pairs = ((right, labels), (truth, labels), (guessed, predicted))
    return torch.stack([_per_picture(where, index, classes) for where, index in pairs])


def _per_picture(where: Tensor, index: Tensor, classes: int) -> Tensor:
    """How many pixels of each class are in `where`: (n, H, W) twice -> (n, C) float64."""
    index = torch.where(where, index.long(), 0).flatten(1)
    return torch.zeros(len(index), classes, dtype=torch.float64, device=index.device).scatter_add_(
        1, index, where.flatten(1).double()
    )


def class_iou(counts: Tensor) -> Tensor:
    """IoU (C,) float64 of each class, counts summed over the pictures; NaN for a class without ground truth."""
    return iou_of_counts(*counts.sum(-2))


def mean_scores(counts: Tensor, names: Sequence[str], unseen: Sequence[str]) -> dict[str, float]:
    """`mIoU_seen`, `mIoU_unseen` and `hIoU` of counts (of whole masks or of rims), as fractions."""
    return _means(counts, _hidden_mask(counts, names, unseen))


def _means(counts: Tensor, hidden: Tensor) -> dict[str, float]:
    iou = class_iou(counts)
    of_seen, of_unseen = iou[~hidden].nanmean().item(), iou[hidden].nanmean().item()
    return {"mIoU_seen": of_seen, "mIoU_unseen": of_unseen, "hIoU": harmonic_mean(of_seen, of_unseen)}


def bootstrap_scores(
    counts: Tensor, names: Sequence[str], unseen: Sequence[str], *, repeats: int = 500, seed: int = 0
) -> dict[str, Resampled]:
    """`mean_scores` on the pictures and on sets drawn from them, with intervals; see `resampling.bootstrap`.

    Args:
        counts: (3, n, C), from `picture_counts` or `boundary_counts`.

    Raises:
        InputError: counts of another shape, no repeats, or unknown unseen names.
    """
    hidden = _hidden_mask(counts, names, unseen)

    def measure(drawn: np.ndarray) -> np.ndarray:
        return np.array(list(_means(counts[:, drawn], hidden).values()))

    found = bootstrap(measure, counts.shape[1], repeats=repeats, seed=seed)
    keys = enumerate(("mIoU_seen", "mIoU_unseen", "hIoU"))
    return {key: Resampled(found.whole[k], found.draws[:, k], found.drawn_as) for k, key in keys}


def masks_and_rims(
    predicted: Tensor, labels: Tensor, names: Sequence[str], unseen: Sequence[str], *, frame: bool = True
) -> dict[str, dict[str, Resampled]]:
    """`bootstrap_scores` of whole masks (`IoU`) and of their rims (`Boundary IoU`); `frame` as in `boundary_counts`."""
    maps = predicted, labels, len(names)
    counts = {"IoU": picture_counts(*maps), "Boundary IoU": boundary_counts(*maps, frame=frame)}
    return {part: bootstrap_scores(table, names, unseen) for part, table in counts.items()}


def _hidden_mask(counts: Tensor, names: Sequence[str], unseen: Sequence[str]) -> Tensor:
    """(C,) bool: which classes are unseen."""
    if counts.ndim != 3 or counts.shape[0] != 3 or counts.shape[2] != len(names):
        raise InputError(f"counts {tuple(counts.shape)}: expected (3, pictures, {len(names)} classes)")
    mask = torch.zeros(len(names), dtype=torch.bool)
    mask[positions_of(unseen, names)] = True
    return mask


# --- which mistakes -------------------------------------------------------------------------------------------------


def error_kinds(predicted: Tensor, labels: Tensor, names: Sequence[str], unseen: Sequence[str]) -> Tensor:
    """Wrong pixels of each picture by kind: (n, 4) int64 in the order of `ERROR_KINDS`."""
    _check_maps(predicted, labels)
    predicted, labels = wide_labels(predicted), wide_labels(labels)
    hidden = torch.tensor(positions_of(unseen, names), dtype=torch.int64, device=labels.device)
    wrong = (predicted != labels) & (labels != ignored_label(len(names)))
    kind = 2 * torch.isin(labels, hidden).long() + torch.isin(predicted, hidden).long()
    # seen/seen 0, seen/unseen 1, unseen/seen 2, unseen/unseen 3: the order of ERROR_KINDS
    return torch.stack([((kind == number) & wrong).flatten(1).sum(1) for number in range(4)], dim=1)


@checked(count=Count)
def top_confusions(
    confusion: ConfusionMatrix, names: Sequence[str], among: Sequence[str] | None = None, count: int = 10
) -> list[tuple[str, str, float]]:
    """The likeliest mistakes: (true class, class given instead, share of the true class's pixels), largest first.

    Args:
        names: class words, one for each class of `confusion`.
        among: look at these true classes only; None for all.
        count: how many, 1 or more.

    Raises:
        InputError: another number of words than of classes, words of `among` that are none of them, no count.
    """
    if len(names) != confusion.classes:
        raise InputError(
            f"{len(names)} class words for the counts of {confusion.classes} classes: give every class one"
        )
    rows = list(range(len(names))) if among is None else positions_of(among, names, "among")
    counts = confusion.counts[rows]
    wrong = counts.scatter(1, torch.tensor(rows, dtype=torch.int64)[:, None], 0)
    share = wrong.double().div_(counts.sum(1, keepdim=True).clamp(min=1)).flatten()
    order = share.argsort(descending=True, stable=True)[:count].tolist()
    cells = [(*divmod(place, len(names)), share[place].item()) for place in order]
    return [(names[rows[row]], names[column], value) for row, column, value in cells]
