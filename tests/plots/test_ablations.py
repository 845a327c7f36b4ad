"""Figures of a cascade taken apart: points with their intervals, bars of every group where they belong."""

import numpy as np
import pytest

from cascadeclip.errors import InputError
from cascadeclip.plots.ablations import plot_ablations, plot_groups

REPORT = {
    "without A": {"seen": (-3.0, -4.0, -2.0), "unseen": (1.0, -1.0, 3.0)},
    "without B": {"seen": (0.5, 0.0, 1.0), "unseen": (-8.0, -9.0, -6.5)},
}
PANELS = {
    "left": {"one": {"a": 1.0, "b": -2.0}, "two": {"a": 3.0, "b": 0.5}},
    "right": {"one": {"a": 0.0, "b": 4.0}},
}


def test_every_difference_lies_in_its_interval_in_its_row():
    (axis,) = plot_ablations(REPORT, "points").axes
    drawn = {line.get_label(): line for line in axis.lines if line.get_label().endswith("classes")}
    for group, bars in zip(("seen", "unseen"), axis.collections, strict=True):
        points = drawn[f"{group} classes"].get_xydata()
        for (x, y), segment, row in zip(points, bars.get_segments(), REPORT.values(), strict=True):
            assert (x, *segment[:, 0]) == row[group]
            assert np.all(segment[:, 1] == y)
    assert [tick.get_text() for tick in axis.get_yticklabels()] == list(REPORT)
    assert np.array_equal(np.round(drawn["seen classes"].get_ydata()), [0, 1])
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first on top


@pytest.mark.parametrize("report", [{"x": {"hIoU": (0, 0, 0)}}, REPORT | {"y": {"seen": (0, 0, 0)}}])
def test_differences_of_other_scores_are_refused(report):
    with pytest.raises(InputError, match="seen, unseen"):
        plot_ablations(report, "points")


@pytest.mark.parametrize("bottom", [0.0, 1.0])
def test_bars_reach_their_values_from_the_bottom(bottom):
    figure = plot_groups(PANELS, "value", reference=bottom, bottom=bottom)
    assert [axis.get_title() for axis in figure.axes] == list(PANELS)
    for axis, panel in zip(figure.axes, PANELS.values(), strict=True):
        for bars in axis.containers:
            found = [bar.get_y() + bar.get_height() for bar in bars]
            assert found == [group[bars.get_label()] for group in panel.values()]
            assert {bar.get_y() for bar in bars} == {bottom}
        assert [tick.get_text() for tick in axis.get_xticklabels()] == list(panel)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


@pytest.mark.parametrize("panels", [PANELS | {"y": {"one": {"a": 1.0}}}, {"x": {"a": dict.fromkeys("abcde", 1)}}])
def test_groups_of_other_series_are_refused(panels):
    with pytest.raises(InputError, match="same series"):
        plot_groups(panels, "value")
