"""A training-free method scored on a preset's pictures, as a trained model is.

Symbols: B images of H x W px, C classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cascadeclip.analysis.dense.segment import DenseReader, normalised
from cascadeclip.clip.load import Clip, load_clip
from cascadeclip.clip.vocabulary import read_vocabulary
from cascadeclip.evaluation.refine import pamr as refine
from cascadeclip.evaluation.run import digest, score_with
from cascadeclip.evaluation.scores import Scores
from cascadeclip.presets import Preset
from cascadeclip.processes import this_process


def score_training_free(
    preset: Preset,
    method: str = "naclip",
    split: str | None = None,
    limit: int | None = None,
    *,
    clip: Clip | None = None,
    blocks: Sequence[int] | None = None,
    pamr: int = 0,
    out: str | Path | None = None,
    predictions: bool = False,
    progress: bool = False,
    **settings: object,
) -> Scores:
    """Scores of a frozen CLIP on one of the preset's fixed sets; every pixel gets one of the preset's classes.

    The preset says which pictures, words, templates, windows; nothing of it is about seen classes but the report, whose
    `mIoU_seen` and `mIoU_unseen` show what masks would have told and what not.

    Args:
        preset: any; `training-free` reads VOC 2012 as papers do, `context59-training-free` another benchmark.
        method, blocks, settings: as in `dense_features`.
        split, limit, out, predictions, progress: as in `evaluation.run.score_with`.
        clip: the preset's if None.
        pamr: how many times similarities are refined along the pictures' edges; 0: not at all.

    Raises:
        InputError: as `DenseReader`, `load_clip` and `score_with`.
    """
    clip = clip or load_clip(**preset.clip)
    clip.visual.to(this_process().device)
    reader = DenseReader(clip, method, None if blocks is None else tuple(blocks), settings)
    vocabulary = read_vocabulary(clip, preset.names, preset.templates)
    device = clip.visual.proj.device

    def predict_all(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in batches:
            with torch.inference_mode():
                batch = normalised(images.to(device), clip)
                found = reader.at_pixels(batch, vocabulary.embeddings, preset.window, preset.stride)
                found = refine(batch, found, pamr) if pamr else found
            yield vocabulary.per_class(found), labels

    what = [method, reader.blocks, sorted(settings.items()), pamr, preset.window, preset.stride, preset.clip]
    identity = digest(what, vocabulary.embeddings, *clip.visual.state_dict().values())
    return score_with(preset, predict_all, identity, split, limit, out=out, predictions=predictions, progress=progress)
