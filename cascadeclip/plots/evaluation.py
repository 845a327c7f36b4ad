"""Figures of an evaluation. Each function draws and returns one matplotlib figure; none shows or saves it.

Scores come in as fractions and are drawn in per cent; maps are integer arrays (H, W) of class indices, or the
label of ignored pixels.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from cascadeclip.colours import HARMONIC_COLOUR, OTHER_COLOURS, SEEN_COLOUR, UNSEEN_COLOUR, class_colours
from cascadeclip.data.labels import ignored_label
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import ERROR_KINDS
from cascadeclip.evaluation.resampling import Resampled
from cascadeclip.evaluation.scores import ConfusionMatrix, Scores
from cascadeclip.plots.axes import draw_reference, extra_room, legend_above
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import check_columns, check_lengths, reach_of, refuse_empty

IGNORED_COLOUR = (0.85, 0.85, 0.85)
SERIES_COLOURS = {"mIoU_seen": SEEN_COLOUR, "mIoU_unseen": UNSEEN_COLOUR, "hIoU": HARMONIC_COLOUR}
LABELS = {"mIoU_seen": "mIoU seen (S)", "mIoU_unseen": "mIoU unseen (U)", "hIoU": "hIoU"}
MOST_BARS, MOST_ROWS = 200, 60  # of classes in one figure


def plot_maps(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[np.ndarray]],
    names: Sequence[str],
    unseen: Sequence[str],
    rows: Sequence[str] = (),
    grey: str = "ignored",
    panel: float = 1.75,
    title: str = "",
) -> Figure:
    """Pictures beside label maps: one row per picture, one column per kind of map, a legend for each row.

    Args:
        images: n arrays (H, W, 3) uint8.
        columns: title -> n maps (H, W) integer; ignored pixels are drawn grey, unseen classes outlined in black.
        names, unseen: class words, and those without mask labels in training.
        rows: n texts that stand left of the rows.
        grey: what the legend calls ignored pixels.
        panel: width of one picture, in inches.
        title: what the figure shows; the columns keep theirs.

    Raises:
        InputError: no picture, no column, or columns of another length.
    """
    check_columns(images, columns)
    ignored = ignored_label(len(names))
    palette = np.full((ignored + 1, 3), IGNORED_COLOUR)
    palette[: len(names)] = class_colours(names)
    words = [*names, *[grey] * (ignored + 1 - len(names))]
    hidden = [index for index, name in enumerate(names) if name in set(unseen)]
    figure = Figure(figsize=(panel * (1 + len(columns)) + 2.2, (panel + 0.1) * len(images) + 0.2), layout="constrained")
    axes = figure.subplots(len(images), 1 + len(columns), squeeze=False)
    for row, image in enumerate(images):
        maps = [np.asarray(found[row]) for found in columns.values()]
        for axis, panel in zip(axes[row], [image, *(palette[found] for found in maps)], strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        for axis, found in zip(axes[row][1:], maps, strict=True):
            outlined = np.isin(found, hidden)
            if outlined.any() and not outlined.all():
                axis.contour(outlined, levels=[0.5], colors="black", linewidths=1.0)
        axes[row][-1].legend(
            handles=_legend_of(maps, words, hidden, palette), loc="center left", bbox_to_anchor=(1.0, 0.5),
            fontsize=7, frameon=False,
        )  # fmt: skip
    for axis, heading in zip(axes[0], ["picture", *columns], strict=True):
        axis.set_title(heading, fontsize=9)
    for axis, text in zip(axes[:, 0], rows, strict=False):
        axis.set_ylabel(text, fontsize=8)
    figure.head(title)
    return figure


def _legend_of(
    maps: Sequence[np.ndarray], names: Sequence[str], hidden: Sequence[int], palette: np.ndarray
) -> list[Patch]:
    """The classes of one row, those with the most pixels first, at most eight."""
    found, pixels = np.unique(np.concatenate([one.ravel() for one in maps]), return_counts=True)
    handles = []
    for index in found[np.argsort(-pixels)][:8]:
        handles.append(Patch(color=palette[index], label=names[index] + (" (unseen)" if index in hidden else "")))
    return handles


def plot_class_iou(
    scores: Scores, intervals: Sequence[tuple[float, float]] | None = None, chance: float | None = None
) -> Figure:
    """IoU of every class as bars, seen and unseen apart, each from best to worst; dashed: the group's mean.

    Of more than `MOST_BARS` classes, the best and the worst of each group; its mean is that of all.

    Args:
        intervals: per class (low, high), as fractions; drawn as thin lines.
        chance: IoU of guessing, as a fraction; drawn dotted.
    """
    refuse_empty(classes=scores.names)
    iou = 100 * np.asarray(scores.iou)
    figure = Figure(figsize=(11.5, 3.9), layout="constrained")
    axis, start, ticks = figure.subplots(), 0, []
    for group, colour, mean in (("seen", SEEN_COLOUR, scores.mIoU_seen), ("unseen", UNSEEN_COLOUR, scores.mIoU_unseen)):
        members = [i for i, name in enumerate(scores.names) if (name in scores.unseen) == (group == "unseen")]
        members.sort(key=lambda i: -np.nan_to_num(iou[i], nan=-1.0))
        if not members:
            continue
        count, room = len(members), _room_for(len(members), len(scores.names))
        if count > room:
            members = [*members[: room // 2], *members[-(room // 2) :]]
        places = np.arange(start, start + len(members))
        told = f"{group} classes ({count})" if count <= room else f"{group}: {room // 2} best and worst of {count:,}"
        label = f"{told}, mean {100 * mean:.1f}"
        axis.bar(places, iou[members], 0.8, color=colour, label=label)
        if intervals is not None:
            low, high = 100 * np.asarray([intervals[i] for i in members]).T
            axis.vlines(places, low, high, color="black", linewidth=0.8)
        axis.hlines(100 * mean, places[0] - 0.5, places[-1] + 0.5, color=colour, linestyle="--", linewidth=1.5)
        ticks += [(place, scores.names[i]) for place, i in zip(places, members, strict=True)]
        start = places[-1] + 2.5
    if chance is not None:
        axis.axhline(100 * chance, color="black", linestyle=":", linewidth=1, label=f"guessing: {100 * chance:.1f}")
    axis.set_xticks([place for place, _ in ticks], [name for _, name in ticks], rotation=90, fontsize=7)
    axis.set_xlim(-1, start - 1.5)
    axis.set_ylim(0, 100)
    axis.set_ylabel("IoU, per cent")
    legend_above(axis)
    return figure


def _room_for(members: int, classes: int) -> int:
    """How many bars a group gets: half of them at least, and what the other group leaves."""
    return max(MOST_BARS // 2, MOST_BARS - (classes - members))


def plot_confusion(
    confusion: ConfusionMatrix, names: Sequence[str], unseen: Sequence[str], least: float = 0.08
) -> Figure:
    """Where the pixels of each unseen class went: a row per unseen class, a column per class that takes its pixels.

    Of more than `MOST_ROWS` unseen classes, those with the most pixels, and as many other columns at most.

    Args:
        least: show a column only if it takes at least this share of some row (the unseen classes are always shown).
    """
    hidden = [index for index, name in enumerate(names) if name in set(unseen)]
    if not hidden:
        raise InputError("no unseen class among the names: give at least one")
    counts = confusion.counts[hidden]
    rows = counts.sum(1).argsort(descending=True, stable=True)[:MOST_ROWS].sort().values
    counts, shown = counts[rows].double(), [hidden[row] for row in rows.tolist()]
    share = 100 * (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    taken = share.max(0) >= 100 * least
    others = [index for index in np.argsort(-share.max(0)) if taken[index] and index not in set(shown)]
    columns = [*shown, *others[:MOST_ROWS]]
    table = np.concatenate([share[:, columns], 100 - share[:, columns].sum(1, keepdims=True)], axis=1)
    words = [*(names[index] for index in columns), "all the rest"]
    more = extra_room(words, 7.5)
    height, width = (more + max(0.27 * count, 1.0) for count in table.shape)
    figure = Figure(figsize=(1.6 + width, 1.3 + height), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(table, cmap="Purples", vmin=0, vmax=100, interpolation="nearest", aspect="auto")
    for row, column in zip(*np.nonzero(table >= 10), strict=True):
        colour = "white" if table[row, column] > 55 else "black"
        axis.text(column, row, f"{table[row, column]:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    axis.set_xticks(range(len(words)), words, rotation=90, fontsize=7.5)
    axis.set_yticks(range(len(shown)), [names[index] for index in shown], fontsize=7.5)
    for tick, index in zip(axis.get_xticklabels(), columns, strict=False):
        tick.set_color(UNSEEN_COLOUR if index in set(hidden) else SEEN_COLOUR)
    axis.axvline(len(shown) - 0.5, color="black", linewidth=0.8)
    few = len(shown) < len(hidden)
    axis.set_ylabel(
        f"true class ({len(shown)} of {len(hidden):,} unseen, by pixels)" if few else "true class (all unseen)"
    )
    axis.set_xlabel("class given: those | others | the rest" if few else "class given: unseen | seen | the rest")
    figure.colorbar(drawn, ax=axis, label="share of the true class's pixels, per cent")
    return figure


def plot_bars(
    report: Mapping[str, Mapping[str, ArrayLike]],
    ylabel: str,
    *,
    references: Mapping[str, float] | None = None,
    title: str = "",
    axis: Axes | None = None,
) -> Figure:
    """Groups of bars, in per cent; the legend stands above the axis, the title above the legend.

    Args:
        report: group -> series -> fraction, or (fraction, low, high) with the ends of its interval.
        references: name -> fraction, drawn as dotted lines with their names on them: baselines and ceilings.
        axis: draw into this one instead of a figure of its own.

    Raises:
        InputError: no group, or groups with other series than the first.
    """
    series = list(next(iter(report.values()), {}))
    if not series or any(list(values) != series for values in report.values()):
        raise InputError(f"bars of the groups {list(report)}: give every group the same series, at least one")
    if axis is None:
        figure = Figure(figsize=(max(5.0, 1.8 + 1.7 * len(report)), 3.6), layout="constrained")
        axis = figure.subplots()
    else:
        figure = cast(Figure, axis.figure)
    others = iter(OTHER_COLOURS * len(series))
    width = 0.8 / len(series)
    for number, name in enumerate(series):
        triples = np.array([np.broadcast_to(values[name], 3) for values in report.values()], dtype=float)
        middle, low, high = 100 * triples.T
        places = np.arange(len(report)) + width * (number - (len(series) - 1) / 2)
        colour = SERIES_COLOURS.get(name) or next(others)
        drawn = axis.bar(places, middle, 0.92 * width, color=colour, label=LABELS.get(name, name))
        if (high > low).any():
            axis.vlines(places, low, high, color="black", linewidth=1)
        for bar, value, top in zip(drawn, middle, np.fmax(high, middle), strict=True):
            axis.annotate(f"{value:.1f}", (bar.get_x() + bar.get_width() / 2, top), (0, 2), fontsize=7.5,
                          textcoords="offset points", ha="center")  # fmt: skip
    for name, value in (references or {}).items():
        draw_reference(axis, f"{name}: {100 * value:.1f}", 100 * value)
    axis.set_xticks(range(len(report)), list(report))
    axis.set_ylabel(ylabel)
    axis.margins(y=0.14)
    axis.set_ylim(0, None)
    axis.set_title(title, fontsize=9, pad=22)
    legend_above(axis)
    return figure


def plot_masks_and_rims(
    report: Mapping[str, Mapping[str, Mapping[str, Resampled]]], ceiling: Mapping[str, float]
) -> Figure:
    """Mean IoU of whole masks beside that of their rims, seen and unseen, with intervals; a group of bars per model.

    Args:
        report: model -> part, as of `diagnostics.masks_and_rims` -> scores, as of `diagnostics.bootstrap_scores`.
        ceiling: part -> what the truth itself reaches through the grid of patches.
    """
    refuse_empty(report=report, ceiling=ceiling)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.subplots(1, len(ceiling), squeeze=False)[0]
    for axis, (part, highest) in zip(axes, ceiling.items(), strict=True):
        bars: dict[str, dict[str, ArrayLike]] = {
            model: {key: (sets.whole, *sets.interval()) for key, sets in parts[part].items() if key != "hIoU"}
            for model, parts in report.items()
        }
        references = {"seen classes, truth through the grid of patches": highest}
        plot_bars(bars, f"mean {part}, per cent", references=references, title=part, axis=axis)
    return figure


def plot_error_kinds(report: Mapping[str, tuple[torch.Tensor, int]]) -> Figure:
    """The wrong pixels of each model by kind, as stacked bars, and the share that is right.

    Args:
        report: model -> (wrong pixels by kind (4,) as in `diagnostics.error_kinds`, number of labelled pixels).
    """
    refuse_empty(report=report)
    colours = (SEEN_COLOUR, "#a9c1d9", UNSEEN_COLOUR, "#eab0b6")
    share = 100 * np.array([[float(n) / (pixels or np.nan) for n in wrong] for wrong, pixels in report.values()])
    reach = max(1.2 * reach_of(share.sum(1)), 1.0)
    figure = Figure(figsize=(8.5, 1.4 + 0.55 * len(report)), layout="constrained")
    axis = figure.subplots()
    left = np.zeros(len(report))
    for kind, colour, widths in zip(ERROR_KINDS, colours, share.T, strict=True):
        drawn = axis.barh(list(report), widths, 0.6, left=left, color=colour, label=kind)
        labels = [f"{width:.1f}" if width > 0.025 * reach else "" for width in widths]  # narrow bars have no room
        axis.bar_label(drawn, labels, label_type="center", fontsize=8)
        left += widths
    axis.bar_label(drawn, [f"right: {100 - value:.1f}" for value in left], padding=4, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, reach)
    axis.set_xlabel("wrong pixels, share of all labelled pixels, per cent")
    legend_above(axis, columns=4)
    return figure


def plot_class_table(
    report: Mapping[str, Sequence[float]], groups: Mapping[str, Sequence[str]], title: str = ""
) -> Figure:
    """IoU of some classes as a table in colour: a row per model, a column per class, in per cent. Of more than
    `MOST_ROWS` classes, the first ones.

    Args:
        report: model -> IoU of each class of all groups, fractions in their order; NaN for a class without pixels.
        groups: heading -> its classes, side by side; a line stands between two groups.
    """
    refuse_empty(report=report, groups=groups)
    names = [name for group in groups.values() for name in group]
    check_lengths(len(names), "classes", report)
    values = 100 * np.array(list(report.values()), dtype=float)[:, :MOST_ROWS]
    if len(names) > MOST_ROWS:
        title, names = f"{title} (the first {MOST_ROWS} of {len(names):,} classes)".strip(), names[:MOST_ROWS]
    size = (2.4 + extra_room(list(report), 9) + 0.5 * len(names), 1.5 + extra_room(names, 8) + 0.32 * len(report))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(values, cmap="Purples", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "" if np.isnan(value) else f"{value:.0f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if value > 60 else "black")
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axis.set_yticks(range(len(report)), list(report), fontsize=9)
    start = 0
    for heading, group in groups.items():
        if width := min(len(group), len(names) - start):
            place = start + (width - 1) / 2
            axis.text(place, -0.6, heading, ha="center", va="bottom", fontsize=8, in_layout=False)
            axis.axvline(start - 0.5, color="black", linewidth=1.5 * bool(start))
        start += width
    axis.set_title(title, fontsize=10, pad=18)
    figure.colorbar(shown, ax=axis, label="IoU, per cent", pad=0.01)
    return figure
