"""What a student sees is what grading finds: the visible tests and the hidden ones say the same of an answer."""

import base64
import re
import sys

import pytest
import torch

import tests.support.answers_pieces
import tests.support.answers_scores  # noqa: F401
from cascadeclip.exercises import ASSIGNMENTS, EXERCISES, Wrong, grade, grade_part
from cascadeclip.exercises.answering import Here
from cascadeclip.exercises.build import TEST
from cascadeclip.exercises.checking import verdict
from cascadeclip.exercises.distant import Distant
from tests.support.answers import RIGHT, WRONG

SEEDS = range(10, 16)  # of the visible tests there are as many as runs
SLOW = {"auroc_by_block"}  # seconds a seed
ANSWERS = [(name, answer) for name, _, answer in WRONG] + RIGHT
KNOWN = pytest.mark.parametrize(
    "name,answer", ANSWERS, ids=[f"{name}-{getattr(answer, '__name__', '')}" for name, answer in ANSWERS]
)


def passed(name, answer, seed):
    """Which parts hold."""
    return [wrong is None for wrong in EXERCISES[name].judge(Here({name: answer}), seed)]


def visible_but_not_hidden(answers, seeds):
    """Answers of which a part passes with one seed, as in the visible test, and fails with another, as in grading."""
    found = []
    for name, answer in answers:
        by_seed = [passed(name, answer, seed) for seed in (seeds if name not in SLOW else seeds[:2])]
        found += [
            f"{name}: {answer.__name__}, part {number}"
            for number, held in enumerate(zip(*by_seed, strict=True))
            if len(set(held)) > 1
        ]
    return found


@pytest.mark.slow
@KNOWN
def test_no_answer_passes_with_one_seed_and_fails_with_another(name, answer):
    assert visible_but_not_hidden([(name, answer)], SEEDS) == []


def test_an_answer_that_passes_by_luck_would_be_listed():
    def learning_rate(step, steps, peak, warmup):
        return peak * (1 - step / steps) ** 0.9 * (1 if steps < 160 else 2)

    assert visible_but_not_hidden([("learning_rate", learning_rate)], SEEDS)


def graded(name, answer, seed):
    """As nbgrader's process judges it: points, and what is said."""
    space = {name: answer}
    return verdict(EXERCISES[name], Distant(lambda text, seconds: base64.b64decode(eval(text, space)).decode()), seed)


ODD = {
    "an array equal to all": "class Same(np.ndarray):\n    __eq__ = __sub__ = lambda *arguments: np.zeros(())\n"
    "def {name}(*arguments):\n    return np.zeros((2, 3, 8)).view(Same)",
    "an object": "def {name}(*arguments):\n    return object()",
    "a class of its own": "class Mine:\n    def __float__(self):\n        return 1.0\n"
    "def {name}(*arguments):\n    return Mine()",
    "a set": "def {name}(*arguments):\n    return {{1.0, 2.0}}",
    "a generator": "def {name}(*arguments):\n    return (x for x in [1.0])",
    "strings": "def {name}(*arguments):\n    return ['1.0', '2.0']",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
@pytest.mark.parametrize("name", ["attend", "mask_loss", "learning_rate", "run_prompted", "harmonic_mean", "held_out"])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_gets_from_the_visible_test_what_grading_gives_it(name, odd):
    space = {}
    exec("import numpy as np\n" + ODD[odd].format(name=name), space)
    hidden = graded(name, space[name], 5)
    assert hidden.points == 0
    with pytest.raises(Wrong) as told:
        grade(name, space, 5)
    assert str(told.value) == str(hidden.wrong) and len(str(told.value)) > 15
    with pytest.raises(Wrong, match=re.escape(str(told.value))):
        grade_part(name, 0, space, 5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
@pytest.mark.parametrize("name", [name for name in EXERCISES if name not in {*SLOW, "my_settings"}])
def test_grading_says_of_a_known_answer_what_the_visible_test_says(name):
    for of, answer in [*((n, a) for n, _, a in WRONG), *RIGHT][::2]:
        if of == name:
            hidden, visible = graded(name, answer, 8), verdict(EXERCISES[name], Here({name: answer}), 8)
            assert (hidden.points, hidden.lines) == (visible.points, visible.lines)
            assert str(hidden.wrong) == str(visible.wrong)


def test_the_hidden_test_is_the_visible_one_with_a_seed():
    visible = re.sub(r"### BEGIN HIDDEN TESTS\n.*### END HIDDEN TESTS\n", "", TEST, flags=re.DOTALL)
    assert [line for line in TEST.splitlines() if line not in visible.splitlines()] == [
        "### BEGIN HIDDEN TESTS", "seed = {seed}", "### END HIDDEN TESTS",
    ]  # fmt: skip
    assert visible.count("grade(") == 1


def test_an_answer_with_gradients_or_of_another_kind_of_number_still_passes(capsys):
    def harmonic_mean(seen, unseen):
        found = torch.tensor(2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0, dtype=torch.float64)
        return found.requires_grad_()

    assert grade("harmonic_mean", {"harmonic_mean": harmonic_mean}, 1) == 2


def test_every_assignment_says_what_grading_does_beside_the_visible_tests():
    from tests.exercises.test_assignments import notebook

    for name in ASSIGNMENTS:
        start = " ".join(notebook("release", name).cells[0].source.split())
        for word in ("the same tests on other inputs", "nothing else is tested", "30 seconds", "for 20", "Restart and"):
            assert word in start, (name, word)
