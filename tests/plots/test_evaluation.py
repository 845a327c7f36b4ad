"""Figures of an evaluation: what they draw is what they were given, and no axis goes without name and unit."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import ERROR_KINDS
from cascadeclip.evaluation.resampling import Resampled
from cascadeclip.evaluation.scores import ConfusionMatrix, Scores
from cascadeclip.plots import evaluation as plots
from cascadeclip.plots import plot_trades

NAMES, UNSEEN = tuple("abcdef"), ("b", "e")


@pytest.fixture
def confusion():
    rng = np.random.default_rng(0)
    found = ConfusionMatrix(6)
    found.counts = torch.from_numpy(rng.integers(1, 50, (6, 6)))
    return found


def drawn(figure):
    """The figure, rendered once; every axis that shows data must have labels or be a picture."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    for axis in figure.axes:
        assert axis.images or (axis.get_ylabel() or axis.get_xlabel()), "an axis without a label"
    return figure


def test_maps_stand_beside_their_pictures():
    rng = np.random.default_rng(0)
    images, maps = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8), rng.integers(0, 6, (2, 16, 16))
    maps[0, :4] = 255
    figure = drawn(plots.plot_maps(images, {"truth": maps, "found": maps[::-1]}, NAMES, UNSEEN, rows=["one", "two"]))
    assert [axis.get_title() for axis in figure.axes[:3]] == ["picture", "truth", "found"]
    assert figure.axes[0].get_ylabel() == "one" and figure.axes[3].get_ylabel() == "two"
    grey = figure.axes[1].images[0].get_array()[:4]
    assert np.allclose(grey, plots.IGNORED_COLOUR)
    words = {text.get_text() for text in figure.axes[2].get_legend().get_texts()}
    assert words == {"a", "b (unseen)", "c", "d", "e (unseen)", "f", "ignored"}


def test_maps_that_are_too_few_are_refused():
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"2 pictures with maps \{'truth': 1\}"):
        plots.plot_maps(images, {"truth": np.zeros((1, 8, 8), dtype=int)}, NAMES, UNSEEN)
    with pytest.raises(InputError, match="0 pictures"):
        plots.plot_maps([], {}, NAMES, UNSEEN)


def test_class_bars_have_the_classes_iou(confusion):
    scores = confusion.scores(NAMES, UNSEEN)
    figure = drawn(plots.plot_class_iou(scores, intervals=[(0.1, 0.2)] * 6, chance=0.01))
    (axis,) = figure.axes
    heights = [bar.get_height() for bar in axis.patches]
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert heights == pytest.approx([100 * scores.iou[NAMES.index(name)] for name in labels])
    assert set(labels[-2:]) == set(UNSEEN)
    assert heights[:4] == sorted(heights[:4], reverse=True)
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert "guessing: 1.0" in words and f"unseen classes (2), mean {100 * scores.mIoU_unseen:.1f}" in words


def test_a_class_without_ground_truth_comes_last_and_breaks_nothing(confusion):
    confusion.counts[2] = 0
    (axis,) = drawn(plots.plot_class_iou(confusion.scores(NAMES, UNSEEN))).axes
    assert axis.get_xticklabels()[3].get_text() == "c"


def test_paths_that_end_side_by_side_are_told_apart():
    """Of two ends that are near each other, the left one has its label on the left."""
    sweeps = {
        name: ([-0.2, 0.5], [Scores(("a", "b"), ("b",), (seen, unseen), 0.5) for seen, unseen in ends])
        for name, ends in {"one": ((0.595, 0.475), (0.62, 0.36)), "two": ((0.605, 0.47), (0.75, 0.30))}.items()
    }
    figure = drawn(plot_trades(sweeps, dict.fromkeys(sweeps, 0.5)))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text() == "-0.2"]
    assert len(boxes) == 2 and not boxes[0].overlaps(boxes[1])


def test_trades_draw_a_path_and_a_dot_per_model(confusion):
    scores = confusion.scores(NAMES, UNSEEN)
    report = {"one": ([0.0, 0.1], [scores] * 2), "two": ([0.0], [scores])}
    (axis,) = drawn(plot_trades(report, {"one": 0.1, "two": 0.0})).axes
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["S = U", "one", "offset 0.1", "two", "offset 0"]
    path = next(line for line in axis.lines if line.get_label() == "one")
    assert path.get_ydata() == pytest.approx([100 * scores.mIoU_unseen] * 2)
    assert {"0", "0.1"} <= {text.get_text() for text in axis.texts}, "the ends of a path say which offset they are"
    assert axis.get_xlim() == pytest.approx((100 * scores.mIoU_seen - 3, 100 * scores.mIoU_seen + 3))
    for models, marked in (({}, {}), (report, {"one": 0.1})):
        with pytest.raises(InputError, match="give every model one"):
            plot_trades(models, marked)


