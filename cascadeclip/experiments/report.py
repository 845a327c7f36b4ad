"""What a comparison writes: a table as JSON and Markdown, a figure of it, and the learning curves."""

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascadeclip._version import __version__
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.evaluation.resampling import OverRuns
from cascadeclip.experiments.comparisons import COMPARISONS, Comparison, get_comparison
from cascadeclip.experiments.curves import GROUPS, not_trained
from cascadeclip.experiments.figures import plot_curves, plot_report
from cascadeclip.experiments.findings import DIFFERENCE, steps_in_words
from cascadeclip.experiments.run import MEASURES, RUNS, Row
from cascadeclip.files import (
    check_no_folder,
    check_writable,
    exists,
    is_folder,
    read_json,
    read_text,
    write_json,
    write_text,
)
from cascadeclip.plots.figure import save_figure
from cascadeclip.presets import Preset
from cascadeclip.processes import processor
from cascadeclip.schema import check_value

logger = logging.getLogger(__name__)

INDEX, HEADING = "README.md", "# Comparisons\n"  # of all tables, and how it begins


def written(comparison: Comparison) -> tuple[str, ...]:
    """Names of the files of a report."""
    return tuple(comparison.name + end for end in (".json", ".md", ".png", "-curves.png"))


def can_be_written(comparisons: Sequence[Comparison], out: str | Path) -> bool:
    """Whether reports can be written into `out`; False, with a warning, where runs lie in a folder that can only be
    read: finished ones can then be looked at.

    Raises:
        InputError: a folder in place of a report's file, a `README.md` of somebody else's, or an `out` that cannot be
            written and holds no runs.
    """
    for name in (INDEX, *(name for comparison in comparisons for name in written(comparison))):
        check_no_folder(Path(out) / name)
    index = Path(out) / INDEX
    if exists(index) and not read_text(index).startswith(HEADING):
        raise InputError(f"cannot write {index}: a file of yours is there; choose another output folder")
    try:
        check_writable(out)
    except InputError as error:
        if not is_folder(Path(out) / RUNS):
            raise
        logger.warning("%s. The finished runs there are read, and no report is written", error)
        return False
    return True


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
    places: dict[str, list[str]] = {}  # what it was run on -> which comparisons
    for report in read:
        versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
        places.setdefault(f"On {report['hardware']}; {versions}", []).append(report["comparison"])
    told = "\n\n".join(f"{place}: {', '.join(names)}." for place, names in places.items())
    commands = "\n".join(dict.fromkeys(report["command"] for report in read))
    same = "No row was tuned for itself: all rows of a table have the same schedule, data, seeds and test pictures."
    head = f"{HEADING}\n```bash\n{commands}\n```\n\n{told}\n\n{same}\n"
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
