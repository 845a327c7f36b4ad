"""Which block helps which method? The table method x block on labelled pictures, with intervals over the pictures.

Symbols: n pictures of H x W px, N = h * w patches, C classes, E joint width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cascadeclip.analysis.alignment import Localisation, localise
from cascadeclip.analysis.dense.registry import METHODS, from_trunk, get_method
from cascadeclip.analysis.dense.segment import normalised
from cascadeclip.analysis.dense.trunk import Trunk, check_blocks
from cascadeclip.analysis.layers import patch_labels
from cascadeclip.clip.load import Clip
from cascadeclip.clip.vocabulary import chosen_templates
from cascadeclip.data.words import positions_of
from cascadeclip.errors import InputError
from cascadeclip.evaluation.bands import argmax_at
from cascadeclip.evaluation.contours import contour_counts, contour_f
from cascadeclip.evaluation.diagnostics import class_iou, picture_counts
from cascadeclip.evaluation.resampling import Resampled, bootstrap

MEASURES = (
    "patch mIoU seen", "patch mIoU unseen", "pixel mIoU seen", "pixel mIoU unseen", "AUROC", "boundary F",
)  # fmt: skip
FIRST_BLOCK = {"sc_clip": 2}  # methods that read below the block they change


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        method, blocks: what was read.
        measures: by `MEASURES`, as fractions; nan for a group without classes. Rows over the same pictures are paired:
            `(one - other).interval()`.
    """

    method: str
    blocks: tuple[int, ...]
    measures: Mapping[str, Resampled]


@dataclass
class Judge:
    """Collects what the measures need, batch by batch, from anything that scores classes on a grid.

    Args:
        names, unseen: all class words, and those of them that had no masks in training (of whatever is compared).
    """

    names: Sequence[str]
    unseen: Sequence[str]
    _patches: list[Tensor] = field(default_factory=list)
    _pixels: list[Tensor] = field(default_factory=list)
    _contours: list[Tensor] = field(default_factory=list)
    _found: list[Localisation] = field(default_factory=list)

    def __post_init__(self) -> None:
        positions_of(self.unseen, self.names)

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Add pictures: what is to be measured, and the truth.

        Args:
            scores: (B, C, h, w) float; their argmax is the segmentation.
            labels: (B, H, W) integer, indices into `names`, or the label of ignored pixels.
        """
        scores, classes = scores.float().cpu(), len(self.names)
        by_patch = patch_labels(labels, (scores.shape[2], scores.shape[3]))
        flat = scores.flatten(2).transpose(1, 2)  # (B, N, C)
        pixels = argmax_at(scores, tuple(labels.shape[1:]))
        self._patches.append(picture_counts(flat.argmax(-1)[:, None], by_patch[:, None], classes))
        self._pixels.append(picture_counts(pixels, labels, classes))
        self._contours.append(contour_counts(pixels, labels, classes))
        self._found.append(localise(flat, by_patch))

    def measures(self, repeats: int = 200, seed: int = 0) -> dict[str, Resampled]:
        """The measures over all pictures so far, on sets drawn from them; see `evaluation.bootstrap`."""
        if not self._pixels:
            raise InputError("nothing to measure: give labelled pictures, one or more")
        hidden = torch.tensor([name in set(self.unseen) for name in self.names])
        counts = [torch.cat(parts, dim=1) for parts in (self._patches, self._pixels)]
        contours, auroc = torch.cat(self._contours, dim=1), self._auroc()

        def all_of(drawn: np.ndarray) -> np.ndarray:
            iou = [class_iou(one[:, drawn]) for one in counts]
            means = [of[group].nanmean().item() for of in iou for group in (~hidden, hidden)]
            return np.array([*means, auroc(drawn), contour_f(contours[:, drawn])])

        found = bootstrap(all_of, counts[0].shape[1], repeats=repeats, seed=seed)
        return {name: Resampled(found.whole[k], found.draws[:, k], found.drawn_as) for k, name in enumerate(MEASURES)}

    def _auroc(self) -> Callable[[np.ndarray], float]:
        """drawn pictures -> AUROC of each class's word over its pictures, mean over the classes."""
        starts = np.cumsum([0, *(part.shape[1] for part in self._pixels)])
        image = np.concatenate([one.image + start for one, start in zip(self._found, starts[:-1], strict=True)])
        index = np.concatenate([one.class_index for one in self._found])
        value = np.concatenate([one.auroc for one in self._found])

        def mean(drawn: np.ndarray) -> float:
            times = np.bincount(drawn, minlength=starts[-1]).astype(float)[image]
            weight = np.bincount(index, times, len(self.names))
            total = np.bincount(index, times * value, len(self.names))
            return float((total[weight > 0] / weight[weight > 0]).mean()) if weight.any() else float("nan")

        return mean


