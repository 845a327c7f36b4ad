"""Exercises that look at the answer: those of the notebooks (`check`), and the assignments' with points (`grade`).

A test cell of an assignment ends with `grade("learning_rate", globals(), seed)`: it runs the function of that name on
random inputs, prints what holds and what is wrong, and returns the points. Copied, moved and deleted cells do not
matter to it.

The assignments' checkers: `layers` with `similarity` (assignment 1), `pieces` with `learning` (2), `budget` with
`contest` (3), all on `checking`. `build` makes the assignments' notebooks, `otter` the same for otter-grader.

The notebooks' checkers: `notebook_00`, `notebook_01`, `notebook_02`, `notebook_03`, `notebook_03b`, `notebook_04`,
`notebook_04b`, `notebook_05`, `notebook_06` and `notebook_explorer`, on `checking` as well; `notebooks` knows them all.

`answering` asks a function in its own process, which is what happens at a student's. For points, `grading`, which
nbgrader runs, judges out of the notebook's reach: it asks the notebook's process through `distant`, `kernel` answers
there, `wire` carries the answers, `patience` limits time, and `integrity` says whether the package over there is what
it was.
"""

from collections.abc import Mapping
from dataclasses import replace

from cascadeclip.exercises import budget, layers, pieces
from cascadeclip.exercises.answering import AsGraded
from cascadeclip.exercises.checking import Exercise, Wrong, verdict
from cascadeclip.exercises.notebooks import NOTEBOOK_EXERCISES, check

ASSIGNMENTS: dict[str, tuple[Exercise, ...]] = {
    "a1_layers_and_alignment": layers.EXERCISES,
    "a2_pieces_of_the_cascade": pieces.EXERCISES,
    "a3_beat_the_baseline": budget.EXERCISES,
}
EXERCISES: dict[str, Exercise] = {one.name: one for exercises in ASSIGNMENTS.values() for one in exercises}

__all__ = ["ASSIGNMENTS", "EXERCISES", "NOTEBOOK_EXERCISES", "Exercise", "Wrong", "check", "grade", "grade_part"]


def grade(name: str, namespace: Mapping[str, object], seed: int | None = None) -> float:
    """Points earned for one exercise; a line is printed for each of its parts.

    Args:
        name: of the exercise, which is the name of the function or value asked for.
        namespace: the notebook's `globals()`.
        seed: of the random inputs; others every time if None.

    Raises:
        Wrong: not one part holds; the message tells a student why.
    """
    found = verdict(EXERCISES[name], AsGraded(namespace), seed)
    if found.wrong is not None:
        raise found.wrong
    print("\n".join(found.lines))
    return found.points


def grade_part(name: str, number: int, namespace: Mapping[str, object], seed: int | None = None) -> None:
    """Nothing, if one part of an exercise holds: the test of graders that count parts, such as otter-grader.

    Args:
        name, namespace, seed: as in `grade`.
        number: of the part, from 0.

    Raises:
        Wrong: it does not hold; the message tells a student why.
    """
    exercise = EXERCISES[name]
    found = verdict(replace(exercise, parts=(exercise.parts[number],)), AsGraded(namespace), seed)
    if found.wrong is not None:
        raise found.wrong
