"""What an offset on the seen classes trades: paths of models in the plane of seen and unseen mIoU."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from cascadeclip.colours import OTHER_COLOURS, model_colour
from cascadeclip.errors import InputError
from cascadeclip.evaluation.scores import Scores
from cascadeclip.plots.axes import draw_equal_harmonic, legend_above
from cascadeclip.plots.figure import Figure
from cascadeclip.plots.given import refuse_empty


def plot_trades(report: Mapping[str, tuple[Sequence[float], Sequence[Scores]]], marked: Mapping[str, float]) -> Figure:
    """Paths of several models in the plane of S and U, one dot per seen offset, among curves of equal hIoU.

    Args:
        report: model -> (offsets, scores under each).
        marked: model -> the offset whose dot stands out, the one that its protocol asks for.

    Raises:
        InputError: no model, or one without an offset to mark.
    """
    if not report or any(name not in marked for name in report):
        raise InputError(
            f"models {list(report)} with marked offsets {dict(marked)}: give every model one, at least one"
        )
    refuse_empty(report=report)
    figure = Figure(figsize=(5.6, 5.0), layout="constrained")
    axis = figure.subplots()
    _draw_trades(axis, report, marked)
    return figure


def _draw_trades(
    axis: Axes, report: Mapping[str, tuple[Sequence[float], Sequence[Scores]]], marked: Mapping[str, float]
) -> None:
    """Paths (S, U) of `plot_trades`; a large dot marks an offset, and the first and last offset stand at the ends."""
    paths = {
        name: 100 * np.array([(scores.mIoU_seen, scores.mIoU_unseen) for scores in sweep])
        for name, (_, sweep) in report.items()
    }
    together = np.concatenate(list(paths.values()))
    together = together[np.isfinite(together).all(1)]
    together = together if len(together) else np.array([[0, 0], [100, 100]])
    draw_equal_harmonic(axis, np.maximum(together.min(0) - 3, 0), together.max(0) + 3)
    told: set[str] = set()
    ends = np.concatenate([path[[0, -1]] for path in paths.values()])
    room = np.ptp(together, axis=0) * (0.1, 0.05)  # that a label takes
    for colour, (name, path) in zip(("black", *OTHER_COLOURS), paths.items(), strict=False):
        offsets, colour = np.asarray(report[name][0]), model_colour(name, colour)
        near = int(np.argmin(np.abs(offsets - marked[name])))
        axis.plot(*path.T, color=colour, linewidth=1, marker=".", markersize=4, label=name)
        axis.plot(*path[near], "o", color=colour, markersize=8)
        label = f"offset {offsets[near] + 0:g}"
        if label not in told:  # in grey: it belongs to no model
            axis.plot([], [], "o", color="grey", markersize=8, label=label)
        told.add(label)
        for end in {0, len(path) - 1}:
            apart = ends - path[end]
            crowded = ((apart[:, 0] > 0) & (np.abs(apart) < room).all(1)).any()  # by another path's end on the right
            axis.annotate(
                f"{offsets[end] + 0:g}", path[end], (-3, -8) if crowded else (3, -8), textcoords="offset points",
                ha="right" if crowded else "left", color=colour, fontsize=7,
            )  # fmt: skip
    legend_above(axis, columns=min(len(paths) + 1, 3))
