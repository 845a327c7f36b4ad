"""The course around the notebooks: plans, quiz, mistakes and slides, checked against what they name."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from cascadeclip.exercises import ASSIGNMENTS, NOTEBOOK_EXERCISES

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
DECKS = sorted((ROOT / "docs" / "slides").glob("*.md"))
COURSE = (NOTEBOOKS / "TEACHING.md").read_text(encoding="utf-8")
CHECKERS = {"a1": ("layers", "similarity"), "a2": ("pieces", "learning"), "a3": ("budget", "contest")}


def part(title: str) -> str:
    """What stands under a heading of the second level."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", COURSE, re.MULTILINE | re.DOTALL)[1]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def tables(text: str) -> dict[str, list[list[str]]]:
    """Heading of the third level -> its table's rows."""
    return {title: rows(body) for title, body in re.findall(r"^### (.+)\n((?:(?!^### ).*\n)*)", text, re.MULTILINE)}


# --- plans ------------------------------------------------------------------------------------------------------------

SESSIONS = tables(part("Two weeks")) | tables(part("One day"))


def headings(source: str) -> list[str]:
    """Those of a notebook ("03b") or of an assignment ("assignment 1"), in order."""
    pattern = f"assignments/a{source[-1]}_*.py" if source.startswith("assignment ") else f"{source}_*.py"
    (path,) = NOTEBOOKS.glob(pattern)
    return re.findall(r"^# #+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def named(source: str, section: str) -> str:
    """The heading that a plan names: all of it, or an exercise by its number."""
    found = [one for one in headings(source) if one == section or one.startswith(f"{section} · ")]
    assert len(found) == 1, f"{source} has no heading {section!r}; it has: {headings(source)}"
    return found[0]


def sections_of_plans() -> list[tuple[str, str]]:
    """Every (notebook, section) that a plan or its homework names."""
    found = [(source, one) for table in SESSIONS.values() for _, source, cell, _ in table for one in quoted(cell)]
    for text in re.findall(r"\*At home:\*(.*?)(?:\n\n|\Z)", part("Two weeks"), re.DOTALL):
        source = ""
        for number, section in re.findall(r'(?:\b(\d\db?) )?"([^"]+)"', " ".join(text.split())):
            source = number or source
            found.append((source, section))
    found += [
        (source, section)
        for _, places, _ in tables(part("What students get wrong"))["Beliefs that no checker sees"]
        for source, section in re.findall(r'(\d\db?) "([^"]+)"', places)
    ]
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r'"([^"]+)"', cell)


def test_plans_name_notebooks_and_sections_that_exist():
    found = sections_of_plans()
    assert {source for source, _ in found} >= {"00", "01", "02", "03", "03b", "04", "04b", "06", "assignment 1"}
    assert len(SESSIONS) == 8 and len(found) > 80
    for source, section in found:
        named(source, section)


def test_a_section_that_is_gone_is_noticed():
    with pytest.raises(AssertionError, match="has no heading"):
        named("00", "Four lines")


@pytest.mark.parametrize("session", SESSIONS)
def test_minutes_add_up_and_leave_time_for_exercises(session):
    table = SESSIONS[session]
    assert sum(int(minutes) for minutes, *_ in table) == int(re.search(r"\((\d+) minutes\)", session)[1])
    for minutes, source, cell, _ in table:
        assert quoted(cell) or source.startswith(("week", "quiz")), cell
        asked = [re.search(r"(\d+) minutes\)$", named(source, section)) for section in quoted(cell)]
        assert int(minutes) >= sum(int(found[1]) for found in asked if found), cell


def test_two_weeks_go_through_the_notebooks_in_order_and_show_every_slide_once():
    table = [row for session, some in SESSIONS.items() if session.startswith("Session") for row in some]
    places = [
        (source, headings(source).index(named(source, one))) for _, source, cell, _ in table for one in quoted(cell)
    ]
    assert places == sorted(places)
    for deck in DECKS:
        ranges = [cell for _, source, cell, _ in table if source == deck.stem.replace("_", " ")]
        numbers = [tuple(map(int, re.findall(r"\d+", cell))) for cell in ranges]
        shown = [slide for first, *last in numbers for slide in range(first, (last or [first])[0] + 1)]
        assert shown == list(range(1, deck.read_text(encoding="utf-8").count("\n## ") + 1)), deck.name


# --- quiz -------------------------------------------------------------------------------------------------------------

QUESTIONS = re.findall(r"^### (Question \d+ · .+)\n((?:(?!^### ).*\n?)*)", part("Quiz"), re.MULTILINE)


def faults_of(question: str) -> list[str]:
    """What is wrong with the form of a question and its answer."""
    asked, _, answer = question.partition("<details><summary>Answer</summary>\n")
    options = re.findall(r"^- ([A-Z])\. \S", asked, re.MULTILINE)
    right = re.findall(r"^\*\*([A-Z])\.\*\* \S", answer, re.MULTILINE)
    reasons = re.findall(r"^- ([A-Z]): \S", answer, re.MULTILINE)
    faults = []
    if options != ["A", "B", "C", "D"]:
        faults.append(f"options {options}")
    if len(right) != 1 or right[0] not in options:
        faults.append(f"right answers {right}")
    if reasons != [one for one in options if one not in right]:
        faults.append(f"reasons {reasons}")
    if not answer.rstrip().endswith("</details>"):
        faults.append("the answer is not folded")
    return faults


