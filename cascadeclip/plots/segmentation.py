"""Figures. Each function draws and returns one matplotlib figure; none shows or saves it."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from cascadeclip.colours import HARMONIC_COLOUR, OTHER_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR, class_colours
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.evaluation.scores import predict
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.plots.axes import named_patches
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import refuse_empty
from cascadeclip.segmenter import Segmentation

MOST_SHOWN = 1000  # px of a picture's long side that a figure shows


def plot_segmentation(segmentation: Segmentation) -> Figure:
    """A picture beside its segmentation: words that a model had no masks of outlined, background grey."""
    colours = class_colours(segmentation.names)
    if segmentation.background is not None:
        colours[-1] = OTHER_COLOUR
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    picture, masks = figure.subplots(1, 2)
    every = max(1, max(segmentation.labels.shape) // MOST_SHOWN)  # of a large picture, every second pixel, or third
    image, labels = segmentation.image[::every, ::every], segmentation.labels[::every, ::every]
    picture.imshow(image)
    picture.set_title("picture")
    masks.imshow(image)
    masks.imshow(colours[labels], alpha=0.75)
    unseen = np.isin(labels, [i for i, name in enumerate(segmentation.names) if segmentation.called(name) != name])
    if unseen.any() and not unseen.all():
        masks.contour(unseen, levels=[0.5], colors="black", linewidths=1.2)
    masks.set_title("segmentation" if segmentation.method is None else f"{segmentation.method}, without training")
    pixels = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.names))
    handles = named_patches(pixels, [segmentation.called(name) for name in segmentation.names], colours)
    many = len(handles) > 15
    masks.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=7 if many else None,
        ncols=2 if many else 1,
    )  # fmt: skip
    for axis in (picture, masks):
        axis.set_axis_off()
    return figure


def plot_scores(report: dict[str, dict[str, float]], scored_on: str = "the test set") -> Figure:
    """Seen, unseen and harmonic mIoU of several models as bars; `report` maps model name -> scores as fractions."""
    refuse_empty(report=report)
    bars = {"mIoU_seen": SEEN_COLOUR, "mIoU_unseen": UNSEEN_COLOUR, "hIoU": HARMONIC_COLOUR}
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for offset, (key, colour) in enumerate(bars.items()):
        values = [100 * scores[key] for scores in report.values()]
        drawn = axis.bar(
            np.arange(len(report)) + 0.26 * (offset - 1), values, 0.24, color=colour, label=key.replace("_", " ")
        )
        axis.bar_label(drawn, fmt="%.1f", fontsize=8)
    axis.set_xticks(range(len(report)), [name.replace("_", " ") for name in report])
    axis.set_ylabel(f"mean IoU on {scored_on}, per cent")
    axis.set_ylim(0, 100)
    axis.legend(frameon=False, ncols=3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


@torch.inference_mode()
def plot_predictions(
    model: CascadeCLIP,
    scenes: Sequence[tuple[np.ndarray, np.ndarray]],
    text: torch.Tensor,
    names: Sequence[str],
    unseen: Sequence[str],
    seen_offset: float = 0.1,
) -> Figure:
    """Picture, truth, the argmax of every stage alone, and the cascade's; unseen classes are marked.

    A row's legend names its true classes first, then those that most pixels were called; the rest is drawn grey.

    Args:
        scenes: pictures (H, W, 3) uint8 with labels (H, W), all of one size.
        text: (C, E), text embeddings in the order of `names`.
    """
    refuse_empty(scenes=scenes, names=names)
    images = normalise(torch.stack([to_tensor(image) for image, _ in scenes])).to(text.device)
    seen = [position for position, name in enumerate(names) if name not in unseen]
    stages = model(images, text).stage_logits
    size = scenes[0][1].shape
    alone = [torch.nn.functional.interpolate(s.float(), size, mode="bilinear").sigmoid() for s in stages]
    for scores in alone:
        scores[:, seen] -= seen_offset
    together = predict(model, images, text, seen, seen_offset)
    columns = [f"stage {s}: " + "+".join(map(str, blocks)) for s, blocks in enumerate(model.config.stages, 1)]
    columns = ["picture", "truth", *columns, "sum of stages"]
    maps = [scores.argmax(1).cpu().numpy() for scores in (*alone, together)]
    colours = class_colours(names)
    room = ConstrainedLayoutEngine(rect=(0, 0, 0.98, 1))  # else the legends lose their last letter
    figure = Figure(figsize=(1.75 * len(columns) + 1.6, 1.8 * len(scenes)), layout=room)
    axes = figure.subplots(len(scenes), len(columns), squeeze=False)
    for row, (image, labels) in enumerate(scenes):
        named = _classes_to_name(labels, [found[row] for found in maps])
        palette = np.full((len(names), 3), OTHER_COLOUR)
        palette[named] = colours[named]
        panels = [image, palette[labels], *(palette[found[row]] for found in maps)]
        for axis, panel in zip(axes[row], panels, strict=True):
            axis.imshow(panel)
            axis.set_axis_off()
        for axis, found in zip(axes[row][1:], (labels, *(found[row] for found in maps)), strict=True):
            hidden = np.isin(found, [names.index(name) for name in unseen])
            if hidden.any() and not hidden.all():
                axis.contour(hidden, levels=[0.5], colors="black", linewidths=1.2)
        handles = [Patch(color=colours[c], label=names[c] + (" (unseen)" if names[c] in unseen else "")) for c in named]
        if not all(np.isin(found[row], named).all() for found in maps):
            handles.append(Patch(color=OTHER_COLOUR, label="other words"))
        axes[row][-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def _classes_to_name(labels: np.ndarray, maps: Sequence[np.ndarray], most: int = 8) -> list[int]:
    """All classes of `labels`, then those of the maps by their pixels; no more than `most` unless the truth has more.

    Args:
        labels: (H, W) integer class indices, the truth.
        maps: found label maps (H, W).
    """
    truth = np.unique(labels).tolist()
    found, pixels = np.unique(np.concatenate([one.ravel() for one in maps]), return_counts=True)
    guessed = [c for c in found[np.argsort(-pixels, kind="stable")].tolist() if c not in truth]
    return [*truth, *guessed[: max(0, most - len(truth))]]
