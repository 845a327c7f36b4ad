"""How far a measure would move with other pictures: the bootstrap over pictures, and paired differences."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cascadeclip.errors import InputError


@dataclass(frozen=True)
class Resampled:
    """A measure on a set of pictures, and on sets drawn from it; made by `bootstrap`.

    Two of them over the same pictures are *paired*, for both drew the same sets: `(one - other).interval()` judges the
    difference of two models. It is narrower than their own intervals suggest, since a hard picture is hard for both.

    Attributes:
        whole: float64 scalar or (K,), the measure on the set itself.
        draws: (repeats,) or (repeats, K) float64, on the drawn sets.
        drawn_as: number of pictures, of repeats, and the seed.
    """

    whole: np.ndarray
    draws: np.ndarray
    drawn_as: tuple[int, int, int]

    def __sub__(self, other: "Resampled") -> "Resampled":
        if self.drawn_as != other.drawn_as:
            raise InputError(
                f"drawn as {self.drawn_as} and {other.drawn_as} (pictures, repeats, seed): a paired difference needs "
                "the same of both"
            )
        return Resampled(self.whole - other.whole, self.draws - other.draws, self.drawn_as)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the basic bootstrap interval, each shaped as `whole`; nan where no draw has a value."""
        if not 0 < level < 1:
            raise InputError(f"level={level} must lie between 0 and 1, for example 0.95")
        tail = (1 - level) / 2
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
            low, high = np.nanquantile(self.draws, (tail, 1 - tail), axis=0)
        return 2 * self.whole - high, 2 * self.whole - low


def bootstrap(
    measure: Callable[[np.ndarray], float | np.ndarray], pictures: int, *, repeats: int = 500, seed: int = 0
) -> Resampled:
    """How far a measure would move with other pictures: as many of them, drawn with replacement, again and again.

    Pictures are drawn, not pixels, patches or classes: those of one picture are right or wrong together.

    The interval is the *basic* one: how far draws lie from the set says how far the set may lie from the truth. It
    matters for means over classes, for they are flattered by few pictures. A rare class enters the mean only if the
    set holds it; then it holds more of it than is usual, while other classes' false alarms come as usual, so that its
    IoU is too high. The draws are flattered against the set as the set is against the world; the basic interval takes
    that off, and the measured value then lies in its upper part. (The middle 95 % of the draws would have the bias
    twice: in the simulation of `tests/analysis/test_alignment.py`, 40 pictures of 60 classes, they hold the truth in
    a minority of cases, basic intervals in some six of seven.) An interval of a class in few pictures can leave the
    range of its measure. And nothing here tells how another training would come out.

    Args:
        measure: (pictures,) indices drawn, repeats and all -> its value, or K values at once; nan for none.
        pictures: how many there are.
        repeats: sets to draw.

    Raises:
        InputError: no pictures or no repeats.
    """
    if pictures < 1 or repeats < 1:
        raise InputError(f"pictures={pictures} and repeats={repeats} must be at least 1")
    drawn = np.random.default_rng(seed).integers(0, pictures, (repeats, pictures))
    whole = np.asarray(measure(np.arange(pictures)), dtype=float)
    draws = np.array([np.asarray(measure(rows), dtype=float) for rows in drawn])
    return Resampled(whole, draws, (pictures, repeats, seed))
