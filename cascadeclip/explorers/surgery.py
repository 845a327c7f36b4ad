"""Surgery and methods judged: mIoU of patch-text maps over labelled pictures, beside what has to be beaten.

Symbols as in `analysis/surgery.py`: n pictures, N = h * w patches, T = 1 + N tokens, C classes, E joint width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascadeclip.analysis.dense.last_block import Surgery
from cascadeclip.analysis.dense.registry import from_trunk
from cascadeclip.analysis.dense.trunk import Trunk
from cascadeclip.analysis.layers import patch_labels
from cascadeclip.analysis.lenses import Tower
from cascadeclip.analysis.pictures import Picture, grid_of, one_batch
from cascadeclip.data.labels import ignored_label, wide_labels
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import confusion_of
from cascadeclip.evaluation.scores import iou_of_counts
from cascadeclip.model.tower import build_tower, tower_config
from cascadeclip.processes import own_draws


@dataclass(frozen=True, eq=False)
class Bench:
    """Labelled pictures laid out for surgery and for methods: CLIP's own blocks are computed once.

    Attributes:
        trunks: tower's name (`trained`, `random`) -> the pictures on their way through it.
        labels: (n, N) int64, each patch's class.
        text: (C, E), the classes' embeddings.
        grid: (h, w).
    """

    trunks: dict[str, Trunk]
    labels: Tensor
    text: Tensor
    grid: tuple[int, int]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What goes into each tower's last block, (n, T, D)."""
        return {name: trunk.before(trunk.depth) for name, trunk in self.trunks.items()}


@torch.inference_mode()
def lay_out(visual: Tower, pictures: Sequence[Picture], text: Tensor, seed: int = 0) -> Bench:
    """A bench from labelled pictures of one size, and a tower of the same sizes with random weights beside it."""
    if not pictures or any(picture.labels is None for picture in pictures):
        raise InputError("scores need labelled pictures, one or more: give pictures with labels")
    with own_draws(seed):
        random = build_tower(tower_config(visual)).to(visual.proj.device).eval()
    batch = one_batch([picture.image for picture in pictures], visual)
    labels = torch.stack([torch.as_tensor(picture.labels) for picture in pictures])
    trunks = {name: Trunk(tower, batch) for name, tower in (("trained", visual), ("random", random))}
    grid = grid_of(batch, visual)
    return Bench(trunks, patch_labels(labels, grid), text.to(visual.proj.device), grid)


def bench_scores(
    bench: Bench, method: Surgery | str, seed: int = 0, *, blocks: Sequence[int] | None = None
) -> dict[str, float]:
    """mIoU over patches, each picture's patches given to the likeliest of its own words; baselines beside it.

    Args:
        method, blocks: as in `dense_features`.

    Returns:
        `right words`, and what they must beat under the same method: `wrong words` (every word's embedding is that of
        another one), `shuffled patches` (the right tokens in wrong places), `random tower` (weights never trained).
    """
    tokens = {name: from_trunk(trunk, method, blocks=blocks) for name, trunk in bench.trunks.items()}
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
    classes, labels = similarity.shape[2], wide_labels(labels)
    counted = labels != ignored_label(classes)
    present = torch.stack([
        torch.bincount(row[known], minlength=classes) > 0 for row, known in zip(labels, counted, strict=True)
    ])  # fmt: skip
    return similarity.masked_fill(~present[:, None], -torch.inf).argmax(-1)


def _patch_miou(similarity: Tensor, labels: Tensor) -> float:
    found = own_words_only(similarity.float().cpu(), labels)
    counts = confusion_of(found, labels, similarity.shape[2]).counts.double()
    return iou_of_counts(counts.diag(), counts.sum(1), counts.sum(0)).nanmean().item()
