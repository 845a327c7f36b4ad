"""The assignments' checkers: right answers get all points however written, wrong ones fail and are told why."""

import contextlib
import copy
import re
import signal
import threading
import time
import warnings
from pathlib import Path

import jupytext
import pytest
import torch

import cascadeclip
import tests.support.answers_pieces
import tests.support.answers_scores  # noqa: F401
from cascadeclip.exercises import ASSIGNMENTS, EXERCISES, Wrong, grade
from cascadeclip.exercises.answering import Here, time_limit
from cascadeclip.exercises.checking import Exercise, Late, Part, expect
from tests.support.answers import RIGHT, WRONG

FOLDER = Path(__file__).resolve().parents[2] / "notebooks" / "assignments"
FUNCTIONS = [exercise for exercise in EXERCISES.values() if not exercise.is_value]

exercises = pytest.mark.parametrize("exercise", FUNCTIONS, ids=lambda exercise: exercise.name)


def judged(name, answer, seed):
    return EXERCISES[name].judge(Here({name: answer}), seed)


def solutions(assignment):
    """The namespace that the source notebook's solutions leave behind."""
    namespace = {"__name__": "__main__"}
    cells = jupytext.read(FOLDER / f"{assignment}.py").cells
    setup = next(cell.source for cell in cells if cell.cell_type == "code")
    imports = [line for line in re.sub(r"\(\n[^)]*\)", lambda m: m[0].replace("\n", " "), setup).splitlines()]
    exec("\n".join(line for line in imports if re.match(r"(import|from) ", line)), namespace)
    for cell in cells:
        if "answer" in cell.metadata:
            exec(cell.source, namespace)
    return namespace


@pytest.fixture(scope="module")
def solved():
    return {name: solutions(name) for name in ASSIGNMENTS}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name,answer", RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_right_answers_written_otherwise_hold(name, answer, seed):
    assert judged(name, answer, seed) == [None] * len(EXERCISES[name].parts)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, None])
@exercises
def test_solutions_of_the_notebooks_earn_all_points(exercise, seed, solved, capsys):
    (assignment,) = (name for name, all_of_it in ASSIGNMENTS.items() if exercise in all_of_it)
    assert grade(exercise.name, solved[assignment], seed) == exercise.points
    assert capsys.readouterr().out.count(": right (") == len(exercise.parts)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name,message,answer", WRONG, ids=lambda value: getattr(value, "__name__", None) or "")
def test_wrong_answers_fail_and_are_told_why(name, message, answer, seed):
    try:
        found = judged(name, answer, seed)
    except Wrong as wrong:
        found = [wrong]
    told = [str(wrong) for wrong in found if wrong is not None]
    assert told, "the wrong answer passed"
    assert re.search(message, " | ".join(told)) or message in " | ".join(told)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_at_least_ten_wrong_answers_and_every_exercise_has_some(assignment):
    names = [exercise.name for exercise in ASSIGNMENTS[assignment]]
    listed = [name for name, _, _ in WRONG if name in names]
    assert len(listed) >= 10
    assert set(listed) | {"my_settings"} >= set(names)
    assert {name for name, _ in RIGHT} | {"my_settings"} >= set(names)


@pytest.mark.slow
@exercises
def test_no_part_is_passed_by_a_constant(exercise, solved):
    """What was right for the first inputs is given again for all others: no part may be content."""
    (namespace,) = (solved[name] for name, all_of_it in ASSIGNMENTS.items() if exercise in all_of_it)
    for part in exercise.parts:
        remembered = []

        def constant(*arguments, remembered=remembered):
            if not remembered:
                remembered.append(copy.deepcopy(namespace[exercise.name](*arguments)))
            return remembered[0]

        for seed in range(3):  # a constant may also come from another run
            lone = Exercise(exercise.call, (part,))
            found = lone.judge(Here({exercise.name: constant}), seed)
        assert found != [None], part.claim


@pytest.mark.slow
@pytest.mark.parametrize("constant", [0, 1, 0.5, None, [], "0.5", torch.zeros(3), torch.ones(2, 2), float("nan"), 1j])
@exercises
def test_values_of_any_kind_fail_with_words(exercise, constant):
    for wrong in exercise.judge(Here({exercise.name: lambda *arguments: constant}), 4):
        assert isinstance(wrong, Wrong) and len(str(wrong)) > 15


@pytest.mark.slow
@exercises
def test_new_inputs_every_time_and_the_same_ones_for_a_seed(exercise):
    def seen_by_a_student(seed):
        inputs = []

        def peek(*arguments):
            inputs.append(str(arguments))
            raise NotImplementedError

        exercise.judge(Here({exercise.name: peek}), seed)
        return inputs

    first = seen_by_a_student(None)
    if exercise.name != "auroc_by_block":  # printed tensors of whole scenes and addresses of modules say too little
        assert first != seen_by_a_student(None)
    if exercise.name not in ("auroc_by_block", "run_prompted", "train_steps"):
        assert seen_by_a_student(7) == seen_by_a_student(7)


