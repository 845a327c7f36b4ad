"""The notebooks: in step with their text sources, readable as they are, and running from anywhere against the wheel."""

import re
import shutil
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
SOLUTION = {"tags": ["solution"], "cellView": "form", "jupyter": {"source_hidden": True}}

each = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def stored(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_has_a_source_and_the_other_way_round():
    assert SOURCES
    assert [path.stem for path in SOURCES] == [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]


@each
def test_notebook_and_source_are_the_same(source):
    def cells(notebook):
        layout = "lines_to_next_cell"  # jupytext's own note on blank lines
        return [
            (cell.cell_type, cell.source, {key: value for key, value in cell.metadata.items() if key != layout})
            for cell in notebook.cells
        ]

    assert cells(stored(source)) == cells(jupytext.read(source)), f"run `make notebooks` after changing {source.name}"


@each
def test_stored_outputs_are_whole_and_clean(source):
    notebook, path = stored(source), source.with_suffix(".ipynb")
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert set(notebook.metadata) <= {"kernelspec", "jupytext"}
    assert path.stat().st_size < 2e6
    assert not re.search(r"(?<![\w.:/])/(?:home|usr|opt|var|content|tmp|root|work)/", path.read_text())


@each
def test_notebook_has_the_parts_that_every_one_has(source):
    cells = stored(source).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    objectives, recap = (
        re.search(rf"{title}.*?\n(1\. .*)", text, re.DOTALL) for title in ("What you will learn", "## Recap")
    )
    for part in (objectives, recap):
        assert re.findall(r"^(\d)\. ", part[1], re.MULTILINE)[:3] == ["1", "2", "3"]
    assert "**Time:**" in cells[0].source
    assert any("device" in cell.source for cell in cells[1:3])
    checked = [cell for cell in cells if cell.source.startswith("# NBVAL_CHECK_OUTPUT")]
    assert len(checked) >= 3
    assert all(cell.outputs for cell in checked)


@each
def test_every_exercise_has_a_hidden_solution_that_proves_itself(source):
    cells = stored(source).cells
    starts = [i for i, cell in enumerate(cells) if re.search(r"^### Exercise \d", cell.source, re.MULTILINE)]
    solutions = [i for i, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", [])]
    assert 2 <= len(starts) <= 4
    assert solutions == [start + 2 for start in starts]
    for position in solutions:
        assert cells[position - 1].source == "# your code here"
        assert cells[position].source.startswith("# @title Solution")
        assert "assert " in cells[position].source
        assert dict(cells[position].metadata) == SOLUTION
    assert 10 <= len(code(stored(source))) - 2 * len(starts) <= 20


@each
@pytest.mark.slow
def test_notebook_runs_from_another_folder_against_the_wheel(source, run, installed, tmp_path):
    shutil.copy(source.with_suffix(".ipynb"), tmp_path)
    command = (
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=1800",
        "-p",
        "no:cacheprovider",
    )
    run(sys.executable, *command, tmp_path, cwd=tmp_path, PYTHONPATH=str(installed))
    assert [path.name for path in tmp_path.iterdir()] == [source.with_suffix(".ipynb").name], "the notebook left files"
