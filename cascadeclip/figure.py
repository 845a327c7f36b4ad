"""The figure that every plotting function of the package returns."""

import io

import matplotlib.figure


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that shows itself as the last value of a notebook's cell, whether or not pyplot is in use."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
