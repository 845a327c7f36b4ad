"""Figures of training-free dense CLIP."""

from collections.abc import Mapping

import numpy as np
from matplotlib.patches import Patch

from cascadeclip.colours import OTHER_COLOUR, class_colours
from cascadeclip.errors import InputError
from cascadeclip.plots.figure import Figure
from cascadeclip.segmenter import Segmentation


def plot_methods(found: Mapping[str, Segmentation], columns: int = 3) -> Figure:
    """A picture, and beside it what several methods make of it in the same words; background is grey.

    Args:
        found: title -> segmentation of one picture.
    """
    if len({(one.names, one.image.shape) for one in found.values()}) != 1:
        raise InputError("methods side by side need one picture and the same words: give segmentations of one picture")
    first = next(iter(found.values()))
    height, width = first.image.shape[:2]
    colours = class_colours(len(first.names))
    if first.background is not None:
        colours[-1] = OTHER_COLOUR
    rows = -(-(len(found) + 1) // columns)
    figure = Figure(figsize=(2.9 * columns, (2.9 * height / width + 0.3) * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(first.image)
    axes[0].set_title("picture", fontsize=10)
    for axis, (title, one) in zip(axes[1:], found.items(), strict=False):
        axis.imshow(one.image)
        axis.imshow(colours[one.labels], alpha=0.75)
        axis.set_title(title, fontsize=10)
    drawn = np.unique(np.concatenate([np.unique(one.labels) for one in found.values()]))
    handles = [Patch(color=colours[i], label=first.called(first.names[i])) for i in drawn]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    return figure
