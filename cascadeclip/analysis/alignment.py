"""Where layers stand toward the text: localisation of words, the modality gap, and intervals over pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.data.labels import ignored_label
from cascadeclip.errors import InputError
from cascadeclip.evaluation.resampling import Resampled, bootstrap
from cascadeclip.schema import Range, checked

COMPARED_AT_ONCE = 2**22  # pairs of patches


@dataclass(frozen=True)
class Localisation:
    """How well similarities to words find the words' patches; rows are (image, class present in it).

    Attributes:
        image, class_index: (R,) int, what each row is about.
        auroc: (R,) chance that a patch of the class is more similar to its word than another patch; 0.5 is chance.
        average_precision: (R,); see `chance_precision`.
        chance_precision: (R,) the average precision that a random order has on average: more than the prevalence.
        prevalence: (R,) share of the image's patches that are of the class.
        hit: (R,) bool, the patch most similar to the word is of the class; chance is the prevalence.
        confusion: (images, C, C) int64, true class x argmax over the vocabulary, in patches.
    """

    image: np.ndarray
    class_index: np.ndarray
    auroc: np.ndarray
    average_precision: np.ndarray
    chance_precision: np.ndarray
    prevalence: np.ndarray
    hit: np.ndarray
    confusion: np.ndarray

    @cached_property
    def _counts(self) -> np.ndarray:
        """(3, images, C) float: patches that are right, truly of the class, and given to it."""
        right = self.confusion.diagonal(axis1=1, axis2=2)
        return np.stack([right, self.confusion.sum(2), self.confusion.sum(1)]).astype(float)

    def _times(self, images: np.ndarray | None) -> np.ndarray:
        """(images,) how often each image counts: once, or as often as it was drawn."""
        count = len(self.confusion)
        return np.ones(count) if images is None else np.bincount(images, minlength=count).astype(float)

    def per_class(self, measure: str, images: np.ndarray | None = None) -> np.ndarray:
        """A measure of each class: (C,) float, nan for a class that the images do not hold.

        Args:
            measure: an attribute with rows, whose mean over the class's rows is taken; or `iou`, the IoU of the argmax
                from one confusion matrix over the images.
            images: indices drawn, repeats counting; None for all.
        """
        times, size = self._times(images), self.confusion.shape[1]
        if measure == "iou":
            right, true, given = times @ self._counts
            return np.divide(right, true + given - right, out=np.full(size, np.nan), where=true > 0)
        weights = times[self.image]
        total = np.bincount(self.class_index, weights * getattr(self, measure), size)
        rows = np.bincount(self.class_index, weights, size)
        return np.divide(total, rows, out=np.full(size, np.nan), where=rows > 0)

    def mean(self, measure: str, classes: Sequence[int] | None = None, images: np.ndarray | None = None) -> float:
        """Mean over classes of `per_class`: over all that the images hold, or those of `classes`."""
        values = self.per_class(measure, images)
        return float(np.nanmean(values if classes is None else values[list(classes)]))

    def resampled(self, measure: str, classes: Sequence[int] | None = None, **options: int) -> Resampled:
        """`mean` on the images and on sets drawn from them; `options` of `bootstrap`."""
        return bootstrap(lambda drawn: self.mean(measure, classes, drawn), len(self.confusion), **options)


def localise(similarity: Tensor, labels: Tensor, *, present_only: bool = False) -> Localisation:
    """Score similarities between patch tokens and class words.

    Args:
        similarity: (images, N, C) float.
        labels: (images, N) integer, each patch's class, see `analysis.patch_labels`; ignored ones count nowhere.
        present_only: let the argmax choose among the image's own classes instead of all C.

    Raises:
        InputError: shapes that do not fit, or labels that are not below C.
    """
    (images, patches, classes), labels = similarity.shape, labels.long()  # wide, see `wide_labels`
    counted = labels != ignored_label(classes)
    known = labels[counted]
    if labels.shape != (images, patches) or (len(known) and not 0 <= known.min() <= known.max() < classes):
        raise InputError(f"labels {tuple(labels.shape)} must be ({images}, {patches}) with values 0..{classes - 1}")
    truth = F.one_hot(labels.masked_fill(~counted, 0), classes).bool() & counted[..., None]
    candidates = similarity.masked_fill(~truth.any(1, keepdim=True), -torch.inf) if present_only else similarity
    cells = labels * classes + candidates.argmax(-1)
    confusion = torch.stack([
        torch.bincount(row[of], minlength=classes**2) for row, of in zip(cells, counted, strict=True)
    ])  # fmt: skip
    stands_out = truth.any(1) & (truth.sum(1) < counted.sum(1, keepdim=True))  # else there is nothing to compare with
    image, index = stands_out.nonzero().T
    is_class, score, of = truth[image, :, index], similarity[image, :, index].float(), counted[image]
    at_once = max(1, COMPARED_AT_ONCE // patches**2)
    rows = [_ranked(*part) for part in zip(*(one.split(at_once) for one in (is_class, score, of)), strict=True)]
    auroc, precision = (torch.cat(column).cpu().numpy() for column in zip(*rows, strict=True))
    best = score.masked_fill(~of, -torch.inf).argmax(1, keepdim=True)
    hit = is_class.gather(1, best)[:, 0].cpu().numpy()
    right, among = (where.sum(1).double().cpu().numpy() for where in (is_class, of))
    by_image = confusion.view(images, classes, classes).cpu().numpy()
    chance = chance_of_average_precision(right, among)
    image, index = image.cpu().numpy(), index.cpu().numpy()
    return Localisation(image, index, auroc, precision, chance, right / among, hit, by_image)


def chance_of_average_precision(right: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Mean average precision over all orders of N patches of which R are right.

    A right patch at rank k has k - 1 before it, of which (R - 1) / (N - 1) are right on average: the precision there is
    (1 + (k - 1) (R - 1) / (N - 1)) / k. Its mean over the ranks k = 1..N is q + (R - 1) / (N - 1) (1 - q) with
    q = (1 + 1/2 + ... + 1/N) / N, which is above the prevalence R / N, and the more so the fewer patches there are.

    Args:
        right: R, at least 1.
        among: N, at least R, of the same shape.

    Returns:
        float64, of that shape.
    """
    right, among = np.asarray(right, float), np.asarray(among, float)
    first = (digamma(among + 1) + np.euler_gamma) / among
    return first + (right - 1) / np.maximum(among - 1, 1) * (1 - first)


