"""Whether the package in this process is the one on the disk.

Points for right numbers do not depend on it: they come from another process. It is there for the teacher, who reads
what a notebook did. Whether an answer is the student's own work is seen in the notebook's process; no answer counts
where that was changed (`watch_replaced`).
"""

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from cascadeclip.exercises import answering
from cascadeclip.exercises.answering import LIBRARIES, PACKAGE

LOOKED_AT = (PACKAGE, "torch", "numpy")
_WATCH = dict(vars(answering))  # as it was loaded


def origins() -> dict[str, str]:
    """Where the package and the libraries that judge with it come from: module -> file."""
    return {name: str(getattr(sys.modules.get(name), "__file__", None)) for name in LOOKED_AT}


def replaced() -> list[str]:
    """Names of the package's functions that are not, in this process, what their files say."""
    modules = [(name, module) for name, module in sorted(sys.modules.items()) if name.split(".")[0] == PACKAGE]
    return [f"{name}.{function}" for name, module in modules for function in _replaced_in(module)]


def watch_replaced() -> list[str]:
    """Names of what watches a student's function that are not what they were, constants included."""
    others = {name for name, value in _WATCH.items() if vars(answering).get(name) is not value}
    return sorted(others.union(_replaced_in(answering)))


def _replaced_in(module: ModuleType) -> Iterator[str]:
    path = str(getattr(module, "__file__", None))
    written = _codes(path) if path.startswith(LIBRARIES[0]) and path.endswith(".py") else {}
    for name, value in list(vars(module).items()):
        own_class = inspect.isclass(value) and value.__module__ == module.__name__
        parts = {f"{value.__qualname__}.{inner}": part for inner, part in vars(value).items()} if own_class else {}
        for qualname, part in (parts or {name: value}).items():
            function, known = _function(part), written.get(qualname)
            if (known and (function is None or function.__code__ not in known)) or _is_foreign(
                function, in_class=own_class
            ):
                yield qualname
    for name in sorted({qualname.split(".")[0] for qualname in written} - {"__getattr__", "__dir__"}):
        is_class, value = name not in written, vars(module).get(name)
        if value is None or (is_class and getattr(value, "__module__", None) != module.__name__):
            yield name


def _function(value: object) -> FunctionType | None:
    """The function in a method, property or decorated function; None if there is none."""
    for holder in ("__func__", "fget", "func"):
        value = getattr(value, holder, None) or value
    try:
        value = inspect.unwrap(value)  # type: ignore[arg-type]
    except ValueError:  # a circle of wrappers
        return None
    return value if isinstance(value, FunctionType) else None


def _is_foreign(function: FunctionType | None, in_class: bool) -> bool:
    """Whether it was written outside all libraries. Methods that dataclasses make are written nowhere."""
    if function is None or function.__code__.co_filename.startswith(LIBRARIES):
        return False
    return not (in_class and function.__code__.co_filename.startswith("<"))


@cache
def _codes(path: str) -> dict[str, list[CodeType]]:
    """Qualified name -> code of every function in a file (several where it is defined anew)."""
    found: dict[str, list[CodeType]] = {}

    def collect(code: CodeType) -> None:
        for part in code.co_consts:
            if isinstance(part, CodeType):
                if "<" not in part.co_qualname and part.co_flags & inspect.CO_OPTIMIZED:
                    found.setdefault(part.co_qualname, []).append(part)
                collect(part)

    collect(compile(importlib.util.decode_source(Path(path).read_bytes()), path, "exec", dont_inherit=True))
    return found
