"""What several figures draw into an axis: its legend, reference lines, curves of equal harmonic mean."""

import numpy as np
from matplotlib.axes import Axes

from cascadeclip.colours import HARMONIC_COLOUR


def legend_above(axis: Axes, columns: int = 4) -> None:
    """A legend without a frame above the axis, which keeps its left and lower line only."""
    axis.legend(frameon=False, fontsize=8, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), borderpad=0.1)
    axis.spines[["top", "right"]].set_visible(False)


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
