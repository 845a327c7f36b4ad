"""The demo: train the cascade and the last-layer-only model on seen classes, score both, draw what they see."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cascadeclip.clip.load import Clip
from cascadeclip.evaluation.run import score, summarise, table
from cascadeclip.files import write_json
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.plots.figure import save_figure
from cascadeclip.plots.segmentation import plot_predictions, plot_scores
from cascadeclip.presets import MINI, Preset
from cascadeclip.processes import device
from cascadeclip.segmenter import load
from cascadeclip.training.run import fit, last_layer_only, open_clip_of


def run_demo(
    out: str | Path = "runs/demo", *, steps: int | None = None, seed: int = 0, limit: int | None = None
) -> dict[str, Any]:
    """Train, evaluate and draw; everything lands in `out`.

    Args:
        out: gets `report.json`, `scores.png`, `predictions.png`, and a folder with a checkpoint per model.
        steps: training steps per model; the preset's if None.
        seed: of initial weights, training scenes and dropout.
        limit: evaluate on the first test scenes only.

    Returns:
        the report: scores of `cascade`, `last_layer` and `shipped` as fractions, and `seconds`.
    """
    started, out, clip = time.time(), Path(out), open_clip_of(MINI)
    training = replace(MINI.training, seed=seed, steps=steps or MINI.training.steps)
    models = {"cascade": MINI.model, "last_layer": last_layer_only(MINI.model)}
    report: dict[str, Any] = {}
    for name, settings in models.items():
        stages = [list(stage) for stage in settings.stages]
        print(f"{name.replace('_', ' ')}: stages {stages}, {training.steps} steps", flush=True)
        model, _ = fit(MINI, clip, settings, training, out / name)
        report[name] = summarise(MINI, score(MINI, clip, model, limit=limit))
        if name == "cascade":
            draw_predictions(MINI, clip, model, out / "predictions.png")
    report["shipped"] = summarise(MINI, score(MINI, clip, load("mini", device=device()).model, limit=limit))
    report["seconds"] = round(time.time() - started, 1)
    save_figure(plot_scores({name: report[name] for name in (*models, "shipped")}), out / "scores.png")
    write_json(out / "report.json", report)
    print(table(report))
    print(f"{report['seconds']:.0f} s; pictures, report and checkpoints are in {out}/")
    return report


def draw_predictions(preset: Preset, clip: Clip, model: CascadeCLIP, path: Path, rows: int = 6) -> None:
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
