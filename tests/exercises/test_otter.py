"""The assignments for otter-grader: the same tests, the same points as nbgrader's."""

import csv
import json
import os
import re
import subprocess
import sys
import types
from functools import cache
from pathlib import Path

import nbformat
import pytest

from cascadeclip.errors import InputError
from cascadeclip.exercises import ASSIGNMENTS, EXERCISES, Wrong
from cascadeclip.exercises.otter import IGNORED, export, student_notebook
from tests.support.submissions import A2, SUBMISSIONS, WRONG, filled

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks" / "assignments"
TABLE = list(csv.DictReader((ROOT / "tests" / "fixtures" / "grades.csv").open()))
# Otter wants newer packages than we do, so it may live in an environment of its own: a Python that has both.
PYTHON = os.environ.get("OTTER_PYTHON", sys.executable)

each = pytest.mark.parametrize("name", ASSIGNMENTS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("otter")
    export(FOLDER, folder)
    return folder


def notebook(step, name):
    return nbformat.read(FOLDER / step / name / f"{name}.ipynb", as_version=4)


# --- what is written --------------------------------------------------------------------------------------------------


@each
def test_students_get_the_release_without_marks_whose_tests_otter_does_not_run(name, exported):
    made = nbformat.read(exported / name / "student" / f"{name}.ipynb", as_version=4)
    released = notebook("release", name)
    assert [cell.source for cell in made.cells] == [cell.source for cell in released.cells]
    assert not any("nbgrader" in cell.metadata for cell in made.cells)
    ignored = [IGNORED in cell.metadata.get("tags", []) for cell in made.cells]
    assert ignored == [bool(cell.metadata.get("nbgrader", {}).get("grade")) for cell in released.cells]
    assert sum(ignored) == len(ASSIGNMENTS[name])


@pytest.fixture
def cases(monkeypatch, exported):
    """Exercise -> its test cases, read without otter: (points, function)."""
    found = []

    def test_case(name, points):
        return lambda function: found.append((points, function))

    monkeypatch.setitem(sys.modules, "otter", types.ModuleType("otter"))
    monkeypatch.setitem(sys.modules, "otter.test_files", types.SimpleNamespace(test_case=test_case))

    def read(exercise):
        (path,) = exported.glob(f"*/autograder/tests/{exercise}.py")
        found.clear()
        exec(compile(path.read_text(), str(path), "exec"), {})
        return list(found)

    return read


@each
def test_every_part_is_a_case_with_its_points(name, exported, cases):
    files = sorted((exported / name / "autograder" / "tests").iterdir())
    assert [path.stem for path in files] == sorted(exercise.name for exercise in ASSIGNMENTS[name])
    for exercise in ASSIGNMENTS[name]:
        assert [points for points, _ in cases(exercise.name)] == [part.points for part in exercise.parts]


@each
def test_seeds_are_the_hidden_ones_and_stand_in_no_line_that_a_student_is_shown(name, exported):
    hidden = re.findall(
        r"^seed = (\d+)", "\n".join(cell.source for cell in notebook("source", name).cells), re.MULTILINE
    )
    found = []
    for exercise in ASSIGNMENTS[name]:
        head, *shown = (
            (exported / name / "autograder" / "tests" / f"{exercise.name}.py").read_text().split("@test_case")
        )
        found += re.findall(r"^seed = (\d+)$", head, re.MULTILINE)
        assert len(shown) == len(exercise.parts) and not any(found[-1] in text for text in shown)
    assert found == hidden


def test_a_case_is_silent_for_a_right_answer_and_says_what_is_wrong(cases):
    (_, first), (_, second) = cases("harmonic_mean")
    right = {"harmonic_mean": lambda s, u: 2 * s * u / (s + u) if s + u else 0.0}
    assert first(right) is None and second(right) is None
    forgets_zeros = {"harmonic_mean": lambda s, u: 2 * s * u / (s + u)}
    assert first(forgets_zeros) is None
    with pytest.raises(Wrong, match="ZeroDivisionError"):
        second(forgets_zeros)
    with pytest.raises(Wrong, match="there is no `harmonic_mean`"):
        first({})


def test_a_missing_release_is_named(tmp_path):
    name = next(iter(ASSIGNMENTS))
    (tmp_path / f"{name}.py").write_text("")
    with pytest.raises(InputError, match=rf"{name}\.ipynb: run `python -m cascadeclip\.exercises\.build"):
        export(tmp_path, tmp_path / "out")


# --- the round trip, with otter itself --------------------------------------------------------------------------------


@cache
def has_otter():
    asked = "import cascadeclip, otter.run, otter.generate"
    return subprocess.run([PYTHON, "-c", asked], capture_output=True, cwd=ROOT).returncode == 0


@pytest.fixture(scope="module")
def autograder(exported):
    """The zip file that otter and Gradescope grade with."""
    if not has_otter():
        pytest.skip(f"{PYTHON} has no otter-grader: install it, or name a Python that has it in OTTER_PYTHON")
    folder = exported / A2 / "autograder"
    subprocess.run([PYTHON, "-m", "otter", "generate"], cwd=folder, check=True, capture_output=True)
    return folder / "autograder.zip"


@pytest.mark.slow
@pytest.mark.parametrize("submission", ["right", "partly_right", "empty", "one_wrong"])
def test_otter_gives_the_points_that_nbgrader_gives(submission, autograder, tmp_path):
    points = {e.name: e.points for e in ASSIGNMENTS[A2]}
    if submission == "one_wrong":
        name, answer = next(iter(WRONG[A2].items()))
        answers, wanted = {name: answer}, points | {name: 0}
    else:
        answers, _ = SUBMISSIONS[submission][A2]
        (row,) = (row for row in TABLE if (row["submission"], row["assignment"]) == (submission, A2))
        wanted = dict(zip(points, map(float, row["by exercise"].split()), strict=True))
    released = notebook("release", A2)
    made = released if answers is None else filled(released, notebook("source", A2), answers)
    path = tmp_path / f"{A2}.ipynb"
    nbformat.write(student_notebook(made), path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [PYTHON, "-m", "otter", "run", "-a", str(autograder), "-o", str(tmp_path), str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    found = {test["name"]: test for test in tests if test["name"] in EXERCISES}
    assert {name: test["score"] for name, test in found.items()} == wanted
    assert sum(test["max_score"] for test in found.values()) == 20
    if submission == "empty":
        assert all("not answered yet" in test["output"] for test in found.values())