def test_rows_of_the_confusion_figure_add_up_to_all_pixels(confusion):
    figure = drawn(plots.plot_confusion(confusion, NAMES, UNSEEN, least=0.2))
    table = figure.axes[0].images[0].get_array()
    assert table.shape[0] == 2
    assert np.allclose(table.sum(1), 100)
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels[:2] == ["b", "e"] and labels[-1] == "all the rest"
    assert table[0, 0] == pytest.approx(100 * confusion.counts[1, 1].item() / confusion.counts[1].sum().item())
    with pytest.raises(InputError, match="no unseen class"):
        plots.plot_confusion(confusion, NAMES, [])


def test_bars_have_values_intervals_and_references():
    report = {"one": {"mIoU_seen": 0.25, "hIoU": (0.2, 0.1, 0.3)}, "two": {"mIoU_seen": 0.5, "hIoU": (0.4, 0.4, 0.4)}}
    (axis,) = drawn(plots.plot_bars(report, "mean IoU, per cent", references={"ceiling": 0.9})).axes
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([25, 50, 20, 40])
    assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 90
    segments = np.concatenate([collection.get_segments() for collection in axis.collections])
    assert segments[0][:, 1] == pytest.approx([10, 30])
    assert "ceiling: 90.0" in [text.get_text() for text in axis.texts]


def test_bars_draw_into_an_axis_that_is_given():
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    assert plots.plot_bars({"one": {"x": 0.5}}, "per cent", axis=left) is figure
    assert len(left.patches) == 1 and not right.patches


def test_masks_and_rims_stand_side_by_side_with_their_ceilings():
    sets = Resampled(np.array(0.5), np.linspace(0.4, 0.6, 101), (3, 101, 0))
    scores = {"mIoU_seen": sets, "mIoU_unseen": sets, "hIoU": sets}
    report = {"cascade": {"IoU": scores, "Boundary IoU": scores}}
    figure = drawn(plots.plot_masks_and_rims(report, {"IoU": 0.9, "Boundary IoU": 0.7}))
    assert [axis.get_title() for axis in figure.axes] == ["IoU", "Boundary IoU"]
    for axis, highest in zip(figure.axes, (90, 70), strict=True):
        assert [line.get_ydata()[0] for line in axis.lines] == pytest.approx([highest])
        assert [bar.get_height() for bar in axis.patches] == [50, 50]
        assert axis.collections[0].get_segments()[0][:, 1] == pytest.approx([40.5, 59.5])


@pytest.mark.parametrize("report", [{}, {"one": {}}, {"one": {"a": 1.0}, "two": {"b": 1.0}}])
def test_bars_of_unlike_groups_are_refused(report):
    with pytest.raises(InputError, match="the same series"):
        plots.plot_bars(report, "per cent")


def test_a_table_of_classes_has_a_number_for_every_score():
    groups = {"things": ["cat"], "stuff": ["snow"]}
    (axis, _) = drawn(plots.plot_class_table({"one": [0.1, float("nan")], "two": [0.25, 1.0]}, groups)).axes
    assert [text.get_text() for text in axis.texts] == ["10", "", "25", "100", "things", "stuff"]
    assert [line.get_xdata()[0] for line in axis.lines if line.get_linewidth()] == [0.5], "between the groups"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "snow"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]
    np.testing.assert_allclose(axis.images[0].get_array(), [[10, np.nan], [25, 100]])


def test_error_kinds_stand_side_by_side_and_say_what_is_right():
    report = {"one": (torch.tensor([1, 2, 3, 4]), 20), "two": (torch.tensor([0, 0, 0, 0]), 10)}
    (axis,) = drawn(plots.plot_error_kinds(report)).axes
    widths = np.array([bar.get_width() for bar in axis.patches]).reshape(4, 2)
    assert widths[:, 0] == pytest.approx([5, 10, 15, 20]) and not widths[:, 1].any()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(ERROR_KINDS)
    assert {"right: 50.0", "right: 100.0"} <= {text.get_text() for text in axis.texts}
    assert axis.get_xlim()[1] > 50
