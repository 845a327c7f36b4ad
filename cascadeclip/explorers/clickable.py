"""The clickable picture, a widget of its own; its JavaScript lies in `assets/clickable.js`."""

from collections.abc import Callable
from importlib.resources import files

import anywidget
import traitlets


class ClickablePicture(anywidget.AnyWidget):
    """A PNG that says where it was clicked.

    Attributes:
        value: the PNG's bytes, as in `ipywidgets.Image`.
        alt: what it shows, for those who cannot see it.
    """

    _esm = (files("cascadeclip") / "assets" / "clickable.js").read_text(encoding="utf-8")
    value = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)

    def on_click(self, callback: Callable[[float, float], object]) -> None:
        """Call `callback(x, y)` at every click, with shares of the width and height from the upper left corner."""
        self.on_msg(lambda _, content, __: callback(float(content["x"]), float(content["y"])))
