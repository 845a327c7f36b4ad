"""What `evaluate` does: scores a checkpoint, or a frozen CLIP by a `--method`, on a preset's pictures."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascadeclip.analysis.dense.registry import get_method
from cascadeclip.analysis.dense.scoring import score_training_free
from cascadeclip.cli.options import blocks_of
from cascadeclip.data.words import as_written
from cascadeclip.errors import InputError
from cascadeclip.evaluation.run import counts_file, score, summarise, table
from cascadeclip.evaluation.scores import Scores
from cascadeclip.files import check_apart, check_writable, write_json
from cascadeclip.plots.evaluation import plot_class_iou
from cascadeclip.plots.figure import save_figure
from cascadeclip.presets import Preset
from cascadeclip.processes import this_process
from cascadeclip.segmenter import Segmenter, load

SCORES = ("scores.json", "scores.png")  # files of an evaluation


def check_folder(out: Path, inputs: Iterable[str | Path | None]) -> None:
    """An `InputError` if the files of an evaluation cannot be written, or would take the place of one of the inputs.
    Its segmentations look after themselves, see `Predictions`."""
    check_writable(out, *SCORES)
    counts = map(counts_file, range(this_process().num_processes))
    check_apart((out / name for name in (*SCORES, *counts)), inputs)


def score_checkpoint(
    preset: Preset, name: str, built_on: dict[str, Any], cross: bool, blocks: str | None, pamr: int,
    run: dict[str, Any],
) -> tuple[Preset, Scores, tuple[str, ...]]:  # fmt: skip
    """The preset as it was scored, the scores, and where the model's tensors came from."""
    if blocks is not None or pamr:
        raise InputError("--blocks and --pamr belong to --method: a checkpoint is scored as it was trained")
    segmenter = load(name, preset=preset, device=this_process().device, **built_on)
    if cross:
        segmenter.seen_offset, preset = 0.0, replace(preset, unseen=(), unseen_groups={}, seen_offset=0.0)
    elif set(map(as_written, segmenter.seen)) != set(map(as_written, preset.seen)):
        raise InputError(
            f"{name} saw other classes in training than preset {preset.name!r} calls seen; to try it on other data: "
            "--cross"
        )
    preset = as_trained(preset, segmenter, name)
    return preset, score(preset, segmenter.clip, segmenter.model, **run), segmenter.origins


def as_trained(preset: Preset, segmenter: Segmenter, name: str) -> Preset:
    """The preset with the templates and the offset that the checkpoint holds; a line says what that changes."""
    own: dict[str, Any] = {"templates": segmenter.templates, "seen_offset": segmenter.seen_offset}
    if others := [key for key, value in own.items() if getattr(preset, key) != value]:
        told = " and ".join(other.replace("seen_offset", f"offset ({segmenter.seen_offset:g})") for other in others)
        this_process().print(f"the {told} are those of {name}, not of preset {preset.name}")
    return replace(preset, **own)


def score_method(
    preset: Preset, method: str, checkpoint: str | None, cross: bool, blocks: str | None, pamr: int, run: dict[str, Any]
) -> Scores:
    """`evaluate --method`; an `InputError` for what only checkpoints have."""
    if checkpoint is not None or cross:
        raise InputError("--method needs no training: leave out --checkpoint and --cross")
    get_method(method)  # before CLIP is fetched
    return score_training_free(preset, method, blocks=blocks_of(blocks), pamr=pamr, **run)


def show_scores(
    preset: Preset, scores: Scores, title: str, origins: tuple[str, ...], *, per_class: bool, out: Path | None,
    all_alike: bool,
) -> None:  # fmt: skip
    """Print the scores and write `scores.json` and `scores.png` into `out`, in the main process.

    Args:
        title: of the table's row.
        origins: where the model's tensors came from.
        per_class: also print every class's IoU.
        all_alike: also give the mean over all classes, which have nothing to do with training.
    """
    if not this_process().is_main_process:
        return
    report = summarise(preset, scores) | ({"mIoU": scores.mean_iou(scores.names)} if all_alike else {})
    print(*origins, sep="\n")
    print(table({title: report}))
    if per_class:
        for word, value in zip(scores.names, scores.iou, strict=True):
            print(f"{word + (' (unseen)' if word in scores.unseen else ''):24}{100 * value:6.1f}")
    if out is not None:
        by_class = dict(zip(scores.names, scores.iou, strict=True))
        numbers, figure = (out / name for name in SCORES)
        write_json(numbers, report | {"per_class": by_class, "origins": list(origins)})
        save_figure(plot_class_iou(scores), figure)
        print(f"wrote {numbers} and {figure}")
