"""The assignments as a teacher uses them: made from one source, handed out, collected and graded by nbgrader."""

import csv
import json
import re
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from cascadeclip.exercises import ASSIGNMENTS, EXERCISES
from cascadeclip.exercises.build import build, with_own_programs
from cascadeclip.exercises.grading import GIVEN_CELL, OWN_CELL, cell_timeout, exercise_of
from tests.support.grading import shown
from tests.support.submissions import A1, A2, A3, SUBMISSIONS, cells_of, write_submissions

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks" / "assignments"
TABLE = list(csv.DictReader((ROOT / "tests" / "fixtures" / "grades.csv").open()))
NBGRADER = ROOT / "tests" / "support" / "nbgrader_commands.py"
LANES = {"long": (A2,), "short": (A1, A3)}  # each has a gradebook of its own, so that two can be filled at once

each = pytest.mark.parametrize("name", ASSIGNMENTS)


def notebook(step, name):
    return nbformat.read(FOLDER / step / name / f"{name}.ipynb", as_version=4)


# --- source, release and checkers cannot drift -----------------------------------------------------------------------


@pytest.mark.slow
def test_source_and_release_are_what_the_text_sources_give(tmp_path):
    build(FOLDER, tmp_path)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.ipynb")}
    steps = [*FOLDER.glob("source/*/*.ipynb"), *FOLDER.glob("release/*/*.ipynb")]
    committed = {path.relative_to(FOLDER): path.read_text() for path in steps}
    assert len(made) == 2 * len(ASSIGNMENTS)
    assert made == committed, "run python -m cascadeclip.exercises.build notebooks/assignments"


