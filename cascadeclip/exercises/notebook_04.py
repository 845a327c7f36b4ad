"""Exercises of notebook 04, protocol: what is tested, and which mistakes are known.

Symbols: n pictures, C classes, R draws. Counts are (3, n, C): right, true and given pixels per picture and class.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer, uniform

# --- unseen_behind --------------------------------------------------------------------------------------------------


def _behind_test(even: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            seen = uniform(random, 0.5, 0.9)
            hiou = seen if even else seen * uniform(random, 0.6, 0.9)
            mistakes = {
                "this is 2 h - S, as if hIoU were the plain mean of S and U": 2 * hiou - seen,
                "this is h^2 / S, as if hIoU were the root of S U": hiou**2 / seen,
                "this is the harmonic mean of hIoU and S; solve h = 2 S U / (S + U) for U": (
                    2 * hiou * seen / (hiou + seen)
                ),
                "the sign of the divisor is wrong: h (S + U) = 2 S U, so h S = U (2 S - h)": (
                    hiou * seen / (hiou - 2 * seen)
                ),
                "a factor of 2 is missing: U = h S / (2 S - h)": hiou * seen / (4 * seen - 2 * hiou),
            }
            expect(ask(hiou, seen), hiou * seen / (2 * seen - hiou), mistakes, "U")

    return test


# --- paired_differences ---------------------------------------------------------------------------------------------


def _mean_iou(counts: Tensor, *, missing_is_zero: bool = False, union: bool = True) -> Tensor:
    """Mean IoU of counts (3, n, C), summed over the pictures first; the keywords make mistakes."""
    right, true, given = counts.double().sum(1)
    iou = right / (true + given - (right if union else 0)).clamp(min=1)
    there = true > 0
    return iou.where(there, torch.zeros(())).mean() if missing_is_zero else iou[there].mean()


def _mean_over_pictures(counts: Tensor) -> Tensor:
    return torch.stack([_mean_iou(counts[:, [picture]]) for picture in range(counts.shape[1])]).mean()


def _counts(random: torch.Generator, pictures: int, classes: int, rare: bool) -> tuple[Tensor, Tensor]:
    """Counts of two models on the same pictures; with `rare`, the last class is true in the first picture alone."""
    true = torch.randint(40, 200, (pictures, classes), generator=random).double()
    if rare:
        true[1:, -1] = 0
    tables = []
    for _ in range(2):
        right = (true * torch.rand(true.shape, generator=random)).floor()
        alarms = torch.randint(1, 60, true.shape, generator=random)
        tables.append(torch.stack([right, true, right + alarms]))
    return tables[0], tables[1]


def _paired_test(rare: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            pictures, classes, repeats = integer(random, 5, 8), integer(random, 3, 6), integer(random, 3, 5)
            one, other = _counts(random, pictures, classes, rare)
            drawn = torch.randint(1 if rare else 0, pictures, (repeats, pictures), generator=random)
            drawn[0, 0] = 0  # a set with the rare class, and others that may lack it

            def all_sets(
                measure: Callable[[Tensor], Tensor], drawn: Tensor = drawn, one: Tensor = one, other: Tensor = other
            ) -> Tensor:
                return torch.stack([measure(one[:, rows]) - measure(other[:, rows]) for rows in drawn])

            right = all_sets(_mean_iou)
            mistakes = {
                "this is `other` minus `one`": -right,
                "add up the counts of a set first, then divide; yours takes the mean of the pictures' scores": all_sets(
                    _mean_over_pictures
                ),
                "`other` must be scored on the same sets: yours takes all its pictures once": torch.stack(
                    [_mean_iou(one[:, rows]) - _mean_iou(other) for rows in drawn]
                ),
                "the union counts right pixels twice in yours: true + given - right": all_sets(
                    lambda counts: _mean_iou(counts, union=False)
                ),
                "a class without true pixels in a set has no IoU there: leave it out of the mean, it is no 0": all_sets(
                    lambda counts: _mean_iou(counts, missing_is_zero=True)
                ),
                "one number for every set is asked for, (R,); this is their mean": right.mean(),
            }
            expect(ask(one, other, drawn), right, mistakes, "the differences")

    return test


_WITHHELD = frozenset({"mean_scores", "class_iou", "iou_of_counts", "bootstrap_scores", "bootstrap"})

EXERCISES = {
    "04.1": Exercise(
        "unseen_behind(hiou, seen)",
        (
            Part("U = S where hIoU is S", 1, _behind_test(even=True)),
            Part("any S and hIoU", 1, _behind_test(even=False)),
        ),
    ),
    "04.2": Exercise(
        "paired_differences(one, other, drawn)",
        (
            Part("every set holds every class", 1, _paired_test(rare=False)),
            Part("a class is missing from some sets", 1, _paired_test(rare=True)),
        ),
        _WITHHELD,
    ),
}
