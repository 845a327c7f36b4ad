"""Where layers stand toward the text: localisation of words, the modality gap, and intervals over images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.errors import InputError


@dataclass(frozen=True)
class Localisation:
    """How well similarities to words find the words' patches; rows are (image, class present in it).

    Attributes:
        image, class_index: (R,) int, what each row is about.
        auroc: (R,) chance that a patch of the class is more similar to its word than another patch; 0.5 is chance.
        average_precision: (R,); a random order gives the prevalence.
        prevalence: (R,) share of the image's patches that are of the class.
        hit: (R,) bool, the patch most similar to the word is of the class; chance is the prevalence.
        confusion: (images, C, C) int64, true class x argmax over the vocabulary, in patches.
    """

    image: np.ndarray
    class_index: np.ndarray
    auroc: np.ndarray
    average_precision: np.ndarray
    prevalence: np.ndarray
    hit: np.ndarray
    confusion: np.ndarray

    def mean_iou(self, classes: Sequence[int] | None = None, images: np.ndarray | None = None) -> float:
        """mIoU of the argmax from one confusion matrix over the images (all, or those drawn, repeats counting)."""
        counts = (self.confusion if images is None else self.confusion[images]).sum(0)
        right, true, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
        wanted = true > 0
        if classes is not None:
            wanted = wanted & np.isin(np.arange(len(counts)), classes)
        return float((right[wanted] / (true + guessed - right)[wanted]).mean())

    def per_class(self, measure: str, images: np.ndarray | None = None) -> np.ndarray:
        """Mean of a measure over each class's rows: (C,) float, nan for a class without; `images` as in `mean_iou`."""
        drawn = np.ones(len(self.confusion)) if images is None else np.bincount(images, minlength=len(self.confusion))
        size, weights = self.confusion.shape[1], drawn[self.image].astype(float)
        total = np.bincount(self.class_index, weights * getattr(self, measure), size)
        rows = np.bincount(self.class_index, weights, size)
        return np.divide(total, rows, out=np.full(size, np.nan), where=rows > 0)

    def mean(self, measure: str, classes: Sequence[int] | None = None, images: np.ndarray | None = None) -> float:
        """Mean over classes of `per_class`: over all that have rows, or those of `classes`."""
        values = self.per_class(measure, images)
        return float(np.nanmean(values if classes is None else values[list(classes)]))


def localise(similarity: Tensor, labels: Tensor, *, present_only: bool = False) -> Localisation:
    """Score similarities between patch tokens and class words.

    Args:
        similarity: (images, N, C) float.
        labels: (images, N) int64, each patch's class; see `analysis.patch_labels`.
        present_only: let the argmax choose among the image's own classes instead of all C.

    Raises:
        InputError: shapes that do not fit, or labels that are not below C.
    """
    images, patches, classes = similarity.shape
    if labels.shape != (images, patches) or labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"labels {tuple(labels.shape)} must be ({images}, {patches}) with values 0..{classes - 1}")
    truth = F.one_hot(labels, classes).bool()
    candidates = similarity.masked_fill(~truth.any(1, keepdim=True), -torch.inf) if present_only else similarity
    cells = labels * classes + candidates.argmax(-1)
    confusion = torch.stack([torch.bincount(row, minlength=classes**2) for row in cells])
    rows = []
    for image, index in truth.any(1).nonzero().tolist():
        is_class, score = truth[image, :, index].numpy(), similarity[image, :, index].float().numpy()
        if is_class.all():
            continue  # nothing to tell it from
        auroc, precision = roc_auc_score(is_class, score), average_precision_score(is_class, score)
        rows.append((image, index, auroc, precision, is_class.mean(), is_class[score.argmax()]))
    image, index, auroc, precision, prevalence, hit = (np.array(column) for column in zip(*rows, strict=True))
    confusion = confusion.view(images, classes, classes).numpy()
    return Localisation(image, index, auroc, precision, prevalence, hit, confusion)


def bootstrap(
    measure: Callable[[np.ndarray], float], images: int, *, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a measure, drawing images (not patches) with replacement.

    The basic bootstrap: how far draws lie from the whole set says how far the whole set may lie from the truth. Draws
    miss rare classes and then score too high; this form corrects for that.

    Args:
        measure: (images,) indices drawn -> the measure on them.
    """
    rng = np.random.default_rng(seed)
    values = [measure(rng.integers(0, images, images)) for _ in range(draws)]
    whole, (low, high) = measure(np.arange(images)), np.quantile(values, (0.025, 0.975))
    return float(2 * whole - high), float(2 * whole - low)


def modality_gap(image: Tensor, text: Tensor) -> Tensor:
    """Vector from the centroid of text embeddings to that of image embeddings (Liang et al. 2022).

    Args:
        image: (n, E), text: (m, E); both are L2-normed here first.

    Returns:
        (E,); its length is the gap.
    """
    return F.normalize(image, dim=-1).mean(0) - F.normalize(text, dim=-1).mean(0)


def loss_along_gap(image: Tensor, text: Tensor, shifts: Sequence[float], temperature: float) -> list[float]:
    """Contrastive loss of n matching pairs after moving the images toward the texts along the gap.

    Args:
        image, text: (n, E), L2-normed pairs.
        shifts: 0 leaves all as it is; 1 lays the centroids on each other; embeddings are L2-normed after the move.
        temperature: the softmax's.
    """
    gap, target = modality_gap(image, text), torch.arange(len(image))
    losses = []
    for shift in shifts:
        logits = F.normalize(image - shift * gap, dim=-1) @ text.T / temperature
        losses.append((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)).item() / 2)
    return losses
