"""Figures of layers: feature maps, likeness matrices, and curves over blocks. Each draws and returns one figure."""

from collections.abc import Mapping, Sequence

import numpy as np

from cascadeclip.figure import Figure


def plot_maps(pictures: Sequence[np.ndarray], maps: Mapping[str, Sequence[np.ndarray]], **options) -> Figure:
    """Pictures in the first column, and beside each its map in every column.

    Args:
        pictures: (H, W, 3) uint8 each.
        maps: column title -> one map per picture, (h, w, 3) colours or (h, w) values.
        options: of `imshow` for maps of values (`cmap`, `vmin`, `vmax`).
    """
    columns = {"picture": pictures, **maps}
    figure = Figure(figsize=(1.25 * len(columns), 1.35 * len(pictures) + 0.2), layout="constrained")
    axes = figure.subplots(len(pictures), len(columns), squeeze=False)
    for column, (title, panels) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(title, fontsize=8)
        for axis, panel in zip(column, panels, strict=True):
            axis.imshow(panel, interpolation="nearest", **(options if np.ndim(panel) == 2 else {}))
            axis.set_axis_off()
    return figure


def plot_matrices(matrices: Mapping[str, np.ndarray], label: str, vmin: float = 0.0, vmax: float = 1.0) -> Figure:
    """Matrices block x block (numbered from 1) side by side on one colour scale."""
    figure = Figure(figsize=(3.6 * len(matrices) + 0.8, 3.4), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        count = len(matrix)
        extent = (0.5, count + 0.5, count + 0.5, 0.5)
        drawn = axis.imshow(np.asarray(matrix), vmin=vmin, vmax=vmax, cmap="viridis", extent=extent)
        axis.set(title=title, xlabel="block", ylabel="block")
    figure.colorbar(drawn, ax=axes.tolist(), label=label)
    return figure


def plot_over_blocks(
    lines: Mapping[str, Sequence[float]],
    ylabel: str,
    *,
    baselines: Mapping[str, float] | None = None,
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    title: str = "",
) -> Figure:
    """One curve per entry over the blocks 1..L.

    Args:
        lines: label -> L values; nan leaves a gap.
        baselines: label -> a value drawn as a dashed level: chance, or a control.
        intervals: label of a line -> L pairs (low, high), drawn as a band.
    """
    figure = Figure(figsize=(6.6, 3.5), layout="constrained")
    axis = figure.subplots()
    for label, values in lines.items():
        blocks = np.arange(1, len(values) + 1)
        (drawn,) = axis.plot(blocks, values, marker="o", markersize=4, label=label)
        if intervals and label in intervals:
            axis.fill_between(blocks, *np.transpose(intervals[label]), color=drawn.get_color(), alpha=0.2, linewidth=0)
    for position, (label, level) in enumerate((baselines or {}).items()):
        axis.axhline(level, color="grey", linestyle=((0, (5, 2)), ":", "-.")[position % 3], label=label)
    axis.set(xlabel="block", ylabel=ylabel, title=title, xticks=blocks)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_lines(x: Sequence[float], lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> Figure:
    """One curve per entry over `x`, the lowest point of each marked."""
    figure = Figure(figsize=(6.6, 3.5), layout="constrained")
    axis = figure.subplots()
    for label, values in lines.items():
        (drawn,) = axis.plot(x, values, label=label)
        lowest = int(np.argmin(values))
        axis.plot(x[lowest], values[lowest], marker="v", color=drawn.get_color())
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_classes_over_blocks(
    values: Mapping[str, np.ndarray], names: Sequence[str], unseen: Sequence[str], label: str
) -> Figure:
    """Classes x blocks as colours, one panel per entry, classes in the order of the last panel's best block.

    Classes without a value are left out.

    Args:
        values: title -> (C, L), nan where there is no value.
        names, unseen: the C class words, and those to print in red.
        label: what the colours mean.
    """
    last = list(values.values())[-1]
    order = np.argsort(-np.nan_to_num(last[:, np.nanmean(last, axis=0).argmax()]))
    order = [c for c in order if not np.isnan(last[c]).all()]
    figure = Figure(figsize=(3.2 * len(values) + 1.5, 0.125 * len(order) + 0.8), layout="constrained")
    axes = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    for axis, (title, matrix) in zip(axes, values.items(), strict=True):
        blocks = matrix.shape[1]
        drawn = axis.imshow(
            matrix[order], aspect="auto", vmin=0, vmax=1, cmap="RdYlGn",
            extent=(0.5, blocks + 0.5, len(order) - 0.5, -0.5), interpolation="nearest",
        )  # fmt: skip
        axis.set(title=title, xlabel="block")
    axes[0].set_yticks(range(len(order)), [names[c] for c in order], fontsize=6)
    for tick, position in zip(axes[0].get_yticklabels(), order, strict=True):
        tick.set_color("#d1495b" if names[position] in unseen else "black")
    figure.colorbar(drawn, ax=axes.tolist(), label=label)
    return figure
