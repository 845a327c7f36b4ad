"""The package's docstrings are plain texts with `code` in backticks; what else reStructuredText would read as a sign is
none."""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def _as_plain_text(app: Sphinx, what: str, name: str, value: Any, options: object, lines: list[str]) -> None:
    if not (inspect.isroutine(value) or isinstance(value, type | property) or inspect.ismodule(value)):
        lines.clear()  # a constant's docstring is that of its type
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts) if not line.lstrip().startswith((">>>", "...")) else line


def _only_our_own(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: object) -> bool | None:
    """Members that another package puts into our classes stay out."""
    module = getattr(value, "__module__", None)
    return True if isinstance(module, str) and not module.startswith("cascadeclip") else None


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("autodoc-process-docstring", _as_plain_text, priority=100)  # before napoleon reads it
    app.connect("autodoc-skip-member", _only_our_own)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
