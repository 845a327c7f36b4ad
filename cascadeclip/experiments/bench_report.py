"""Rows of `bench` as a table, files, and the figure of how cost grows; what `cascadeclip bench` runs."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cascadeclip.errors import InputError
from cascadeclip.experiments.bench import GROWTH, WORK, Case, alone, bench, growth_cases, sized_preset
from cascadeclip.experiments.bench_data import measure_data
from cascadeclip.files import check_writable, write_json
from cascadeclip.plots.figure import save_figure


def plot_growth(rows: Sequence[tuple[str, float, dict[str, Any]]]) -> Figure:
    """Seconds and peak memory against each of `GROWTH`, of rows as `measure` gives them."""
    figure = Figure(figsize=(3.2 * len(GROWTH), 5.2), layout="constrained")
    axes = figure.subplots(2, len(GROWTH), sharex="col", squeeze=False)
    for column, name in enumerate(GROWTH):
        for work in WORK:
            own = [(value, row) for changed, value, row in rows if changed == name and row["work"] == work]
            values = [value for value, _ in own]
            axes[0, column].plot(values, [row["seconds"]["median"] for _, row in own], marker="o", label=work)
            peaks = [(row["peak_mib"] or float("nan")) / 1024 for _, row in own]
            axes[1, column].plot(values, peaks, marker="o", label=work)
        axes[1, column].set_xlabel({"image_size": "image size, px"}.get(name, name.replace("_", " ")))
    for row, label in zip(axes, ("seconds", "peak memory, GiB"), strict=True):
        row[0].set_ylabel(label)
        for axis in row:
            axis.set_ylim(bottom=0)
    axes[0, 0].legend()
    return figure


def bench_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `measure` for people."""
    lines = [
        f"{'preset':24}{'':11}{'batch':>6}{'px':>6}{'classes':>8}{'':>15}{'s':>9}{'spread':>16}{'img/s':>8}{'GiB':>7}"
        f"{'GMAC':>9}{'of peak':>9}"
    ]
    for row in rows:
        seconds, peak = row["seconds"], row["peak_mib"]
        how = row["precision"] + (" compiled" if row["compile"] else "")
        spread = f"{seconds['min']:.3f}-{seconds['max']:.3f}"
        memory = "-" if peak is None else f"{peak / 1024:.2f}"
        lines.append(
            f"{row['preset']:24}{row['work']:11}{row['batch_size']:6}{row['image_size']:6}{row['classes']:8}"
            f"{how:>15}{seconds['median']:9.3f}{spread:>16}{row['images_per_second']:8.2f}{memory:>7}"
            f"{row['gmacs']:9.1f}{row['of_peak']:9.0%}"
        )
    for row in rows:
        if row["work"] == "train":
            counts = ", ".join(f"{name.replace('_', ' ')} {n / 1e6:.2f} M" for name, n in row["parameters"].items())
            lines.append(f"{row['preset']}: parameters {counts}")
        if "data" in row:
            told = row["data"]
            lines.append(
                f"{row['preset']}: pictures/s read {told['loader']:.1f} (by {told['workers'] or 'the training'} "
                f"process{'es' if told['workers'] > 1 else ''}), learnt {told['step']:.1f}, both together "
                f"{told['both']:.1f}: the {told['limit']} limits"
            )
    peaks = {(row["device"], row["precision"]): row["matmul_tflops"] for row in rows}
    lines += [f"{device}, {precision}: matmul {tflops:.2f} TFLOP/s" for (device, precision), tflops in peaks.items()]
    return "\n".join(lines)


def run_bench(
    presets: Sequence[str],
    settings: dict[str, Any],
    out: str | Path | None = None,
    *,
    growth: bool = False,
    show: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measure presets in training and inference, and whether reading keeps up; show the table, write `bench.json` (and
    `growth.json`, `growth.png`).

    Args:
        presets: names.
        settings: values of `Case` that all share.
        out: folder for the files; None writes nothing.
        growth: also measure how the first preset's cost grows; needs `out`.

    Raises:
        InputError: as `Case` and `measure`, or a folder that cannot be written.
    """
    if growth and out is None:
        raise InputError("the figure of how cost grows needs a folder: --out")
    cases = [Case(preset, work, **settings) for preset in presets for work in WORK]
    for case in cases:
        sized_preset(case)  # refuses what does not fit before anything is measured
    if out is not None:
        out = Path(out)
        check_writable(out, "bench.json", "growth.json", "growth.png")
    rows = bench(cases, lambda row: print(f"{row['preset']} {row['work']}: measured", file=sys.stderr, flush=True))
    for case, row in zip(cases, rows, strict=True):
        if case.work == "train":
            row["data"] = alone(measure_data, case)
    show(bench_table(rows))
    if out is not None:
        write_json(out / "bench.json", rows)
    if growth and out is not None:
        changes = growth_cases(cases[0])
        measured = bench([case for _, _, case in changes])
        grown = [(name, value, row) for (name, value, _), row in zip(changes, measured, strict=True)]
        write_json(out / "growth.json", [{"changed": name, "to": value, **row} for name, value, row in grown])
        save_figure(plot_growth(grown), out / "growth.png")
    return rows
