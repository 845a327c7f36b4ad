"""The documentation: every message has its place, every public name its entry, every command and example runs."""

import doctest
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import cascadeclip
from cascadeclip.cli.commands import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = Path(cascadeclip.__file__).parent


@pytest.fixture(scope="module")
def tools():
    """The modules that make pages, which are Sphinx's to import."""
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        yield {name: importlib.import_module(name) for name in ("messages", "pages", "playground")}
    finally:
        sys.path.remove(str(DOCS / "_ext"))


# --- troubleshooting --------------------------------------------------------------------------------------------------


def test_every_message_is_on_the_troubleshooting_page(tools):
    patterns = tools["messages"].families((DOCS / "troubleshooting.md").read_text(encoding="utf-8")).values()
    messages = tools["messages"].messages()
    assert len(messages) > 250  # they are found
    lost = [text for text in messages if not any(re.search(pattern, text) for pattern in patterns)]
    assert not lost, "give these a pattern in docs/troubleshooting.md"


def test_every_family_has_messages_and_words(tools):
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    families = tools["messages"].families(page)
    assert len(families) == page.count("```{messages}") > 10
    for heading, pattern in families.items():
        assert tools["messages"].of_family(page, pattern), heading
        assert re.search(rf"## {re.escape(heading)}\n\n\w", page), heading