@each
def test_tests_are_those_of_the_package_in_its_order_and_worth_its_points(name):
    tests = [cell for cell in notebook("source", name).cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert [cell.metadata.nbgrader["grade_id"] for cell in tests] == [f"test_{e.name}" for e in ASSIGNMENTS[name]]
    assert [cell.metadata.nbgrader["points"] for cell in tests] == [e.points for e in ASSIGNMENTS[name]]
    assert all(
        f'grade("{e.name}", globals(), seed)' in cell.source for e, cell in zip(ASSIGNMENTS[name], tests, strict=True)
    )


@each
def test_release_holds_no_solution_no_hidden_test_and_no_output(name):
    source, released = notebook("source", name), notebook("release", name)
    text = (FOLDER / "release" / name / f"{name}.ipynb").read_text()
    assert not re.search(r"SOLUTION|HIDDEN", text)
    hidden = [seed for cell in source.cells for seed in re.findall(r"^seed = (\d+)", cell.source, re.MULTILINE)]
    assert len(set(hidden)) == len(ASSIGNMENTS[name]) and not [seed for seed in hidden if seed in text]
    for cell in cells_of(released).values():
        if cell.metadata.nbgrader["solution"]:
            assert cell.source.endswith("# YOUR CODE HERE\nraise NotImplementedError()") or cell.source.endswith(
                "    # YOUR CODE HERE\n    raise NotImplementedError()"
            )
    assert not any(cell.get("outputs") for cell in [*source.cells, *released.cells])


@each
def test_students_find_objectives_time_points_difficulty_and_hints(name):
    cells = notebook("release", name).cells
    start = cells[0].source
    assert start.startswith("# Assignment ") and "**Time:**" in start and "**Points:** 20" in start
    assert re.findall(r"^(\d)\. ", start.partition("What you will learn")[2], re.MULTILINE) == ["1", "2", "3"]
    assert re.findall(r"^(\d)\. ", cells[-1].source.partition("## Recap")[2], re.MULTILINE) == ["1", "2", "3"]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    heads = re.findall(
        r"^### Exercise (\d) · `(\w+)` · (\d) points · (?:easy|medium|hard|open) · (\d+) minutes$", text, re.MULTILINE
    )
    assert [(int(number), exercise, float(points)) for number, exercise, points, _ in heads] == [
        (position, e.name, e.points) for position, e in enumerate(ASSIGNMENTS[name], start=1)
    ]
    parts = re.split(r"^### Exercise", text, flags=re.MULTILINE)[1:]
    assert all(part.count("<details><summary>Hint</summary>") == part.count("</details>") == 1 for part in parts)


def test_own_cells_get_little_time_and_ours_enough():
    cells = cells_of(notebook("release", A3))
    assert cell_timeout(cells["my_settings"]) == OWN_CELL
    assert cell_timeout(cells["given_1"]) == GIVEN_CELL
    assert exercise_of(cells["test_my_settings"]) is EXERCISES["my_settings"]  # judged, not run
    assert cell_timeout(nbformat.v4.new_code_cell("while True: pass")) == OWN_CELL


def test_the_table_covers_every_submission():
    rows = [(row["submission"], row["assignment"]) for row in TABLE]
    assert sorted(rows) == sorted((one, name) for one, assignments in SUBMISSIONS.items() for name in assignments)
    assert len(SUBMISSIONS) == 12
    for row in TABLE:
        assert sum(map(int, row["by exercise"].split())) == int(row["points"])


# --- the round trip ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def courses(run, tmp_path_factory):
    """Lane -> folder of a course in which everything was handed out, collected and graded."""
    folder = tmp_path_factory.mktemp("courses")
    env = {**with_own_programs(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def nbgrader(course, *commands):
        return run(sys.executable, NBGRADER, *map(json.dumps, commands), cwd=course, **env)

    def teach(lane):
        course = folder / lane
        shutil.copytree(FOLDER, course)
        write_submissions(course, folder / f"{lane} handed in")
        commands = []
        for name in LANES[lane]:
            archive = course / "downloaded" / name / "archive"
            archive.mkdir(parents=True)
            with zipfile.ZipFile(archive / "handed_in.zip", "w") as packed:
                for path in sorted((folder / f"{lane} handed in" / name).rglob("*.ipynb")):
                    packed.write(path, path.relative_to(folder / f"{lane} handed in" / name))
            commands += [["generate_assignment", name, "--force"], ["zip_collect", name], ["autograde", name]]
        feedback = ["generate_feedback", LANES[lane][0], "--student", "partly_right"]
        nbgrader(course, *commands, feedback, ["export"])
        return course

    with ThreadPoolExecutor(len(LANES)) as pool:
        return dict(zip(LANES, pool.map(teach, LANES), strict=True))


def course_of(courses, name):
    (lane,) = (lane for lane, names in LANES.items() if name in names)
    return courses[lane]


def graded(courses, name, submission):
    """The test cells of a graded submission, by exercise, and what they show as text."""
    path = course_of(courses, name) / "autograded" / submission / name / f"{name}.ipynb"
    return {test: shown(cell) for test, cell in cells_of(nbformat.read(path, as_version=4)).items()}, path


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['submission']}-{row['assignment'][:2]}")
def test_grades_are_those_of_the_table(row, courses):
    name = row["assignment"]
    with Gradebook(f"sqlite:///{course_of(courses, name)}/gradebook.db", "cascadeclip") as book:
        found = book.find_submission_notebook(name, name, row["submission"])
        scores = {grade.name: (grade.auto_score, grade.needs_manual_grade) for grade in found.grades}
    assert [scores[f"test_{e.name}"] for e in ASSIGNMENTS[name]] == [
        (float(points), False) for points in row["by exercise"].split()
    ]
    exported = csv.DictReader((course_of(courses, name) / "grades.csv").open())
    (total,) = (line for line in exported if (line["assignment"], line["student_id"]) == (name, row["submission"]))
    assert (float(total["score"]), float(total["max_score"])) == (float(row["points"]), 20.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "submission,exercise,message",
    [
        ("partly_right", "learning_rate", "there is no warm-up in yours"),
        ("partly_right", "attend", "padding takes part in yours"),
        ("wrong", "mask_loss", "return two numbers: focal and dice"),
        ("empty", "attend", "not answered yet"),
        ("syntax_error", "mask_loss", "there is no `mask_loss` in this notebook"),
        ("endless_loop_in_cell", "run_prompted", "there is no `run_prompted` in this notebook"),
        ("endless_loop_in_function", "attend", "still running after 20 seconds"),
        ("deleted_answer", "attend", "Was its cell deleted"),
        ("deleted_test", "learning_rate", "there is no `learning_rate` in this notebook"),
        ("rewritten_test", "learning_rate", "the rate does not fall"),
    ],
)
def test_students_read_what_is_wrong(submission, exercise, message, courses):
    assert message in graded(courses, A2, submission)[0][f"test_{exercise}"]


@pytest.mark.slow
def test_floods_are_cut(courses):
    cells, path = graded(courses, A2, "huge_output")
    assert "output cut" in cells["run_prompted"] or "Output truncated" in cells["run_prompted"]
    assert path.stat().st_size < 1_000_000


@pytest.mark.slow
def test_feedback_is_written_for_students(courses):
    (page,) = (courses["long"] / "feedback" / "partly_right" / A2).glob("*.html")
    assert "there is no warm-up in yours" in page.read_text()


def test_exercises_have_names_of_their_own():
    assert sum(map(len, ASSIGNMENTS.values())) == len(EXERCISES)
