"""A trained cascade taken apart: what changes without a piece, and numbers side by side for stages and layers."""

from collections.abc import Mapping

import numpy as np

from cascadeclip.colours import SEEN_COLOUR, UNSEEN_COLOUR
from cascadeclip.errors import InputError
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import refuse_empty

PIECES = ("#5b8c5a", "#c9822b", "#5f6b8a", "#1d1d1d")  # of the series in `plot_groups`
OF_GROUPS = {"seen": SEEN_COLOUR, "unseen": UNSEEN_COLOUR}


def plot_ablations(
    report: Mapping[str, Mapping[str, tuple[float, float, float]]], xlabel: str, title: str = ""
) -> Figure:
    """How far each variant lies from the whole: points with their intervals, a row per variant, a colour per score.

    Args:
        report: variant -> score -> (difference, low, high); drawn as they are. A score is `seen` or `unseen`.

    Raises:
        InputError: no variant, or variants with other scores than the first.
    """
    refuse_empty(report=report)
    scores = list(next(iter(report.values())))
    if any(list(row) != scores or not set(row) <= set(OF_GROUPS) for row in report.values()):
        raise InputError(f"differences of {list(report)}: give every variant the same of {', '.join(OF_GROUPS)}")
    figure = Figure(figsize=(7.5, 0.9 + 0.42 * len(report)), layout="constrained")
    axis, places = figure.subplots(), np.arange(len(report))
    for number, score in enumerate(scores):
        middle, low, high = np.array([row[score] for row in report.values()], dtype=float).T
        at = places + 0.24 * (number - (len(scores) - 1) / 2)
        axis.hlines(at, low, high, color=OF_GROUPS[score], linewidth=2)
        axis.plot(middle, at, "os"[number], color=OF_GROUPS[score], markersize=5, label=f"{score} classes")
    axis.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axis.set_yticks(places, list(report))
    axis.set_ylim(len(report) - 0.5, -0.5)
    axis.set_xlabel(xlabel)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=8)
    figure.head(title)
    return figure


def plot_groups(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    ylabel: str,
    *,
    reference: float = 0.0,
    bottom: float = 0.0,
    title: str = "",
) -> Figure:
    """Panels side by side on one scale, in each of them groups of bars that rise or fall from `bottom`.

    Args:
        panels: heading -> group -> series -> value, any sign.
        reference: where a dotted line is drawn.
        bottom: where bars start.

    Raises:
        InputError: nothing to draw, or groups with other series than the first.
    """
    refuse_empty(panels=panels)
    groups = [group for panel in panels.values() for group in panel.values()]
    series = list(groups[0])
    if len(series) > len(PIECES) or any(list(group) != series for group in groups):
        raise InputError(f"bars of {list(panels)}: give every group the same series, one to {len(PIECES)} of them")
    most = max(len(panel) for panel in panels.values())
    figure = Figure(figsize=(min(11.0, 1.5 + len(panels) * 1.3 * most), 3.6), layout="constrained")
    width = 0.84 / len(series)
    for axis, (heading, panel) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(),
                                    strict=True):  # fmt: skip
        for number, name in enumerate(series):
            values = np.array([group[name] for group in panel.values()])
            at = np.arange(len(panel)) + width * (number - (len(series) - 1) / 2)
            axis.bar(at, values - bottom, 0.92 * width, bottom=bottom, color=PIECES[number], label=name)
        axis.axhline(reference, color="black", linewidth=0.8, linestyle=":")
        axis.set_xticks(range(len(panel)), list(panel), fontsize=8)
        axis.set_title(heading, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(ylabel)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(series), frameon=False, fontsize=8)
    figure.head(title)
    return figure
