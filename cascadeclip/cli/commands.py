"""Command line: `cascadeclip demo | train | evaluate | experiments | bench | segment | info | data`."""

import json
import logging
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascadeclip.cli.data import app as data_app
from cascadeclip.cli.ending import Commands, check_here, end_bars, in_words
from cascadeclip.cli.options import (
    Background,
    Blocks,
    Checkpoint,
    ClipName,
    ClipWeights,
    Compile,
    DataRoot,
    ImageSize,
    Limit,
    MethodName,
    Out,
    Own,
    Pamr,
    Precision,
    PresetName,
    Unseen,
    Workers,
    background_of,
    blocks_of,
    changed,
    chosen_preset,
    read_by,
    stages_of,
)
from cascadeclip.errors import InputError
from cascadeclip.utf8 import print_every_letter

if TYPE_CHECKING:
    from accelerate import PartialState


# Plain help, without boxes: it wraps what is long where boxes cut it off, and needs no rich, whose import takes longer
# than everything else that help needs.
app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        from cascadeclip._version import __version__

        print(f"cascadeclip {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
]


@app.callback()
def root(version: Version = False) -> None:
    """Cascade-CLIP: zero-shot semantic segmentation."""


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    model: Annotated[str, typer.Option(help="What to train live: last layer, sum, concat or cascade.")] = "cascade",
    steps: Annotated[int, typer.Option(min=1, help="Of its schedule's first, to train.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and scenes; 0 is the shipped models'.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Balanced scenes to score the shipped models on.")] = 310,
) -> None:
    """The mini world: train one model live, compare trained ones."""
    from cascadeclip.experiments.demo import run_demo

    run_demo(out, model=model, steps=steps, seed=seed, limit=limit)


@app.command()
def train(
    preset: PresetName = "mini",
    out: Out = Path("runs/train"),
    data_root: DataRoot = None,
    own: Own = None,
    from_checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from; self-training needs one.")
    ] = None,
    image_size: ImageSize = None,
    clip: ClipName = None,
    clip_weights: ClipWeights = None,
    unseen: Unseen = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; the preset's by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step, over all processes.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Micro-batches per process and step; their gradients add up.")
    ] = None,
    gradient_checkpointing: Annotated[bool | None, typer.Option(help="Uses less memory; about a third slower.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of AdamW.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, data order and dropout.")] = 0,
    stages: Annotated[str | None, typer.Option(help="Blocks per stage, e.g. '6,7,8 9,10,11 12'.")] = None,
    aggregation: Annotated[
        str | None, typer.Option(help="How a stage's blocks become one: nga, sum, mean, concat or attention.")
    ] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Prompt tokens per block; 0 leaves CLIP frozen.")] = None,
    precision: Precision = None,
    compile: Compile = None,
    workers: Workers = None,
    validate_every: Annotated[int, typer.Option(help="Steps between scores on the validation set; 0: at the end.")] = 0,
    validate_limit: Annotated[int | None, typer.Option(min=1, help="Validate on the first pictures only.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between resumable states.")] = None,
    keep_every: Annotated[int | None, typer.Option(help="Steps between models kept for good; 0: the last.")] = None,
    tensorboard: Annotated[bool, typer.Option(help="Also log to TensorBoard, in the output folder.")] = False,
) -> None:
    """Train a cascade. The same command, given again, goes on with a run that was stopped."""
    from cascadeclip.checkpoints.own import TRAINED
    from cascadeclip.files import check_apart, without_nan
    from cascadeclip.segmenter import load
    from cascadeclip.training.run import fit, open_clip_of, written

    chosen = chosen_preset(preset, data_root, own, image_size, clip, clip_weights, unseen)
    model = changed(chosen.model, stages=stages_of(stages), aggregation=aggregation, prompt_tokens=prompt_tokens)
    training = changed(
        chosen.training, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
        precision=precision, compile=compile, workers=workers, validate_every=validate_every,
        checkpoint_every=checkpoint_every, keep_every=keep_every, accumulate=accumulate,
        gradient_checkpointing=gradient_checkpointing,
    )  # fmt: skip
    data = chosen.training_data(training.seed)  # first, so that missing files are told of before CLIP is fetched
    check_apart((out / name for name in written(training)), read_by(from_checkpoint, clip_weights, own, lambda: data))
    start = load(from_checkpoint, preset=chosen).model if from_checkpoint is not None else None
    _, log = fit(
        chosen, open_clip_of(chosen), model, training, out, data=data, start=start, validate=True,
        validate_limit=validate_limit, tensorboard=tensorboard,
    )  # fmt: skip
    if _process().is_main_process:
        if _process().num_processes > 1:
            print(f"trained in {_process().num_processes} processes")
        print(json.dumps(without_nan(log[-1]), indent=1))
        print(f"wrote {out / TRAINED}")


