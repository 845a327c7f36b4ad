"""The figure that every plotting function of the package returns."""

import io
from pathlib import Path

import matplotlib.figure

from cascadeclip.files import replace_file


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that shows itself as the last value of a notebook's cell, whether or not pyplot is in use."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def save_figure(figure, path: Path) -> None:
    """Write a matplotlib figure as PNG, in one step."""
    replace_file(path, lambda scratch: figure.savefig(scratch, format="png", dpi=120))
