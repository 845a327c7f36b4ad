"""Figures of layers: what is drawn is what was given, and every axis says what it is."""

import numpy as np
import pytest

from cascadeclip.plots import layers as plots


def test_maps_stand_beside_their_pictures_and_say_their_range():
    pictures = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 200)]
    maps = {"block 1": [np.array([[i, 1.0]]) for i in (3.0, 4.0)], "block 2": [np.array([[0.0, 0.25]])] * 2}
    *axes, bar = plots.plot_maps(pictures, maps, "similarity").axes
    axes = np.array(axes).reshape(2, 3)
    assert [axis.get_title() for axis in axes[0]] == ["picture", "block 1", "block 2"]
    assert [axes[row, 1].images[0].get_array().max() for row in (0, 1)] == [3, 4]
    assert [axes[row, 0].images[0].get_array().max() for row in (0, 1)] == [10, 200]
    assert [axes[row, 1].texts[0].get_text() for row in (0, 1)] == ["1.00 to 3.00", "1.00 to 4.00"]
    assert bar.get_ylabel() == "similarity"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["lowest", "highest"]


def test_maps_of_colours_have_no_bar():
    figure = plots.plot_maps([np.zeros((8, 8, 3), np.uint8)], {"block 1": [np.zeros((2, 2, 3))]})
    assert len(figure.axes) == 2 and not figure.axes[1].texts


def test_matrices_share_one_colour_scale_and_number_blocks_from_one():
    figure = plots.plot_matrices({"a": np.eye(3), "b": np.zeros((3, 3))}, "CKA")
    *panels, bar = figure.axes
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    assert {panel.images[0].get_clim() for panel in panels} == {(0.0, 1.0)}
    assert panels[0].images[0].get_extent() == [0.5, 3.5, 3.5, 0.5]
    assert (panels[0].get_xlabel(), bar.get_ylabel()) == ("block", "CKA")


def test_curves_over_blocks_with_baselines_and_intervals():
    figure = plots.plot_over_blocks(
        {"raw": [1.0, 2.0, 4.0], "learnt": [2.0, 3.0, 5.0]},
        "AUROC",
        baselines={"guessing": 0.5},
        intervals={"raw": [(0.0, 2.0), (1.0, 3.0), (3.0, 5.0)]},
    )
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.lines}
    assert lines["raw"].get_xdata().tolist() == [1, 2, 3]
    assert lines["learnt"].get_ydata() == pytest.approx([2, 3, 5])
    assert set(lines["guessing"].get_ydata()) == {0.5}
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0 and band.get_paths()[0].vertices[:, 1].max() == 5
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("block", "AUROC")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["raw", "learnt", "guessing"]
    (from_zero,) = plots.plot_over_blocks({"px": [41.0, 45.0]}, "distance, px", bottom=0).axes
    assert from_zero.get_ylim()[0] == 0


def test_lines_mark_their_lowest_point():
    (axis,) = plots.plot_lines([0, 1, 2], {"loss": [3.0, 1.0, 2.0]}, "shift", "loss").axes
    curve, lowest = axis.lines
    assert curve.get_ydata() == pytest.approx([3, 1, 2])
    assert (lowest.get_xdata()[0], lowest.get_ydata()[0]) == (1, 1)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("shift", "loss")


def test_classes_are_in_the_order_of_the_last_panels_best_block():
    raw = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, np.nan], [0.1, 0.1]])
    learnt = np.array([[0.2, 0.7], [0.1, 0.9], [0.1, 0.8], [np.nan, np.nan]])
    first, second, bar = plots.plot_classes_over_blocks(
        {"raw": raw, "learnt": learnt}, ("ant", "bee", "cat", "dog"), ("cat",), "AUROC"
    ).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["bee", "cat *", "ant"]
    assert [label.get_color() for label in first.get_yticklabels()] == ["black", "#d1495b", "black"]
    np.testing.assert_array_equal(second.images[0].get_array(), learnt[[1, 2, 0]])
    assert (first.get_title(), second.get_title(), bar.get_ylabel()) == ("raw", "learnt", "AUROC")
    assert plots.best_first(raw) == [2, 1, 0, 3], "at block 1, whose mean is the highest"


def test_classes_can_have_an_order_of_their_own():
    axis, _ = plots.plot_classes_over_blocks({"hit": np.eye(3)}, "abc", (), "hit", order=[2, 0], cmap="viridis").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["c", "a"]
    np.testing.assert_array_equal(axis.images[0].get_array(), np.eye(3)[[2, 0]])
    assert axis.images[0].get_cmap().name == "viridis"


@pytest.mark.parametrize("marked", [True, False])
def test_lowest_points_are_marked_unless_told_otherwise(marked):
    lines = {"a": np.array([3.0, 1.0]), "b": [0.0, 2.0]}
    (axis,) = plots.plot_lines(np.arange(2), lines, "x", "y", lowest_marked=marked).axes
    assert [line.get_marker() for line in axis.lines].count("v") == (2 if marked else 0)
