"""Exercises of notebook 04b, what holds: what is tested, and which mistakes are known.

Symbols: k looks at the validation set, R seeds.
"""

import torch
from scipy import stats
from torch import Tensor

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer, uniform

# --- ahead_from -----------------------------------------------------------------------------------------------------


def _ahead_test(crossings: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            looks = integer(random, 8, 14)
            steps = integer(random, 2, 20) * torch.arange(1, looks + 1)
            other = torch.rand(looks, generator=random).cumsum(0) / looks
            last = integer(random, 4, looks - 2)  # the last look at which `one` is behind
            ahead = torch.arange(looks) > last
            if crossings:
                ahead[1] = True  # ahead for a while, and behind again
            one = torch.where(ahead, other + 0.02, other - 0.02)
            mistakes: dict[str, Tensor | float] = {
                "this is the *last* step at which it is behind; the next look is the first of the lead that lasts": (
                    steps[last]
                ),
                "this is the first time that it is ahead at all; it falls behind again later": (
                    steps[int(ahead.int().argmax())]
                ),
                "this is the number of a look; the optimiser step at that look is asked for": last + 1,
                "this is the last step of all": steps[-1],
                "one and other are swapped: this is the first look at which `other` is ahead": (
                    steps[int((~ahead).int().argmax())]
                ),
            }
            expect(ask(steps, one, other), steps[last + 1].double(), mistakes, "the step")

    return test


# --- interval_over_seeds --------------------------------------------------------------------------------------------


def _interval(one: Tensor, other: Tensor, *, paired: bool = True, quantile: float | None = None, ddof: int = 1,
              of_mean: bool = True) -> Tensor:  # fmt: skip
    """(2,) ends of the 95 % t interval of the mean of one - other; the keywords make mistakes."""
    runs, count = one - other, len(one)
    variance = runs.var(correction=ddof) if paired else one.var(correction=ddof) + other.var(correction=ddof)
    factor = float(stats.t.ppf(0.975, count - 1)) if quantile is None else quantile
    half = factor * (variance / (count if of_mean else 1)).sqrt()
    return torch.stack([runs.mean() - half, runs.mean() + half])


def _interval_test(seeds: tuple[int, int]) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            count = integer(random, *seeds)
            luck = 0.05 * torch.randn(count, generator=random).double()  # of a seed, shared by both models
            one = 0.6 + luck + 0.01 * torch.randn(count, generator=random)
            other = uniform(random, 0.4, 0.5) + luck + 0.01 * torch.randn(count, generator=random)
            right = _interval(one, other)
            middle = right.mean()
            mistakes: dict[str, Tensor | float] = {
                "this is the interval of `other` minus `one`": _interval(other, one),
                "the same seed made both: take the deviation of the *differences*, not of each model's own runs": (
                    _interval(one, other, paired=False)
                ),
                "1.96 needs a known deviation; with so few seeds take Student's t with R - 1 degrees of freedom": (
                    _interval(one, other, quantile=float(stats.norm.ppf(0.975)))
                ),
                "2.5 % are left out on *each* side: take the quantile at 0.975": (
                    _interval(one, other, quantile=float(stats.t.ppf(0.95, count - 1)))
                ),
                "t has R - 1 degrees of freedom; yours has R": (
                    _interval(one, other, quantile=float(stats.t.ppf(0.975, count)))
                ),
                "divide the squares by R - 1, not R (NumPy: ddof=1)": _interval(one, other, ddof=0),
                "this is where a *single* new run would lie; the mean of R runs is surer by the root of R": (
                    _interval(one, other, of_mean=False)
                ),
                "low end first": right.flip(0),
                "two ends are asked for, (low, high); this is the middle": middle,
            }
            expect(ask(one.numpy(), other.numpy()), right, mistakes, "the interval")

    return test


EXERCISES = {
    "04b.1": Exercise(
        "ahead_from(steps, one, other)",
        (
            Part("curves that cross once", 1, _ahead_test(crossings=False)),
            Part("curves that cross several times", 1, _ahead_test(crossings=True)),
        ),
    ),
    "04b.2": Exercise(
        "interval_over_seeds(one, other)",
        (
            Part("three seeds", 1, _interval_test((3, 3))),
            Part("more seeds", 1, _interval_test((4, 9))),
        ),
        frozenset({"OverRuns"}),
    ),
}
