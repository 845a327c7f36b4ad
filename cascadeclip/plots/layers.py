"""Figures of layers: feature maps, similarity matrices, and curves over blocks. Each draws and returns one figure."""

from collections.abc import Mapping, Sequence

import numpy as np

from cascadeclip.plots.axes import extra_room
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import check_columns, check_lengths, refuse_empty

MOST_LINES = 200  # of classes in one figure


def plot_maps(
    pictures: Sequence[np.ndarray], maps: Mapping[str, Sequence[np.ndarray]], label: str = "", title: str = ""
) -> Figure:
    """Pictures in the first column, and beside each its map in every column.

    Args:
        pictures: (H, W, 3) uint8 each.
        maps: column title -> one map per picture, (h, w, 3) colours or (h, w) values. Each map of values has its own
            range of brightness, from its lowest to its highest value; both stand below it.
        label: what the values are, for the bar beside maps of values.
    """
    check_columns(pictures, maps)
    columns = {"picture": pictures, **maps}
    figure = Figure(figsize=(1.25 * len(columns) + 0.4, 1.45 * len(pictures) + 0.2), layout="constrained")
    axes = figure.subplots(len(pictures), len(columns), squeeze=False)
    for column, (heading, panels) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(heading, fontsize=8)
        for axis, panel in zip(column, panels, strict=True):
            drawn = axis.imshow(panel, interpolation="nearest", cmap="magma")
            axis.set_axis_off()
            if np.ndim(panel) == 2:
                ends = f"{np.min(panel):.2f} to {np.max(panel):.2f}"
                axis.text(0.5, -0.04, ends, fontsize=6.5, ha="center", va="top", transform=axis.transAxes)
    if np.ndim(panel) == 2:
        bar = figure.colorbar(drawn, ax=axes[:, -1], label=label, ticks=drawn.get_clim(), fraction=0.08)
        bar.set_ticklabels(["lowest", "highest"], fontsize=7)
    figure.head(title)
    return figure


def plot_matrices(matrices: Mapping[str, np.ndarray], label: str, vmin: float = 0.0, vmax: float = 1.0) -> Figure:
    """Matrices block x block (numbered from 1) side by side on one colour scale."""
    refuse_empty(matrices=matrices)
    figure = Figure(figsize=(3.2 * len(matrices) + 0.8, 3.5), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        count = len(matrix)
        extent = (0.5, count + 0.5, count + 0.5, 0.5)
        drawn = axis.imshow(np.asarray(matrix), vmin=vmin, vmax=vmax, cmap="viridis", extent=extent)
        axis.set(xlabel="block", ylabel="block")
        axis.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=axes.tolist(), label=label)
    return figure


def plot_over_blocks(
    lines: Mapping[str, Sequence[float]],
    ylabel: str,
    *,
    baselines: Mapping[str, float] | None = None,
    intervals: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    title: str = "",
    bottom: float | None = None,
) -> Figure:
    """One curve per entry over the blocks 1..L; the legend stands below.

    Args:
        lines: label -> L values; nan leaves a gap.
        baselines: label -> a value drawn as a dashed level: chance, or a control.
        intervals: label of a line -> L pairs (low, high), drawn as a band.
        bottom: where the vertical axis starts.
    """
    refuse_empty(lines=lines)
    figure = Figure(figsize=(6.6, 3.9), layout="constrained")
    axis = figure.subplots()
    for label, values in lines.items():
        blocks = np.arange(1, len(values) + 1)
        (drawn,) = axis.plot(blocks, values, marker="o", markersize=4, label=label)
        if intervals and label in intervals:
            axis.fill_between(blocks, *np.transpose(intervals[label]), color=drawn.get_color(), alpha=0.2, linewidth=0)
    for position, (label, level) in enumerate((baselines or {}).items()):
        axis.axhline(level, color="grey", linestyle=((0, (5, 2)), ":", "-.")[position % 3], label=label)
    axis.set(xlabel="block", ylabel=ylabel, title=title, xticks=blocks)
    axis.set_ylim(bottom, None)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_lines(
    x: Sequence[float], lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, *, lowest_marked: bool = True
) -> Figure:
    """One curve per entry over `x`, the lowest point of each marked unless told otherwise; nan leaves a gap."""
    refuse_empty(x=x, lines=lines)
    check_lengths(len(x), "points of x", lines)
    figure = Figure(figsize=(6.6, 3.5), layout="constrained")
    axis = figure.subplots()
    for label, values in lines.items():
        (drawn,) = axis.plot(x, values, label=label)
        if lowest_marked and not np.isnan(values).all():
            lowest = int(np.nanargmin(values))
            axis.plot(x[lowest], values[lowest], marker="v", color=drawn.get_color())
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def plot_classes_over_blocks(
    values: Mapping[str, np.ndarray],
    names: Sequence[str],
    unseen: Sequence[str],
    label: str,
    *,
    order: Sequence[int] | None = None,
    cmap: str = "RdBu",
) -> Figure:
    """Classes x blocks as colours from 0 to 1, one panel per entry; unseen classes are red and have a star.

    Args:
        values: title -> (C, L), nan where there is no value.
        names, unseen: the C class words, and those to mark.
        label: what the colours mean.
        order: classes to show, from the top; None takes `best_first` of the last panel, all if none has a value there.
            Of more than `MOST_LINES`, the first.
    """
    refuse_empty(values=values, names=names)
    order = best_first(list(values.values())[-1]) or range(len(names)) if order is None else order
    if len(order) > MOST_LINES:
        label, order = f"{label}; the first {MOST_LINES} of {len(order):,} classes", order[:MOST_LINES]
    wide = 1.35 * len(values) + 2.4 + extra_room([names[c] for c in order], 8)
    figure = Figure(figsize=(wide, 0.145 * len(order) + 0.9), layout="constrained")
    axes = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    for axis, (title, matrix) in zip(axes, values.items(), strict=True):
        blocks = matrix.shape[1]
        drawn = axis.imshow(
            matrix[order], aspect="auto", vmin=0, vmax=1, cmap=cmap,
            extent=(0.5, blocks + 0.5, len(order) - 0.5, -0.5), interpolation="nearest",
        )  # fmt: skip
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("block")
    axes[0].set_yticks(range(len(order)), [names[c] + " *" * (names[c] in unseen) for c in order], fontsize=8)
    for tick, position in zip(axes[0].get_yticklabels(), order, strict=True):
        tick.set_color("#d1495b" if names[position] in unseen else "black")
    figure.colorbar(drawn, ax=axes.tolist(), label=label, aspect=40)
    return figure


def best_first(values: np.ndarray) -> list[int]:
    """Classes by their value at the block whose mean over classes is highest; those without any value are left out.

    Args:
        values: (C, L), nan where there is no value.
    """
    refuse_empty(values=values)
    means = np.ma.masked_invalid(values).mean(axis=0).filled(-np.inf)  # a block without any value is not the best
    best = values[:, means.argmax()]
    return [c for c in np.argsort(-np.nan_to_num(best), kind="stable") if not np.isnan(values[c]).all()]
