"""Kept runs and counts told from others: what they depend on, and files of counts that are whole."""

from pathlib import Path
from typing import Any

import torch

from cascadeclip.clip.load import Clip
from cascadeclip.data.identity import data_identity, tensor_digest
from cascadeclip.errors import DamagedFile
from cascadeclip.presets import Preset
from cascadeclip.tensors import read_safetensors


def learnt_from(preset: Preset, clip: Clip, seed: int) -> dict[str, Any]:
    """Pictures, masks, words and CLIP of a training; the folder that they lie in may move, or be a copy."""
    words = {"classes": preset.names, "unseen": preset.unseen, "templates": preset.templates}
    data = data_identity(preset.train_data(seed), preset.collate, every="content")
    return words | data | {"strict": preset.strict, "CLIP": clip_digest(clip)}


def clip_digest(clip: Clip) -> str:
    """Of the weights of both towers: the text tower's decide the class embeddings, which may differ between devices."""
    return tensor_digest(clip.model.state_dict())


def kept_counts(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """The counts that a file holds, if they are whole; a `DamagedFile` if not."""
    metadata, tensors = read_safetensors(path, "file of counts")
    counts = tensors.get("counts", torch.empty(0))
    whole = counts.dtype == torch.float64 and tuple(counts.shape) == shape
    whole = whole and metadata.get("sum") == tensor_digest({"counts": counts})
    if not whole:
        raise DamagedFile(f"{path} is damaged: no whole counts of {shape[1]} pictures and {shape[2]} classes")
    return counts
