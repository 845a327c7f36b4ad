"""Evaluation: sliding windows, one joint confusion matrix, seen / unseen / harmonic scores."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascadeclip.data.labels import ignored_label
from cascadeclip.data.streams import whole
from cascadeclip.data.transforms import normalise
from cascadeclip.data.words import check_embeddings, positions_of, seen_positions
from cascadeclip.errors import InputError
from cascadeclip.evaluation.bands import argmax_at
from cascadeclip.evaluation.windows import WINDOWS_AT_ONCE, windows_over
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.resize import bilinear
from cascadeclip.processes import autocast, physical_memory, told_of_compiler
from cascadeclip.schema import Count, check_value, checked

logger = logging.getLogger(__name__)

CHUNK = 2**20  # scores that are computed at once, small enough for a processor's cache


@torch.inference_mode()
def predict(
    model: CascadeCLIP,
    images: Tensor,
    text: Tensor,
    seen: Sequence[int],
    seen_offset: float = 0.1,
    window: int | None = None,
    stride: int | None = None,
) -> Tensor:
    """Score of every class at every pixel; its argmax over classes is the segmentation.

    Args:
        model: in eval mode.
        images: (B, 3, H, W) float, normalised.
        text: (C, E) float, one L2-normed text embedding per class.
        seen: indices of the classes that had mask labels in training.
        seen_offset: taken off the probability of the seen classes, which training gave an advantage (0 in the
            transductive setting).
        window: px; slide square windows of this side over the picture and average. None: the whole picture at once.
        stride: px from window to window; 5/6 of the window by default.

    Returns:
        (B, C, H, W) float32: sigmoid of the summed mask logits, minus the offset.

    Raises:
        InputError: a seen index that no class has, a stride that leaves gaps, or mask logits or an offset that are no
            finite numbers.
    """
    seen_offset = check_value(seen_offset, float, "seen_offset")
    offset = torch.zeros(len(text), dtype=torch.float32, device="cpu")
    outside = [index for index in seen if not 0 <= index < len(text)]
    if outside:
        raise InputError(f"seen={outside} are no indices of the {len(text)} classes")
    offset[list(seen)] = seen_offset
    offset = offset.to(images.device, non_blocking=True)
    weights = next(model.parameters())
    images, text = images.to(weights.dtype), text.to(weights.dtype)  # of a model that was brought to half precision
    height, width = images.shape[2:]
    views = windows_over(height, width, window, stride)
    alone = len(views) == 1
    make = images.new_empty if alone else images.new_zeros
    total = make((len(images), len(text), height, width), dtype=torch.float32)
    visits = images.new_zeros((height, width), dtype=torch.float32)
    finite = torch.ones((), dtype=torch.bool, device=images.device)
    for position in range(0, len(views), WINDOWS_AT_ONCE):
        some = views[position : position + WINDOWS_AT_ONCE]
        logits = model(torch.cat([images[(..., *view)] for view in some]), text).mask_logits
        finite = finite & logits.isfinite().all()  # looked at once, at the end: a look waits for the device
        for view, own in zip(some, logits.split(len(images)), strict=True):
            visits[view] += 1
            for part, scores in _scores(model, own, visits[view].shape, offset):
                if alone:  # saves filling and reading so large a tensor
                    total[:, part] = scores
                else:
                    total[:, part, *view] += scores
    _check_finite(finite)
    return total if alone else total.div_(visits)


def _check_finite(finite: Tensor) -> None:
    """An `InputError` unless a bool of a device is true; the host waits for the device here."""
    if not finite:
        raise InputError("the mask logits are NaN or infinite: the model's weights, the picture or the text hold such")


def _scores(
    model: CascadeCLIP, mask_logits: Tensor, size: Sequence[int], offset: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Probabilities minus the offset, few classes at a time: what is made in between stays in a processor's cache.

    Args:
        mask_logits: (B, C, h, w).
        offset: (C,).

    Yields:
        which classes, and their scores (B, classes, *size) float32.
    """
    side = model.config.tower.image_size
    # quirk of the authors' code: to the training size, offset, then on to the picture's size
    first = (side, side) if model.config.upsample_through_training_size else tuple(size)
    step = max(1, CHUNK // (len(mask_logits) * math.prod(first)))
    for part in (slice(start, start + step) for start in range(0, len(offset), step)):
        scores = bilinear(mask_logits[:, part].float(), first).sigmoid().sub_(offset[part, None, None])
        yield part, bilinear(scores, size)


@dataclass(frozen=True)
class Scores:
    """Scores of one evaluation, as fractions; an `InputError` for unseen words that are no class.

    Attributes:
        names: class words.
        unseen: those without mask labels in training.
        iou: per class; NaN where the evaluated pictures hold no pixel of it.
        pAcc: share of the labelled pixels that are right.
        mIoU_seen, mIoU_unseen: means over the classes with ground truth; NaN if there is none.
        hIoU: harmonic mean of the two.
        without_ground_truth: classes that the evaluated pictures hold no pixel of; they count in no mean.
    """

    names: tuple[str, ...]
    unseen: tuple[str, ...]
    iou: tuple[float, ...]
    pAcc: float

    def __post_init__(self) -> None:
        positions_of(self.unseen, self.names)

    @property
    def mIoU_seen(self) -> float:
        return self.mean_iou(set(self.names) - set(self.unseen))

    @property
    def mIoU_unseen(self) -> float:
        return self.mean_iou(self.unseen)

    @property
    def hIoU(self) -> float:
        return harmonic_mean(self.mIoU_seen, self.mIoU_unseen)

    def mean_iou(self, names: Iterable[str]) -> float:
        """Mean IoU over those of `names` that have ground truth, NaN if none has; an `InputError` for no class."""
        own = [self.iou[place] for place in positions_of(tuple(names), self.names, "names")]
        values = [value for value in own if not math.isnan(value)]
        return math.fsum(values) / len(values) if values else math.nan  # the same to the last digit in any order

    @property
    def without_ground_truth(self) -> tuple[str, ...]:
        return tuple(name for name, value in zip(self.names, self.iou, strict=True) if math.isnan(value))

    def summary(self, **extra: float) -> dict[str, float]:
        """The four headline numbers, and what is given beside them."""
        figures = {"pAcc": self.pAcc, "mIoU_seen": self.mIoU_seen, "mIoU_unseen": self.mIoU_unseen, "hIoU": self.hIoU}
        return figures | extra


class ConfusionMatrix:
    """Counts of (true class, predicted class) over labelled pixels.

    Attributes:
        counts: (C, C) int64, rows are true classes.
        ignore_index: the label of pixels that count nowhere; by default that of so many classes.

    Raises:
        InputError: no number of classes, or one so large that the machine's memory cannot hold their counts.
    """

    @checked(classes=Count, ignore_index=int | None)
    def __init__(self, classes: int, ignore_index: int | None = None):
        if (size := 8 * classes**2) > (memory := physical_memory()):
            raise InputError(
                f"the confusion matrix of {classes:,} classes takes {size / 2**30:.1f} GiB, and this machine has "
                f"{memory / 2**30:.1f}: score fewer classes at once, or on a larger machine"
            )
        self.classes = classes
        self.ignore_index = ignored_label(classes) if ignore_index is None else ignore_index
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Add pictures: both integer tensors of one shape; labels may hold `ignore_index`.

        Raises:
            InputError: shapes differ, or a label or prediction is no integer or out of range.
        """
        if predicted.shape != labels.shape:
            raise InputError(f"predicted {tuple(predicted.shape)} and labels {tuple(labels.shape)} differ in shape")
        if predicted.is_floating_point() or labels.is_floating_point():
            raise InputError(f"predicted {predicted.dtype} and labels {labels.dtype}: class indices are integers")
        truth, guess = labels.long(), predicted.long()  # wide, see `wide_labels`
        counted = truth != self.ignore_index
        # all on the device, with one number more for what is ignored and one for what is wrong, and then read at once
        ignored, wrong = self.classes**2, self.classes**2 + 1
        valid = (truth >= 0) & (truth < self.classes) & (guess >= 0) & (guess < self.classes)
        cell = torch.where(valid, truth * self.classes + guess, wrong)
        cell = torch.where(counted, cell, ignored).flatten()
        found, times = _occurrences(cell, wrong + 1)
        if (found == wrong).any():
            check_indices(truth[counted], guess[counted], self.classes)
        inside = found < ignored
        self.counts.view(-1).index_add_(0, found[inside], times[inside])

    def scores(self, names: Sequence[str], unseen: Sequence[str]) -> Scores:
        """IoU = right / (true or predicted), pixel accuracy, and the means over seen and unseen classes."""
        counts = self.counts
        right, true, guessed = (part.double() for part in (counts.diag(), counts.sum(1), counts.sum(0)))
        iou = iou_of_counts(right, true, guessed)
        accuracy = (right.sum() / true.sum()).item() if true.sum() else math.nan
        return Scores(tuple(names), tuple(unseen), tuple(iou.tolist()), accuracy)


def _occurrences(numbers: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Which of the numbers below `limit` occur, and how often, on the CPU. Takes no more memory than `numbers` do."""
    if limit > numbers.numel():
        found, times = numbers.unique(return_counts=True)
        return found.cpu(), times.cpu()
    times = numbers.new_zeros(limit).scatter_add_(0, numbers, torch.ones_like(numbers)).cpu()
    found = times.nonzero()[:, 0]
    return found, times[found]


def check_indices(labels: Tensor, predicted: Tensor, classes: int) -> None:
    """An `InputError` unless all values, those of ignored pixels left out before, are class indices."""
    for what, values in (("labels", labels), ("predicted", predicted)):
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if not 0 <= low <= high < classes:
            raise InputError(f"{what} hold {low}..{high}; expected 0..{classes - 1}")


def iou_of_counts(right: Tensor, true: Tensor, guessed: Tensor) -> Tensor:
    """right / (true or guessed), from float pixel counts of any one shape; NaN where there is no ground truth."""
    return torch.where(true > 0, right / (true + guessed - right), math.nan)


def harmonic_mean(seen: float, unseen: float) -> float:
    """2 S U / (S + U); 0 if both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen != 0 else 0.0


def predict_batches(
    model: CascadeCLIP,
    batches: Iterable[tuple[Tensor, Tensor]],
    text: Tensor,
    seen: Sequence[int],
    seen_offset: float,
    window: int | None,
    stride: int | None,
    precision: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """`predict` over batches: scores (B, C, H, W) on the model's device, and the batch's labels as they came.

    The model is in eval mode meanwhile, and back afterwards; the other arguments are those of `evaluate`.

    Raises:
        InputError: what `whole` and `predict` raise.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    text = text.to(device)
    try:
        for images, labels in whole(batches):
            with autocast(device, precision), told_of_compiler():
                images = normalise(images.to(device, non_blocking=True))
                scores = predict(model, images, text, seen, seen_offset, window, stride)
            yield scores, labels
    finally:
        model.train(training)


def count(
    confusion: ConfusionMatrix,
    predicted: Iterable[tuple[Tensor, Tensor]],
    after_batch: Callable[[Tensor], None] | None = None,
) -> None:
    """Add to `confusion` what `predict_batches` gives, read at the labels' size.

    Args:
        predicted: scores (B, C, h, w) and labels (B, H, W).
        after_batch: called with the segmentation (B, H, W) int32 of every batch, after it was counted.
    """
    for scores, labels in predicted:
        found = argmax_at(scores, labels.shape[1:])
        confusion.update(found, labels.to(found.device, non_blocking=True))
        if after_batch is not None:
            after_batch(found)


def evaluate(
    model: CascadeCLIP,
    batches: Iterable[tuple[Tensor, Tensor]],
    text: Tensor,
    names: Sequence[str],
    unseen: Sequence[str],
    *,
    seen_offset: float = 0.1,
    window: int | None = None,
    stride: int | None = None,
    precision: str = "fp32",
) -> Scores:
    """Scores of a model over batches of pictures, from one confusion matrix over all of them.

    Args:
        model: put into eval mode here, and back afterwards.
        batches: images (B, 3, h, w) uint8 and labels (B, H, W) integer, indices into `names` or the label of ignored
            pixels. Their size may differ from the images': that is where the scores are read.
        text: (C, E) float, in the order of `names`.
        seen_offset, window, stride: as in `predict`.
        precision: `bf16`, where the device has it about twice as fast, `fp16` or `fp32`.

    Raises:
        InputError: unseen words that are no class, another number of text embeddings; what `predict` raises.
    """
    seen = seen_positions(names, unseen)
    check_embeddings(text, names)
    confusion = ConfusionMatrix(len(names))
    count(confusion, predict_batches(model, batches, text, seen, seen_offset, window, stride, precision))
    warn_of_nonsense(confusion, names, unseen)
    return confusion.scores(names, unseen)


def warn_of_nonsense(confusion: ConfusionMatrix, names: Sequence[str], unseen: Sequence[str]) -> None:
    """Log warnings of what makes scores wrong without any error."""
    counts = confusion.counts
    absent = [name for name, pixels in zip(names, counts.sum(1).tolist(), strict=True) if not pixels]
    seen = seen_positions(names, unseen)
    if absent:
        logger.warning("no ground truth, left out of the means: %s", ", ".join(absent))
    if seen and not counts.sum(0)[seen].sum():
        logger.warning("no seen class was ever predicted: were the weights loaded, and is seen_offset right?")
