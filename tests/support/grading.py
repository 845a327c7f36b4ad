"""A notebook of a few cells, graded as nbgrader does it, without a course around it."""

import re
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.utils import determine_grade, is_grade

from cascadeclip.exercises import EXERCISES
from cascadeclip.exercises.build import TEST
from cascadeclip.exercises.grading import BoundedExecute, cell_timeout


@dataclass(frozen=True)
class Shown:
    """A cell after grading.

    Attributes:
        points: of a test cell; None for others.
        text: that it shows.
    """

    points: float | None
    text: str


def test_cell(name: str) -> NotebookNode:
    """The test of one exercise, as a teacher's notebook holds it."""
    marks = dict(grade_id=f"test_{name}", grade=True, locked=True, solution=False, task=False, schema_version=3)
    cell = new_code_cell(TEST.format(name=name, seed=7))
    cell.metadata["nbgrader"] = {**marks, "points": EXERCISES[name].points}
    return cell


def grade_cells(*cells: str, folder: Path) -> list[Shown]:
    """Run and judge a notebook that lies in `folder`.

    Args:
        cells: a student's code, or the name of an exercise for its test cell.
    """
    made = [test_cell(one) if one in EXERCISES else new_code_cell(one) for one in cells]
    spec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = new_notebook(cells=made, metadata={"kernelspec": spec})
    preprocessor = BoundedExecute(timeout_func=cell_timeout)
    preprocessor.preprocess(notebook, {"metadata": {"path": str(folder)}})
    return [Shown(determine_grade(cell)[0] if is_grade(cell) else None, shown(cell)) for cell in notebook.cells]


def shown(cell: NotebookNode) -> str:
    """What a cell prints and which errors it shows, without colours."""
    texts = [str(out.get("text", "")) + "\n".join(out.get("traceback", [])) for out in cell.get("outputs", [])]
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(texts))
