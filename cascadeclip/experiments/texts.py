"""Results in documents: what stands between two marks is written by code from the stored reports, never by hand."""

import re
from collections.abc import Callable
from importlib.resources import as_file, files

from cascadeclip.errors import InputError
from cascadeclip.evaluation.run import COLUMNS
from cascadeclip.experiments.claims import claims_table
from cascadeclip.experiments.findings import in_points, steps_in_words
from cascadeclip.experiments.report import stored_report
from cascadeclip.experiments.run import MEASURES
from cascadeclip.files import read_json, size_of
from cascadeclip.segmenter import RECOMMENDED, SHIPPED

_MARKED = re.compile(r"(<!-- results: ([\w -]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def filled(text: str) -> str:
    """A Markdown document with its results written anew: `<!-- results: fusion -->` ... `<!-- end of results -->` holds
    that comparison's table, `<!-- results: claims -->` the paper's claims against what was measured here,
    `<!-- results: shipped -->` the scores of the shipped segmenters, `<!-- results: mini-clip -->` those of their CLIP.

    Raises:
        InputError: a mark that names none of them.
    """
    if len(re.findall("<!-- results: ", text)) != len(_MARKED.findall(text)):
        raise InputError("a mark `<!-- results: NAME -->` has no `<!-- end of results -->`")
    return _MARKED.sub(lambda found: f"{found[1]}\n{_WRITTEN.get(found[2], _table(found[2]))()}\n{found[3]}", text)


def _table(name: str) -> Callable[[], str]:
    return lambda: table_of(name)


def table_of(name: str) -> str:
    """A stored comparison in short: mean and standard deviation over seeds, and what the first row is ahead by."""
    report = stored_report(name)
    steps = steps_in_words([curve["steps"] for row in report["rows"] for curve in row["curves"]], report["steps"])
    lines = [
        f"| {steps} steps of {report['batch_size']}, {report['seeds']} seeds | mIoU seen | mIoU unseen "
        "| hIoU | unseen, difference | hIoU, difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cells = [_spread(row["runs"][measure]) for measure in MEASURES]
        for measure in ("mIoU_unseen", "hIoU"):
            found = row["difference"].get(measure)
            cells.append("not compared" if row["not_compared"] else in_points(found) if found else "")
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(runs: list[float | None]) -> str:
    measured = [run for run in runs if run is not None]
    if len(measured) < len(runs):  # a seed that there was nothing to measure for
        return "not measured"
    mean = sum(measured) / len(measured)
    deviation = (sum((run - mean) ** 2 for run in measured) / max(1, len(measured) - 1)) ** 0.5
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}" if len(measured) > 1 else f"{100 * mean:.1f}"


def shipped_table() -> str:
    """The models that come with the package, each scored once on the balanced test scenes."""
    with as_file(files("cascadeclip") / "assets" / "mini" / "scores.json") as path:
        scores = read_json(path)
    columns = {key: title for key, title in COLUMNS.items() if all(key in found for found in scores.values())}
    lines = [f"| `cascadeclip.load` | {' | '.join(columns.values())} | file |", "|---" * (len(columns) + 2) + "|"]
    for name, found in scores.items():
        with as_file(files("cascadeclip") / "assets" / "mini" / SHIPPED[name]) as path:
            size = f"{size_of(path, 'checkpoint') / 1e6:.1f} MB"
        names = [name, "mini"] if name == RECOMMENDED else [name]
        shown = " or ".join(f'`"{one}"`' for one in names)
        lines.append(f"| {shown} | {' | '.join(f'{100 * found[key]:.1f}' for key in columns)} | {size} |")
    return "\n".join(lines) + "\n"


def mini_clip_table() -> str:
    """What Mini-CLIP gets right on scenes that its pretraining held out."""
    with as_file(files("cascadeclip") / "assets" / "mini" / "mini_clip.json") as path:
        found = read_json(path)
    scores = {what: found["scores"][key] for key, what in _MINI_CLIP.items()}
    lines = [f"| held out, {found['scenes']} scenes each | right, per cent |", "|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {100 * score:.1f} |" for what, score in scores.items())]) + "\n"


_MINI_CLIP = {
    "top1_noto": "thing of a one-object scene, best of all 62, Noto",
    "top1_twemoji": "the same, Twemoji",
    "top1_fluent": "the same, Fluent",
    "named": "things of 1-3-object scenes that are among the best, as many as there are",
    "patch_last": "thing patches given the right one of the scene's classes, last block as it is",
    "patch_value": "the same through the value path of the last attention",
}
_WRITTEN: dict[str, Callable[[], str]] = {
    "claims": claims_table,
    "shipped": shipped_table,
    "mini-clip": mini_clip_table,
}