def method_table(
    clip: Clip,
    images: Tensor,
    labels: Tensor,
    names: Sequence[str],
    unseen: Sequence[str] = (),
    *,
    methods: Sequence[str] = tuple(METHODS),
    blocks: Sequence[int | Sequence[int]] | None = None,
    templates: str | Sequence[str] | None = None,
    batch: int = 8,
    repeats: int = 200,
    seed: int = 0,
) -> list[Row]:
    """Every method on every block (or set of blocks), judged on labelled pictures; blocks run once for all methods.

    Every patch and pixel chooses among all the words.

    Args:
        images: (n, 3, H, W) uint8, read whole.
        labels: (n, H, W) integer, indices into `names`, or the label of ignored pixels.
        names, unseen: class words, and those reported apart.
        blocks: numbers, or several of them for a set that is read together; all blocks one by one by default. A method
            that reads below the block it changes has no line for the first one.
        templates: as in `read_vocabulary`.
        batch: pictures at once.
        repeats, seed: of the bootstrap.

    Raises:
        InputError: unknown methods, blocks or unseen words, no pictures, pictures and labels that do not fit.
    """
    if not len(images) or len(images) != len(labels):
        raise InputError(f"{len(images)} pictures and {len(labels)} label maps: give as many of both, one or more")
    depth = clip.tower.layers
    wanted = range(1, depth + 1) if blocks is None else blocks
    sets = [check_blocks((one,) if isinstance(one, int) else one, depth) for one in wanted]
    for method in methods:
        get_method(method)
    pairs = [(m, some) for m in methods for some in sets if min(some) >= FIRST_BLOCK.get(m, 1)]
    judges = {pair: Judge(names, unseen) for pair in pairs}
    text = clip.class_embeddings(names, chosen_templates(templates, clip)).to(clip.visual.proj.device)
    for some, truth in zip(images.split(batch), labels.split(batch), strict=True):
        with torch.inference_mode():
            trunk = Trunk(clip.visual, normalised(some.to(text.device), clip))
        for method, numbers in pairs:
            similarity = from_trunk(trunk, method, blocks=numbers) @ text.T
            judges[method, numbers].add(similarity.transpose(1, 2).unflatten(2, trunk.grid), truth)
    return [Row(*pair, judge.measures(repeats, seed)) for pair, judge in judges.items()]


def as_markdown(rows: Sequence[Row], level: float = 0.95) -> str:
    """The table for people: per cent, with intervals."""
    lines = [f"| method | blocks | {' | '.join(MEASURES)} |", "|---" * (2 + len(MEASURES)) + "|"]
    for row in rows:
        cells = []
        for name in MEASURES:
            low, high = row.measures[name].interval(level)
            whole = row.measures[name].whole
            cells.append("" if np.isnan(whole) else f"{100 * whole:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        lines.append(f"| {row.method} | {', '.join(map(str, row.blocks))} | {' | '.join(cells)} |")
    return "\n".join(lines)
