"""Answers as text, to be handed from the notebook's process to the one that judges: plain data, never code.

What comes in is parsed, and nothing of it is executed: whatever a notebook's process sends, its judge gets numbers,
texts, lists and dicts of these, or an empty stand-in that has only the name of what was sent.
"""

import base64
import io
import json
import math
from collections.abc import Mapping
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 64_000_000  # characters of an answer
TOO_MUCH = "far too much: what is asked for is small"
NUMERIC = "biufc"  # kinds of NumPy arrays that are numbers


def pack(value: object) -> str:
    """The value as JSON. What is neither a number nor a text, or a collection of these, keeps only its type's name.

    Raises:
        ValueError: it is longer than `LARGEST`, holds itself, or holds a tensor without plain numbers.
    """
    try:
        text = json.dumps(_plain(value, _Room()))
    except RecursionError as error:
        raise ValueError("lists or dicts that hold themselves, or too many in each other") from error
    if len(text) > LARGEST:
        raise ValueError(TOO_MUCH)
    return text


class _Room:
    """Bytes that an answer may still have: one far too large is refused before it is copied."""

    def __init__(self) -> None:
        self.left = LARGEST

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError(TOO_MUCH)


def unpack(text: str) -> object:
    """What `pack` was given: tensors, arrays, plain numbers and texts, lists, tuples, dicts.

    Raises:
        ValueError: it is not what `pack` writes, or too long.
    """
    if len(text) > LARGEST:
        raise ValueError(f"{len(text)} characters are too many; {LARGEST} are read")
    try:
        return _value(json.loads(text))
    except (KeyError, TypeError, AttributeError, EOFError, RecursionError, SyntaxError, TokenError) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def _plain(value: object, room: _Room) -> Any:
    room.take(len(value) if isinstance(value, str) else 4)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Tensor):
        return {"tensor": _array(_numbers(value, room))}
    if isinstance(value, np.generic) and value.dtype.kind in NUMERIC:
        return _plain({"b": bool, "f": float, "c": complex}.get(value.dtype.kind, int)(value), room)
    if isinstance(value, np.ndarray) and value.dtype.kind in NUMERIC:
        room.take(value.nbytes)
        return {"array": _array(value)}
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_plain(part, room) for part in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(key, room), _plain(part, room)] for key, part in value.items()]}
    return {"other": type(value).__name__}


def _numbers(value: Tensor, room: _Room) -> np.ndarray:
    try:
        room.take(8 * value.numel())
        found = value.detach().cpu().resolve_conj().resolve_neg()
        found = found.to_dense() if found.layout != torch.strided else found
        return (found.double() if found.is_floating_point() else found).numpy()
    except (RuntimeError, TypeError) as error:  # without values ("meta"), quantised, nested: each raises its own
        raise ValueError(f"a tensor of {value.dtype} on {value.device} has no plain numbers to be read") from error


def _array(value: np.ndarray) -> str:
    file = io.BytesIO()
    np.save(file, np.array(value, subok=False), allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def _value(plain: Any) -> object:
    if not isinstance(plain, dict):
        if isinstance(plain, list):
            raise ValueError("a list without its kind")
        return plain
    ((kind, content),) = plain.items()
    if kind in ("tensor", "array"):
        found = _loaded(content)
        return torch.from_numpy(found) if kind == "tensor" else found
    if kind == "complex":
        return complex(*content)
    if kind in ("list", "tuple"):
        parts = [_value(part) for part in content]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "dict":
        return {_value(key): _value(part) for key, part in content}
    if kind == "other":
        return type(str(content)[:80].replace("\0", ""), (), {})()
    raise ValueError(f"there is no kind {kind!r:.80}")


def _loaded(content: str) -> np.ndarray:
    """An array of numbers; its size is compared with what it claims before it is made."""
    file = io.BytesIO(base64.b64decode(content))
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"array format {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    rest = file.read()
    if dtype.kind not in NUMERIC or len(rest) != math.prod(shape) * dtype.itemsize:
        raise ValueError("the array does not hold as many numbers as it says")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C").copy()