def _ranked(is_class: Tensor, score: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """AUROC and average precision (R,) float64 of scores (R, N) for a class's patches (R, N) bool; ties count half.

    Both are means over the patches i of the class: of the share of other patches below i, and of the precision among
    all patches that score at least what i does. Only patches that are `counted` (R, N) take part.
    """
    others = (~is_class & counted)[:, None]
    as_high, higher = score[:, None] >= score[:, :, None], score[:, None] > score[:, :, None]  # (R, i, j): j against i
    as_high = as_high & counted[:, None]
    lost = ((as_high & others).sum(2) + (higher & others).sum(2)).double() / 2  # others that i does not beat
    among = as_high.sum(2).double().clamp(min=1)
    precision = (as_high & ~others).sum(2) / among
    count = is_class.sum(1)
    auroc = 1 - (lost * is_class).sum(1) / (count * others.sum((1, 2)))
    return auroc, (precision * is_class).sum(1) / count


def curves_of(
    found: Mapping[str, Sequence[Localisation]], measure: str, *, scale: float = 1.0, repeats: int = 200
) -> tuple[dict[str, list[float]], dict[str, list[tuple[float, float]]]]:
    """A measure over the blocks, for `plots.plot_over_blocks`.

    Args:
        found: label -> one result per block.
        measure: as in `Localisation.per_class`; its mean over classes is taken, times `scale`.

    Returns:
        label -> values, and label -> 95 % intervals.
    """
    values: dict[str, list[float]] = {}
    intervals: dict[str, list[tuple[float, float]]] = {}
    for label, results in found.items():
        sets = [result.resampled(measure, repeats=repeats) for result in results]
        values[label] = [scale * float(one.whole) for one in sets]
        intervals[label] = [(scale * float(low), scale * float(high)) for low, high in (one.interval() for one in sets)]
    return values, intervals


def modality_gap(image: Tensor, text: Tensor) -> Tensor:
    """Vector from the centroid of text embeddings to that of image embeddings (Liang et al. 2022).

    Args:
        image: (n, E), text: (m, E); both are L2-normed here first.

    Returns:
        (E,); its length is the gap.
    """
    return F.normalize(image, dim=-1).mean(0) - F.normalize(text, dim=-1).mean(0)


@checked(temperature=Annotated[float, Range(1e-6)])
def loss_along_gap(image: Tensor, text: Tensor, shifts: Sequence[float], temperature: float) -> list[float]:
    """Contrastive loss of n matching pairs after moving the images toward the texts along the gap.

    Args:
        image, text: (n, E), L2-normed pairs.
        shifts: 0 leaves all as it is; 1 lays the centroids on each other; embeddings are L2-normed after the move.
        temperature: the softmax's.
    """
    gap, target = modality_gap(image, text), torch.arange(len(image), device=image.device)
    losses = []
    for shift in shifts:
        logits = F.normalize(image - shift * gap, dim=-1) @ text.T / temperature
        losses.append((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)).item() / 2)
    return losses
