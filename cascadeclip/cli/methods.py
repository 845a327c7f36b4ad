"""What `--method` does: a frozen CLIP instead of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascadeclip.analysis.dense.registry import METHODS, get_method
from cascadeclip.analysis.dense.scoring import score_training_free
from cascadeclip.analysis.dense.segment import segment_by_methods
from cascadeclip.cli.options import blocks_of
from cascadeclip.clip.load import MINI, load_clip
from cascadeclip.errors import InputError
from cascadeclip.evaluation.scores import Scores
from cascadeclip.plots.dense import plot_methods
from cascadeclip.plots.figure import Figure
from cascadeclip.presets import Preset
from cascadeclip.processes import this_process
from cascadeclip.segmenter import Segmentation

OPENAI = ("ViT-B-16", "openai")  # what is taken where only half is said


def score_method(
    preset: Preset, method: str, checkpoint: str | None, cross: bool, blocks: str | None, pamr: int, run: dict[str, Any]
) -> Scores:
    """`evaluate --method`; an `InputError` for what only checkpoints have."""
    if checkpoint is not None or cross:
        raise InputError("--method needs no training: leave out --checkpoint and --cross")
    get_method(method)  # before CLIP is fetched
    return score_training_free(preset, method, blocks=blocks_of(blocks), pamr=pamr, **run)


def segment_by_method(
    image: Path, words: Sequence[str], method: str, clip: str | None, weights: str | None, how: dict[str, Any]
) -> tuple[dict[str, Segmentation], Figure]:
    """`segment --method`: title -> segmentation, and the figure. All methods with `all`.

    Mini-CLIP unless a CLIP or weights are named; then what is not named is OpenAI's ViT-B/16, or its weights.
    """
    methods = tuple(METHODS) if method == "all" else (method,)
    for one in methods:
        get_method(one)
    name = clip or (MINI if weights is None else OPENAI[0])
    tag = None if name == MINI else OPENAI[1] if weights is None else weights
    loaded = load_clip(name, None if tag == "random" else tag)
    loaded.visual.to(this_process().device)
    found = segment_by_methods(loaded, image, words, methods, **how)
    if method == "all":
        return found, plot_methods(found)
    return {"": found[method]}, found[method].plot()
