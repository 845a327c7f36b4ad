"""Command line: `cascadeclip demo | train | evaluate | segment`."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cascadeclip.errors import InputError

app = typer.Typer(
    help="Cascade-CLIP: zero-shot semantic segmentation.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

PresetName = Annotated[str, typer.Option("--preset", help="CLIP, data, model and schedule that go together.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]
Checkpoint = Annotated[str | None, typer.Option(help="A checkpoint file; the one shipped for the preset by default.")]
Limit = Annotated[int | None, typer.Option(help="Evaluate on the first pictures only.")]


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    steps: Annotated[int | None, typer.Option(help="Training steps per model.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and dropout.")] = 0,
    limit: Limit = None,
) -> None:
    """Train on seen classes only, score on all of them, draw unseen ones: the paper's point in minutes."""
    from cascadeclip.demo import run_demo

    run_demo(out, steps=steps, seed=seed, limit=limit)


@app.command()
def train(
    preset: PresetName = "mini",
    out: Out = Path("runs/train"),
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; the preset's by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, data order and dropout.")] = 0,
    stages: Annotated[str | None, typer.Option(help="Blocks per stage, e.g. '6,7,8 9,10,11 12'.")] = None,
    aggregation: Annotated[str | None, typer.Option(help="nga, sum, mean, concat or attention.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Per block; 0 leaves CLIP frozen.")] = None,
    validate_every: Annotated[int, typer.Option(help="Steps between scores on the validation set; 0: at the end.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between resumable states.")] = 200,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 where the device has it.")] = True,
) -> None:
    """Train a cascade; the same command again goes on with a run that was stopped."""
    from cascadeclip.experiment import CHECKPOINT, fit, open_clip_of
    from cascadeclip.presets import get_preset

    chosen = get_preset(preset)
    model = _changed(chosen.model, stages=_stages(stages), aggregation=aggregation, prompt_tokens=prompt_tokens)
    training = _changed(
        chosen.training, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, bf16=bf16,
        validate_every=validate_every, checkpoint_every=checkpoint_every,
    )  # fmt: skip
    _, log = fit(chosen, open_clip_of(chosen), model, training, out, validate=True)
    print(json.dumps(log[-1], indent=1))
    print(f"wrote {out / CHECKPOINT}")


@app.command()
def evaluate(
    checkpoint: Checkpoint = None,
    preset: PresetName = "mini",
    split: Annotated[str, typer.Option(help="Which fixed set: val or test.")] = "test",
    limit: Limit = None,
    per_class: Annotated[bool, typer.Option(help="Also print the IoU of every class.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the scores to this JSON file.")] = None,
) -> None:
    """Score a checkpoint: pixel accuracy, mIoU of seen and unseen classes, their harmonic mean."""
    from cascadeclip.checkpoint import replace_file
    from cascadeclip.demo import table
    from cascadeclip.experiment import score, summarise
    from cascadeclip.presets import get_preset
    from cascadeclip.segmenter import load

    chosen = get_preset(preset)
    checkpoint = checkpoint or chosen.name
    segmenter = load(checkpoint)
    if segmenter.seen != chosen.seen:
        raise InputError(f"{checkpoint} saw other classes in training than preset {preset!r} calls seen")
    scores = score(chosen, segmenter.clip, segmenter.model, split, limit)
    summary = summarise(chosen, scores)
    print(table({Path(checkpoint).stem[:12]: summary}))
    if per_class:
        for name, value in zip(scores.names, scores.iou, strict=True):
            print(f"{name + (' (unseen)' if name in scores.unseen else ''):24}{100 * value:6.1f}")
    if out is not None:
        report = summary | {"per_class": dict(zip(scores.names, scores.iou, strict=True))}
        replace_file(out, lambda scratch: scratch.write_text(json.dumps(report, indent=1) + "\n"))


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    words: Annotated[list[str], typer.Argument(help="What to look for; every pixel gets one of these words.")],
    checkpoint: Checkpoint = None,
    preset: PresetName = "mini",
    out: Annotated[Path, typer.Option(help="Where the picture of the result goes.")] = Path("segmentation.png"),
) -> None:
    """Segment one picture into the words given."""
    from cascadeclip.demo import save_figure
    from cascadeclip.presets import get_preset
    from cascadeclip.segmenter import load

    result = load(checkpoint or get_preset(preset).name).segment(image, words)
    for position, name in enumerate(result.names):
        note = "" if name in result.seen else "  (unseen in training)"
        print(f"{name:16}{100 * (result.labels == position).mean():6.1f} % of the pixels{note}")
    save_figure(result.plot(), out)
    print(f"wrote {out}")


def _stages(text: str | None) -> tuple[tuple[int, ...], ...] | None:
    """'6,7,8 9,10,11 12' -> ((6, 7, 8), (9, 10, 11), (12,))."""
    if text is None:
        return None
    try:
        return tuple(tuple(int(block) for block in stage.split(",")) for stage in text.split())
    except ValueError as error:
        raise InputError(
            f"--stages {text!r}: commas between blocks, spaces between stages: '6,7,8 9,10,11 12'"
        ) from error


def _changed(settings, **values):
    """`settings` with those values that were given."""
    return replace(settings, **{name: value for name, value in values.items() if value is not None})


def main() -> None:
    """Entry point: bad input ends in one clear line and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except InputError as error:
        sys.exit(f"cascadeclip: {error}")


if __name__ == "__main__":
    main()
