"""Assignments out of their sources: `python -m cascadeclip.exercises.build notebooks/assignments`.

`NAME.py` becomes the teacher's `source/NAME/NAME.ipynb`, with solutions and hidden tests, and from that nbgrader makes
the students' `release/NAME/NAME.ipynb`. In `NAME.py`, a cell marked `answer="exercise"` holds the solution, and one
marked `test="exercise" seed=123` stands for the test, which is written here, with the points of the exercise. All other
code is given: students cannot change it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from cascadeclip.errors import InputError
from cascadeclip.exercises import ASSIGNMENTS, EXERCISES
from cascadeclip.files import is_file, replace_file

CONFIG = "nbgrader_config.py"
TEST = """\
from cascadeclip.exercises import grade

seed = None  # other inputs every time
### BEGIN HIDDEN TESTS
seed = {seed}
### END HIDDEN TESTS
grade("{name}", globals(), seed)"""


def source_notebook(path: Path) -> nbformat.NotebookNode:
    """The teacher's notebook of a text source; the same source always gives the same bytes."""
    if not is_file(path):
        raise InputError(f"there is no {path}: give the folder that holds the assignments' text sources")
    notebook = jupytext.read(path)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{position}"
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's own note on blank lines
        if name := cell.metadata.pop("answer", None):
            cell.metadata["nbgrader"] = _marks(name, solution=True)
        elif name := cell.metadata.pop("test", None):
            cell.source = TEST.format(name=name, seed=cell.metadata.pop("seed"))
            cell.metadata["nbgrader"] = _marks(f"test_{name}", grade=True, locked=True, points=EXERCISES[name].points)
        elif cell.cell_type == "code":
            cell.metadata["nbgrader"] = _marks(f"given_{position}", locked=True)
    return notebook


def _marks(grade_id: str, **marks: bool | float) -> dict[str, Any]:
    """nbgrader's metadata of a cell."""
    none = dict.fromkeys(("grade", "locked", "solution", "task"), False)
    return {"grade_id": grade_id, "schema_version": 3, **none, **marks}


def build(folder: Path, out: Path) -> None:
    """Write `source/` and `release/` into `out`.

    Args:
        folder: with the text sources and `nbgrader_config.py`.

    Raises:
        InputError: a source is missing, or nbgrader refuses it (with what it said).
    """
    with tempfile.TemporaryDirectory() as scratch:
        course = Path(scratch)
        shutil.copy(folder / CONFIG, course)
        for name in ASSIGNMENTS:
            made = course / "source" / name / f"{name}.ipynb"
            made.parent.mkdir(parents=True)
            nbformat.write(source_notebook(folder / f"{name}.py"), made)
            _release(course, name)
        for path in sorted(course.glob("*/*/*.ipynb")):
            replace_file(out / path.relative_to(course), partial(shutil.copyfile, path))


def with_own_programs() -> dict[str, str]:
    """The environment, with this Python's programs first: nbgrader calls `alembic` by its name."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def _release(course: Path, name: str) -> None:
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", name]
    done = subprocess.run(command, cwd=course, env=with_own_programs(), capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"nbgrader could not make the release of {name}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cascadeclip.exercises.build FOLDER")
    build(Path(sys.argv[1]), Path(sys.argv[1]))
