"""Figures of training-free dense CLIP."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from cascadeclip.colours import OTHER_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR, class_colours
from cascadeclip.errors import InputError
from cascadeclip.plots.axes import legend_below, named_patches
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import check_lengths, reach_of, refuse_empty
from cascadeclip.schema import Count, checked
from cascadeclip.segmenter import Segmentation


@checked(columns=Count)
def plot_methods(found: Mapping[str, Segmentation], columns: int = 3) -> Figure:
    """A picture, and beside it what several methods make of it in the same words; background is grey.

    Args:
        found: title -> segmentation of one picture.
    """
    if len({(one.names, one.image.shape) for one in found.values()}) != 1:
        raise InputError("methods side by side need one picture and the same words: give segmentations of one picture")
    first = next(iter(found.values()))
    height, width = first.image.shape[:2]
    colours = class_colours(first.names)
    if first.background is not None:
        colours[-1] = OTHER_COLOUR
    rows = -(-(len(found) + 1) // columns)
    figure = Figure(figsize=(2.9 * columns, (2.9 * height / width + 0.3) * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(first.image)
    axes[0].set_title("picture", fontsize=10)
    for axis, (title, one) in zip(axes[1:], found.items(), strict=False):
        axis.imshow(one.image)
        axis.imshow(colours[one.labels], alpha=0.75)
        axis.set_title(title, fontsize=10)
    pixels = sum(np.bincount(one.labels.ravel(), minlength=len(first.names)) for one in found.values())
    handles = named_patches(np.asarray(pixels), [first.called(name) for name in first.names], colours)
    legend_below(figure, handles, 6, 10)
    return figure


def plot_method_blocks(values: Mapping[str, Sequence[float]], label: str, title: str = "") -> Figure:
    """A heat map method x block with its numbers in it, the best block of each method framed.

    Args:
        values: method -> one fraction per block 1..L; nan where a method has none, left white.
        label: what the fractions are, for the bar.

    Raises:
        InputError: no method, no block, or rows of different lengths.
    """
    refuse_empty(values=values)
    check_lengths(len(next(iter(values.values()))), "blocks", values)
    table = 100 * np.array(list(values.values()), dtype=float)
    count, depth = table.shape
    figure = Figure(figsize=(2.6 + 0.5 * depth, 1.2 + 0.36 * count), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(table, cmap="viridis", vmin=0, vmax=reach_of(table), aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            colour = "white" if value < 0.6 * np.nanmax(table) else "black"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    for row, line in enumerate(table):
        if not np.isnan(line).all():
            corner = (np.nanargmax(line) - 0.5, row - 0.5)
            axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.8))
    axis.set_xticks(range(depth), [str(block) for block in range(1, depth + 1)])
    axis.set_yticks(range(count), list(values))
    axis.set(xlabel="block that is read", title=title)
    figure.colorbar(drawn, ax=axis, label=label)
    return figure


def plot_method_scores(
    scores: Mapping[str, Mapping[str, tuple[float, float, float]]],
    xlabel: str,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """One line per method with a dot for seen and one for unseen classes, each with its interval, in per cent.

    Args:
        scores: method -> `seen` and `unseen` -> (fraction, low, high); the first method stands on top.
        references: name -> fraction, drawn as dotted levels: chance and ceilings.

    Raises:
        InputError: no method, or one without the two.
    """
    if not scores or any(set(one) != {"seen", "unseen"} for one in scores.values()):
        raise InputError(f"scores of {list(scores)}: give one method or more, each with 'seen' and 'unseen'")
    figure = Figure(figsize=(7.2, 1.3 + 0.34 * len(scores)), layout="constrained")
    axis = figure.subplots()
    for shift, (group, colour) in zip((-0.14, 0.14), (("seen", SEEN_COLOUR), ("unseen", UNSEEN_COLOUR)), strict=True):
        middle, low, high = 100 * np.array([one[group] for one in scores.values()]).T
        places = np.arange(len(scores)) + shift
        axis.hlines(places, low, high, color=colour, linewidth=1.6)
        axis.plot(middle, places, "o" if group == "seen" else "D", color=colour, markersize=5, label=group)
    for name, value in (references or {}).items():
        axis.axvline(100 * value, color="grey", linestyle=":")
        axis.annotate(f"{name}: {100 * value:.1f}", (100 * value, -0.6), (3, 0), textcoords="offset points", fontsize=8)
    axis.set_yticks(range(len(scores)), list(scores))
    axis.set_ylim(len(scores) - 0.5, -0.9)
    axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    axis.set_xlabel(xlabel)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