@app.command()
def evaluate(
    checkpoint: Checkpoint = None,
    preset: PresetName = "mini",
    data_root: DataRoot = None,
    own: Own = None,
    image_size: ImageSize = None,
    clip: ClipName = None,
    clip_weights: ClipWeights = None,
    unseen: Unseen = None,
    method: MethodName = None,
    blocks: Blocks = None,
    pamr: Pamr = 0,
    cross: Annotated[
        bool, typer.Option(help="Score on another data set than the checkpoint's, all classes alike.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Which fixed set to score; by default the one that results are reported on.")
    ] = None,
    limit: Limit = None,
    precision: Precision = None,
    compile: Compile = None,
    workers: Workers = None,
    per_class: Annotated[bool, typer.Option(help="Also print the IoU of every class.")] = False,
    predictions: Annotated[bool, typer.Option(help="Also write every segmentation as a coloured PNG.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for scores.json, scores.png and what resumes a stopped evaluation.")
    ] = None,
) -> None:
    """Score a checkpoint, the package's own or the authors'. Pixel accuracy, mIoU of seen and unseen classes, hIoU.

    With --method, a frozen CLIP without any training, on the pictures of any preset; `--preset training-free` reads
    them as the papers do.
    """
    from cascadeclip.cli.scoring import check_folder, score_checkpoint, score_method, show_scores

    chosen = chosen_preset(preset, data_root, own, image_size, clip, clip_weights, unseen, trained=method is None)
    how = changed(chosen.training, precision=precision, compile=compile, workers=workers)
    chosen = replace(chosen, training=how)
    origins: tuple[str, ...] = ()
    if out is not None:
        check_folder(out, read_by(checkpoint, clip_weights, own, lambda: chosen.eval_data(split or chosen.final_split)))
    run = dict(split=split, limit=limit, out=out, predictions=predictions, progress=True)
    if method is not None:
        name, scores = method, score_method(chosen, method, checkpoint, cross, blocks, pamr, run)
    else:
        name = checkpoint or chosen.name
        built_on = dict(clip=clip, clip_weights=clip_weights)
        chosen, scores, origins = score_checkpoint(chosen, name, built_on, cross, blocks, pamr, run)
    title, all_alike = Path(name).stem[:12], method is not None
    show_scores(chosen, scores, title, origins, per_class=per_class, out=out, all_alike=all_alike)


@app.command()
def experiments(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which of the paper's comparisons, or 'all'; none lists them.")
    ] = None,
    preset: PresetName = "mini-frozen",
    data_root: DataRoot = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0 on; the same for every row.")] = 3,
    steps: Annotated[int | None, typer.Option(min=2, help="Training steps; the preset's by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures per step; the preset's by default.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that train at the same time, for CPUs.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of test pictures; all by default.")] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="2 steps of 2 on 10 pictures: does every row run? No result.")
    ] = False,
    out: Out = Path("runs/experiments"),
) -> None:
    """Run the paper's comparisons as tables. A stopped one goes on, and what was trained before is used again."""
    from cascadeclip.experiments.comparisons import COMPARISONS, get_comparison
    from cascadeclip.experiments.report import can_be_written, markdown, where, write_index, write_report
    from cascadeclip.experiments.run import budgeted, run_ahead, run_comparison
    from cascadeclip.files import read_text

    for comparison in COMPARISONS.values() if not names else ():
        print(f"{comparison.name:12} {comparison.question}")
    chosen = [get_comparison(name) for name in (COMPARISONS if names == ["all"] else names or ())]
    if smoke:
        steps, batch_size, limit = steps or 2, batch_size or 2, limit or 10
    make_preset = partial(budgeted, preset, data_root, steps, batch_size)
    writing = bool(chosen) and can_be_written(chosen, out)
    if jobs > 1:
        run_ahead(chosen, make_preset, out, seeds=range(seeds), limit=limit, jobs=jobs)
    command = shlex.join(["cascadeclip", *sys.argv[1:]])
    for comparison in chosen:
        rows = run_comparison(comparison, make_preset(), out, seeds=range(seeds), limit=limit)
        if not writing:
            print(markdown(comparison, rows, where(make_preset(), rows, limit)))
            continue
        path = write_report(comparison, rows, make_preset(), out, command=command, limit=limit)
        print(read_text(path))
        print(f"wrote {path}, and beside it the figure and the numbers as JSON")
    if writing:
        print(f"all tables: {write_index(out)}")


