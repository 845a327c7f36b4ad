"""What figures are given: refused in one line where there is nothing to draw, and measured past values that are NaN."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from cascadeclip.errors import InputError


def refuse_empty(**given: object) -> None:
    """An `InputError` naming the first argument, or part of one, that holds nothing; texts may be empty.

    Args:
        given: arrays, tensors, and mappings and sequences of them, by the names that the caller knows them by.
    """
    for name, value in given.items():
        parts: dict[str, object] = {}
        if isinstance(value, np.ndarray | Tensor):
            empty = 0 in value.shape
        elif isinstance(value, Mapping):
            empty, parts = not value, {f"{name}[{key!r}]": part for key, part in value.items()}
        elif isinstance(value, Sequence) and not isinstance(value, str):
            empty, parts = not value, {f"{name}[{position}]": part for position, part in enumerate(value)}
        else:
            continue
        if empty:
            raise InputError(f"nothing to draw: {name} is empty; give it at least one entry")
        refuse_empty(**parts)


def check_columns(pictures: Sequence[np.ndarray], columns: Mapping[str, Sequence[np.ndarray]]) -> None:
    """An `InputError` unless there are pictures, and columns with one map of at least one value for each of them."""
    if not len(pictures) or not columns or any(len(maps) != len(pictures) for maps in columns.values()):
        lengths = {title: len(maps) for title, maps in columns.items()}
        raise InputError(f"{len(pictures)} pictures with maps {lengths}: give one map per picture in every column")
    refuse_empty(pictures=pictures, maps=columns)


def check_lengths(wanted: int, what: str, lines: Mapping[str, Sequence[float]]) -> None:
    """An `InputError` naming the first line that has not one value for each of `wanted` things."""
    for name, values in lines.items():
        if len(values) != wanted:
            raise InputError(f"{name!r} has {len(values)} values for {wanted} {what}: give one for each")


def reach_of(*panels: ArrayLike) -> float:
    """The largest absolute value, of those that are finite, for a scale of colours; 1 if none is above 0."""
    values = np.abs(np.concatenate([np.zeros(1), *(np.ravel(np.asarray(panel, dtype=float)) for panel in panels)]))
    return float(values.max(where=np.isfinite(values), initial=0.0)) or 1.0
