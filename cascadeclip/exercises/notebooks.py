"""The exercises of the notebooks: `check("01.2", my_function)` says what is wrong with an answer, in words.

An exercise's name is its notebook's number (or `explorer`) and its own number. `notebook_01` holds the checkers of
notebook 01, and so on.
"""

import difflib

from cascadeclip.errors import InputError
from cascadeclip.exercises import (
    notebook_00,
    notebook_01,
    notebook_02,
    notebook_03,
    notebook_03b,
    notebook_04,
    notebook_04b,
    notebook_05,
    notebook_06,
    notebook_explorer,
)
from cascadeclip.exercises.answering import Here
from cascadeclip.exercises.checking import Exercise, Wrong

NOTEBOOK_EXERCISES: dict[str, Exercise] = {
    **notebook_00.EXERCISES,
    **notebook_01.EXERCISES,
    **notebook_02.EXERCISES,
    **notebook_03.EXERCISES,
    **notebook_03b.EXERCISES,
    **notebook_04.EXERCISES,
    **notebook_04b.EXERCISES,
    **notebook_05.EXERCISES,
    **notebook_06.EXERCISES,
    **notebook_explorer.EXERCISES,
}


class Unanswered(Wrong):
    """There is no answer yet: `...` still stands where it goes."""


def check(name: str, answer: object, seed: int | None = None) -> None:
    """Try an answer on fresh inputs, and print for each thing that is tested whether it holds, or what is wrong.

    An answer that is `...`, returns `...` or raises NotImplementedError counts as not given yet. Nothing is raised for
    a wrong answer: the notebook runs on.

    Args:
        name: of the exercise, such as "01.2".
        answer: the function asked for, or the value.
        seed: of the random inputs; others every time if None.

    Raises:
        InputError: there is no such exercise.
    """
    exercise = _exercise(name)
    try:
        if answer is ...:
            raise Unanswered
        wrongs = exercise.judge(_WithGapsTold({exercise.name: answer}), seed)
    except Wrong as nothing:
        wrongs = [nothing] * len(exercise.parts)
    if any(isinstance(wrong, Unanswered) for wrong in wrongs):
        print(f"{name}: not answered yet")
        return
    for part, wrong in zip(exercise.parts, wrongs, strict=True):
        print(f"{name}: ✗ {part.claim}: {wrong}" if wrong else f"{name}: ✓ {part.claim}")
    print(f"{name}: right, all of it" if not any(wrongs) else f"{name}: not yet")


def _exercise(name: str) -> Exercise:
    if name not in NOTEBOOK_EXERCISES:
        near = difflib.get_close_matches(str(name), NOTEBOOK_EXERCISES, n=3, cutoff=0.5) or list(NOTEBOOK_EXERCISES)
        raise InputError(f"there is no exercise {name!r}: did you mean {' or '.join(near)}?")
    return NOTEBOOK_EXERCISES[name]


class _WithGapsTold(Here):
    """Answers; a function that returns `...`, or raises NotImplementedError, is `Unanswered`."""

    def call(self, exercise: Exercise, arguments: tuple[object, ...]) -> object:
        try:
            found = super().call(exercise, arguments)
        except Wrong as wrong:
            if isinstance(wrong.__cause__, NotImplementedError):
                raise Unanswered from wrong
            raise
        if found is ...:
            raise Unanswered
        return found