def test_ten_questions_are_numbered():
    assert [title.split(" · ")[0] for title, _ in QUESTIONS] == [f"Question {number}" for number in range(1, 11)]


@pytest.mark.parametrize(("title", "question"), QUESTIONS, ids=[title for title, _ in QUESTIONS])
def test_every_question_has_one_right_answer_and_a_reason_per_distractor(title, question):
    assert not faults_of(question)


def test_right_answers_cannot_be_guessed_by_their_letter():
    letters = [re.search(r"^\*\*([A-Z])\.\*\*", question, re.MULTILINE)[1] for _, question in QUESTIONS]
    assert set(letters) == set("ABCD") and max(map(letters.count, letters)) <= 4


def test_faults_of_a_question_are_noticed():
    _, question = QUESTIONS[0]
    assert faults_of(question.replace("- B:", "- C:"))
    assert faults_of(question.replace("**C.**", "**E.**"))
    assert faults_of(question.replace("**C.**", "**C.** no\n**A.**"))
    assert faults_of(question.replace("- D. ", "- "))
    assert faults_of(question.replace("</details>", ""))


# --- what students get wrong ------------------------------------------------------------------------------------------

MISTAKES = {
    title: table for title, table in tables(part("What students get wrong")).items() if not title.startswith("Beliefs")
}


def said_by(modules: tuple[str, ...]) -> str:
    """All that stands in the strings of checkers, one per line."""
    sources = [importlib.import_module(f"cascadeclip.exercises.{name}").__file__ for name in modules]
    nodes = [node for source in sources for node in ast.walk(ast.parse(Path(source).read_text(encoding="utf-8")))]
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@pytest.mark.parametrize("idea", MISTAKES)
def test_mistakes_are_those_that_the_checkers_name(idea):
    for message, exercise, question in MISTAKES[idea]:
        source, _, number = exercise.partition(".")
        if source in CHECKERS:
            (name,) = [one for one in ASSIGNMENTS if one.startswith(f"{source}_")]
            assert 1 <= int(number) <= len(ASSIGNMENTS[name]), exercise
            modules = CHECKERS[source]
        else:
            assert exercise in NOTEBOOK_EXERCISES, exercise
            modules = (f"notebook_{source}",)
        assert message.strip('"') in said_by(modules), message
        assert question, message


# --- slides -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slides():
    """The module that makes slides, which is Sphinx's to import."""
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        yield importlib.import_module("slides")
    finally:
        sys.path.remove(str(ROOT / "docs" / "_ext"))


@pytest.mark.parametrize("path", DECKS, ids=lambda path: path.stem)
def test_every_slide_has_its_figure_few_words_and_notes(slides, path):
    deck = slides.read(path)
    assert 10 <= len(deck.slides) <= 15
    for slide in deck.slides:
        assert slide.figure.startswith(b"\x89PNG") and slide.alt and slide.notes, slide.title
        assert len(slide.words.split()) <= 25, slide.title
        assert len(slide.title) <= 75, slide.title


def test_a_page_needs_nothing_but_itself(slides):
    deck = slides.read(DECKS[0])
    written = slides.page(deck)
    assert written.count("<section ") == written.count('src="data:image/png;base64,') == len(deck.slides)
    assert not re.findall(r'(?:src|href)="(?!data:)|@import|url\(', written)


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("[Figure: a](<../../notebooks/00_quickstart.ipynb#No such section>)", "no heading 'No such section'; it has"),
        ("[Figure 9: a](<../../notebooks/00_quickstart.ipynb#Three lines>)", "2 figures under 'Three lines', and no"),
        ("[Figure: a](<../../notebooks/gone.ipynb#Three lines>)", "there is no notebook gone.ipynb"),
        ("", "expected one figure, found 0"),
    ],
)
def test_a_figure_that_is_gone_stops_the_build_and_is_named(slides, tmp_path, figure, message):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_quickstart.ipynb").symlink_to(NOTEBOOKS / "00_quickstart.ipynb")
    deck = tmp_path / "docs" / "slides" / "week.md"
    deck.parent.mkdir(parents=True)
    deck.write_text(f"# Week\n\n## A claim\n\n{figure}\n\nWords.\n\n> Notes.\n", encoding="utf-8")
    with pytest.raises(slides.BadSlide, match=r"week\.md, slide 'A claim': ") as raised:
        slides.read(deck)
    assert message in str(raised.value)


def test_markup_in_a_deck_stays_text(slides):
    deck = slides.Deck("<b>", (slides.Slide("<script>", b"", '"', "<img src=x>", "<i>"),))
    written = slides.page(deck)
    assert "<img src=x>" not in written and "<b>" not in written and "<i>" not in written
    assert written.count("<script>") == 1
