"""The notebooks: in step with their text sources, readable as they are, and running from anywhere against the wheel."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
import pytest

from cascadeclip.exercises import NOTEBOOK_EXERCISES

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
REPOSITORY = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
ON_GPU = ("03_", "04b_", "05_")  # beginnings of the names of notebooks that train longer where there is a GPU

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
    assert set(notebook.metadata) <= {"kernelspec", "jupytext", "accelerator"}
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
    assert "**Time:**" in cells[0].source and "(../docs/method/notation.md)" in cells[0].source
    assert any("device = cascadeclip.device()" in cell.source for cell in cells[2:5])
    checked = [cell for cell in cells if cell.source.startswith("# NBVAL_CHECK_OUTPUT")]
    assert len(checked) >= 3
    assert all(cell.outputs for cell in checked)


@each
def test_one_click_opens_it_in_colab(source):
    """A badge, the kind of machine, and a first code cell that every notebook has alike."""
    notebook = stored(source)
    page = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    badge = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    assert f"{badge}({page}/blob/main/notebooks/{source.stem}.ipynb)" in notebook.cells[0].source
    assert notebook.metadata.get("accelerator") == ("GPU" if source.stem.startswith(ON_GPU) else None)
    first = code(stored(SOURCES[0]))[0].source
    assert notebook.cells[1].source == first and f'"cascadeclip[notebooks] @ git+{REPOSITORY}"' in first
    assert not notebook.cells[1].outputs


def test_the_first_cell_installs_the_package_where_it_is_missing_and_keeps_what_is_there(monkeypatch):
    first, calls, found = code(stored(SOURCES[0]))[0].source, [], importlib.util.find_spec
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    exec(first, {})
    assert not calls, "it is there"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cascadeclip" else found(name))
    exec(first, {})
    ((python, *pip, torch, torchvision, numpy, package),) = calls
    assert (python, pip) == (sys.executable, ["-m", "pip", "install", "--quiet"])
    kept = [f"{name}=={version(name)}" for name in ("torch", "torchvision", "numpy")]
    assert [torch, torchvision, numpy] == kept and package.startswith("cascadeclip[notebooks] @ git+https://")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(first, {})
    assert calls[1][5:] == [package], "nothing to keep"


@each
def test_every_exercise_is_checked_and_its_solution_stands_elsewhere(source):
    cells, number = stored(source).cells, source.stem.partition("_")[0]
    starts = [i for i, cell in enumerate(cells) if re.search(r"^### Exercise ", cell.source, re.MULTILINE)]
    names = [name for name in NOTEBOOK_EXERCISES if name.startswith(f"{number}.")]
    assert 2 <= len(starts) <= 4
    assert [re.search(r"^### Exercise (\S+) · ", cells[start].source, re.MULTILINE)[1] for start in starts] == names
    for start, name in zip(starts, names, strict=True):
        task, start_from, looked_at = cells[start : start + 3]
        assert re.search(r"\((easy|medium|hard), \d+ minutes\)", task.source)
        assert f"(solutions/{source.stem}.py)" in task.source and (FOLDER / "solutions" / source.name).is_file()
        assert "..." in start_from.source and not start_from.outputs
        asked = NOTEBOOK_EXERCISES[name].name
        assert looked_at.source == f'check("{name}", {asked})' and f"{asked}" in start_from.source
        assert [output.text for output in looked_at.outputs] == [f"{name}: not answered yet\n"]
    assert 12 <= len(code(stored(source))) - 2 * len(starts) - 1 <= 18
    assert sum(len(cell.source) for cell in cells if cell.cell_type == "markdown") <= 12_000


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
