"""What a report says, in words. A report is what `report.read_report` gives."""

from collections.abc import Mapping, Sequence
from typing import Any

DIFFERENCE = ("difference", "low", "high")
_SHORT = {"mIoU_unseen": "unseen", "hIoU": "hIoU"}


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
    and which rows are not compared."""
    refused = "not compared, for a row was still learning"
    found: dict[str, list[str]] = {"ahead": [], "behind": [], "cannot say": [], refused: []}
    for row in report["rows"][1:]:
        whole, low, high = ((row["difference"] or {}).get("hIoU", {}).get(key) for key in DIFFERENCE)
        points = "" if whole is None else f" ({100 * whole:+.1f})"
        if row.get("not_compared"):
            found[refused].append(row["name"])
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


def steps_in_words(curves: Sequence[Sequence[int]], otherwise: int) -> str:
    """How long trainings were, by the steps at which they were scored: `3600`, or `1800 to 3600`; rows may be longer
    than their preset's budget. `otherwise` where there is no curve."""
    ends = sorted({steps[-1] for steps in curves if steps}) or [otherwise]
    return " to ".join(map(str, dict.fromkeys((ends[0], ends[-1]))))
