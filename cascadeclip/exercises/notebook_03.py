"""Exercises of notebook 03, building the cascade: what is tested, and which mistakes are known.

Every expected value is computed here from its definition. Symbols: B pictures, C classes, N patches, E joint width,
d blocks in a stage.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer

# --- half_sigma -----------------------------------------------------------------------------------------------------


def _sigma_where(blocks: int, share: float = 0.5, *, power: float = 2, half: float = 2, first: int = 0) -> float:
    """The sigma for which the deepest block carries a share of all weight; the keywords make mistakes."""
    away = torch.arange(first, blocks + first).double()
    low, high = 1e-2, 1e3
    for _ in range(100):
        middle = (low * high) ** 0.5
        weights = torch.exp(-(away**power) / (half * middle**2))
        low, high = (middle, high) if weights[0] > share * weights.sum() else (low, middle)
    return low


def _sigma_test(five: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(1 if five else CASES):
            blocks = 5 if five else integer(random, 3, 9)
            right = _sigma_where(blocks)
            mistakes = {
                "this is sigma squared: take the root": right**2,
                "the 2 below the fraction is missing: it is 2 sigma^2": _sigma_where(blocks, half=1),
                "yours gives the deepest block as much as *one third*: its weight must equal the sum of all others": (
                    _sigma_where(blocks, 1 / 3)
                ),
                "the distance is not squared in yours": _sigma_where(blocks, power=1),
                "yours counts the distance from 1, as the paper prints it; the deepest block has distance 0": (
                    _sigma_where(blocks, first=1)
                ),
                "yours does not depend on the number of blocks: this is the sigma for five": _sigma_where(5),
            }
            expect(ask(blocks), right, mistakes, "sigma")

    return test


# --- focal_of_labelled ----------------------------------------------------------------------------------------------


def _focal(
    logits: Tensor, labels: Tensor, *, ignored_count: bool = False, all_pixels: bool = False, positive: float = 0.25,
    gamma: float = 2.0, pairs: bool = True, present_only: bool = False, of_all: bool = False,
) -> float:  # fmt: skip
    """Focal loss without ignored pixels, of logits at the labels' size; the keywords make mistakes."""
    x, classes = logits.double(), torch.arange(logits.shape[1])[:, None, None]
    target = labels[:, None] == classes
    counted = torch.ones_like(labels, dtype=torch.bool) if ignored_count else labels != 255
    signed = torch.where(target, x, -x)
    alpha = torch.where(target, positive, 1 - positive)
    cost = -alpha * (-signed).sigmoid() ** gamma * F.logsigmoid(signed) * counted[:, None]
    per_picture = (torch.ones_like(labels) if all_pixels else counted).sum((1, 2)).double()
    masks = cost.sum((2, 3)) / (per_picture.mean() if of_all else per_picture[:, None])
    present = target.flatten(2).any(-1)
    total = masks[present].sum() if present_only else masks.sum()
    return (total / present.sum() if pairs else total).item()


def _focal_test(ignored: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            classes, shape = integer(random, 4, 6), [2, integer(random, 5, 7), integer(random, 4, 6)]
            logits = 2 * torch.randn([2, classes, *shape[1:]], generator=random)
            labels = torch.randint(0, classes - 1, shape, generator=random)  # the last class is absent
            if ignored:
                labels[0, :2], labels[1, :, 0] = 255, 255
            right = _focal(logits, labels)
            mistakes = {
                "ignored pixels still count as negatives of every class in yours; leave them out": _focal(
                    logits, labels, ignored_count=True
                ),
                "ignored pixels add nothing, but the mean still runs over them: divide by the labelled pixels": _focal(
                    logits, labels, all_pixels=True
                ),
                "masks of classes that are absent from a picture cost something, too: sum over all of them": _focal(
                    logits, labels, present_only=True
                ),
                "divide by the number of (picture, class) pairs that are present": _focal(logits, labels, pairs=False),
                "1/4 belongs to the pixels inside a mask, 3/4 to those outside; yours has them swapped": _focal(
                    logits, labels, positive=0.75
                ),
                "the factor (1 - p)^2 or p^2 that makes it *focal* is missing": _focal(logits, labels, gamma=0.0),
                "the factor (1 - p) or p must be squared": _focal(logits, labels, gamma=1.0),
                "this is 50 times focal loss: leave the weight away": 50 * right,
                "yours has the other sign: a loss is positive": -right,
            }
            expect(ask(logits, labels), right, mistakes, "the loss")

    return test


# --- attentive ------------------------------------------------------------------------------------------------------


def _attentive_test(one_patch: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            blocks = integer(random, 2, 4)
            shape = [1, 1, 6] if one_patch else [2, integer(random, 5, 7), 6]
            features = [torch.randn(shape, generator=random) for _ in range(blocks)]
            query = torch.randn(6, generator=random)
            stacked = torch.stack(features)  # (d, B, N, E)
            scores = stacked @ query
            right = (scores.softmax(0)[..., None] * stacked).sum(0)
            mistakes = {
                "your softmax runs over the patches; at each patch the *blocks* compete": (
                    scores.softmax(-1)[..., None] * stacked
                ).sum(0),
                "your softmax runs over the whole batch: each patch has weights of its own": (
                    scores.flatten().softmax(0).view_as(scores)[..., None] * stacked
                ).sum(0),
                "the same weights for every patch: each patch has scores of its own": (
                    scores.mean((1, 2)).softmax(0)[:, None, None, None] * stacked
                ).sum(0),
                "the softmax is missing: scores are no weights yet": (scores[..., None] * stacked).sum(0),
                "this is the mean of the blocks: the query makes no difference": stacked.mean(0),
                "this is the plain sum of the blocks: the query makes no difference": stacked.sum(0),
                "only the block of the highest score is left; a softmax lets all of them in": torch.gather(
                    stacked, 0, scores.argmax(0)[None, ..., None].expand(1, *stacked.shape[1:])
                )[0],
                "the scores are divided by the root of E in yours; here they are not": (
                    (scores / 6**0.5).softmax(0)[..., None] * stacked
                ).sum(0),
                "the weighted blocks are still apart: add them up": scores.softmax(0)[..., None] * stacked,
                "these are the weights; add up the blocks with them": scores.softmax(0),
            }
            expect(ask(features, query), right, mistakes, "the aggregated tokens")

    return test


EXERCISES = {
    "03.1": Exercise(
        "half_sigma(blocks)",
        (Part("for five blocks", 1, _sigma_test(five=True)), Part("for any number", 1, _sigma_test(five=False))),
    ),
    "03.2": Exercise(
        "focal_of_labelled(logits, labels)",
        (
            Part("where every pixel has a label", 1, _focal_test(ignored=False)),
            Part("where some pixels are ignored", 1, _focal_test(ignored=True)),
        ),
        frozenset({"segmentation_loss"}),
    ),
    "03.3": Exercise(
        "attentive(features, query)",
        (
            Part("at one patch", 1, _attentive_test(one_patch=True)),
            Part("at all patches of several pictures", 1, _attentive_test(one_patch=False)),
        ),
        frozenset({"Aggregation"}),
    ),
}
