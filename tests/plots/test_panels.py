"""Figures of panels side by side."""

import numpy as np

from cascadeclip.plots import in_colours, plot_panels

PICTURE = np.full((6, 8, 3), 200, np.uint8)


def test_panels_stand_in_rows_with_titles_outlines_and_a_legend():
    outline = np.zeros((6, 8), bool)
    outline[2:4, 2:5] = True
    panels = {"picture": PICTURE, "truth": np.zeros((6, 8, 3)), "found": np.ones((6, 8, 3))}
    figure = plot_panels(panels, outlines={"truth": outline}, legend={"tiger": "red"}, columns=2, title="all")
    assert [axis.get_title() for axis in figure.axes] == ["picture", "truth", "found", ""]
    assert [len(axis.collections) for axis in figure.axes] == [0, 1, 0, 0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["tiger"]
    assert figure.get_suptitle() == "all" and figure._repr_png_()


def test_scores_share_one_scale_from_0_to_1_and_say_what_they_are():
    figure = plot_panels({"tiger": np.full((6, 8), 0.2), "grass": np.full((6, 8), 0.9)}, label="score")
    *panels, bar = figure.axes
    assert [panel.images[0].get_clim() for panel in panels] == [(0, 1), (0, 1)]
    assert bar.get_ylabel() == "score"
    assert len(plot_panels({"picture": PICTURE}).axes) == 1, "a picture needs no scale"


def test_labels_in_colours_others_black():
    drawn = in_colours(np.array([[0, 1], [255, 0]]), ["tiger", "grass"], {"grass": "#00ff00", "tiger": (1, 0, 0)})
    assert drawn.tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 0], [1, 0, 0]]]
