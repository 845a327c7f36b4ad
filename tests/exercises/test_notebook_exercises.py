"""The notebooks' exercises: solutions pass, wrong answers are told what is wrong, an open one is only called open."""

import re
import runpy
from pathlib import Path

import pytest

import tests.support.notebook_answers_later  # noqa: F401
from cascadeclip.errors import InputError
from cascadeclip.exercises import NOTEBOOK_EXERCISES, check
from tests.support.notebook_answers import NOTEBOOK_WRONG

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.py"))

every = pytest.mark.parametrize("name", NOTEBOOK_EXERCISES)


def solution(name):
    """The solution of an exercise, from the file that has its notebook's name."""
    (path,) = (path for path in SOLUTIONS if path.stem.partition("_")[0] == name.partition(".")[0])
    return runpy.run_path(str(path))[NOTEBOOK_EXERCISES[name].name]


def told(name, answer, capsys, seed=None):
    check(name, answer, seed)
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, None])
@every
def test_solutions_are_right(name, seed, capsys):
    said = told(name, solution(name), capsys, seed)
    assert said.count(f"{name}: ✓") == len(NOTEBOOK_EXERCISES[name].parts)
    assert said.endswith(f"{name}: right, all of it\n")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, None])
@pytest.mark.parametrize("name,message,answer", NOTEBOOK_WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_wrong_answers_are_told_what_is_wrong(name, message, answer, seed, capsys):
    said = told(name, answer, capsys, seed)
    assert f"{name}: ✗" in said and message in said
    assert said.endswith(f"{name}: not yet\n")


@every
def test_every_exercise_has_three_wrong_answers(name):
    assert len({answer for of, _, answer in NOTEBOOK_WRONG if of == name}) >= 3


@every
def test_the_exercise_as_the_notebook_gives_it_is_only_called_open(name, capsys):
    def returns_the_gap(*arguments):
        return ...

    def raises(*arguments):
        raise NotImplementedError

    for answer in (..., returns_the_gap, raises):
        assert told(name, answer, capsys) == f"{name}: not answered yet\n"


@every
def test_any_other_value_is_told_in_words(name, capsys):
    for answer in (None, 3, "text", lambda: None, lambda *arguments: None, lambda *arguments: "text", len):
        assert told(name, answer, capsys).endswith(f"{name}: not yet\n")


def test_an_error_in_the_answer_is_said_and_does_not_stop_the_notebook(capsys):
    said = told("01.1", lambda similarity, samples: 1 / 0, capsys)
    assert "stopped with ZeroDivisionError" in said


def test_other_inputs_every_time_and_the_same_for_a_seed():
    def inputs(seed):
        seen = []
        check("01.1", lambda *arguments: seen.append(arguments) or 0.0, seed)
        return seen

    assert inputs(5) == inputs(5)
    assert inputs(None) != inputs(None)


@pytest.mark.parametrize("name,near", [("1.1", "01.1"), ("01.9", "01.1"), ("width_for", "00.1"), (3, "00.1")])
def test_an_unknown_name_gives_near_ones(name, near):
    with pytest.raises(InputError, match=re.escape(f"there is no exercise {name!r}: did you mean")) as refused:
        check(name, ...)
    assert near in str(refused.value)


def test_every_solution_belongs_to_a_notebook_and_holds_nothing_else():
    for path in SOLUTIONS:
        assert (NOTEBOOKS / f"{path.stem}.py").is_file()
        number = path.stem.partition("_")[0]
        wanted = {one.name for name, one in NOTEBOOK_EXERCISES.items() if name.startswith(f"{number}.")}
        assert wanted == set(re.findall(r"^def ([a-z]\w*)\(", path.read_text(), re.MULTILINE))
