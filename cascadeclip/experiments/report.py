"""What a comparison writes: a table as JSON and Markdown, a figure of it, and the learning curves."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from cascadeclip._version import __version__
from cascadeclip.colours import HARMONIC_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR, model_colour
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.evaluation.resampling import OverRuns
from cascadeclip.experiments.comparisons import COMPARISONS, Comparison, get_comparison
from cascadeclip.experiments.curves import Curve, not_trained
from cascadeclip.experiments.run import MEASURES, Row
from cascadeclip.files import exists, read_json, read_text, write_json, write_text
from cascadeclip.plots.figure import Figure, save_figure
from cascadeclip.plots.given import check_lengths, refuse_empty
from cascadeclip.presets import Preset
from cascadeclip.processes import processor
from cascadeclip.schema import check_value

GROUPS, DIFFERENCE = ("seen", "unseen"), ("difference", "low", "high")
INDEX = "README.md"  # of all tables
_SHORT = {"mIoU_unseen": "unseen", "hIoU": "hIoU"}
_LABELS = dict(
    zip(MEASURES, (("seen", SEEN_COLOUR), ("unseen", UNSEEN_COLOUR), ("hIoU", HARMONIC_COLOUR)), strict=True)
)


def written(comparison: Comparison) -> tuple[str, ...]:
    """Names of the files of a report."""
    return tuple(comparison.name + end for end in (".json", ".md", ".png", "-curves.png"))


def write_report(
    comparison: Comparison, rows: Sequence[Row], preset: Preset, out: str | Path, *, command: str, limit: int | None
) -> Path:
    """`<comparison>.json`, `.md`, `.png` and `-curves.png` in `out`; returns the path of the Markdown table.

    Args:
        preset: that was run, with its schedule.
        command: that was given, for the record.
        limit: how many pictures were scored, None for all.
    """
    out, here = Path(out), where(preset, rows, limit)
    report = {
        "comparison": comparison.name, "question": comparison.question, "paper": comparison.paper, "here": here,
        "seeds": len(rows[0].runs["hIoU"]), "steps": preset.training.steps, "batch_size": preset.training.batch_size,
        "limit": limit, "command": command, "hardware": _hardware(), "versions": _versions(),
        "rows": [_as_json(row, rows[0]) for row in rows],
    }  # fmt: skip
    path = out / f"{comparison.name}.md"
    write_json(path.with_suffix(".json"), report)
    write_text(path, markdown(comparison, rows, here))
    save_figure(plot_report(report), path.with_suffix(".png"))
    save_figure(plot_curves(report), path.with_name(f"{comparison.name}-curves.png"))
    return path


def where(preset: Preset, rows: Sequence[Row], limit: int | None) -> str:
    """Preset, budget, seeds and pictures in words."""
    seeds, training = len(rows[0].runs["hIoU"]), preset.training
    steps = steps_in_words([curve.steps for row in rows for curve in row.curves], training.steps)
    return (
        f"preset {preset.name}, {steps} steps of {training.batch_size} pictures, {seeds} "
        f"seed{'s' if seeds > 1 else ''}, {'all' if limit is None else f'the first {limit}'} test pictures"
    )


def steps_in_words(curves: Sequence[Sequence[int]], otherwise: int) -> str:
    """How long trainings were, by the steps at which they were scored: `3600`, or `1800 to 3600`; rows may be longer
    than their preset's budget. `otherwise` where there is no curve."""
    ends = sorted({steps[-1] for steps in curves if steps}) or [otherwise]
    return " to ".join(map(str, dict.fromkeys((ends[0], ends[-1]))))


def _hardware() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "open_clip_torch", "numpy")
    own = {"python": platform.python_version(), "cascadeclip": __version__}
    return own | {name: version(name) for name in packages}


def differences_as_json(difference: Mapping[str, OverRuns]) -> dict[str, dict[str, float]]:
    """Measure -> difference and the ends of its interval."""
    return {
        key: dict(zip(DIFFERENCE, map(float, (found.whole, *found.interval())), strict=True))
        for key, found in difference.items()
    }


