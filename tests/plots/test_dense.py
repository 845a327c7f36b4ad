"""Figures of training-free methods: what they draw is what they were given."""

import numpy as np
import pytest

from cascadeclip.errors import InputError
from cascadeclip.plots import plot_method_blocks, plot_method_scores

SCORES = {
    "clip": {"seen": (0.1, 0.05, 0.15), "unseen": (0.2, 0.1, 0.3)},
    "sclip": dict.fromkeys(("seen", "unseen"), 3 * (0.4,)),
}


def test_the_heat_map_holds_its_numbers_and_frames_the_best_block():
    figure = plot_method_blocks({"clip": [0.1, 0.32, 0.2], "sc_clip": [float("nan"), 0.4, 0.5]}, "mIoU, per cent")
    figure.canvas.draw()
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["10", "32", "20", "40", "50"]
    assert [(frame.get_x() + 0.5, frame.get_y() + 0.5) for frame in axis.patches] == [(1, 0), (2, 1)]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["clip", "sc_clip"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3"]


@pytest.mark.parametrize("rows", [{}, {"clip": [0.1], "sclip": [0.1, 0.2]}])
def test_a_heat_map_needs_a_value_of_every_method_at_every_block(rows):
    with pytest.raises(InputError, match="values"):
        plot_method_blocks(rows, "mIoU")


def test_each_method_has_a_dot_and_an_interval_for_seen_and_unseen():
    figure = plot_method_scores(SCORES, "mIoU, per cent", references={"chance": 0.005})
    figure.canvas.draw()
    axis = figure.axes[0]
    dots = {line.get_label(): line.get_xdata() for line in axis.lines if line.get_label() in ("seen", "unseen")}
    np.testing.assert_allclose(dots["seen"], [10, 40])
    np.testing.assert_allclose(dots["unseen"], [20, 40])
    intervals = [part[:, 0] for drawn in axis.collections for part in drawn.get_segments()]
    np.testing.assert_allclose(intervals[0], [5, 15])
    assert axis.texts[0].get_text() == "chance: 0.5"
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first method stands on top"


@pytest.mark.parametrize("scores", [{}, {"clip": {"seen": (0.1, 0.0, 0.2)}}])
def test_scores_need_both_groups(scores):
    with pytest.raises(InputError, match="each with 'seen' and 'unseen'"):
        plot_method_scores(scores, "mIoU")
