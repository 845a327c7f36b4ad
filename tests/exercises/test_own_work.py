"""An answer is the student's own work: a library that does it is found by any route, and help is allowed."""

import queue
import statistics
import sys
import threading
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import cascadeclip
from cascadeclip.exercises import Wrong, budget, grade


class Lent:
    attribute = staticmethod(cascadeclip.evaluation.harmonic_mean)

    def method(self, seen, unseen):
        return self.attribute(seen, unseen)


def harmonic_mean(seen, unseen):
    return cascadeclip.evaluation.harmonic_mean(seen, unseen)


def in_a_thread(seen, unseen):
    found = queue.Queue()
    thread = threading.Thread(target=lambda: found.put(cascadeclip.evaluation.harmonic_mean(seen, unseen)))
    thread.start()
    return found.get(timeout=1)


def by_default(seen, unseen, mean=cascadeclip.evaluation.harmonic_mean):
    return mean(seen, unseen)


def swallowing(seen, unseen):
    try:
        return cascadeclip.evaluation.harmonic_mean(seen, unseen)
    except BaseException:
        return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


LENT = {
    "the same name": harmonic_mean,
    "partial": partial(cascadeclip.evaluation.harmonic_mean),
    "default": by_default,
    "attribute": Lent.attribute,
    "method": Lent().method,
    "map": lambda seen, unseen: next(map(cascadeclip.evaluation.harmonic_mean, [seen], [unseen])),
    "by name": lambda seen, unseen: getattr(cascadeclip.evaluation, "harmonic" + "_mean")(seen, unseen),
    "thread": in_a_thread,
    "swallowing": swallowing,
    "the tests' own": lambda seen, unseen: budget._harmonic(seen, unseen),
    "another library's": lambda seen, unseen: statistics.harmonic_mean([seen, unseen]),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("answer", LENT.values(), ids=LENT)
def test_lent_answers_are_found_by_any_route(answer):
    with pytest.raises(Wrong, match=r"write (it|this one) yourself"):
        grade("harmonic_mean", {"harmonic_mean": answer}, 1)


@pytest.mark.parametrize(
    "answer",
    [
        lambda q, k, v, heads, is_patch: partial(F.scaled_dot_product_attention)(q, k, v),
        lambda q, k, v, heads, is_patch: torch.nn.MultiheadAttention(q.shape[-1], heads, batch_first=True)(q, k, v)[0],
    ],
)
def test_lent_answers_of_pytorch_are_found(answer):
    with pytest.raises(Wrong, match="write it yourself"):
        grade("attend", {"attend": answer}, 1)


def test_other_functions_of_the_package_may_help(capsys):
    def learning_rate(step, steps, peak, warmup):
        cascadeclip.config.TrainConfig.learning_rate_at  # noqa: B018  named, not called
        return peak * (1 - step / steps) ** 0.9 * (min(step / warmup, 1) if warmup else 1)

    before = sys.getprofile()
    assert grade("learning_rate", {"learning_rate": learning_rate}, 1) == 3
    assert sys.getprofile() is before
