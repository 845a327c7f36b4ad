"""People's words in figures, and groups that are empty: nothing is read as mathematics, nothing fails."""

import io
import logging

import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm
from matplotlib.patches import Patch
from PIL import Image

from cascadeclip.evaluation.scores import ConfusionMatrix, Scores
from cascadeclip.plots import figure as module
from cascadeclip.plots.evaluation import plot_bars, plot_class_iou, plot_confusion, plot_maps
from cascadeclip.plots.figure import Figure, readable
from cascadeclip.plots.trades import plot_trades

NAN = float("nan")


def drawn(figure):
    return Image.open(io.BytesIO(figure._repr_png_())).size


def all_texts(figure):
    return {text.get_text() for text in figure.findobj(module.Text)}


@pytest.mark.parametrize("word", ["$10 $20", "$\\frac{1}", "a_b^c", "$", "_hidden", "\\alpha", "{", "100%"])
def test_words_are_no_mathematics(word):
    figure = Figure()
    axis = figure.subplots()
    axis.set_title(word)
    axis.set_xticks([0, 1], [word, "cat"])
    axis.legend(handles=[Patch(label=word)])
    drawn(figure)
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [word, "cat"]
    assert axis.get_legend().get_texts()[0].get_text() == word
    assert not any(text.get_parse_math() for text in figure.findobj(module.Text))


@pytest.mark.parametrize("highest", [2.0, 50.0, 1e7])
def test_a_logarithmic_scale_is_labelled_with_numbers(highest):
    figure = Figure()
    line, picture = figure.subplots(1, 2)
    line.plot([1, 2], [1 / highest, highest])
    line.set_yscale("log")
    bar = figure.colorbar(picture.imshow([[1 / highest, highest]], norm=LogNorm()), ax=picture)
    drawn(figure)
    for axis in (line.yaxis, bar.ax.yaxis):
        labels = [tick.label1.get_text() + tick.label2.get_text() for tick in axis.get_major_ticks()]
        assert any(labels)
    assert not [text for text in all_texts(figure) if "$" in text or "\\" in text]


@pytest.mark.parametrize("word", ["猫", "שלום", "🐈", "मछली", "\u200bcat", "a\tcat", "\x07cat", "two\nlines"])
def test_characters_that_no_font_has_are_written_as_numbers(word, monkeypatch, caplog, recwarn):
    only = [font for font in module.font_manager.fontManager.ttflist if font.name in ("DejaVu Sans", "Last Resort")]
    monkeypatch.setattr(module.font_manager.fontManager, "ttflist", only)
    module._font_of.cache_clear(), readable.cache_clear()
    figure = Figure()
    axis = figure.subplots()
    axis.set_xticks([0], [word])
    with caplog.at_level(logging.WARNING):
        drawn(figure)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    (label,) = (tick.get_text() for tick in axis.get_xticklabels())
    if "猫" in word:
        assert label == "[732B]" and "no font here has 猫 (U+732B)" in caplog.text
    if "\t" in word:
        assert label == "a[0009]cat" and "no font here has (U+0009);" in caplog.text
    module._font_of.cache_clear(), readable.cache_clear()


def test_a_font_that_has_a_character_is_used_for_it(monkeypatch):
    module._font_of.cache_clear(), readable.cache_clear()
    usual = module._usual_font()
    monkeypatch.setattr(
        module, "_characters", lambda path: frozenset(map(ord, "cat" if path == usual else "cat猫\u3000"))
    )
    assert readable("cat猫\u3000") == "cat猫\u3000"  # a wide blank is drawn, too
    assert module.fonts_with("cat") == [] and len(module.fonts_with("cat猫")) == 1
    module._font_of.cache_clear(), readable.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("unseen", [(), ("a", "b", "c"), ("b",)])
@pytest.mark.parametrize("iou", [(0.5, 0.2, NAN), (NAN, NAN, NAN)])
def test_class_iou_with_a_group_that_is_empty_or_without_truth(unseen, iou):
    scores = Scores(("a", "b", "c"), unseen, iou, NAN)
    drawn(plot_class_iou(scores, intervals=[(0, 1)] * 3, chance=0.1))
    drawn(plot_class_iou(scores))


def test_one_class_and_one_picture():
    drawn(plot_class_iou(Scores(("a",), (), (0.5,), 1.0)))
    drawn(plot_maps([np.zeros((4, 4, 3), np.uint8)], {"truth": [np.zeros((4, 4), int)]}, ["a"], []))
    drawn(plot_maps([np.zeros((4, 4, 3), np.uint8)], {"truth": [np.full((4, 4), 255)]}, ["a"], ["a"]))
    confusion = ConfusionMatrix(1)
    drawn(plot_confusion(confusion, ["a"], ["a"]))


def test_maps_of_more_classes_than_a_byte_has():
    names = [f"class {index}" for index in range(300)]
    drawn(
        plot_maps([np.zeros((2, 2, 3), np.uint8)], {"truth": [np.array([[0, 255], [299, 65_535]])]}, names, ["class 3"])
    )


def test_scores_without_truth_are_drawn():
    scores = [Scores(("a", "b"), ("b",), (NAN, NAN), NAN)] * 2
    drawn(plot_trades({"model": ([0.0, 0.1], scores)}, {"model": 0.1}))
    drawn(plot_trades({"model": ([0.1], [Scores(("a", "b"), (), (0.0, 0.0), 0.0)])}, {"model": 0.1}))
    drawn(plot_bars({"one": {"x": NAN}}, "share"))
    confusion = ConfusionMatrix(2)
    confusion.counts = torch.zeros(2, 2, dtype=torch.int64)
    drawn(plot_confusion(confusion, ["a", "b"], ["b"]))
