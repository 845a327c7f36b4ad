"""What several figures draw into an axis, or below it: legends, reference lines, curves of equal harmonic mean."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from cascadeclip.colours import HARMONIC_COLOUR
from cascadeclip.plots.figure import Figure, in_short

MOST_NAMED = 30  # classes in a legend


def legend_above(axis: Axes, columns: int = 4) -> None:
    """A legend without a frame above the axis, which keeps its left and lower line only."""
    axis.legend(frameon=False, fontsize=8, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), borderpad=0.1)
    axis.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, handles: Sequence[Patch], columns: int, size: float) -> None:
    """A legend without a frame below a figure, in no more columns than the figure has room for.

    Args:
        size: of its letters, in points.
    """
    longest = max((len(in_short(str(handle.get_label()))) for handle in handles), default=0)
    room = int(figure.get_figwidth() * 72 / (0.55 * size * (longest + 6)))
    columns = max(1, min(columns, len(handles), room))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=size)


def named_patches(pixels: np.ndarray, words: Sequence[str], colours: np.ndarray) -> list[Patch]:
    """What a legend says of the classes that have pixels (C,); of very many those with the most, and how many more."""
    (found,) = np.nonzero(pixels)
    shown = (
        found if len(found) <= MOST_NAMED else np.sort(found[np.argsort(-pixels[found], kind="stable")][:MOST_NAMED])
    )
    handles = [Patch(color=colours[index], label=words[index]) for index in shown]
    if more := len(found) - len(shown):
        handles.append(Patch(color="none", label=f"and {more:,} more"))
    return handles


def extra_room(words: Sequence[str], size: float) -> float:
    """Inches that a figure needs beside what it has for short words, once the longest of these stands at a tick.

    Args:
        size: of the letters, in points.
    """
    longest = max((len(in_short(word)) for word in words), default=0)
    return max(0.0, (longest - 14) * 0.6 * size / 72)


def draw_reference(axis: Axes, text: str, height: float) -> None:
    """A dotted line across, its text on it at the left."""
    axis.axhline(height, color="black", linestyle=":", linewidth=1)
    across = axis.get_yaxis_transform()
    axis.annotate(text, (0.01, height), (0, 2), fontsize=7.5, xycoords=across, textcoords="offset points")


def draw_equal_harmonic(axis: Axes, low: np.ndarray, high: np.ndarray) -> None:
    """Limits (S, U) of the plane in per cent, in it curves of equal harmonic mean, and the line S = U."""
    seen, unseen = (np.linspace(max(start, 1e-3), end, 120) for start, end in zip(low, high, strict=True))
    height = 2 * unseen[:, None] * seen / (unseen[:, None] + seen)
    curves = axis.contour(seen, unseen, height, levels=6, colors=HARMONIC_COLOUR, linewidths=0.7, alpha=0.7)
    axis.clabel(curves, fmt="hIoU %.0f", fontsize=7)
    axis.plot([0, 100], [0, 100], color="grey", linestyle=":", linewidth=1, label="S = U")
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axis.set(xlabel="mIoU seen (S), per cent", ylabel="mIoU unseen (U), per cent")
