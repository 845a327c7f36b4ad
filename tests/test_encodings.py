"""Texts are UTF-8 wherever the package runs: nothing is read or written in the machine's own encoding."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _leaves_open(call: ast.Call) -> bool:
    """Whether a call reads or writes text without saying in which encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    given = {keyword.arg for keyword in call.keywords}
    if name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute):
        return "encoding" not in given and len(call.args) < (1 if name == "read_text" else 2)
    if name == "open" and not isinstance(call.func, ast.Attribute):
        modes = [one.value for one in call.args[1:2] if isinstance(one, ast.Constant)]
    elif name == "open" and call.args and isinstance(call.args[0], ast.Constant) and len(str(call.args[0].value)) <= 3:
        modes = [call.args[0].value]
    else:
        return False
    return "encoding" not in given and not any("b" in mode for mode in modes)


def test_every_text_has_an_encoding():
    found = []
    for path in (*ROOT.glob("cascadeclip/**/*.py"), *ROOT.glob("data_scripts/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _leaves_open(node)]
        found += [f"{path.relative_to(ROOT).as_posix()}:{call.lineno}" for call in calls]
    assert not found
