"""Very many classes and very long words: figures stay of a size that can be drawn, and say what they leave out."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cascadeclip import plots
from cascadeclip.data.words import shortened
from cascadeclip.evaluation.scores import ConfusionMatrix, Scores
from cascadeclip.plots.evaluation import plot_maps
from cascadeclip.plots.figure import save_figure
from cascadeclip.plots.panels import in_colours
from cascadeclip.segmenter import Segmentation

MANY = tuple(f"word {index}" for index in range(3000))
HIDDEN = MANY[::3]
LONG = ("x" * 150 + "a" * 150, "x" * 150 + "b" * 150)


def drawn(figure, most=4000):
    """The size of the figure, which has to be bearable; what its texts say."""
    picture = Image.open(io.BytesIO(figure._repr_png_()))
    assert max(picture.size) <= most
    labels = [text.get_text() for axis in figure.axes for text in (*axis.get_xticklabels(), *axis.get_yticklabels())]
    said = [text for axis in figure.axes for text in (axis.get_title(), axis.get_xlabel(), axis.get_ylabel())]
    legends = [one for one in (*(axis.get_legend() for axis in figure.axes), *figure.legends) if one]
    return labels, said, [text.get_text() for legend in legends for text in legend.get_texts()]


def segmentation(names, labels):
    """A segmentation as `segment` makes it, for as many words as there are."""
    one = object.__new__(Segmentation)
    given = dict(names=names, image=np.zeros((*labels.shape, 3), np.uint8), labels=labels, background=None,
                 method="naclip", seen=(), pixel_scores=None)  # fmt: skip
    for name, value in given.items():
        object.__setattr__(one, name, value)
    return one


def test_bars_of_very_many_classes_are_the_best_and_worst():
    scores = Scores(MANY, HIDDEN, tuple(np.linspace(0, 1, len(MANY))), 0.5)
    labels, _, legend = drawn(plots.plot_class_iou(scores, intervals=[(0.1, 0.2)] * len(MANY)))
    assert len(labels) < 220 and {"word 2999", "word 0", "word 1"} <= set(labels) and "word 1500" not in labels
    assert any("unseen: 50 best and worst of 1,000, mean 50.0" in text for text in legend)


@pytest.mark.parametrize(("classes", "hidden", "bars"), [(171, 15, 171), (200, 100, 200), (400, 10, 200), (3, 3, 3)])
def test_bars_are_all_there_while_there_is_room(classes, hidden, bars):
    scores = Scores(MANY[:classes], MANY[:hidden], (0.5,) * classes, 0.5)
    figure = plots.plot_class_iou(scores)
    assert len(figure.axes[0].get_xticks()) == bars


def test_confusions_of_very_many_classes_are_those_with_the_most_pixels():
    confusion = ConfusionMatrix(len(MANY))
    truth = torch.arange(0, 3000, 3).repeat_interleave(torch.arange(1, 1001))  # word 2997 has the most pixels
    confusion.update((truth * 7 + 1) % 3000, truth)
    labels, said, _ = drawn(plots.plot_confusion(confusion, MANY, HIDDEN))
    assert "true class (60 of 1,000 unseen, by pixels)" in said
    assert "word 2997" in labels and "word 3" not in labels and len(labels) < 250


def test_tables_and_lines_of_very_many_classes_say_how_many_are_left_out():
    values = np.linspace(0, 1, len(MANY) * 4).reshape(-1, 4)
    _, said, _ = drawn(plots.plot_classes_over_blocks({"a": values}, MANY, HIDDEN, "AUROC"))
    assert "AUROC; the first 200 of 3,000 classes" in said
    _, said, _ = drawn(plots.plot_class_table({"a": [0.5] * len(MANY)}, {"all": MANY}, "IoU"), most=5000)
    assert "IoU (the first 60 of 3,000 classes)" in said


def test_legends_of_very_many_classes_name_those_with_the_most_pixels(recwarn):
    labels = np.concatenate([np.arange(3000), np.full(600, 2999)]).reshape(60, 60)
    one = segmentation(MANY, labels)
    for figure in (plots.plot_segmentation(one), plots.plot_methods({"a": one, "b": one})):
        _, _, legend = drawn(figure)
        assert not [str(one.message) for one in recwarn if "constrained_layout" in str(one.message)]
        assert len(legend) == 31 and legend[-2].startswith("word 2999") and legend[-1] == "and 2,970 more"
    drawn(plot_maps([one.image], {"truth": [labels]}, MANY, HIDDEN))
    assert in_colours(np.array([[299, 65_535]]), MANY[:300], dict.fromkeys(MANY, "red"))[0].tolist() == [
        [1, 0, 0],
        [0] * 3,
    ]


def test_long_words_are_shortened_so_that_they_differ():
    assert shortened("cat") == "cat" and shortened("y" * 48) == "y" * 48
    one, other = map(shortened, LONG)
    assert one != other and len(one) == len(other) == 48 and "…" in one


PICTURE, SQUARE = np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=int)
MEASURES = dict.fromkeys(("mIoU_seen", "mIoU_unseen", "hIoU"), 0.5)
FIGURES = {
    "bars": lambda: plots.plot_class_iou(Scores(LONG, LONG[1:], (0.5, 0.2), 0.5)),
    "confusion": lambda: plots.plot_confusion(ConfusionMatrix(2), LONG, LONG[1:]),
    "table": lambda: plots.plot_class_table({LONG[0]: [0.5, 0.2]}, {LONG[1]: LONG}, LONG[0]),
    "lines": lambda: plots.plot_classes_over_blocks({LONG[0]: np.eye(2)}, LONG, LONG[1:], "AUROC"),
    "curves": lambda: plots.plot_over_blocks({LONG[0]: [0.1, 0.2], LONG[1]: [0.1, 0.3]}, "y"),
    "errors": lambda: plots.plot_error_kinds({word: (torch.ones(4), 9) for word in LONG}),
    "scores": lambda: plots.plot_scores(dict.fromkeys(LONG, MEASURES)),
    "maps": lambda: plot_maps([PICTURE], {LONG[0]: [SQUARE]}, LONG, LONG[1:], LONG[:1]),
    "segmentation": lambda: plots.plot_segmentation(segmentation(LONG, SQUARE)),
    "methods": lambda: plots.plot_methods({"a": segmentation(LONG, SQUARE)}),
    "panels": lambda: plots.plot_panels({word: np.zeros((8, 8)) for word in LONG}, legend=dict.fromkeys(LONG, "red")),
    "stages": lambda: plots.plot_stage_masks(
        PICTURE, np.ones((1, 2, 4, 4)), SQUARE[None].repeat(2, 0) > 0, LONG, ["one"]
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_long_words_leave_room_for_the_picture(name, recwarn, tmp_path):
    figure = FIGURES[name]()
    labels, said, legend = drawn(figure)
    save_figure(figure, tmp_path / "finer.png")
    assert not [str(one.message) for one in recwarn if "constrained_layout" in str(one.message)]
    assert all(len(text) <= 48 for text in (*labels, *legend)) and all(len(text) <= 120 for text in said)
    for axis in figure.axes:
        width, height = axis.get_window_extent().size
        assert width > 1 and height > 10, (name, width, height)
