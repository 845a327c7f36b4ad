"""Names that a package hands on but imports only when they are first used (PEP 562)."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module


def on_first_use(package: str, extra: str | None = None) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for the `__init__` of a package.

    The names are those that the `__init__` itself imports under `if TYPE_CHECKING:`, so that they are written down
    once, where type checkers and editors read them, too.

    Args:
        extra: of `pyproject.toml`, named where another package is missing.
    """
    module = sys.modules[package]
    origins = _imported_for_types(str(module.__file__))  # name -> the module that has it

    def load(name: str) -> object:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        try:
            home = import_module(f"{package}.{name}" if origins[name] == package else origins[name])
        except ModuleNotFoundError as missing:
            if extra is None:
                raise
            advice = f"{missing.msg}: pip install 'cascadeclip[{extra}]'"
            raise ModuleNotFoundError(advice, name=missing.name) from missing
        if origins[name] == package:
            return home
        value = getattr(home, name)
        setattr(module, name, value)  # the next use finds it without coming here
        return value

    return load, lambda: sorted({*vars(module), *origins})


def _imported_for_types(path: str) -> dict[str, str]:
    """Name -> module of every `from module import name` under `if TYPE_CHECKING:` at a file's top level."""
    with open(path, encoding="utf-8") as file:
        blocks = [node for node in ast.parse(file.read()).body if isinstance(node, ast.If)]
    blocks = [node for node in blocks if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"]
    imports = [line for block in blocks for line in block.body if isinstance(line, ast.ImportFrom)]
    return {alias.name: str(line.module) for line in imports for alias in line.names}
