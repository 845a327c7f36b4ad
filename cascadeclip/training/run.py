"""A preset turned into runs: build, train, save. What the command line, the demo and the notebooks share."""

import itertools
import logging
import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from tqdm import tqdm

from cascadeclip.checkpoints.own import TRAINED, load_own_state, own_state, save_checkpoint
from cascadeclip.clip.load import Clip, load_clip, scaled_stages
from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.data.folders import FolderDataset, files_of
from cascadeclip.data.identity import data_identity, tensor_digest
from cascadeclip.errors import InputError
from cascadeclip.files import check_apart, check_no_folder, check_writable, exists, listed
from cascadeclip.locks import locked
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import Preset
from cascadeclip.processes import own_draws, plain_torch, this_process
from cascadeclip.schema import Count, checked
from cascadeclip.training.loop import LOG, train
from cascadeclip.training.recall import recalling
from cascadeclip.training.state import PREVIOUS, STATE
from cascadeclip.training.validation import Validation

logger = logging.getLogger(__name__)

_KEPT = re.compile(r"model-\d+\.safetensors")  # what is kept every so many steps


def written(training: TrainConfig) -> tuple[str, ...]:
    """Names of the files that a training writes."""
    every = training.keep_every
    kept = range(every, training.steps + 1, every) if every else ()
    return (TRAINED, LOG, STATE, PREVIOUS, *map(kept_model, kept))


def kept_model(step: int) -> str:
    """Name of the model that is kept after a step."""
    return f"model-{step}.safetensors"


def open_clip_of(preset: Preset) -> Clip:
    """The preset's CLIP, its position embedding at the size the model works at."""
    return load_clip(**preset.clip, image_size=preset.model.tower.image_size)


@plain_torch()
@checked(validate_limit=Count | None, until=Count | None)
def fit(
    preset: Preset,
    clip: Clip,
    model: ModelConfig,
    training: TrainConfig,
    out: str | Path,
    *,
    data: Dataset[Any] | None = None,
    start: CascadeCLIP | None = None,
    validate: bool = False,
    validate_limit: int | None = None,
    recall: str | Path | None = None,
    until: int | None = None,
    tensorboard: bool = False,
    progress: bool = True,
) -> tuple[CascadeCLIP, list[dict[str, float]]]:
    """Train a model on the preset's data; writes `model.safetensors` and the log into `out`, resumes what is there.

    Args:
        model: the tower's sizes are taken from `clip`; for one of other depth the stages are scaled.
        out: also gets `model-<step>.safetensors` every `training.keep_every` steps.
        data: the preset's `training_data`, where it has been listed already.
        start: a trained model to start from; self-training needs one.
        validate: score on the validation set every `training.validate_every` steps and at the end; its pictures and
            masks are looked at before the first step, and the model is saved before the last scores.
        validate_limit: only on the first pictures of that set.
        recall: a folder where the tower's tokens are kept for the next run, see `training.recall`; of no use to models
            with prompts, which ignore it.
        until: stop after this step of the schedule, without a `model.safetensors`; called again, the run goes on.
        tensorboard: also log there.

    Returns:
        the model in eval mode on `cascadeclip.device()`, and the training log. The CLIP stays as and where it is.

    Raises:
        InputError: settings that do not fit the preset's CLIP, self-training from nothing or without pictures of unseen
            classes, an `out` that cannot be written, or one that holds CLIP's weights or the data under names of ours.
    """
    if training.transductive and start is None:
        raise InputError(
            f"preset {preset.name} trains on a model's own pseudo labels: give it one that was trained inductively"
        )
    if training.transductive and preset.strict:
        raise InputError(
            f"preset {preset.name} leaves out the pictures with unseen classes, which pseudo labels are for: "
            "self-training needs a preset that is not strict"
        )
    out, state = Path(out), this_process()
    with locked(out) if state.is_main_process else nullcontext():
        data = preset.training_data(training.seed) if data is None else data
        if state.is_main_process:
            check_writable(out, TRAINED, LOG)
            for path in listed(out):
                if _KEPT.fullmatch(path.name):
                    check_no_folder(path)
            check_apart((out / name for name in written(training)), (clip.pretrained, *files_of(data)))
            _set_aside(out)
        how = _How(validate, validate_limit, recall, until, tensorboard, progress)
        return _fit(preset, clip, model, training, out, data, start, how)


def _set_aside(out: Path) -> None:
    """A trained model without a state to go on from gets another name: a new training would write over it."""
    model = out / TRAINED
    if not exists(model) or any(exists(out / name) for name in (STATE, PREVIOUS)):
        return
    names = (out / f"{model.stem}.before-{number}{model.suffix}" for number in itertools.count(1))
    kept = next(name for name in names if not exists(name))
    model.rename(kept)
    logger.warning("%s is of a training that left no state to go on from; kept as %s", model, kept.name)


@dataclass(frozen=True)
class _How:
    """The options of `fit` that say how a run goes on its way, as described there."""

    validate: bool
    validate_limit: int | None
    recall: str | Path | None
    until: int | None
    tensorboard: bool
    progress: bool


def _fit(
    preset: Preset, clip: Clip, model: ModelConfig, training: TrainConfig, out: Path, data: Dataset[Any],
    start: CascadeCLIP | None, how: _How,
) -> tuple[CascadeCLIP, list[dict[str, float]]]:  # fmt: skip
    """`fit`, once the folder is ours."""
    state = this_process()
    with own_draws(training.seed):  # initial weights
        cascade = CascadeCLIP(on_tower_of(clip, model), clip.visual)
    if start is not None:
        load_own_state(cascade, own_state(start))
    cascade.to(state.device)
    text = clip.class_embeddings(preset.names, preset.templates)
    depends_on = data_identity(data, preset.collate) | {
        "templates": list(preset.templates),
        "model to start from": None if start is None else tensor_digest(own_state(start)),
    }
    if how.progress and state.is_main_process and isinstance(data, FolderDataset):
        tqdm.write(f"training on {data.found}")
    judge = (
        Validation(preset, clip, training, limit=how.validate_limit, progress=how.progress) if how.validate else None
    )

    def save(current: CascadeCLIP, name: str) -> None:
        save_checkpoint(
            out / name, current, clip=preset.clip, seen=preset.seen, templates=preset.templates,
            seen_offset=preset.seen_offset,
        )  # fmt: skip

    with recalling(cascade, how.recall):
        log = train(
            cascade, data, text, preset.names, preset.unseen, training,
            collate=preset.collate, out=out, tensorboard=how.tensorboard, progress=how.progress,
            depends_on=depends_on, until=how.until,
            keep=lambda current, step: save(current, kept_model(step)),
            validate=judge, finished=lambda current: save(current, TRAINED),
        )  # fmt: skip
    if state.is_main_process and (
        how.until is None or how.until >= training.steps
    ):  # again: all steps may have been done already
        save(cascade, TRAINED)
    return cascade, log


def on_tower_of(clip: Clip, model: ModelConfig) -> ModelConfig:
    """The settings with the sizes of a CLIP's tower, the stages scaled to its depth."""
    stages = model.stages
    if clip.tower.layers != model.tower.layers:
        stages = scaled_stages(clip.tower.layers, stages, of=model.tower.layers)
    return replace(model, tower=clip.tower, stages=stages)


def last_layer_only(model: ModelConfig) -> ModelConfig:
    """The same settings with one stage, the last block: ZegCLIP."""
    return replace(model, stages=((model.tower.layers,),))
