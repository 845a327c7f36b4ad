"""Measurements on the features of a tower's blocks: similarity of layers, colours, attention, linear probes.

Arrays are numpy, one per block: patch tokens (images, N, D) float, labels (images, N) or (images, H, W) integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import class_iou, picture_counts
from cascadeclip.schema import Count, checked

# --- similarity of layers: CKA ---------------------------------------------------------------------------------------


class CKA:
    """Centred kernel alignment between layers (Kornblith et al. 2019), linear kernel, added up over batches.

    CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)). The three terms are summed over batches and divided once
    (Nguyen et al. 2021): a mean of per-batch ratios would be another quantity.

    Args:
        debiased: use the unbiased estimate of HSIC (Song et al. 2012), near 0 for independent layers whatever their
            width. False: the naive one, which comes out near p / (n + p) for independent noise of width p.

    Attributes:
        hsic: (L, L) float64, sums of HSIC between all pairs of layers.
    """

    def __init__(self, debiased: bool = True):
        self.debiased = debiased
        self.hsic: Tensor | None = None

    def update(self, layers: Sequence[Tensor]) -> None:
        """Add a batch: one (n, D_l) tensor per layer, the same n samples. Samples must be independent: one per image.

        Raises:
            InputError: differing or too few samples.
        """
        counts = {len(layer) for layer in layers}
        if len(counts) != 1 or min(counts) < 4:
            raise InputError(f"CKA needs the same 4 or more samples from every layer, not {sorted(counts)}")
        grams = torch.stack([layer.double() @ layer.double().T for layer in layers])  # (L, n, n)
        sums = _unbiased_hsic(grams) if self.debiased else _biased_hsic(grams)
        self.hsic = sums if self.hsic is None else self.hsic + sums

    def result(self) -> Tensor:
        """(L, L) float64: 1 on the diagonal; debiased values may be slightly negative."""
        if self.hsic is None:
            raise InputError("CKA has seen no batch yet: call update first")
        own = self.hsic.diag().sqrt()
        return self.hsic / (own[:, None] * own)


def _unbiased_hsic(grams: Tensor) -> Tensor:
    """HSIC_1 of all pairs: (tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2 / (n-2) 1'KL1) / (n(n-3)), diagonals set to 0."""
    n = grams.shape[-1]
    grams = grams * (1 - torch.eye(n, dtype=grams.dtype, device=grams.device))
    trace = torch.einsum("aij,bij->ab", grams, grams)
    totals, rows = grams.sum((1, 2)), grams.sum(1)
    return (trace + totals[:, None] * totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.T) / (n * (n - 3))


def _biased_hsic(grams: Tensor) -> Tensor:
    """HSIC_0 of all pairs: tr(KHLH) / (n-1)^2 with the centring matrix H."""
    n = grams.shape[-1]
    centred = grams - grams.mean(1, keepdim=True)
    centred = centred - centred.mean(2, keepdim=True)
    return torch.einsum("aij,bij->ab", centred, centred) / (n - 1) ** 2


# --- features as colours -------------------------------------------------------------------------------------------


class FeatureColours:
    """Patch tokens of every block as RGB: three principal components, fitted once on a reference set and frozen.

    Signs and axes are free in PCA; each block's are rotated onto the block before it (orthogonal Procrustes on the
    reference set's scores), so that a colour keeps its meaning from block to block as far as the features allow.

    Args:
        reference: per block (samples, D) float, patch tokens of many images, the same samples for all blocks.

    Attributes:
        explained: (L,) share of the reference set's variance in the three components.
    """

    def __init__(self, reference: Sequence[np.ndarray]):
        self._layers, previous, explained = [], None, []
        for samples in reference:
            pca = PCA(3, svd_solver="full").fit(samples)
            scores = pca.transform(samples)
            spread = scores.std(0)
            rotation = np.eye(3) if previous is None else orthogonal_procrustes(scores / spread, previous)[0]
            previous = scores / spread @ rotation
            self._layers.append((pca, spread, rotation, *np.quantile(previous, (0.01, 0.99), axis=0)))
            explained.append(pca.explained_variance_ratio_.sum())
        self.explained = np.array(explained)

    def __call__(self, layer: int, tokens: np.ndarray) -> np.ndarray:
        """Colours (..., 3) in 0..1 of tokens (..., D) of the layer at that position of the reference."""
        pca, spread, rotation, low, high = self._layers[layer]
        scores = pca.transform(tokens.reshape(-1, tokens.shape[-1])) / spread @ rotation
        return ((scores - low) / (high - low)).clip(0, 1).reshape(*tokens.shape[:-1], 3)


# --- attention -----------------------------------------------------------------------------------------------------


@checked(grid=tuple[Count, ...], patch_size=Count)
def attention_distance(maps: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """How far patches look: mean distance between patch centres, weighted by attention, in px.

    Args:
        maps: (L, B, heads, T, T) from `lenses.attention_maps`; the class token is left out and rows are scaled to 1.

    Returns:
        (L, heads) float.
    """
    weights = maps[..., 1:, 1:]
    weights = weights / weights.sum(-1, keepdim=True)
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1).to(maps.dtype) * patch_size
    return (weights * torch.cdist(places, places).to(maps.device)).sum(-1).mean((1, 3))


# --- linear probes -------------------------------------------------------------------------------------------------

STRENGTHS = (1.0, 100.0, 10_000.0)  # of ridge's regularisation; the best on held-out images is taken


@dataclass(frozen=True)
class ProbeResult:
    """What a linear probe reached on the test images.

    Attributes:
        mIoU: at pixel resolution, over the classes that the test images hold.
        accuracy: share of pixels that are right.
        strength: regularisation chosen.
        counts: (3, images', C) float64, what `diagnostics.class_iou` and `evaluation.bootstrap` take.
    """

    mIoU: float
    accuracy: float
    strength: float
    counts: Tensor


@checked(grid=tuple[Count, ...])
def patch_labels(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The class that most pixels of each patch have: (B, H, W) integer -> (B, N) int64."""
    return _pixels_by_patch(labels, grid).mode(2).values.long()


@checked(grid=tuple[Count, ...])
def boundary_patches(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Whether a patch holds more than one class: (B, H, W) integer -> (B, N) bool."""
    pixels = _pixels_by_patch(labels, grid)
    return pixels.amax(2) != pixels.amin(2)


def _pixels_by_patch(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H, W) -> (B, N, pixels of a patch)."""
    ph, pw = labels.shape[1] // grid[0], labels.shape[2] // grid[1]
    return labels.unfold(1, ph, ph).unfold(2, pw, pw).flatten(3).flatten(1, 2)


def fit_ridge(
    tokens: np.ndarray, targets: np.ndarray, *, strengths: Sequence[float] = STRENGTHS
) -> tuple[Pipeline, float, float]:
    """Standardised ridge regression from tokens to targets; its strength is chosen on a quarter of the *images*.

    Patches of one image resemble each other, so that a split by patch would reward memory.

    Args:
        tokens: (images, N, D) float. targets: (images, N, K) float.

    Returns:
        (scikit-learn pipeline fitted on all images, strength, R2 on the held-out quarter before that).
    """
    if len(tokens) < 4 or tokens.shape[:2] != targets.shape[:2]:
        raise InputError(f"tokens {tokens.shape} and targets {targets.shape}: give the same 4 or more images, by patch")
    held = len(tokens) // 4
    flat = [part.reshape(-1, part.shape[-1]) for part in (tokens[held:], targets[held:], tokens[:held], targets[:held])]
    fits = [make_pipeline(StandardScaler(), Ridge(strength)).fit(*flat[:2]) for strength in strengths]
    scores = [fit.score(*flat[2:]) for fit in fits]
    best = int(np.argmax(scores))
    model = make_pipeline(StandardScaler(), Ridge(strengths[best]))
    model.fit(tokens.reshape(-1, tokens.shape[-1]), targets.reshape(-1, targets.shape[-1]))
    return model, strengths[best], float(scores[best])


@checked(classes=Count, grid=tuple[Count, ...])
def probe(
    train_tokens: np.ndarray, train_labels: np.ndarray, test_tokens: np.ndarray, test_labels: Tensor, classes: int,
    grid: tuple[int, int],
) -> ProbeResult:  # fmt: skip
    """A linear probe: ridge from patch tokens to one-hot classes, scored at pixel resolution on other images.

    Args:
        train_tokens: (images, N, D) float. train_labels: (images, N) integer below `classes`.
        test_tokens: (images', N, D) float. test_labels: (images', H, W) integer.
        grid: (h, w) with N = h * w.
    """
    model, strength, _ = fit_ridge(train_tokens, np.eye(classes, dtype=np.float32)[train_labels])
    scores = model.predict(test_tokens.reshape(-1, test_tokens.shape[-1])).astype(np.float32)
    scores = torch.from_numpy(scores).view(len(test_tokens), *grid, classes).permute(0, 3, 1, 2)
    parts = []
    for some, labels in zip(scores.split(25), test_labels.cpu().split(25), strict=True):
        size = tuple(labels.shape[1:])
        pixels = torch.nn.functional.interpolate(some, size, mode="bilinear", align_corners=False)
        parts.append(picture_counts(pixels.argmax(1), labels, classes))
    counts = torch.cat(parts, dim=1)
    right, true, _ = counts.sum((1, 2)).tolist()
    return ProbeResult(class_iou(counts).nanmean().item(), right / true, strength, counts)
