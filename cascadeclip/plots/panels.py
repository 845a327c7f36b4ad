"""Figures of pictures, label maps and scores side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.typing import ColorType

from cascadeclip.data.labels import ignored_label
from cascadeclip.plots.axes import legend_below
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import refuse_empty
from cascadeclip.schema import Count, checked

OUTLINE = "#00c853"


@checked(columns=Count | None)
def plot_panels(
    panels: Mapping[str, np.ndarray],
    *,
    outlines: Mapping[str, np.ndarray] | None = None,
    legend: Mapping[str, ColorType] | None = None,
    label: str = "",
    columns: int | None = None,
    title: str = "",
) -> Figure:
    """Panels in rows, each with its title above.

    Args:
        panels: title -> (H, W, 3), a picture, uint8 or floats in 0..1; or (H, W), scores in 0..1, drawn as brightness.
        outlines: title of a panel -> (H, W) bool, whose rim is drawn on it in green.
        legend: word -> colour, below the panels.
        label: what scores are, for the bar beside them.
        columns: panels in a row; all of them if None.
    """
    refuse_empty(panels=panels)
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(min(11.0, 2.3 * columns + 0.6), 2.3 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    scored = None
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, panel) in zip(axes, panels.items(), strict=False):
        drawn = axis.imshow(panel, interpolation="nearest", cmap="magma", vmin=0, vmax=1)
        scored = drawn if panel.ndim == 2 else scored
        axis.set_title(name, fontsize=9)
        if outlines and name in outlines:
            axis.contour(outlines[name], levels=[0.5], colors=OUTLINE, linewidths=1.2)
    if scored is not None:
        figure.colorbar(scored, ax=axes.tolist(), label=label)
    if legend:
        legend_below(figure, [Patch(color=colour, label=word) for word, colour in legend.items()], 8, 8)
    figure.suptitle(title, fontsize=11)
    return figure


def in_colours(labels: np.ndarray, names: Sequence[str], colours: Mapping[str, ColorType]) -> np.ndarray:
    """A label map (H, W) of indices into `names` as (H, W, 3), in each word's colour; other labels are black."""
    table = np.zeros((ignored_label(len(names)) + 1, 3))
    table[: len(names)] = [to_rgb(colours[name]) for name in names]
    return table[labels]
