"""What runs in the notebook's process while nbgrader grades it: it answers questions, and judges nothing.

The judge (`grading`) sends inputs and gets back what the student's function made of them. Each call runs in a child
process, so that an answer which never ends, waits for ever, swallows every exception or ends its process costs that
call alone. Where processes cannot be forked, calls run in the notebook's own process.
"""

import base64
import contextlib
import json
import multiprocessing
import os
import pickle
import random
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from cascadeclip.exercises import EXERCISES, integrity, wire
from cascadeclip.exercises.answering import AsGraded, Here, Nowhere, too_late
from cascadeclip.exercises.checking import Exercise, Late, Wrong
from cascadeclip.exercises.patience import Patience

CHARACTERS = 100_000  # that a cell may print


def find(namespace: Mapping[str, object], name: str) -> str:
    """The value of an exercise, or that its function is there, as `reply` writes it; and what became of the package.

    Args:
        namespace: the notebook's `globals()`.
        name: of the exercise.
    """
    exercise, here = EXERCISES[name], Here(namespace)
    found = json.loads(_apart(lambda: here.find(exercise), exercise))
    return _sent(json.dumps({**found, "replaced": integrity.replaced(), "origins": integrity.origins()}))


def call(namespace: Mapping[str, object], question: str) -> str:
    """What a student's function returns, as `reply` writes it.

    Args:
        question: file with the exercise, but for its tests, and the arguments; pickled by the judge.
    """
    exercise, arguments = pickle.loads(Path(question).read_bytes())
    here = AsGraded(namespace)
    apart = _can_fork(exercise)

    def answer() -> object:
        found = (here.call_unlimited if apart else here.call)(exercise, arguments)
        if replaced := integrity.watch_replaced():
            raise Wrong(f"this notebook replaced what sees whether an answer is its own work: {', '.join(replaced)}")
        return found

    return _sent(_apart(answer, exercise))


def _sent(text: str) -> str:
    """Text whose `repr` is itself, in quotes: that is how it leaves the process."""
    return base64.b64encode(text.encode()).decode()


def reply(work: Callable[[], object]) -> str:
    """JSON with the `answer` as `wire` packs it, or with what is `wrong` or `late`."""
    try:
        return json.dumps({"answer": wire.pack(work())})
    except Late as late:
        return json.dumps({"late": str(late)})
    except Wrong as wrong:
        return json.dumps({"wrong": str(wrong)[:2000]})
    except Exception as error:
        return json.dumps({"wrong": f"what it returns cannot be read: {error}"[:2000]})


def _can_fork(exercise: Exercise) -> bool:
    """macOS's own libraries, and CUDA once it is in use, do not survive a fork; where CUDA is, nor do gradients."""
    trains_beside_cuda = exercise.trains and torch.cuda.is_available()
    return sys.platform == "linux" and not trains_beside_cuda and not torch.cuda.is_initialized()


def _apart(work: Callable[[], object], exercise: Exercise) -> str:
    """`reply` of a child process, which is ended after the exercise's seconds of work."""
    if not _can_fork(exercise):
        return reply(work)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(work, sending))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads are not copied: none is needed
        child.start()
    sending.close()
    assert child.pid is not None
    try:
        patience = Patience(child.pid, exercise.seconds)
        while not receiving.poll(exercise.seconds):
            if patience.is_over():
                return json.dumps({"late": too_late(exercise.seconds)})
        return receiving.recv_bytes(2 * wire.LARGEST).decode()
    except (EOFError, OSError, UnicodeDecodeError):
        return json.dumps({"wrong": f"your `{exercise.name}` ended the process that it ran in"})
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # with whatever it started
        child.kill()
        child.join()
        receiving.close()


def _in_child(work: Callable[[], object], sending: Connection) -> None:
    os.setsid()
    torch.set_num_threads(1)  # the others were not copied
    sys.stdout = sys.stderr = Nowhere()
    for silent in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), silent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the notebook
    fresh = int.from_bytes(os.urandom(4), "little")  # a child would draw the same numbers as the one before
    torch.manual_seed(fresh), np.random.seed(fresh), random.seed(fresh)
    sending.send_bytes(reply(work).encode())
    sending.close()
    os._exit(0)


def bound_output() -> str:
    """From now on, what a cell prints beyond `CHARACTERS` is dropped where it is printed, and said so.

    A flood then costs no time on its way to whoever reads it, and a thread that goes on printing is heard no more.
    """
    from IPython.core.getipython import get_ipython

    left: dict[str, int] = {}

    def afresh(*_: object) -> None:
        left.update(stdout=CHARACTERS, stderr=CHARACTERS)

    def bounded(name: str, write: Callable[[str], int | None]) -> Callable[[str], int]:
        def cut(text: str) -> int:
            room = left[name]
            left[name] = room - len(text)
            if room > 0:
                write(text if len(text) <= room else f"{text[:room]}\n... output cut ...\n")
            return len(text)

        return cut

    afresh()
    for name in left:
        stream = getattr(sys, name)
        stream.write = bounded(name, stream.write)
    shell = get_ipython()
    if shell is not None:
        shell.events.register("pre_run_cell", afresh)
    return ""