def _as_json(row: Row, first: Row) -> dict[str, Any]:
    return {
        "name": row.name, "runs": row.runs, "difference": differences_as_json(row.difference or {}),
        "not_compared": _not_compared(row, first),
        "trained": [curve.trained for curve in row.curves], "curves": [asdict(curve) for curve in row.curves],
    }  # fmt: skip


def _not_compared(row: Row, first: Row) -> str:
    """Why a row must not be held against the first one, in words; empty if it may be."""
    reasons = {one.name: not_trained(one.curves) for one in (row, first)}
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)


def markdown(comparison: Comparison, rows: Sequence[Row], where: str) -> str:
    """The table in per cent: mean and standard deviation over seeds, difference of hIoU to the first row.

    Rows that were not trained to the end are not compared, and the table says so.
    """
    lines = [
        f"**{comparison.question}** Paper: {comparison.paper} Here: {where}; the difference is to the first row, with "
        "a 95 % interval over seeds and pictures.",
        "",
        "| | mIoU seen | mIoU unseen | hIoU | difference in hIoU | steps | trained to the end |",
        "|---|---|---|---|---|---|---|",
    ]
    reasons = [reason for row in rows if (reason := not_trained(row.curves))]
    for row in rows:
        cells = [f"{100 * row.mean(key):.1f} ± {100 * row.deviation(key):.1f}" for key in MEASURES]
        change = ""
        if row.difference is not None and _not_compared(row, rows[0]):
            change = "not compared"
        elif row.difference is not None:
            found = row.difference["hIoU"]
            low, high = found.interval()
            change = f"{100 * found.whole:+.1f}"
            change += " (one seed)" if np.isnan(low) else f" ({100 * low:+.1f} to {100 * high:+.1f})"
        steps = max((curve.steps[-1] for curve in row.curves), default=0)
        trained = sum(curve.trained for curve in row.curves)
        lines.append(f"| {row.name} | {' | '.join(cells)} | {change} | {steps} | {trained} of {len(row.curves)} runs |")
    if reasons:
        lines += ["", f"Not compared where a row was not trained to the end ({'; '.join(dict.fromkeys(reasons))})."]
    return "\n".join(lines).replace(" ± nan", "") + "\n"


def write_index(out: str | Path, reports: str | Path | None = None) -> Path:
    """`README.md` of all tables in `out`, with what they were run on.

    Args:
        out: with the tables.
        reports: folder of their JSON files; the same by default.
    """
    out, parts, read = Path(out), [], []
    for path in (Path(reports or out) / f"{name}.json" for name in COMPARISONS):
        if exists(path):
            read.append(read_report(path))
            table = read_text(out / f"{path.stem}.md", "table")
            parts += [f"## {path.stem}", "", table, f"![Learning curves of {path.stem}]({path.stem}-curves.png)", ""]
    if not read:
        raise InputError(f"no report of a comparison in {reports or out}; cascadeclip experiments writes them")
    versions = ", ".join(f"{name} {number}" for name, number in read[0]["versions"].items())
    commands = "\n".join(dict.fromkeys(report["command"] for report in read))
    same = "No row was tuned for itself: all have the preset's schedule, data, seeds and test pictures."
    head = f"# Comparisons\n\n```bash\n{commands}\n```\n\nOn {read[0]['hardware']}; {versions}. {same}\n"
    write_text(out / INDEX, "\n".join([head, *parts]))
    return out / INDEX


def read_report(path: str | Path) -> dict[str, Any]:
    """What `write_report` wrote as JSON; an `InputError` if there is no such file or it holds something else."""
    report = read_json(path, "report of a comparison")
    try:
        for key, kind in _REPORT.items():
            check_value(report.get(key), kind, key)
        if not report["rows"]:
            raise InputError("rows is empty")
        for number, row in enumerate(report["rows"]):
            _check_row(row, f"rows[{number}]")
    except InputError as error:
        raise DamagedFile(
            f"{path} is no report of a comparison ({error}); cascadeclip experiments writes them"
        ) from error
    return report


