"""Settings and arguments held against their declared types and ranges, before anything is made of them.

The declaration is the dataclass itself: `steps: Annotated[int, Range(1, 10**9)]`. What comes from a file, from the
command line and from Python goes through the same check.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from cascadeclip.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

MOST_ITEMS = 100_000  # of a list in settings
MOST_LETTERS = 10_000  # of a text
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", NoneType: "null",
          Path: "a path", Sequence: "a list", Mapping: "an object, {...}", object: "anything"}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of a number, or number of items of a list."""

    low: float = -math.inf
    high: float = math.inf


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]


def checked(**hints: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Hold some arguments of a function against type hints, by name, each time it is called: `@checked(count=Count)`.

    Raises (when called):
        InputError: names the first argument that does not fit, its value, and what it has to be.
    """

    def around(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            for name in hints.keys() & given.arguments.keys():
                given.arguments[name] = check_value(given.arguments[name], hints[name], name)
            return function(*given.args, **given.kwargs)

        return run

    return around


def check_fields(settings: Any, prefix: str = "") -> None:
    """Check every field of a frozen dataclass against its annotation; lists become tuples where tuples are declared.

    Raises:
        InputError: names the first setting that does not fit, its value, and what it has to be.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        value = getattr(settings, field.name)
        checked = check_value(value, hints[field.name], prefix + field.name)
        if checked is not value:
            object.__setattr__(settings, field.name, checked)


def check_value(value: Any, hint: Any, name: str) -> Any:
    """The value as the type hint wants it; an `InputError` if it is another kind of thing or out of range."""
    if get_origin(hint) is Annotated:
        hint, *extra = get_args(hint)
        ranges = [one for one in extra if isinstance(one, Range)]
        if get_origin(hint) is tuple and isinstance(value, list | tuple):  # before a look at items that may be many
            _check_ranges(tuple(value), ranges, name)
        value = check_value(value, hint, name)
        _check_ranges(value, ranges, name)
        return value
    if get_origin(hint) in (Union, UnionType):
        return _check_union(value, get_args(hint), name)
    if get_origin(hint) is tuple:
        return _check_items(value, get_args(hint)[0], name)
    if get_origin(hint) is Sequence:
        _require(isinstance(value, Sequence) and not isinstance(value, str), name, value, _KINDS[Sequence])
        _check_items(tuple(value), get_args(hint)[0], name)
        return value
    if get_origin(hint) in (dict, Mapping):
        _require(isinstance(value, Mapping), name, value, _KINDS[Mapping])
        return {key: check_value(inner, get_args(hint)[1], f"{name}.{key}") for key, inner in value.items()}
    if hint is int:
        _require(isinstance(value, Integral) and not isinstance(value, bool), name, value, _KINDS[int])
        return int(value) if type(value) is not int else value
    if hint is float:
        number = isinstance(value, Real) and not isinstance(value, bool)
        _require(number and abs(value) < 1e300, name, value, _KINDS[float])  # an integer may be too large for a float
        return value if type(value) in (int, float) else float(value)
    if hint is str:
        _require(isinstance(value, str), name, value, "text")
        _require(len(value) <= MOST_LETTERS, name, value, f"text of at most {MOST_LETTERS} letters")
        return value
    _require(isinstance(value, hint), name, value, _KINDS.get(hint, f"{hint.__name__}"))
    return value


def _check_union(value: Any, hints: tuple[Any, ...], name: str) -> Any:
    if value is None and NoneType in hints:
        return None
    kinds = [hint for hint in hints if hint is not NoneType]
    fitting = [hint for hint in kinds if _is_kind(value, hint)] if len(kinds) > 1 else kinds
    wanted = [_KINDS.get(get_origin(hint) or hint, str(hint)) for hint in kinds]
    _require(bool(fitting), name, value, " or ".join(wanted))
    return check_value(value, fitting[0], name)


def _is_kind(value: Any, hint: Any) -> bool:
    """Whether a value is of the outermost kind of a type hint: a text is no list."""
    kind = get_origin(hint) or hint
    return isinstance(value, kind) and not (kind is Sequence and isinstance(value, str))


def _check_items(value: Any, hint: Any, name: str) -> tuple[Any, ...]:
    _require(isinstance(value, list | tuple), name, value, "a list")
    _require(len(value) <= MOST_ITEMS, name, value, f"a list of at most {MOST_ITEMS} items")
    items = tuple(check_value(item, hint, f"{name}[{position}]") for position, item in enumerate(value))
    return value if isinstance(value, tuple) and items == value else items


def _check_ranges(value: Any, ranges: Sequence[Range], name: str) -> None:
    if value is None:
        return
    size, what = (len(value), "items") if isinstance(value, tuple | str) else (value, "")
    for bounds in ranges:
        _require(size <= bounds.high, name, value, f"at most {bounds.high:g} {what}".strip())
        _require(size >= bounds.low, name, value, f"at least {bounds.low:g} {what}".strip())


def _require(condition: bool, name: str, value: Any, wanted: str) -> None:
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise InputError(f"{name}={shown} must be {wanted}")
