"""The demo: one model begins its training live, on top of the stored curves; those that finished it are compared."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cascadeclip.clip.load import Clip
from cascadeclip.errors import InputError
from cascadeclip.evaluation.run import score, summarise, table
from cascadeclip.experiments.comparisons import get_comparison
from cascadeclip.experiments.curves import VALIDATIONS, Curve, read_curve
from cascadeclip.experiments.figures import plot_curves
from cascadeclip.experiments.findings import conclusion
from cascadeclip.experiments.report import stored_report
from cascadeclip.files import check_writable, write_json
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.plots.figure import save_figure
from cascadeclip.plots.segmentation import plot_predictions, plot_scores
from cascadeclip.presets import FROZEN, Preset
from cascadeclip.processes import device
from cascadeclip.schema import Count, Natural, checked
from cascadeclip.segmenter import load
from cascadeclip.training.run import fit, open_clip_of

COMPARED = "fusion"  # the comparison whose rows are shipped
WRITTEN = ("report.json", "curves.png", "scores.png", "predictions.png")
STEPS, PICTURES = 300, 310  # of the live training; of the balanced set, scored by every shipped model


@checked(steps=Count, seed=Natural, limit=Count)
def run_demo(
    out: str | Path = "runs/demo", *, model: str = "cascade", steps: int = STEPS, seed: int = 0, limit: int = PICTURES
) -> dict[str, Any]:
    """Train for a while, score what is shipped, draw; everything lands in `out`. A stopped demo goes on.

    Args:
        out: gets `report.json`, `curves.png`, `scores.png`, `predictions.png`, and a folder with the training, which
            can be gone on with: `training.fit` without `until`.
        model: which row of the comparison to train live.
        steps: of the schedule's first, to train; the shipped models have done all.
        seed: of initial weights and training scenes; 0 is that of the shipped models, whose curve it then repeats.
        limit: scenes of the balanced set that the shipped models are scored on.

    Returns:
        the report: `live`, the curve of the training; `shipped`, name -> scores as fractions; `conclusion`, what the
        stored trainings over all seeds say; `seconds`.

    Raises:
        InputError: no such row; no steps; a folder that cannot be written.
    """
    check_writable(out, *WRITTEN)
    started, out, clip, stored = time.time(), Path(out), open_clip_of(FROZEN), stored_report(COMPARED)
    live = _train(model, steps, seed, out, clip)
    shipped = {}
    for variant in get_comparison(COMPARED).variants:
        segmenter = load(f"mini/{variant.name.replace(' ', '-')}", device=device())
        shipped[variant.name] = summarise(FROZEN, score(FROZEN, clip, segmenter.model, limit=limit))
        if variant.name == model:
            draw_predictions(FROZEN, clip, segmenter.model, out / "predictions.png")
    save_figure(plot_curves(stored, live={model: live}), out / "curves.png")
    save_figure(plot_scores(shipped, f"{limit} balanced scenes"), out / "scores.png")
    report: dict[str, Any] = {
        "model": model, "live": {"steps": live.steps, "seen": live.seen, "unseen": live.unseen}, "shipped": shipped,
        "conclusion": conclusion(stored), "seconds": round(time.time() - started, 1),
    }  # fmt: skip
    write_json(out / "report.json", report)
    print(f"shipped, trained for the whole schedule, on {limit} balanced scenes, per cent:\n{table(shipped)}\n")
    print(f"{report['conclusion']}\n{report['seconds']:.0f} s; pictures, report and training are in {out}/")
    return report


def _train(name: str, steps: int, seed: int, out: Path, clip: Clip) -> Curve:
    """The first steps of a row's schedule, validated as often as the stored trainings were."""
    variants = {variant.name: variant for variant in get_comparison(COMPARED).variants}
    if name not in variants:
        raise InputError(f"model {name!r}: choose from {', '.join(variants)}")
    every = FROZEN.training.steps // VALIDATIONS
    training = replace(FROZEN.training, seed=seed, validate_every=every)
    print(f"{name}: the first {steps} of {training.steps} steps, live", flush=True)
    settings, folder = replace(FROZEN.model, **variants[name].model), out / name.replace(" ", "-")
    fit(FROZEN, clip, settings, training, folder, validate=True, until=steps)
    return read_curve(folder)


def draw_predictions(preset: Preset, clip: Clip, model: CascadeCLIP, path: str | Path, rows: int = 6) -> None:
    """A sheet of the first test scenes with an unseen thing that covers at least a tenth of the picture."""
    unseen = [preset.names.index(name) for name in preset.unseen_groups["things"]]
    data, scenes = preset.eval_data("test"), []
    for index in range(len(data)):  # type: ignore[arg-type]  # PyTorch's class does not promise a length
        scene = data[index]
        if np.isin(scene.labels, unseen).mean() >= 0.1:
            scenes.append((scene.image, scene.labels))
        if len(scenes) == rows:
            break
    text = clip.class_embeddings(preset.names, preset.templates).to(next(model.parameters()).device)
    save_figure(plot_predictions(model, scenes, text, preset.names, preset.unseen, preset.seen_offset), path)
