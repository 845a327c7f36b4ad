"""A preset turned into runs: build, train, save, score. What the command line, the demo and the notebooks share."""

from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from cascadeclip.cascade import CascadeCLIP
from cascadeclip.checkpoint import save_checkpoint
from cascadeclip.clip import Clip, load_clip
from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.data.emojiscenes import collate
from cascadeclip.errors import InputError
from cascadeclip.evaluation import Scores, evaluate
from cascadeclip.presets import Preset
from cascadeclip.training import train

CHECKPOINT = "model.safetensors"
SCORING_BATCH = 25  # pictures


def open_clip_of(preset: Preset) -> Clip:
    """The preset's CLIP, its position embedding at the size the model works at."""
    return load_clip(**preset.clip, image_size=preset.model.tower.image_size)


def fit(
    preset: Preset,
    clip: Clip,
    model: ModelConfig,
    training: TrainConfig,
    out: str | Path,
    *,
    validate: bool = False,
    progress: bool = True,
) -> tuple[CascadeCLIP, list[dict[str, float]]]:
    """Train a model on the preset's data; writes `model.safetensors` and the log into `out`, resumes what is there.

    Returns:
        the model in eval mode, and the training log.

    Raises:
        InputError: settings that do not fit the preset's CLIP, or an `out` that cannot be written.
    """
    out = Path(out)
    check_writable(out)
    torch.manual_seed(training.seed)  # initial weights
    cascade = CascadeCLIP(model, clip.visual)
    cascade.to("cuda" if torch.cuda.is_available() else "cpu")
    text = clip.class_embeddings(preset.names, preset.templates)

    def scores_now(current: CascadeCLIP) -> dict[str, float]:
        return summarise(preset, score(preset, clip, current, "val"))

    log = train(
        cascade, preset.train_data(training.seed), text, preset.names, preset.unseen, training,
        collate=collate, out=out, validate=scores_now if validate else None, progress=progress,
    )  # fmt: skip
    save_checkpoint(out / CHECKPOINT, cascade, clip=preset.clip, seen=preset.seen)
    return cascade, log


def score(preset: Preset, clip: Clip, model: CascadeCLIP, split: str = "test", limit: int | None = None) -> Scores:
    """Scores on one of the preset's fixed sets, or on its first `limit` pictures."""
    data = preset.eval_data(split)
    if limit is not None and limit < len(data):
        data = Subset(data, range(limit))
    text = clip.class_embeddings(preset.names, preset.templates)
    loader = DataLoader(data, SCORING_BATCH, collate_fn=collate)
    return evaluate(
        model, loader, text, preset.names, preset.unseen, seen_offset=preset.seen_offset, window=preset.window,
        stride=preset.stride, bf16=preset.training.bf16,
    )  # fmt: skip


def summarise(preset: Preset, scores: Scores) -> dict[str, float]:
    """Headline scores, with the preset's groups of unseen classes reported apart."""
    groups = {f"mIoU_unseen_{group}": scores.mean_iou(names) for group, names in preset.unseen_groups.items()}
    return scores.summary(**groups)


def last_layer_only(model: ModelConfig) -> ModelConfig:
    """The same settings with one stage, the last block: ZegCLIP."""
    return replace(model, stages=((model.tower.layers,),))


def check_writable(folder: Path) -> None:
    """Make `folder`, or say clearly that it cannot be written."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error}; choose another output folder") from error
