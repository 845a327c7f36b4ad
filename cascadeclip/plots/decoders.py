"""The decoders at work: attention layer by layer, masks stage by stage, and a training run as it goes.

Symbols as in `cascade.py`: B images, C classes, N = h * w patches, E joint image-text width.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.colours import HARMONIC_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR
from cascadeclip.config import TrainConfig
from cascadeclip.data.labels import ignored_label
from cascadeclip.data.transforms import normalise
from cascadeclip.data.words import shortened
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP, DecoderLayer, TextImageDecoder
from cascadeclip.model.losses import segmentation_loss
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import reach_of, refuse_empty
from cascadeclip.processes import autocast
from cascadeclip.training.labels import reduce_labels, seen_only

OUTLINE = "#00c853"  # of the true mask, on heat maps


@torch.inference_mode()
def attention_by_layer(decoder: TextImageDecoder, queries: Tensor, tokens: Tensor) -> list[Tensor]:
    """What the queries look at in each layer of a decoder in eval mode.

    Args:
        queries: (B, C, E) float, from the relationship descriptor.
        tokens: (B, N, E) float, patch tokens of the decoder's stage.

    Returns:
        one (B, C, N) per layer. Layers before the last: attention after the softmax, mean over the heads, times N, so
        that 1 is an even look at all patches. Last layer: its scores before the softmax, the mask logits.
    """
    maps = []
    for layer in cast(Iterable[DecoderLayer], decoder.layers):
        q, k = (
            x.unflatten(-1, (layer.heads, -1)).transpose(1, 2)  # (B, heads, C or N, E / heads)
            for x in (layer.query(queries), layer.key(tokens))
        )
        attention = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
        maps.append(attention.mean(1) * tokens.shape[1])
        queries = layer(queries, tokens)
    return [*maps, decoder.mask(queries, tokens)]


def plot_attention(
    image: np.ndarray, maps: Sequence[Sequence[np.ndarray]], stages: Sequence[str], mask: np.ndarray, word: str
) -> Figure:
    """One query's look at a picture: a row per stage, a column per layer of its decoder; `mask` is outlined.

    Args:
        image: (H, W, 3) uint8.
        maps: for each stage, the (h, w) map of each layer as `attention_by_layer` gives them.
        stages: a name for each stage.
        mask: (H, W) bool, where the class truly is.
        word: the class.

    Raises:
        InputError: as many names as stages are needed, and as many maps in every stage.
    """
    refuse_empty(maps=maps, mask=mask)
    layers = len(maps[0])
    if len(stages) != len(maps) or any(len(row) != layers for row in maps):
        raise InputError(f"{len(stages)} stage names for {[len(row) for row in maps]} maps a stage")
    figure = Figure(figsize=(1.75 * (layers + 1), 1.75 * len(maps) + 1.3), layout="constrained")
    axes = figure.subplots(len(maps), layers + 1, squeeze=False)
    most = reach_of(*(panel for row in maps for panel in row[:-1]))
    even = LogNorm(1 / max(most, 1.01), max(most, 1.01), clip=True)
    reach = reach_of(*(row[-1] for row in maps))
    for row, panels, stage in zip(axes, maps, stages, strict=True):
        _show_picture(row[0], image, mask)
        row[0].set_ylabel(stage, fontsize=9)
        for axis, panel in zip(row[1:-1], panels[:-1], strict=True):
            looks = _show_map(axis, panel, mask, cmap="PuOr_r", norm=even)
        logits = _show_map(row[-1], panels[-1], mask, cmap="RdBu_r", vmin=-reach, vmax=reach)
    titles = ["picture", *(f"layer {n}: attention" for n in range(1, layers)), f"layer {layers}: mask logits"]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    if layers > 1:
        high = max(most, 1.01)
        ticks = sorted({value for value in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if 1 / high <= value <= high})
        bar = figure.colorbar(
            looks, ax=axes[:, 1:-1], label="attention x patches (1 = even look, log scale)", location="bottom"
        )
        bar.set_ticks(ticks, labels=[f"{value:g}" for value in ticks], minor=False)
        bar.minorticks_off()
    figure.colorbar(logits, ax=axes[:, -1], label="mask logit", location="bottom")
    figure.suptitle(f"Where the query “{shortened(word)}” looks (its true mask outlined)", fontsize=11)
    return figure


def plot_stage_masks(
    image: np.ndarray,
    stage_logits: np.ndarray,
    masks: np.ndarray,
    words: Sequence[str],
    stages: Sequence[str],
    title: str = "",
) -> Figure:
    """The cascade on one picture: a row per class, its mask logits in every stage and their sum, on one scale.

    Args:
        image: (H, W, 3) uint8.
        stage_logits: (S, C, h, w), mask logits of each stage.
        masks: (C, H, W) bool, where each class truly is; outlined.
        words, stages: names of the C classes and the S stages.

    Raises:
        InputError: names that do not belong to the logits.
    """
    if stage_logits.shape[:2] != (len(stages), len(words)) or len(masks) != len(words):
        raise InputError(
            f"stage_logits {stage_logits.shape} and {len(masks)} masks for {len(stages)} stages of {len(words)} classes"
        )
    refuse_empty(stage_logits=stage_logits, masks=masks)
    columns = [*stage_logits, stage_logits.sum(0)]
    reach = reach_of(*columns)
    figure = Figure(figsize=(1.6 * (len(columns) + 1) + 1, 1.6 * len(words) + 0.3), layout="constrained")
    axes = figure.subplots(len(words), len(columns) + 1, squeeze=False)
    for position, (row, word) in enumerate(zip(axes, words, strict=True)):
        _show_picture(row[0], image, masks[position])
        row[0].set_ylabel(shortened(word, 24), fontsize=9)
        for axis, column in zip(row[1:], columns, strict=True):
            drawn = _show_map(axis, column[position], masks[position], cmap="RdBu_r", vmin=-reach, vmax=reach)
    for axis, heading in zip(axes[0], ["picture", *stages, "sum of stages"], strict=True):
        axis.set_title(heading, fontsize=9)
    figure.colorbar(drawn, ax=axes, label="mask logit (above 0: probability above one half)", shrink=0.8)
    figure.head(title)
    return figure


def plot_mask_history(
    images: np.ndarray, masks: np.ndarray, words: Sequence[str], history: Mapping[int, np.ndarray]
) -> Figure:
    """How one class's mask grows on each of several pictures while a model trains: its logits, less their mean.

    Args:
        images: (B, H, W, 3) uint8.
        masks: (B, H, W) bool, where each picture's class truly is; outlined.
        words: the class of each picture.
        history: step -> (B, h, w) mask logits of that class.

    Raises:
        InputError: no picture, no step, or a step with more or fewer logits than there are pictures.
    """
    refuse_empty(images=images, masks=masks, words=words, history=history)
    if any(len(given) != len(words) for given in (images, masks, *history.values())):
        counts = {step: len(logits) for step, logits in history.items()}
        raise InputError(f"{len(words)} words for {len(images)} pictures, {len(masks)} masks and logits {counts}")
    steps = sorted(history)
    contrast = {step: history[step] - history[step].mean(axis=(1, 2), keepdims=True) for step in steps}
    reach = reach_of(*contrast.values())
    figure = Figure(figsize=(1.6 * (len(steps) + 1) + 1, 1.6 * len(words) + 0.3), layout="constrained")
    axes = figure.subplots(len(words), len(steps) + 1, squeeze=False)
    for position, (row, word) in enumerate(zip(axes, words, strict=True)):
        _show_picture(row[0], images[position], masks[position])
        row[0].set_ylabel(shortened(word, 24), fontsize=9)
        for axis, step in zip(row[1:], steps, strict=True):
            drawn = _show_map(axis, contrast[step][position], masks[position], cmap="RdBu_r", vmin=-reach, vmax=reach)
    for axis, title in zip(axes[0], ["picture", *(f"step {step}" for step in steps)], strict=True):
        axis.set_title(title, fontsize=9)
    figure.colorbar(drawn, ax=axes, label="mask logit minus its mean over the picture", shrink=0.8)
    return figure


def auroc_against(logits: Tensor, labels: Tensor, classes: Sequence[int], against: Sequence[int]) -> np.ndarray:
    """How well masks tell their own class from certain others.

    One value per picture and class of `classes` in it: the chance that a patch of the class has a higher logit, in the
    class's mask, than a patch of `against`; 0.5 is chance. The class itself is never part of `against`.

    Args:
        logits: (B, C, h, w) float, mask logits.
        labels: (B, h, w) integer, each patch's class.
        classes: whose masks.
        against: which classes' patches they are told from.

    Returns:
        (R,) float64, without the pairs that lack patches on one side.
    """
    values = []
    for masks, found in zip(logits.float().cpu(), labels.long().cpu(), strict=True):
        others = torch.isin(found, torch.tensor(list(against)))
        for c in classes:
            own, rest = masks[c][found == c], masks[c][others & (found != c)]
            if len(own) and len(rest):
                truth = np.repeat([1, 0], [len(own), len(rest)])
                values.append(roc_auc_score(truth, torch.cat([own, rest]).numpy()))
    return np.array(values)


class TrainingWatch:
    """Watches a training run on fixed scenes: give it to `training.train` as `validate`.

    Every call measures the model, keeps what it found and, if there is a `show`, hands it a new figure, so that a
    notebook can redraw one output in place. Call it once yourself before training for the state at step 0.

    Args:
        images: (B, 3, H, W) uint8, scenes held out from training.
        labels: (B, H, W) integer, indices into `names` or the label of ignored pixels.
        text: (C, E) float, text embeddings in the order of `names`.
        names, unseen: as for `train`.
        config: the run's settings; `validate_every` is the distance between two calls.
        keep: steps whose mask logits are kept.
        kept_scenes: of how many of the scenes, the first ones.
        seen_offset: as in `evaluation.predict`.
        show: called with a `Figure` after every call.

    Attributes:
        history: one dict per call: `step`, `held_out_focal`, `held_out_dice`, `held_out_total` (what training would
            have computed on these scenes, without dropout), `pAcc_seen` and `pAcc_unseen` (share of the pixels of
            seen and of unseen classes that get their class among all C).
        kept: step -> (kept_scenes, C, h, w) float32 mask logits.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        text: Tensor,
        names: Sequence[str],
        unseen: Sequence[str],
        config: TrainConfig,
        *,
        keep: Sequence[int] = (),
        kept_scenes: int = 4,
        seen_offset: float = 0.1,
        show: Callable[[Figure], object] | None = None,
    ):
        refuse_empty(images=images, names=names)
        if not config.validate_every:
            raise InputError("validate_every is 0: set how many steps lie between two looks at the model")
        self.images, self.labels, self.text, self.config = images, labels.long().cpu(), text, config
        self.seen, self.table = seen_only(names, unseen)
        self.keep, self.kept_scenes, self.show = set(keep), kept_scenes, show
        self.offset = torch.zeros(len(names), 1, 1)
        self.offset[self.seen] = seen_offset
        self.history: list[dict[str, float]] = []
        self.kept: dict[int, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, model: CascadeCLIP) -> dict[str, float]:
        """Measure the model and draw; returns the newest entry of `history` without its step."""
        training = model.training
        model.eval()
        device = next(model.parameters()).device
        with autocast(device, self.config.precision):
            logits = model(normalise(self.images.to(device)), self.text.to(device)).mask_logits.float().cpu()
        model.train(training)
        step = min(len(self.history) * self.config.validate_every, self.config.steps)
        found = self._held_out_loss(logits) | self._accuracy(logits)
        self.history.append({"step": step} | found)
        if step in self.keep:
            self.kept[step] = logits[: self.kept_scenes]
        if self.show is not None:
            self.show(self.figure())
        return found

    def _held_out_loss(self, logits: Tensor) -> dict[str, float]:
        # Queries do not see each other, so the seen classes' masks are the same with and without the others.
        losses = segmentation_loss(
            logits[:, self.seen],
            self.table[reduce_labels(self.labels, self.config.loss_size)],
            focal_weight=self.config.focal_weight,
            dice_weight=self.config.dice_weight,
            ignored_are_negatives=self.config.ignored_are_negatives,
            ignore_index=ignored_label(len(self.seen)),
        )
        return {f"held_out_{name}": value.item() for name, value in losses.items()}

    def _accuracy(self, logits: Tensor) -> dict[str, float]:
        logits = F.interpolate(logits, self.labels.shape[1:], mode="bilinear", align_corners=False)
        right = (logits.sigmoid() - self.offset).argmax(1) == self.labels
        of_seen = torch.isin(self.labels, torch.tensor(self.seen))
        of_unseen = ~of_seen & (self.labels != ignored_label(len(self.offset)))
        return {
            "pAcc_seen": right[of_seen].float().mean().item(),
            "pAcc_unseen": right[of_unseen].float().mean().item(),
        }

    def figure(self, log: Sequence[dict[str, float]] = ()) -> Figure:
        """Held-out loss and accuracy so far; `log`, as `train` returns it, adds the loss of the training batches."""
        figure = Figure(figsize=(9, 3.3), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        steps = [entry["step"] for entry in self.history]
        if log:
            points = [entry["step"] for entry in log], [entry["total"] for entry in log]
            loss.plot(*points, ".", color="0.65", label="training batch")
        loss.plot(steps, self._column("held_out_total"), color=HARMONIC_COLOUR, label="held-out scenes")
        loss.plot(steps, self._column("held_out_dice"), "--", color=HARMONIC_COLOUR, label="dice part")
        loss.set_yscale("log")
        loss.set_ylabel("loss (log scale)")
        loss.set_title("loss on the seen classes", fontsize=10)
        accuracy.plot(steps, self._column("pAcc_seen", 100), color=SEEN_COLOUR, label="pixels of seen classes")
        accuracy.plot(steps, self._column("pAcc_unseen", 100), color=UNSEEN_COLOUR, label="pixels of unseen classes")
        chance = 100 / len(self.text)
        accuracy.axhline(chance, color="0.5", linestyle=":", linewidth=1, label=f"chance ({chance:.1f} %)")
        accuracy.set_ylim(0, 100)
        accuracy.set_ylabel("pixels given their class, per cent")
        accuracy.set_title(f"held-out scenes, choice among {len(self.text)} classes", fontsize=10)
        for axis in (loss, accuracy):
            axis.set_xlim(0, self.config.steps)
            axis.set_xlabel("training step")
            axis.legend(frameon=False, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        return figure

    def _column(self, name: str, factor: float = 1.0) -> list[float]:
        return [factor * entry[name] for entry in self.history]


def _show_picture(axis: Axes, image: np.ndarray, mask: np.ndarray) -> None:
    axis.imshow(image, interpolation="nearest")
    _finish(axis, mask)


def _show_map(axis: Axes, panel: np.ndarray, mask: np.ndarray, **style: Any) -> AxesImage:
    """A patch map stretched over the picture's pixels; returns what a colour bar needs."""
    height, width = mask.shape
    drawn = axis.imshow(panel, interpolation="nearest", extent=(-0.5, width - 0.5, height - 0.5, -0.5), **style)
    _finish(axis, mask)
    return drawn


def _finish(axis: Axes, mask: np.ndarray) -> None:
    """Outline the true mask; no ticks, no frame (a row's name stays)."""
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors=OUTLINE, linewidths=1.2)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
