"""What README, ARCHITECTURE and the documentation promise of the code, checked against the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
MADE = ("notebooks", "reference", "_build")  # folders of docs/ that a build fills
PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if path.relative_to(ROOT / "docs").parts[0] not in MADE
)


def named_files(text: str) -> set[str]:
    """Paths in backticks of Python and Markdown files, and of folders of the repository; not what commands write."""
    quoted = {part for code in re.findall(r"`([^`\n]+)`", text) for part in code.split()}
    folders = tuple(f"{path.name}/" for path in (*ROOT.iterdir(), *(ROOT / "cascadeclip").iterdir()) if path.is_dir())
    return {
        path
        for path in quoted
        if re.fullmatch(r"[\w/]+\.(py|md)", path) or (re.fullmatch(r"[\w/]+/", path) and path.startswith(folders))
    }


def tree(text: str) -> dict[str, str]:
    """Rooms and files of the tree in ARCHITECTURE, each with what is said of it."""
    (block,) = re.findall(r"```\n(cascadeclip/ .*?)```", text, re.S)
    lines = [line for line in block.splitlines()[1:] if line.strip()]
    first, rest = lines[0].split("   ", 1)
    rows = dict.fromkeys(first.split(), rest.strip())
    return rows | {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in lines[1:]}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_linked_files_exist(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (ROOT / document).read_text()):
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("document", PAGES)
def test_pages_are_linked_as_they_lie(document):
    """Sphinx checks the links, too; but the texts are also read where they lie, without what a build makes."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (ROOT / document).read_text(encoding="utf-8")):
        assert ((ROOT / document).parent / target).exists() or set(MADE) & set(Path(target).parts), target


def test_named_files_are_found():
    assert all(named_files((ROOT / document).read_text()) for document in ("README.md", "ARCHITECTURE.md"))


@pytest.mark.parametrize("document", [*DOCUMENTS, *PAGES])
def test_named_files_exist(document):
    for path in named_files((ROOT / document).read_text()):  # inside the package, or from the repository's root
        assert any((folder / path).exists() for folder in (ROOT, ROOT / "cascadeclip", ROOT / "data_scripts")), path


def test_a_named_file_that_does_not_exist_is_found():
    found = named_files("see `cascade.py`, `model/cascade.py` and `python data_scripts/x.py --root data` in `tests/`")
    assert found == {"cascade.py", "model/cascade.py", "data_scripts/x.py", "tests/"}
    assert not (ROOT / "cascadeclip" / "cascade.py").exists()


def test_the_tree_has_every_room_once_and_in_the_order_of_imports():
    from tests.test_imports import ORDER

    rows = list(tree((ROOT / "ARCHITECTURE.md").read_text()))
    assert len(rows) == len(set(rows))
    assert [row.rstrip("/").removesuffix(".py") for row in rows] == [room for room in ORDER if room[0] != "_"]
    for row in rows:
        assert (ROOT / "cascadeclip" / row).exists(), row


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_every_file_of_the_method_is_on_the_map():
    named = named_files((ROOT / "ARCHITECTURE.md").read_text())
    for path in (ROOT / "cascadeclip" / "model").glob("[a-z]*.py"):
        assert f"model/{path.name}" in named or path.stem == "resize", path
