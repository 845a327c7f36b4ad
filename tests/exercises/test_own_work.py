"""An answer is the student's own work: a library that does it is found by any route, and help is allowed."""

import _thread
import multiprocessing
import os
import queue
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def switched_off(seen, unseen):
    sys.setprofile(None)
    return cascadeclip.evaluation.harmonic_mean(seen, unseen)


def in_a_raw_thread(seen, unseen):
    found = queue.Queue()
    _thread.start_new_thread(lambda: found.put(cascadeclip.evaluation.harmonic_mean(seen, unseen)), ())
    return found.get(timeout=5)


def in_a_thread_that_nobody_watches(seen, unseen):
    threading._profile_hook = None
    return in_a_thread(seen, unseen)


def forked(seen, unseen):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(cascadeclip.evaluation.harmonic_mean(seen, unseen)).encode())
        os._exit(0)
    os.wait()
    return float(os.read(reading, 99))


def swallowing_too(seen, unseen):
    try:
        return switched_off(seen, unseen)
    except BaseException:
        return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


ESCAPES = {
    "switched off": switched_off,
    "raw thread": in_a_raw_thread,
    "thread that nobody watches": in_a_thread_that_nobody_watches,
    "forked": pytest.param(forked, marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")),
    "swallowing": swallowing_too,
    "another program": lambda seen, unseen: float(subprocess.check_output([sys.executable, "-c", "print(0.5)"])),
    "the system": lambda seen, unseen: os.system("exit 1") / 512,
    "multiprocessing": lambda seen, unseen: multiprocessing.get_context("spawn").Process().start() or 0.5,
}


@pytest.mark.parametrize("answer", ESCAPES.values(), ids=ESCAPES)
def test_answers_cannot_go_where_they_are_not_seen(answer):
    with pytest.raises(Wrong, match="lets code run where it is not seen"):
        grade("harmonic_mean", {"harmonic_mean": answer}, 1)
    assert sys.getprofile() is None and threading.getprofile() is None


@pytest.mark.parametrize("replacement", [lambda watch: None, lambda watch: sys.settrace(None)])
def test_a_replaced_profiler_watches_nothing_less(replacement, monkeypatch):
    monkeypatch.setattr(sys, "setprofile", replacement)
    monkeypatch.setattr(threading, "setprofile", replacement)
    with pytest.raises(Wrong, match="write it yourself"):
        grade("harmonic_mean", {"harmonic_mean": lambda *given: harmonic_mean(*given)}, 1)


def test_an_answer_may_use_threads(capsys):
    def in_threads(step, steps, peak, warmup):
        parts = (lambda: (1 - step / steps) ** 0.9, lambda: min(step / warmup, 1) if warmup else 1)
        with ThreadPoolExecutor(2) as pool:
            fall, rise = pool.map(lambda part: part(), parts)
        return peak * fall * rise

    assert grade("learning_rate", {"learning_rate": in_threads}, 1) == 3


def past_functions(q, k, v, heads, is_patch):
    with torch._C.DisableTorchFunction():
        return F.scaled_dot_product_attention(q, k, v)


def in_steps(q, k, v, heads, is_patch):
    """What PyTorch itself chooses where no kernel fits; which ones do depends on its version."""
    with sdpa_kernel(SDPBackend.MATH):
        return past_functions(q, k, v, heads, is_patch)


def compiled(q, k, v, heads, is_patch):
    example = (torch.zeros(1, 1, 2, 4),) * 3
    return torch.jit.trace(F.scaled_dot_product_attention, example, check_trace=False)(q[None], k[None], v[None])[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "answer",
    [
        past_functions,
        in_steps,
        compiled,
        lambda q, k, v, heads, is_patch: torch.ops.aten.scaled_dot_product_attention.default(q, k, v),
        lambda q, k, v, heads, is_patch: torch.ops.aten._scaled_dot_product_attention_math.default(q, k, v)[0],
        lambda q, k, v, heads, is_patch: torch._scaled_dot_product_attention_math(q, k, v)[0],
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
