"""Figures show themselves in a notebook."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from cascadeclip.plots.figure import Figure


def test_a_figure_shows_itself_as_png_of_its_size():
    picture = Image.open(io.BytesIO(Figure(figsize=(3, 2), dpi=50)._repr_png_()))
    assert (picture.format, picture.size) == ("PNG", (150, 100))


@pytest.mark.slow
def test_plotting_needs_no_pyplot_and_leaves_its_state_alone():
    code = (
        "import sys, cascadeclip.plots.segmentation, cascadeclip.plots.layers as a\n"
        "a.plot_lines([0, 1], {'x': [0, 1]}, 'x', 'y')\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_head_stands_above_all_panels_and_an_empty_one_takes_no_room():
    figure = Figure()
    figure.head("")
    assert figure.get_suptitle() == ""
    figure.head("what it shows")
    assert figure.get_suptitle() == "what it shows"