_REPORT = dict.fromkeys(("comparison", "question", "paper", "here", "command", "hardware"), str) | {
    "versions": dict[str, str], "rows": tuple[dict[str, object], ...],
}  # fmt: skip
_NUMBERS = tuple[float | None, ...]  # null where there was nothing to measure
_ROW = {
    "name": str, "not_compared": str, "runs": dict[str, _NUMBERS], "difference": dict[str, dict[str, float | None]],
    "curves": tuple[dict[str, _NUMBERS], ...],
}  # fmt: skip


def _check_row(row: dict[str, Any], where: str) -> None:
    for key, kind in _ROW.items():
        check_value(row.get(key), kind, f"{where}.{key}")
    wanted: list[tuple[str, Mapping[str, object], Sequence[str]]] = [("runs", row["runs"], MEASURES)]
    wanted += [(f"curves[{i}]", curve, ("steps", *GROUPS)) for i, curve in enumerate(row["curves"])]
    wanted += [("difference", row["difference"], MEASURES if row["difference"] else ())]
    wanted += [(f"difference.{key}", found, DIFFERENCE) for key, found in row["difference"].items()]
    for name, found, keys in wanted:
        if missing := [key for key in keys if key not in found]:
            raise InputError(f"{where}.{name} lacks {', '.join(missing)}")


def stored_report(name: str) -> dict[str, Any]:
    """The report of a comparison on the mini world that travels with the package.

    Raises:
        InputError: no such comparison, or one that was not run yet.
    """
    get_comparison(name)
    with as_file(files("cascadeclip") / "assets" / "results" / f"{name}.json") as path:
        if not exists(path):
            raise InputError(f"no results of comparison {name!r} are stored: run `cascadeclip experiments {name}`")
        return read_report(path)


def conclusion(report: dict[str, Any]) -> str:
    """What a report says, in a sentence per row: its difference to the first row on unseen classes and in hIoU, or why
    the two must not be compared."""
    first, *others = report["rows"]
    lines = [f'{report["here"]}. Beside "{first["name"]}", points with 95 % intervals over seeds and pictures:']
    for row in others:
        if row["not_compared"]:
            lines.append(f"  {row['name']}: not compared ({row['not_compared']})")
            continue
        cells = [f"{label} {in_points(row['difference'][key])}" for key, label in _SHORT.items()]
        lines.append(f"  {row['name']}: {', '.join(cells)}")
    return "\n".join(lines)


def finding(report: dict[str, Any]) -> str:
    """What a report says of hIoU in one line, for the head of a figure: whose interval lies above zero, below, neither,
    and which rows were not trained to the end."""
    found: dict[str, list[str]] = {"ahead": [], "behind": [], "cannot say": [], "not trained to the end": []}
    for row in report["rows"][1:]:
        whole, low, high = ((row["difference"] or {}).get("hIoU", {}).get(key) for key in DIFFERENCE)
        points = "" if whole is None else f" ({100 * whole:+.1f})"
        if row.get("not_compared"):
            found["not trained to the end"].append(row["name"])
        else:
            sure = low is not None and high is not None and (low > 0) - (high < 0)
            found["ahead" if sure == 1 else "behind" if sure == -1 else "cannot say"].append(row["name"] + points)
    told = "; ".join(f"{verdict}: {', '.join(rows)}" for verdict, rows in found.items() if rows)
    return f'hIoU beside "{report["rows"][0]["name"]}", points: {told}'


def in_points(found: Mapping[str, float | None]) -> str:
    """A difference with its interval, `+1.2 (-0.3 to +2.7)`; words where there was no score to take it of."""
    whole, low, high = (found[key] for key in DIFFERENCE)
    if whole is None:
        return "not measured"
    interval = "" if low is None or high is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * whole:+.1f}{interval}"


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
        axis.text(0.5, place, "not trained to the end", transform=middle, ha="center", va="center", fontsize=8)
    elif row["difference"]:
        found = row["difference"]["hIoU"]
        if found["difference"] is None:  # no score to take it of
            return
        if found["low"] is not None:
            axis.plot([100 * found["low"], 100 * found["high"]], [place, place], color=HARMONIC_COLOUR, linewidth=2)
        axis.plot(100 * found["difference"], place, "o", color=HARMONIC_COLOUR)
