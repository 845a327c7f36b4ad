"""Surgery judged: mIoU of patch-text maps over labelled pictures, beside what has to be beaten.

Symbols as in `surgery.py`: n pictures, N = h * w patches, T = 1 + N tokens, C classes, E joint width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascadeclip.analysis.layers import patch_labels
from cascadeclip.analysis.lenses import Tower, block_inputs
from cascadeclip.analysis.pictures import Picture, grid_of, one_batch
from cascadeclip.analysis.surgery import Surgery, last_block
from cascadeclip.data.labels import IGNORE
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import confusion_of
from cascadeclip.evaluation.scores import iou_of_counts
from cascadeclip.model.tower import build_tower, tower_config


@dataclass(frozen=True, eq=False)
class Bench:
    """Labelled pictures laid out for surgery: everything up to the last block is computed once.

    Attributes:
        inputs: tower's name (`trained`, `random`) -> what goes into its last block, (n, T, D).
        towers: the towers by the same names.
        labels: (n, N) int64, each patch's class.
        text: (C, E), the classes' embeddings.
        grid: (h, w).
    """

    inputs: dict[str, Tensor]
    towers: dict[str, Tower]
    labels: Tensor
    text: Tensor
    grid: tuple[int, int]


@torch.inference_mode()
def lay_out(visual: Tower, pictures: Sequence[Picture], text: Tensor, seed: int = 0) -> Bench:
    """A bench from labelled pictures of one size, and a tower of the same sizes with random weights beside it."""
    if not pictures or any(picture.labels is None for picture in pictures):
        raise InputError("scores need labelled pictures, one or more: give pictures with labels")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = build_tower(tower_config(visual)).to(visual.proj.device).eval()
    batch = one_batch([picture.image for picture in pictures], visual)
    grid, towers = grid_of(batch, visual), {"trained": visual, "random": random}
    labels = torch.stack([torch.as_tensor(picture.labels) for picture in pictures])
    inputs = {name: block_inputs(tower, batch)[-1] for name, tower in towers.items()}
    return Bench(inputs, towers, patch_labels(labels, grid), text.to(visual.proj.device), grid)


def bench_scores(bench: Bench, surgery: Surgery, seed: int = 0) -> dict[str, float]:
    """mIoU over patches, each picture's patches given to the likeliest of its own words; baselines beside it.

    Returns:
        `right words`, and what they must beat under the same surgery: `wrong words` (every word's embedding is that of
        another one), `shuffled patches` (the right tokens in wrong places), `random tower` (weights never trained).
    """
    tokens = {
        name: last_block(bench.towers[name], inputs, bench.grid, surgery) for name, inputs in bench.inputs.items()
    }
    places = torch.randperm(bench.labels.shape[1], generator=torch.Generator().manual_seed(seed))
    cases = {
        "right words": (tokens["trained"], bench.text),
        "wrong words": (tokens["trained"], bench.text.roll(1, dims=0)),
        "shuffled patches": (tokens["trained"][:, places], bench.text),
        "random tower": (tokens["random"], bench.text),
    }
    return {name: _patch_miou(found @ text.T, bench.labels) for name, (found, text) in cases.items()}


def own_words_only(similarity: Tensor, labels: Tensor) -> Tensor:
    """(n, N, C) -> the likeliest class of each patch among those that its picture holds, (n, N) int64."""
    present = torch.stack([torch.bincount(row[row != IGNORE], minlength=similarity.shape[2]) > 0 for row in labels])
    return similarity.masked_fill(~present[:, None], -torch.inf).argmax(-1)


def _patch_miou(similarity: Tensor, labels: Tensor) -> float:
    found = own_words_only(similarity.float().cpu(), labels)
    counts = confusion_of(found, labels, similarity.shape[2]).counts.double()
    return iou_of_counts(counts.diag(), counts.sum(1), counts.sum(0)).nanmean().item()