@pytest.mark.parametrize(
    "name,answer,points",
    [("auroc", "ties_won", 2), ("mean_over_classes", "mean_of_rows", 0), ("debiased_cka", "naive_cka", 1),
     ("debiased_cka", "no_root", 0), ("run_prompted", "first_set_for_all", 1), ("attend", "merges_wrongly", 1),
     ("attend", "forgets_padding", 3), ("learning_rate", "no_warmup", 1), ("mask_loss", "weights_swapped", 2),
     ("mask_loss", "ignored_as_negatives", 4), ("train_steps", "never_clips", 3),
     ("harmonic_mean", "division_by_zero", 1),
     ("seen_unseen_scores", "plain_hiou", 3), ("training_labels", "old_numbers", 2)],
)  # fmt: skip
def test_partial_answers_get_partial_points(name, answer, points, capsys):
    (function,) = (f for exercise, _, f in WRONG if exercise == name and f.__name__ == answer)
    if points:
        assert grade(name, {name: function}, 5) == points
        assert "0 of" in capsys.readouterr().out
    else:
        with pytest.raises(Wrong):
            grade(name, {name: function}, 5)


def test_points_of_every_assignment_add_up_to_twenty_in_five_to_eight_exercises():
    for all_of_it in ASSIGNMENTS.values():
        assert sum(exercise.points for exercise in all_of_it) == 20
        assert 5 <= len(all_of_it) <= 8


# --- what can go wrong around an answer ----------------------------------------------------------------------------


def test_missing_or_strange_answers_are_named():
    with pytest.raises(Wrong, match="there is no `attend` in this notebook"):
        grade("attend", {})
    with pytest.raises(Wrong, match="of type int; it must be a function"):
        grade("attend", {"attend": 3})
    with pytest.raises(Wrong, match=r"stopped with TypeError.*called as attend\(queries"):
        grade("attend", {"attend": lambda queries: queries})


@pytest.mark.parametrize(
    "ends",
    [
        SystemExit,
        KeyError("x"),
        RecursionError,
        AssertionError("mine"),
        MemoryError,
        GeneratorExit,
        BaseException("odd"),
        BaseExceptionGroup("two", [KeyboardInterrupt()]),
    ],
)
def test_whatever_an_answer_raises_is_told(ends):
    def answer(*arguments):
        raise ends

    with pytest.raises(Wrong, match="stopped with"):
        grade("learning_rate", {"learning_rate": answer}, 1)


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def interrupts(request):
    """What a program does when it is interrupted; one that was started in the background takes no notice."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


def test_endless_loops_are_ended(interrupts):
    def endless(*arguments):
        while True:
            pass

    part, calls = Part("ends", 1, lambda ask, random: calls.append(1) or expect(ask(), 1.0)), []
    exercise = Exercise("endless()", (part, part, part), seconds=0.3)
    found = exercise.judge(Here({"endless": endless}), 1)
    assert ["still running after 0.3 seconds" in str(wrong) for wrong in found] == [True] * 3
    assert calls == [1], "the other parts would take as long and need not be tried"
    assert signal.getsignal(signal.SIGINT) == interrupts
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_limit_that_ends_with_the_answer_leaves_nothing_behind():
    """Its interrupt may be on the way when the answer is there; it belongs to the limit, not to what comes next."""
    for turn in range(300):
        end = time.perf_counter() + 2e-3 + (turn % 30 - 15) * 2e-5
        with contextlib.suppress(Late), time_limit(2e-3):
            while time.perf_counter() < end:
                pass
        assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_an_interrupt_by_a_person_is_not_taken_for_an_endless_loop():
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EXERCISES["learning_rate"].judge(Here({"learning_rate": interrupted}), 1)


def test_what_answers_print_and_warn_is_swallowed(solved, capfd):
    def noisy(*arguments):
        print("x" * 10_000_000)
        warnings.warn("careful", stacklevel=1)
        return solved["a2_pieces_of_the_cascade"]["learning_rate"](*arguments)

    assert grade("learning_rate", {"learning_rate": noisy}, 1) == 3
    captured = capfd.readouterr()
    assert len(captured.out) < 200 and not captured.err  # a cell with text on stderr gets no points from nbgrader


@pytest.mark.parametrize(
    "name,function",
    [("mask_loss", cascadeclip.model.segmentation_loss), ("harmonic_mean", cascadeclip.evaluation.harmonic_mean)],
)
def test_the_packages_own_functions_are_no_answers(name, function):
    with pytest.raises(Wrong, match="the package's own"):
        grade(name, {name: function})

    def helper(*arguments):
        return function(*arguments)

    def wrapped(*arguments):
        return helper(*arguments)

    with pytest.raises(Wrong, match=r"write (it|this one) yourself"):
        grade(name, {name: wrapped})


def test_expect_names_place_and_numbers():
    with pytest.raises(Wrong, match=re.escape("the map is 5 at [1, 0], expected 3")):
        expect(torch.tensor([[1.0, 2.0], [5.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), what="the map")
    with pytest.raises(Wrong, match="divided by zero"):
        expect(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0]))
    with pytest.raises(Wrong, match=re.escape("shape (3,), expected shape (2,)")):
        expect(torch.ones(3), torch.ones(2))
    expect(np_like := torch.ones(2).numpy(), torch.ones(2), {"never said": torch.ones(2)})
    assert np_like.shape == (2,)


class Unspeakable(BaseException):
    def __str__(self):
        raise Unspeakable


class Nameless(type):
    @property
    def __name__(cls):
        raise KeyError


def test_errors_and_answers_that_cannot_be_named_are_wrong_like_any_other():
    def answer(*_):
        raise Unspeakable

    with pytest.raises(Wrong, match="stopped with Unspeakable"):
        grade("auroc", {"auroc": answer}, 0)
    with pytest.raises(Wrong, match="is of type Odd; it must be a function"):
        grade("auroc", {"auroc": Nameless("Odd", (), {})()}, 0)
