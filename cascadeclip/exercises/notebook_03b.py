"""Exercises of notebook 03b, taking the cascade apart: what is tested, and which mistakes are known.

Every expected value is computed here from its definition. S is the number of stages.
"""

from collections.abc import Mapping
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer, uniform

# --- together -------------------------------------------------------------------------------------------------------


def _together_test(one_pixel: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            shape = [2, 1, 1, 1] if one_pixel else [3, *(integer(random, 2, 4) for _ in range(3))]
            p = 0.05 + 0.9 * torch.rand(shape, generator=random)
            right = p.logit().sum(0).sigmoid()
            odds = (p / (1 - p)).prod(0)
            mistakes = {
                "this is the mean of the probabilities; the cascade adds *logits*": p.mean(0),
                "this is the product of the probabilities: the probabilities of *no* must be multiplied as well": (
                    p.prod(0)
                ),
                "these are the odds; turn them into a probability": odds,
                "these are the mask logits; turn them into a probability": p.logit().sum(0),
                "you added the odds; they are multiplied where logits are added": _to_probability((p / (1 - p)).sum(0)),
                "this is the mean of the logits; the cascade takes their sum": p.logit().mean(0).sigmoid(),
                "probabilities are not logits: undo the sigmoid before you add": p.sum(0).sigmoid(),
                "this is the most certain stage alone; all of them count": p.amax(0),
                "this is the probability of *no*": 1 - right,
            }
            expect(ask(p), right, mistakes, "the probability")

    return test


def _to_probability(odds: Tensor) -> Tensor:
    return odds / (1 + odds)


# --- iou_of ---------------------------------------------------------------------------------------------------------


def _iou_test(same: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            recall = uniform(random, 0.3, 0.95)
            precision = recall if same else uniform(random, 0.3, 0.95)
            right = 1 / (1 / recall + 1 / precision - 1)
            mistakes = {
                "this is their harmonic mean (F1, or dice), which is always higher than IoU": (
                    2 * recall * precision / (recall + precision)
                ),
                "this is their product": recall * precision,
                "this is their mean": (recall + precision) / 2,
                "this is the smaller of the two; IoU is below both": min(recall, precision),
                "pixels that are right are in the truth *and* in the answer: count them once in the union": (
                    1 / (1 / recall + 1 / precision)
                ),
                "upside down: this is union over intersection": 1 / right,
            }
            expect(ask(recall, precision), right, mistakes, "the IoU")

    return test


# --- shares ---------------------------------------------------------------------------------------------------------


def _shapley(worth: Mapping[frozenset[int], float], stages: int, *, even: bool = False) -> Tensor:
    """Mean over all orders of what each stage adds; `even` weights all sets alike, which is a mistake."""
    found = []
    for stage in range(stages):
        others = [one for one in range(stages) if one != stage]
        sets = [frozenset(chosen) for size in range(stages) for chosen in combinations(others, size)]
        weight = [1 / len(sets) if even else 1 / stages / comb(stages - 1, len(one)) for one in sets]
        found.append(sum(w * (worth[one | {stage}] - worth[one]) for w, one in zip(weight, sets, strict=True)))
    return torch.tensor(found)


def _shares_test(stages: int) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            sets = [frozenset(chosen) for size in range(stages + 1) for chosen in combinations(range(stages), size)]
            worth = {one: uniform(random, 0, 80) if one else 0.0 for one in sets}
            right, whole = _shapley(worth, stages), frozenset(range(stages))
            alone = torch.tensor([worth[frozenset({stage})] for stage in range(stages)])
            missed = torch.tensor([worth[whole] - worth[whole - {stage}] for stage in range(stages)])
            mistakes = {
                "this is what each stage reaches alone: what it adds to the others counts, too": alone,
                "this is what is lost without each stage: what it adds when others are missing counts, too": missed,
                "yours takes the mean over the sets of other stages; take it over the *orders* in which the stages "
                "come: small and large sets stand in more of them": _shapley(worth, stages, even=True),
                "this is the sum over the orders: divide by their number": right
                * torch.prod(torch.arange(1, stages + 1)),
                "these are fractions of the whole: points are asked for": right / worth[whole],
                "the stages are turned round": right.flip(0),
            }
            expect(ask(worth, stages), right, mistakes, "the list of shares")

    return test


EXERCISES = {
    "03b.1": Exercise(
        "together(probabilities)",
        (
            Part("two stages at one pixel", 1, _together_test(one_pixel=True)),
            Part("three stages and whole masks", 1, _together_test(one_pixel=False)),
        ),
    ),
    "03b.2": Exercise(
        "iou_of(recall, precision)",
        (Part("where both are the same", 1, _iou_test(same=True)), Part("where they differ", 1, _iou_test(same=False))),
    ),
    "03b.3": Exercise(
        "shares(worth, stages)",
        (Part("two stages", 1, _shares_test(stages=2)), Part("three stages", 1, _shares_test(stages=3))),
    ),
}
