"""Learning curves: how a training's scores on the validation set grew, and whether it was over when it stopped."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascadeclip.errors import InputError
from cascadeclip.training.loop import LOG

VALIDATIONS = 12  # times, at least, that a run which is to be compared looks at the validation set
STILL_LEARNING = 0.01  # rise of mIoU on seen classes over the last quarter of a run, as a fraction


@dataclass(frozen=True)
class Curve:
    """Scores of one training on the validation set.

    Attributes:
        steps: optimiser steps done, ascending.
        seen, unseen: mean IoU at each, fractions.
    """

    steps: tuple[int, ...]
    seen: tuple[float, ...]
    unseen: tuple[float, ...]

    @property
    def rise(self) -> float:
        """How much the mean IoU on seen classes still rose over the last quarter: the slope of the straight line
        through the quarter's scores, its first included, times the quarter's length. nan for fewer than
        `VALIDATIONS` scores. Unseen classes have no say in it: nobody may stop a training by them.
        """
        if len(self.steps) < VALIDATIONS:
            return float("nan")
        steps, seen = np.array(self.steps, float), np.array(self.seen)
        quarter = steps >= 0.75 * steps[-1]
        return float(np.polyfit(steps[quarter], seen[quarter], 1)[0] * steps[-1] / 4)

    @property
    def trained(self) -> bool:
        """Whether the training was over: a longer one of the same kind would hardly move the seen classes."""
        return self.rise < STILL_LEARNING


def read_curve(folder: str | Path) -> Curve:
    """The curve that a training wrote into its folder.

    Raises:
        InputError: no log there, or one without scores.
    """
    path = Path(folder) / LOG
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        scored = [entry for entry in entries if "mIoU_seen" in entry]
        columns = [[entry[key] for entry in scored] for key in ("step", "mIoU_seen", "mIoU_unseen")]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no log of a training ({error}); remove its folder to train anew") from error
    if not scored:
        raise InputError(f"{path} holds no scores: that training was not validated; remove its folder to train anew")
    return Curve(*map(tuple, columns))


def not_trained(curves: Sequence[Curve]) -> str:
    """In words, why trainings must not be compared; empty if they may be."""
    unfinished = [curve for curve in curves if not curve.trained]
    if not unfinished:
        return ""
    if any(np.isnan(curve.rise) for curve in unfinished):
        return f"fewer than {VALIDATIONS} looks at the validation set"
    return f"still learning: +{100 * max(curve.rise for curve in unfinished):.1f} seen in its last quarter"
