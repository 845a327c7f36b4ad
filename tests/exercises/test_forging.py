"""Points cannot be had but by right answers: forged tests, floods, answers that never come, replies that are none."""

import base64
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import torch

from cascadeclip.exercises import EXERCISES, checking, integrity, kernel, wire
from cascadeclip.exercises.answering import Here, time_limit
from cascadeclip.exercises.checking import Exercise, Late, Part, expect, verdict
from cascadeclip.exercises.distant import Distant
from cascadeclip.exercises.patience import Patience
from tests.support.grading import grade_cells

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")

RATE = """
import torch
def learning_rate(step, steps, peak, warmup):
    return peak * (1 - step / steps) ** 0.9 * (min(step / warmup, 1) if warmup else 1)
"""
ZERO = "def word_map(tokens, word, grid):\n    return 0"

# What a notebook does before its wrong `word_map` is tested; one after the other, in one process.
FORGERIES = {
    "the grader": """
import cascadeclip.exercises as e
e.grade = lambda *arguments: 2.0
""",
    "the judge": """
e.checking.Exercise.judge = lambda *arguments: [None, None]
e.checking.expect = e.pieces.expect = lambda *arguments: None
""",
    "comparisons": """
import numpy, torch
torch.allclose = torch.equal = numpy.allclose = lambda *arguments, **options: True
""",
    "names": """
__name__, EXERCISES = "cascadeclip", {}
grade = float = lambda *arguments: 2.0
""",
    "an object equal to all": """
class Yes(complex):
    __eq__ = lambda *arguments: True
    __hash__ = None
def word_map(tokens, word, grid):
    return Yes()
""",
    "an array equal to all": """
class Same(numpy.ndarray):
    __eq__ = __sub__ = lambda *arguments: numpy.zeros(())
def word_map(tokens, word, grid):
    return numpy.zeros(grid).view(Same)
""",
    "a tensor equal to all": """
class Equal(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        return torch.zeros(())
def word_map(tokens, word, grid):
    return torch.zeros(grid).as_subclass(Equal)
""",
    "at exit": """
import atexit
atexit.register(lambda: print("2.0"))
""",
    "a thread that waits": """
import threading, time
def wait():
    while True:
        time.sleep(0.05)
        e.EXERCISES["word_map"] = e.EXERCISES["harmonic_mean"]
threading.Thread(target=wait, daemon=True).start()
""",
    "the display": """
import sys
shell = get_ipython()
shell.display_formatter.format = lambda *arguments, **options: ({"text/plain": "2.0"}, {})
sys.displayhook = lambda *arguments: None
""",
    "cells": "shell.input_transformers_post.append(lambda lines: ['2.0'])",
}
IN_A_NEW_PROCESS = {
    "modules": """
import pickle, sys, types
pickle.loads = lambda *arguments: ([], [])
for name in [name for name in sys.modules if name.startswith("cascadeclip")]:
    sys.modules[name] = types.SimpleNamespace()
""",
    "the reply": """
import base64
def points(*arguments):
    return {"answer": {"status": "ok", "data": {"text/plain": base64.b64encode(b"2.0")}}}
get_ipython().user_expressions = points
""",
}


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    """What the test after each forgery shows."""
    folder = tmp_path_factory.mktemp("notebook")
    shown = grade_cells(
        RATE,
        "learning_rate",
        *(part for text in FORGERIES.values() for part in (ZERO, text, "word_map")),
        folder=folder,
    )
    assert shown[1].points == 3
    found = dict(zip(FORGERIES, shown[4::3], strict=True))
    shown = grade_cells(
        ZERO, *(part for text in IN_A_NEW_PROCESS.values() for part in (text, "word_map")), folder=folder
    )
    return found | dict(zip(IN_A_NEW_PROCESS, shown[2::2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("forgery", FORGERIES | IN_A_NEW_PROCESS)
def test_a_forgery_earns_nothing(forgery, forged):
    assert forged[forgery].points == 0
    assert "Wrong: " in forged[forgery].text


@pytest.mark.slow
def test_the_teacher_is_told_of_it(forged):
    assert "replaced parts of the package in its own process: cascadeclip.exercises.grade" in forged["the grader"].text
    assert "cascadeclip.exercises.checking.Exercise.judge" in forged["the judge"].text


@pytest.mark.slow
def test_files_beside_the_notebook_judge_nothing(tmp_path, monkeypatch):
    room = tmp_path / "cascadeclip" / "exercises"
    room.mkdir(parents=True)
    for path in (room.parent / "__init__.py", room / "__init__.py"):
        path.write_text("def grade(*a):\n    return 2.0\n")
    (tmp_path / "sitecustomize.py").write_text("print(2.0)")
    said = base64.b64encode(b'{"answer": "2"}').decode()
    (room / "kernel.py").write_text(f"def find(*a):\n    return {said!r}\ncall = bound_output = find\n")
    # the notebook's folder comes before installed packages, but after this variable, where a checkout may stand
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    told = grade_cells(ZERO, "word_map", folder=tmp_path)[1]
    assert told.points == 0 and "this notebook's `cascadeclip` is not the one that judges it" in told.text


TALK = """
import threading
def talk():
    while True:
        print("z" * 1000)
threading.Thread(target=talk).start()
"""
FLOOD = """
import os, time
from cascadeclip.exercises import EXERCISES
for one in EXERCISES.values():
    object.__setattr__(one, "seconds", 2000)
os.system("yes | head -c 50000000")
"""
SWALLOWS = """
def mask_loss(*arguments):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
"""


@pytest.mark.slow
@linux
def test_floods_and_endless_answers_cost_what_they_must(tmp_path, capfd, monkeypatch):
    for name, one in list(EXERCISES.items()):
        monkeypatch.setitem(EXERCISES, name, replace(one, seconds=2))
    shown = grade_cells(
        *(RATE, TALK, "learning_rate", FLOOD, "learning_rate"),
        *(SWALLOWS, "mask_loss"),
        *("def attend(*arguments):\n    time.sleep(1000)", "attend"),
        *("def run_prompted(*arguments):\n    os._exit(0)", "run_prompted"),
        *("os._exit(1)", "learning_rate"),
        folder=tmp_path,
    )
    assert [one.points for one in shown if one.points is not None] == [3, 3, 0, 0, 0, 3]
    assert "output cut" in shown[1].text and all(len(one.text) < 200_000 for one in shown)
    assert "still running after" in shown[6].text and "wait for something" in shown[8].text
    assert "ended the process that it ran in" in shown[10].text
    assert "ended the notebook's process" in shown[11].text
    printed = capfd.readouterr()
    assert len(printed.out + printed.err) < 10_000


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [lambda: time.sleep(60), lambda: queue.Queue().get(timeout=60)])
def test_what_waits_is_woken(blocks):
    start = time.monotonic()
    with pytest.raises(Late), time_limit(0.3):
        blocks()
    assert time.monotonic() - start < 30


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    "answer,message",
    [
        (lambda: time.sleep(60), "still running after 0.3"),
        (lambda: os._exit(0), "ended the process"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended the process"),
        (lambda: subprocess.run(["sleep", "60"], check=True), "lets code run where it is not seen"),
        (lambda: object(), "of type object"),
        (lambda: np.array([{}]), "of type ndarray"),
        (lambda: "x" * 5000, "far too much"),
    ],
)
def test_an_answer_in_a_process_of_its_own_costs_itself_alone(answer, message, monkeypatch):
    exercise = Exercise("odd()", (Part("odd", 1, lambda ask, random: expect(ask(), 1.0)),), seconds=0.3)
    monkeypatch.setitem(EXERCISES, "odd", exercise)
    monkeypatch.setattr(wire, "LARGEST", 2000)
    space = {"odd": answer}
    found = verdict(exercise, Distant(lambda text, seconds: base64.b64decode(eval(text, space)).decode()), 1)
    assert message in str(found.wrong)


@linux
def test_children_draw_numbers_of_their_own():
    answers = Distant(lambda text, seconds: base64.b64decode(eval(text, {"learning_rate": draw})).decode())

    def draw(*arguments):
        return [torch.rand(()).item(), np.random.rand()]

    one, other = (answers.call(EXERCISES["learning_rate"], (2, 10, 1.0, 0)) for _ in range(2))
    assert not set(one) & set(other)


def test_only_work_and_waiting_use_up_patience(monkeypatch):
    worked = iter([0.0, 10.0, 19.0, 27.5])
    monkeypatch.setattr(Patience, "_worked", lambda self: next(worked))
    busy_machine = Patience(1, 30)
    assert [busy_machine.is_over() for _ in range(3)] == [False, False, True]
    worked = iter([0.0, 0.1])
    assert Patience(1, 30).is_over(), "it waits for something"


# --- what comes from the other process -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 10**30, 0.5, float("inf"), "text", 1j, [1, (2, "a")], {"a": [1], "b": {"c": None}}, {1: 2}],
)
def test_plain_values_arrive_as_they_are(value):
    assert wire.unpack(wire.pack(value)) == value


@pytest.mark.parametrize(
    "value",
    [torch.zeros(1, 1).expand(10**6, 10**6), np.broadcast_to(1.0, (10**6, 10**6)), torch.zeros(9).expand(10**8, 9),
     ["x" * 10**6] * 100, [torch.ones(10**6)] * 100],
    ids=["expanded", "broadcast", "views", "texts", "tensors"],
)  # fmt: skip
def test_an_answer_far_too_large_is_refused_before_it_is_copied(value):
    with pytest.raises(ValueError, match="far too much: what is asked for is small"):
        wire.pack(value)


def holding_itself(kind):
    found = kind()
    found.append(found) if kind is list else found.update(self=(found,))
    return found


@pytest.mark.filterwarnings("ignore")  # experimental, PyTorch says of some
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: holding_itself(list), "hold themselves"),
        (lambda: holding_itself(dict), "hold themselves"),
        (lambda: reduce(lambda inner, _: [inner], range(2000), 1), "too many in each other"),
        (lambda: [torch.zeros(2, device="meta")], "a tensor of torch.float32 on meta has no plain numbers"),
        (lambda: torch.zeros(2, dtype=torch.complex32), "a tensor of torch.complex32 on cpu has no"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "has no plain numbers"),
    ],
)
def test_an_answer_that_has_no_end_or_no_numbers_is_refused_in_one_line(make, said):
    with pytest.raises(ValueError, match=said) as caught:
        wire.pack(make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
def test_tensors_arrive_with_shape_and_numbers(dtype):
    sent = torch.arange(6).view(2, 3).T.to(dtype)
    (found,) = wire.unpack(wire.pack([sent]))
    assert found.shape == (3, 2) and torch.equal(found.to(dtype), sent)


@pytest.mark.parametrize(
    "text",
    [
        "", "[1]", "{}", '{"array": 3}', '{"array": "AAAA"}', '{"pickle": "gASVAAAA"}', '{"dict": [[{"list": []}, 1]]}',
        "[" * 100_000, json.dumps({"array": base64.b64encode(pickle.dumps(np.zeros(3))).decode()}),
        json.dumps({"array": base64.b64encode(b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f8', 'fortran_order': False, "
                                              b"'shape': (900000000000,)}\n").decode()}),
    ],
)  # fmt: skip
def test_whatever_else_arrives_is_refused(text):
    with pytest.raises(ValueError):
        wire.unpack(text)


@pytest.mark.parametrize(
    "said", ["", "2.0", "[]", "{}", '{"answer": 2}', '{"points": 2, "answer": "2"}', "\0", '{"wrong": 1}']
)
def test_a_process_that_says_odd_things_gets_no_points(said):
    found = verdict(EXERCISES["word_map"], Distant(lambda text, seconds: said), 1)
    assert found.points == 0 and len(str(found.wrong)) < 3000


def test_a_package_as_it_was_installed_has_nothing_replaced(monkeypatch):
    assert integrity.replaced() == []
    monkeypatch.setattr(checking, "near", lambda *arguments: True)
    monkeypatch.setattr(checking.Exercise, "judge", lambda *arguments: [])
    monkeypatch.setattr("cascadeclip.exercises.pieces.expect", print)
    assert integrity.replaced() == [
        "cascadeclip.exercises.checking.Exercise.judge",
        "cascadeclip.exercises.checking.near",
    ]


def test_an_answer_that_no_test_can_work_with_is_told():
    found = verdict(EXERCISES["seen_unseen_scores"], Here({"seen_unseen_scores": lambda *a: torch.tensor(1.0)}), 1)
    assert found.points == 0 and "`seen_unseen_scores`" in str(found.wrong)


def test_output_beyond_the_limit_is_dropped_where_it_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(kernel, "CHARACTERS", 10)
    kernel.bound_output()
    print("x" * 100)
    print("y" * 100)
    monkeypatch.undo()
    out = capsys.readouterr().out
    assert out.startswith("x" * 10 + "\n... output cut ...") and "y" not in out
