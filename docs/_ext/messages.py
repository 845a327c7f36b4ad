"""Every message of an `InputError` that the package can give, read from its source, and the directive that lists them.

    ```{messages} is damaged|cut short
    ```

lists the messages that match, and that no family before it on the page has, with "…" for what a message fills in.
`families` reads the patterns from a page, so that a test can ask whether every message has its place there.
"""

import ast
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

PACKAGE = Path(__file__).resolve().parents[2] / "cascadeclip"
ERRORS = ("InputError", "DamagedFile")
FILLED = "…"


@cache
def messages(package: Path = PACKAGE) -> tuple[str, ...]:
    """The messages of a package, each once and in order; those that are put together elsewhere are left out."""
    found = set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told_by = dict.fromkeys(ERRORS, 0) | _passing_on(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (place := told_by.get(_name(node.func), 99)) < len(node.args):
                found.add(re.sub(r"\s+", " ", _text(node.args[place])).strip())
    return tuple(sorted(text for text in found if text.replace(FILLED, "").strip(" :();.") and "\n" not in text))


def families(page: str) -> dict[str, str]:
    """Heading -> pattern of every section of a page that lists messages."""
    return {
        heading: pattern
        for heading, pattern in re.findall(r"^## (.+?)\n(?:(?!^## ).*\n)*?^```\{messages\} (.+)$", page, re.M)
    }


def _passing_on(tree: ast.Module) -> dict[str, int]:
    """Functions that raise an error with a message that they are given, and which of their arguments it is."""
    places = {}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        names = [one.arg for one in function.args.args]
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and _name(node.func) in ERRORS and node.args:
                given = node.args[0]
                if isinstance(given, ast.Name) and given.id in names:
                    places[function.name] = names.index(given.id)
    return places


def _name(called: ast.expr) -> str:
    return getattr(called, "id", getattr(called, "attr", ""))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else FILLED for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return FILLED


def of_family(page: str, pattern: str) -> list[str]:
    """The messages of a family: those that its pattern finds, and no pattern before it on the page."""
    patterns = list(families(page).values())
    earlier = patterns[: patterns.index(pattern)]
    return [
        text
        for text in messages()
        if re.search(pattern, text) and not any(re.search(before, text) for before in earlier)
    ]


class Messages(SphinxDirective):
    """The messages of a family, as a list."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        page = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        found = of_family(page, self.arguments[0])
        if not found:
            raise self.error(f"no message matches {self.arguments[0]!r}")
        items = [nodes.list_item("", nodes.paragraph("", "", nodes.literal("", text))) for text in found]
        return [nodes.bullet_list("", *items, classes=["messages"])]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("messages", Messages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