def test_results_show_each_figure_once(tools, tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    for name in ("loss.png", "loss-curves.png", "loss-other.png"):
        (folder / name).write_bytes(b"")
    (folder / "README.md").write_text("# Comparisons\n\n## loss\n\ntable\n\n![Curves](loss-curves.png)\n")
    shown = tools["pages"]._with_figures(folder / "README.md")
    assert re.findall(r"\]\((.+?)\)", shown) == ["loss-curves.png", "loss.png"]


def test_messages_are_read_however_they_are_raised(tools, tmp_path):
    (tmp_path / "some.py").write_text(
        "def _require(holds, message):\n    if not holds:\n        raise InputError(message)\n"
        'def some(path):\n    _require(path, f"{path} must be\\n there")\n'
        '    raise errors.DamagedFile(f"{path} " "is torn") from None\n'
    )
    assert tools["messages"].messages(tmp_path) == ("… is torn", "… must be there")


# --- reference --------------------------------------------------------------------------------------------------------


def test_every_public_name_has_one_entry_and_a_docstring(tools):
    listed = tools["pages"].public()
    names = [(room, name) for room, some in listed.items() for name in some]
    assert len(names) > 150
    handed_on = {name for module in tools["pages"].rooms().values() for name in module.__all__}
    modules = {name for name in cascadeclip.__all__ if type(getattr(cascadeclip, name)) is type(cascadeclip)}
    assert handed_on - modules - {"__version__", "dense"} <= {name for _, name in names}
    for room, name in names:
        value = getattr(importlib.import_module(room), name)
        if getattr(value, "__module__", "").startswith("cascadeclip") and callable(value):
            assert value.__doc__, f"{room}.{name}"


def test_no_letter_stands_alone_where_sphinx_would_begin_a_list_with_it():
    """`width: E.` in a docstring would be shown as point E of a list."""
    lines = {path.name: path.read_text(encoding="utf-8").splitlines() for path in PACKAGE.rglob("*.py")}
    found = [(name, line.strip()) for name, some in lines.items() for line in some if re.match(r" +\w+: \w\.$", line)]
    assert not found


@pytest.mark.parametrize(
    "path", [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_examples_in_docstrings_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    assert any(test.examples for test in doctest.DocTestFinder().find(module))  # some are shown only: they need weights
    result = doctest.testmod(module, extraglobs={"cascadeclip": cascadeclip}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


# --- own data in ten minutes ------------------------------------------------------------------------------------------


def draw_own_data(folder: Path) -> None:
    """Twelve pictures of a car or a bus on grass, and their masks."""
    colours = np.array([[120, 160, 220], [90, 180, 90], [230, 60, 60], [240, 220, 80]], dtype=np.uint8)
    for number in range(12):
        mask = np.zeros((72, 96), dtype=np.uint8)
        mask[30:] = 1
        mask[10:30, 5 * number : 5 * number + 30] = 2 + number % 2
        for kind, content, suffix in (("pictures", colours[mask], "jpg"), ("masks", mask, "png")):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / kind / f"{number:02}.{suffix}")


@pytest.mark.slow
def test_own_data_in_ten_minutes_runs_as_written(tmp_path, monkeypatch):
    page = (DOCS / "own_data.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.S) for line in block.splitlines()]
    (described,) = re.findall(r"```json\n(.*?)```", page, re.S)
    assert [shlex.split(command)[1] for command in commands] == ["data", "data", "train", "evaluate"]
    draw_own_data(tmp_path / "mydata")
    monkeypatch.chdir(tmp_path)
    printed = []
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "cascadeclip"
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        printed.append(done.output)
        if arguments[1] == "init":
            found = json.loads((tmp_path / "mydata" / "own.json").read_text())
            assert {key: found[key] for key in ("images", "masks")} == {"images": "pictures", "masks": "masks"}
            (tmp_path / "mydata" / "own.json").write_text(described)
    assert len(list((tmp_path / "mydata" / "own-check").iterdir())) == 5
    assert "bus (unseen)" in printed[1]
    assert (tmp_path / "runs" / "try" / "model.safetensors").exists()


# --- the playground ---------------------------------------------------------------------------------------------------


def test_without_npm_the_playground_says_what_to_do(tools, tmp_path, monkeypatch):
    playground = tools["playground"]
    monkeypatch.setattr(playground.shutil, "which", lambda name: None)
    with pytest.raises(playground.NoRuntime, match=r"there is no npm here: install npm, or put \S+tgz"):
        playground.runtime(tmp_path)
    name = f"{playground.RUNTIME}-{playground.VERSION}.tgz"
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(playground.NoRuntime, match=f"{name} is not the archive that is meant: remove it"):
        playground.runtime(tmp_path)


def test_a_build_without_the_playground_has_a_page_in_its_place(tools, tmp_path, monkeypatch, capsys):
    playground = tools["playground"]

    def missing(made):
        raise playground.NoRuntime("there is no npm here: put <it> there")

    monkeypatch.setattr(playground, "runtime", missing)
    (tmp_path / "playground").mkdir()
    (tmp_path / "playground" / "model.js").write_text("of an earlier build")
    playground._with_pages(SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html")), None)
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "playground").iterdir()}
    assert set(made) == {"index.html", "playground.css"} and 'href="playground.css"' in made["index.html"]
    assert "no npm here: put &lt;it&gt; there" in made["index.html"] and 'href="../index.html"' in made["index.html"]
    assert "left out: there is no npm here" in capsys.readouterr().err


def test_what_npm_says_is_told(tools, tmp_path, monkeypatch):
    playground = tools["playground"]
    refusal = subprocess.CompletedProcess([], 1, "", "no such package")
    monkeypatch.setattr(playground.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(playground.subprocess, "run", lambda *arguments, **options: refusal)
    with pytest.raises(playground.NoRuntime, match=r"npm does not give it: install npm, or put \S+tgz .*\n.*package"):
        playground.runtime(tmp_path)


def test_the_scripts_of_the_playground_find_what_the_page_has():
    page = (DOCS / "playground" / "index.html").read_text(encoding="utf-8")
    scripts = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "playground").glob("*.js")}
    wanted = {name for text in scripts.values() for name in re.findall(r'\$\("(\w+)"\)', text)}
    assert len(wanted) > 15 and wanted <= set(re.findall(r'id="([\w-]+)"', page))
    assert set(scripts) | {"runtime.js", "model.js", "world.js"} == set(re.findall(r'src="([^"]+)"', page))
    assert 'href="playground/index.html"' in (DOCS / "index.md").read_text(encoding="utf-8")


# --- the project's files ----------------------------------------------------------------------------------------------


def test_the_repository_has_one_name():
    names = {}
    for pattern in (
        "*.md",
        "*.toml",
        "*.cff",
        "docs/**/*.md",
        ".github/**/*.yml",
        "notebooks/*.py",
        "cascadeclip/**/*.py",
    ):
        for path in ROOT.glob(pattern):
            for name in re.findall(r"github\.com/([\w-]+)/cascadeclip", path.read_text(encoding="utf-8")):
                names.setdefault(name, []).append(path.name)
    assert len(names) == 1, names


def test_the_slowest_tests_that_are_named_exist_and_are_marked():
    named = re.findall(r"^\| `(test_\w+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert len(named) == 10
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    for name in named:
        (text,) = [text for text in files if f"\ndef {name}(" in text and "pytest.mark.slow" in text]
        above = text[: text.index(f"\ndef {name}(")].rpartition("\n\n")[2]
        assert "pytest.mark.slow" in above or re.search(r"^pytestmark = .*?pytest\.mark\.slow", text, re.M | re.S), name


def test_hooks_are_what_make_lint_checks():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    commands = [line.replace("$(BIN)/", "").split() for line in lint.splitlines()]
    hooks = [[word for word in hook["entry"].split() if word != "--force-exclude"] for hook in repository["hooks"]]
    assert hooks == [[word for word in command if word != "."] for command in commands]


def test_the_paper_is_cited_alike_everywhere():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    bibtex = (DOCS / "citation.md").read_text(encoding="utf-8")
    authors = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    assert f"{{{authors}}}" in bibtex and f"{{{paper['start']}--{paper['end']}}}" in bibtex
    assert paper["title"] in bibtex.replace("{CLIP}", "CLIP")


def test_the_changelog_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text and f"## [{cascadeclip.__version__}]" in text
