"""Learning curves: how a training's scores on the validation set grew, and whether it was over when it stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from cascadeclip.errors import InputError
from cascadeclip.files import parse_json_object, read_text
from cascadeclip.schema import check_value
from cascadeclip.training.loop import LOG

VALIDATIONS = 12  # times, at least, that a run which is to be compared looks at the validation set
GROUPS = ("seen", "unseen")  # of classes, each with a score at every look
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
        lines = enumerate(read_text(path, "log of a training").splitlines(), start=1)
        entries = [parse_json_object(text, f"line {number} of {path}") for number, text in lines]
        scored = [entry for entry in entries if "mIoU_seen" in entry]
        steps = check_value([entry.get("step") for entry in scored], tuple[int, ...], "step")
        seen, unseen = (
            check_value([entry.get(key) for entry in scored], tuple[float | None, ...], key)
            for key in ("mIoU_seen", "mIoU_unseen")
        )
        if any(after <= before for before, after in pairwise((0, *steps))):
            raise InputError(f"the steps {list(steps[:5])} do not ascend")
    except InputError as error:
        raise InputError(f"{path} is no log of a training ({error}); remove its folder to train anew") from error
    if not scored:
        raise InputError(f"{path} holds no scores: that training was not validated; remove its folder to train anew")
    return Curve(steps, _with_nan(seen), _with_nan(unseen))


def _with_nan(scores: tuple[float | None, ...]) -> tuple[float, ...]:
    """The log has null for a score that there was nothing to measure for."""
    return tuple(float("nan") if score is None else score for score in scores)


def not_trained(curves: Sequence[Curve]) -> str:
    """In words, why trainings must not be compared; empty if they may be."""
    unfinished = [curve for curve in curves if not curve.trained]
    if not unfinished:
        return ""
    if any(np.isnan(curve.rise) for curve in unfinished):
        return f"fewer than {VALIDATIONS} looks at the validation set"
    return f"still learning: +{100 * max(curve.rise for curve in unfinished):.1f} seen in its last quarter"
