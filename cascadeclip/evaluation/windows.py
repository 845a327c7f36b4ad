"""Square windows that slide over a picture larger than the model was trained at."""

import math

from cascadeclip.errors import InputError
from cascadeclip.schema import Count, checked

WINDOWS_AT_ONCE = 16  # that go through the model together


@checked(window=Count | None, stride=int | None)
def windows_over(height: int, width: int, window: int | None, stride: int | None) -> list[tuple[slice, slice]]:
    """Rows and columns of each window; the whole picture if `window` is None."""
    if window is None:
        return [(slice(0, height), slice(0, width))]
    stride = window * 5 // 6 if stride is None else stride
    if not 1 <= stride <= window:
        raise InputError(f"stride={stride} px must be between 1 and the window, {window} px, or pixels are left out")
    sides = [
        [slice(start, min(start + window, length)) for start in window_starts(length, window, stride)]
        for length in (height, width)
    ]
    return [(rows, columns) for rows in sides[0] for columns in sides[1]]


@checked(length=Count, window=Count, stride=Count)
def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixel of each window along one side; the last window ends with the picture."""
    steps = max(math.ceil((length - window) / stride), 0)
    return [max(min(step * stride, length - window), 0) for step in range(steps + 1)]
