"""The assignments for otter-grader and Gradescope: `python -m cascadeclip.exercises.otter notebooks/assignments OUT`.

Tests and points are nbgrader's: each part of an exercise becomes one test case, in otter's exception-based format, with
the hidden seed. `OUT/NAME/student/` is to hand out; in `OUT/NAME/autograder/`, `otter generate` makes the zip file that
grades. Otter-grader itself is not needed to write them.
"""

import sys
from functools import partial
from pathlib import Path

import jupytext
import nbformat

from cascadeclip.errors import InputError
from cascadeclip.exercises import ASSIGNMENTS, EXERCISES
from cascadeclip.exercises.checking import Exercise
from cascadeclip.files import is_file, replace_file, write_text

IGNORED = "otter_ignore"  # otter's tag of cells that it does not run
PACKAGE = "cascadeclip @ git+https://github.com/OWNER/cascadeclip"  # for the machine that grades
HEAD = """\
from otter.test_files import test_case

from cascadeclip.exercises import grade_part

OK_FORMAT = False
name = {name!r}
seed = {seed}
"""
CASE = """

@test_case(name={claim!r}, points={points!r})
def part_{number}(env):
    grade_part(name, {number}, env, seed)
"""


def test_file(exercise: Exercise, seed: int) -> str:
    """The tests of one exercise as a file of otter's.

    Args:
        seed: of the inputs. It stands outside the test cases, whose lines a student is shown.
    """
    cases = [
        CASE.format(number=number, claim=part.claim, points=part.points) for number, part in enumerate(exercise.parts)
    ]
    return HEAD.format(name=exercise.name, seed=seed) + "".join(cases)


def student_notebook(released: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """nbgrader's release without its marks, in place. The visible tests stay; otter does not run them as it grades."""
    for cell in released.cells:
        marks = cell.metadata.pop("nbgrader", {})
        if marks.get("grade"):
            cell.metadata["tags"] = [IGNORED]
    return released


def export(folder: Path, out: Path) -> None:
    """Write what students get, and what grades them, of every assignment.

    Args:
        folder: with the text sources and the releases that `build` makes of them.

    Raises:
        InputError: a source or a release is missing.
    """
    for name in ASSIGNMENTS:
        source, release = folder / f"{name}.py", folder / "release" / name / f"{name}.ipynb"
        for path in (source, release):
            if not is_file(path):
                raise InputError(f"there is no {path}: run `python -m cascadeclip.exercises.build {folder}` first")
        student, autograder = out / name / "student", out / name / "autograder"
        notebook = student_notebook(nbformat.read(release, as_version=4))
        replace_file(student / f"{name}.ipynb", partial(nbformat.write, notebook))
        for cell in jupytext.read(source).cells:
            if "test" in cell.metadata:
                exercise = EXERCISES[cell.metadata["test"]]
                tests = test_file(exercise, cell.metadata["seed"])
                write_text(autograder / "tests" / f"{exercise.name}.py", tests)
        write_text(autograder / "requirements.txt", f"{PACKAGE}\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m cascadeclip.exercises.otter FOLDER OUT")
    export(Path(sys.argv[1]), Path(sys.argv[2]))
