"""The seen-class offset, chosen without a look at anything unseen: some seen classes play the unseen ones."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Subset

from cascadeclip.clip.load import Clip
from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.data.labels import positions_among
from cascadeclip.data.streams import Batches, CheckedCollate
from cascadeclip.data.words import seen_positions
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import read_out, sweep_offsets
from cascadeclip.presets import Preset
from cascadeclip.processes import device
from cascadeclip.schema import Count, checked
from cascadeclip.training.run import fit

OFFSETS = tuple(step / 40 for step in range(-4, 21))  # -0.1 to 0.5


@checked(every=Count)
def held_out(preset: Preset, every: int = 5) -> Preset:
    """The preset with every `every`-th seen class among the unseen ones."""
    return preset.with_unseen([*preset.unseen, *preset.seen[every - 1 :: every]])


@checked(limit=Count | None)
def calibrated_offset(
    preset: Preset,
    clip: Clip,
    model: ModelConfig,
    training: TrainConfig,
    out: str | Path,
    *,
    split: str = "val",
    limit: int | None = None,
    progress: bool = True,
) -> float:
    """Train with some seen classes held out, and return the offset at which these and the other seen classes score
    best together (hIoU). Truly unseen classes are neither offered as words nor scored: their pixels are ignored.

    Args:
        out: folder of that training; what is finished there is used, if it is of the same settings and data.
        split: of the preset's pictures to choose on.
        limit: the first pictures only.

    Raises:
        InputError: fewer than five seen classes, or a training in `out` of other settings or data.
    """
    trial = held_out(preset)
    hidden = [name for name in trial.unseen if name not in preset.unseen]
    if not hidden:
        raise InputError(f"{len(preset.seen)} seen classes are too few to hold some out: five at least")
    trained, _ = fit(trial, clip, model, training, out, progress=progress)  # takes no step where all were done
    data = preset.eval_data(split)
    length = len(data)  # type: ignore[arg-type]  # PyTorch's class does not promise a length
    data = data if limit is None else Subset(data, range(min(limit, length)))
    collate = CheckedCollate(preset.collate, len(preset.names), training=False)
    batches = Batches(data, collate, workers=0, batch_size=preset.scoring_batch)
    names = list(preset.seen)
    readout = read_out(
        trained.to(device()), _seen_labels(batches, preset),
        clip.class_embeddings(names, preset.templates), names, hidden, window=preset.window, stride=preset.stride,
        precision=training.precision,
    )  # fmt: skip
    scores = sweep_offsets(readout, names, hidden, OFFSETS)
    return best_offset(OFFSETS, [found.hIoU for found in scores])


def best_offset(offsets: Sequence[float], scores: Sequence[float]) -> float:
    """The offset of the highest score, the lowest of several; an `InputError` if there is none to compare by."""
    measured = [(score, -offset) for offset, score in zip(offsets, scores, strict=True) if not math.isnan(score)]
    if not measured:
        raise InputError("no offset can be chosen: the pictures show no class held out, or no other; look at more")
    return -max(measured)[1]


def _seen_labels(batches: Iterable[tuple[Tensor, Tensor]], preset: Preset) -> Iterator[tuple[Tensor, Tensor]]:
    """Labels as positions among the seen classes, everything else ignored."""
    table = torch.from_numpy(positions_among(seen_positions(preset.names, preset.unseen)))
    for images, labels in batches:
        yield images, table[labels.long()]