@app.command()
def bench(
    preset: Annotated[
        list[str] | None, typer.Option(help="Preset to measure; may be given several times. By default mini and voc12.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 1,
    image_size: ImageSize = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes; the preset's by default.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16 (CUDA).")] = "fp32",
    compile: Compile = False,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 5,
    growth: Annotated[bool, typer.Option(help="Also how cost grows with size, classes, stages, batch.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json (and growth.json, growth.png).")] = None,
) -> None:
    """Measure what presets cost on this device. Seconds, memory, multiply-adds, and the share of the matmul peak."""
    from cascadeclip.experiments.bench_report import run_bench

    shared = dict(
        batch_size=batch_size, image_size=image_size, classes=classes, precision=precision, compile=compile,
        repeats=repeats,
    )  # fmt: skip
    run_bench(preset or ["mini", "voc12"], shared, out, growth=growth)


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    words: Annotated[
        list[str], typer.Argument(help="What to look for; every pixel gets one of these. 'sofa|couch' is one thing.")
    ],
    checkpoint: Checkpoint = None,
    preset: PresetName = "mini",
    method: MethodName = None,
    clip: ClipName = None,
    clip_weights: ClipWeights = None,
    blocks: Blocks = None,
    templates: Annotated[
        str | None, typer.Option(help="Sentences for a --method: one, scene15, openai80 or mini.")
    ] = None,
    pamr: Pamr = 0,
    background: Background = None,
    out: Annotated[Path, typer.Option(help="Where the picture of the result goes.")] = Path("segmentation.png"),
) -> None:
    """Segment one picture into the words given.

    With --method, a frozen CLIP does it without training; `--method all` draws all methods side by side.
    """
    from cascadeclip.cli.segmenting import check_out, print_shares, segment_by_method, segment_by_model
    from cascadeclip.plots.figure import save_figure

    check_out(out, image, checkpoint, clip_weights)
    how: dict[str, Any] = dict(background=background_of(background), pamr=pamr)
    if method is None:
        if (clip, blocks, templates) != (None,) * 3:
            raise InputError("--clip, --blocks and --templates belong to --method: which one?")
        found, figure = segment_by_model(image, words, checkpoint, preset, clip_weights, how)
    else:
        if checkpoint is not None:
            raise InputError("--method needs no training: leave out --checkpoint, and give --clip for another CLIP")
        how |= dict(blocks=blocks_of(blocks), templates=templates)
        found, figure = segment_by_method(image, words, method, clip, clip_weights, how)
    print_shares(found)
    save_figure(figure, out)
    print(f"wrote {out}")


@app.command()
def info() -> None:
    """Versions, devices and folders: what a bug report needs."""
    from cascadeclip.cli.info import info

    for name, value in info():
        print(f"{name:21}{value}")


def _process() -> "PartialState":
    """This process among those that were started; imported late, as everything heavy here is."""
    from cascadeclip.processes import this_process

    return this_process()


def main() -> None:
    """Entry point: bad input ends in one clear line and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    print_every_letter()
    try:
        check_here()
        app()
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        if (words := in_words(error)) is None:
            raise
        end_bars()
        sys.exit(f"cascadeclip: {words}")


if __name__ == "__main__":
    main()
