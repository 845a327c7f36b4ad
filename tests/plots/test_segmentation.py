"""Figures of segmentations: what is drawn, and that a legend names every colour."""

import numpy as np
import torch

from cascadeclip.colours import OTHER_COLOUR, class_colours
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.plots.segmentation import _classes_to_name, plot_predictions, plot_scores, plot_segmentation
from cascadeclip.segmenter import PixelScores, Segmentation
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_a_segmentation_marks_unseen_words_and_names_only_what_is_there():
    labels = np.zeros((4, 4), dtype=np.int64)
    labels[:2] = 1
    image = np.full((4, 4, 3), 9, dtype=np.uint8)
    result = Segmentation(
        labels, PixelScores(torch.zeros(1, 3, 4, 4), (4, 4)), ("cat", "owl", "sky"), image, seen=("cat", "sky")
    )
    picture, masks = plot_segmentation(result).axes
    assert np.array_equal(picture.images[0].get_array(), image)
    assert np.allclose(masks.images[1].get_array(), class_colours(result.names)[labels])
    assert texts(masks.get_legend()) == ["cat", "owl (unseen)"]


def test_classes_to_name_are_the_true_ones_and_then_those_most_called():
    labels = np.array([[7, 7], [3, 3]])
    maps = [np.array([[1, 1], [5, 3]]), np.array([[5, 5], [5, 0]])]
    assert _classes_to_name(labels, maps) == [3, 7, 5, 1, 0]
    assert _classes_to_name(labels, maps, most=3) == [3, 7, 5]
    assert _classes_to_name(labels, maps, most=1) == [3, 7]


def test_predictions_draw_every_class_in_a_colour_that_the_legend_has():
    torch.manual_seed(0)
    model = CascadeCLIP(MODEL).eval()
    scenes = [Noise()[index] for index in range(2)]
    pictures = [(np.asarray(image.permute(1, 2, 0)), labels.numpy()) for image, labels in scenes]
    figure = plot_predictions(model, pictures, TEXT, NAMES, UNSEEN)
    columns = len(model.config.stages) + 3
    assert len(figure.axes) == 2 * columns
    for row in range(2):
        axes = figure.axes[row * columns : (row + 1) * columns]
        legend = axes[-1].get_legend()
        named = {tuple(np.round(patch.get_facecolor()[:3], 6)) for patch in legend.get_patches()}
        drawn = np.concatenate([np.asarray(axis.images[0].get_array()).reshape(-1, 3) for axis in axes[1:]])
        assert {tuple(colour) for colour in np.round(drawn, 6)} <= named
        assert tuple(OTHER_COLOUR) not in named  # three classes have room


def test_classes_without_a_place_in_the_legend_are_grey(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("cascadeclip.plots.segmentation._classes_to_name", lambda labels, maps: [0])
    image, labels = Noise()[0]
    figure = plot_predictions(
        CascadeCLIP(MODEL).eval(), [(np.asarray(image.permute(1, 2, 0)), labels.numpy())], TEXT, NAMES, UNSEEN
    )
    assert texts(figure.axes[-1].get_legend()) == ["a", "other words"]
    truth = np.asarray(figure.axes[1].images[0].get_array())
    assert np.allclose(truth[labels.numpy() != 0], OTHER_COLOUR)


def test_scores_stand_as_bars_in_per_cent_and_say_what_they_were_measured_on():
    report = {name: {"mIoU_seen": 0.5, "mIoU_unseen": 0.25, "hIoU": 1 / 3} for name in ("cascade", "last_layer")}
    (axis,) = plot_scores(report, "100 validation scenes").axes
    assert axis.get_ylabel() == "mean IoU on 100 validation scenes, per cent"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["mIoU seen", "mIoU unseen", "hIoU"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cascade", "last layer"]
    assert [round(bar.get_height(), 1) for bar in axis.patches] == [50, 50, 25, 25, 33.3, 33.3]
