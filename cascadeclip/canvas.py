"""Pieces of figures that stand at fixed places, in pixels from the upper left corner, and are drawn fast."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cascadeclip.figure import Figure

WIDTH, DPI = 960, 100  # px of every figure
MARK = "#00c8ff"
Box = tuple[float, float, float, float]  # left, top, width, height in px


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure and axes over all of it, measured in px from the upper left corner."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0), autoscale_on=False)
    axis.set_axis_off()
    return figure, axis


def plot_axes(figure: Figure, box: Box) -> Axes:
    """Axes of their own inside a canvas, for a plot with scales."""
    left, top, width, height = box
    tall = figure.get_figheight() * DPI
    axis = figure.add_axes((left / WIDTH, 1 - (top + height) / tall, width / WIDTH, height / tall))
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    return axis


def draw_panel(axis: Axes, box: Box, panel: np.ndarray, title: str = "") -> None:
    """An RGB image that fills its box, its title above."""
    left, top, width, height = box
    extent = (left, left + width, top + height, top)
    axis.imshow(panel, interpolation="nearest", aspect="auto", extent=extent, label=title)
    axis.text(left + width / 2, top - 6, title, fontsize=9, ha="center", va="bottom")


def draw_key(axis: Axes, left: float, top: float, entries: Sequence[tuple[object, str]]) -> None:
    """A legend: coloured squares and what they mean, from the upper left corner given."""
    for place, (colour, label) in enumerate(entries):
        axis.add_patch(Rectangle((left, top + 17 * place), 18, 11, facecolor=colour))
        axis.text(left + 26, top + 17 * place + 6, label, fontsize=8, va="center")


def heat(values: np.ndarray, cmap: str = "magma", low: float | None = None, high: float | None = None) -> np.ndarray:
    """(h, w) -> colours (h, w, 3), from the lowest value to the highest unless told otherwise."""
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return matplotlib.colormaps[cmap]((values - low) / max(high - low, 1e-12))[..., :3]


def montage(rows: Sequence[Sequence[np.ndarray]], gap: int = 1) -> np.ndarray:
    """Images of one size side by side on white, `gap` cells apart: (R rows of (h, w, 3)) -> one image."""
    height, width = rows[0][0].shape[:2]
    sheet = np.ones((len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3))
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def inside(box: Box, columns: float, rows: float) -> Box:
    """The largest box of that shape inside `box`, at its upper left."""
    scale = min(box[2] / columns, box[3] / rows)
    return box[0], box[1], columns * scale, rows * scale


def draw_montage(
    axis: Axes, box: Box, rows: Sequence[Sequence[np.ndarray]], left: Sequence[str], above: Sequence[str], gap: int = 1
) -> Box:
    """A montage as large as it goes into `box`, its rows and columns named; returns where it stands."""
    sheet, (height, width) = montage(rows, gap), rows[0][0].shape[:2]
    box = inside(box, sheet.shape[1], sheet.shape[0])
    cell = box[2] / sheet.shape[1]
    draw_panel(axis, box, sheet)
    for r, name in enumerate(left):
        axis.text(box[0] - 6, box[1] + cell * (r * (height + gap) + height / 2), name, fontsize=8.5, ha="right",
                  va="center")  # fmt: skip
    for c, name in enumerate(above):
        axis.text(box[0] + cell * (c * (width + gap) + width / 2), box[1] - 6, name, fontsize=8.5, ha="center",
                  va="bottom")  # fmt: skip
    return box


def draw_frame(axis: Axes, box: Box, colour: str = MARK) -> None:
    axis.add_patch(Rectangle(box[:2], *box[2:], fill=False, edgecolor=colour, linewidth=1.6))
