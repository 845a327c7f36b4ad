"""A report as figures: bars and differences, learning curves, and leads on the way."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from cascadeclip.colours import HARMONIC_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR, model_colour
from cascadeclip.errors import InputError
from cascadeclip.experiments.curves import GROUPS, Curve
from cascadeclip.experiments.findings import finding
from cascadeclip.experiments.run import MEASURES
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import check_lengths, refuse_empty

_LABELS = dict(
    zip(MEASURES, (("seen", SEEN_COLOUR), ("unseen", UNSEEN_COLOUR), ("hIoU", HARMONIC_COLOUR)), strict=True)
)


def plot_report(report: dict[str, Any]) -> Figure:
    """Left: every variant's mean over seeds as bars, each seed as a dot. Right: its difference in hIoU to the first."""
    rows = report["rows"]
    refuse_empty(rows=[row["runs"] for row in rows])
    figure = Figure(figsize=(10.5, 1.6 + 0.55 * len(rows)), layout="constrained")
    scores, differences = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, row in enumerate(rows):
        for offset, (key, (_, colour)) in zip((-0.25, 0, 0.25), _LABELS.items(), strict=True):
            runs = 100 * np.array(row["runs"][key], dtype=float)  # None, of a file, is nan
            scores.barh(place + offset, runs.mean(), 0.22, color=colour)
            scores.plot(runs, [place + offset] * len(runs), "o", color="black", markersize=3, clip_on=False)
        _draw_difference(differences, place, row)
    differences.axvline(0, color="black", linewidth=1)
    scores.set_yticks(range(len(rows)), [row["name"] for row in rows])
    scores.invert_yaxis()
    scores.set_xlim(0)
    scores.set_xlabel("per cent; dots are seeds")
    differences.set_xlabel(f'hIoU minus that of\n"{rows[0]["name"]}", points, 95 % interval')
    handles = [Patch(color=colour, label=label) for label, colour in _LABELS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.head(f"{report['question']}\n{finding(report)}")
    return figure


def plot_curves(report: dict[str, Any], live: dict[str, Curve] | None = None) -> Figure:
    """Mean IoU on the validation set while training, seen classes left, unseen right: a line per row, the mean over
    its seeds, and a band from the worst seed to the best, at the steps that all seeds have scores of. `live`: trainings
    of today, by the names of their rows, drawn as circles on top.

    Raises:
        InputError: no curves, scores that are not one per step, or seeds that have no step in common.
    """
    refuse_empty(rows=[row["curves"] for row in report["rows"]])
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for number, row in enumerate(report["rows"]):
        steps, scores = _together(row)
        colour = model_colour(row["name"], f"C{number}")
        today = (live or {}).get(row["name"])
        for axis, group in zip(axes, GROUPS, strict=True):
            runs = 100 * scores[group]
            axis.plot(steps, runs.mean(0), color=colour, label=row["name"], marker=".")
            axis.fill_between(steps, runs.min(0), runs.max(0), color=colour, alpha=0.15, linewidth=0)
            if today is not None:
                points, look = 100 * np.array(getattr(today, group)), dict(color="black", markerfacecolor="none")
                check_lengths(len(today.steps), "steps", {f"{row['name']}, live": getattr(today, group)})
                axis.plot(today.steps, points, "o", markersize=9, label=f"{row['name']}, live", **look)
    for axis, group in zip(axes, GROUPS, strict=True):
        axis.set_title(f"{group} classes")
        axis.set_xlabel("optimiser steps")
        axis.set_ylim(0)
    axes[0].set_ylabel("mean IoU on the validation set, per cent")
    figure.head(f"In the end, {finding(report)}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _together(row: dict[str, Any]) -> tuple[list[int], dict[str, np.ndarray]]:
    """The steps that all seeds of a row have scores of, and per group these scores, (seeds, steps); NaN for null."""
    for number, curve in enumerate(row["curves"]):
        lines = {f"{row['name']}, curve {number}, {group}": curve[group] for group in GROUPS}
        check_lengths(len(curve["steps"]), "steps", lines)
    steps = sorted(set.intersection(*(set(curve["steps"]) for curve in row["curves"])))
    if not steps:
        raise InputError(f"the curves of {row['name']!r} have no step in common: validate all seeds equally often")
    chosen = {
        group: [dict(zip(curve["steps"], curve[group], strict=True)) for curve in row["curves"]] for group in GROUPS
    }
    return steps, {
        group: np.array([[scores[step] for step in steps] for scores in curves], dtype=float)
        for group, curves in chosen.items()
    }


def plot_leads(report: dict[str, Any]) -> Figure:
    """What each row is ahead of the first one while both train, on the validation set: seen classes left, unseen right.
    A line is the mean over the seeds, a band reaches from the least lead to the greatest; pairs share their seed."""
    refuse_empty(rows=[row["curves"] for row in report["rows"]])
    first, *others = report["rows"]
    (steps, base), found = _together(first), {row["name"]: _together(row) for row in others}
    if apart := [name for name, (own, _) in found.items() if own != steps]:
        raise InputError(f"trainings of {apart} were scored at other steps than those of {first['name']!r}")
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, group in zip(axes, ("seen", "unseen"), strict=True):
        for number, (name, (_, scores)) in enumerate(found.items(), 1):
            leads, colour = 100 * (scores[group] - base[group]), model_colour(name, f"C{number}")
            axis.plot(steps, leads.mean(0), color=colour, label=name, marker=".")
            axis.fill_between(steps, leads.min(0), leads.max(0), color=colour, alpha=0.15, linewidth=0)
        axis.axhline(0, color=model_colour(first["name"], "C0"), linewidth=1.5, label=first["name"])
        axis.set_title(f"{group} classes")
        axis.set_xlabel("optimiser steps")
    axes[0].set_ylabel(f'mean IoU minus that of\n"{first["name"]}", points')
    figure.head(f"In the end, {finding(report)}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_difference(axis: Axes, place: int, row: dict[str, Any]) -> None:
    """A row's difference in hIoU to the first row, in points, as a dot with its interval, if there are several seeds;
    for a row that must not be compared, a word; nothing for the first."""
    if row.get("not_compared"):
        middle = axis.get_yaxis_transform()
        axis.text(0.5, place, "not compared", transform=middle, ha="center", va="center", fontsize=8)
    elif row["difference"]:
        found = row["difference"]["hIoU"]
        if found["difference"] is None:  # no score to take it of
            return
        if found["low"] is not None:
            axis.plot([100 * found["low"], 100 * found["high"]], [place, place], color=HARMONIC_COLOUR, linewidth=2)
        axis.plot(100 * found["difference"], place, "o", color=HARMONIC_COLOUR)
