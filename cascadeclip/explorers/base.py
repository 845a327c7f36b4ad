"""What all explorers have: a choice of pictures, uploads, errors in view, one picture redrawn in place.

The values of the controls are all the state there is: `figure()` draws from them alone. Where nobody shows widgets (a
notebook that a program runs, or that is only read) an explorer shows itself as that figure.
"""

import base64
import html
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import ipywidgets
from IPython import get_ipython

from cascadeclip.analysis.pictures import Picture, picture_from_file
from cascadeclip.errors import InputError
from cascadeclip.explorers.canvas import WIDTH, Drawing

KEPT = 8  # own pictures, the latest ones
_FAILED = "border-left: 4px solid #b00020; padding: 4px 8px; white-space: pre-wrap; font-family: monospace"


def in_view(method: Callable[..., None]) -> Callable[..., None]:
    """A callback whose errors appear above the picture; a widget's own way would be to lose them in a log."""

    @wraps(method)
    def guarded(self: "Explorer", *args: Any) -> None:
        try:
            method(self, *args)
        except Exception as error:
            text = str(error) if isinstance(error, InputError) else traceback.format_exc()
            self.message.value = f'<div role="alert" style="{_FAILED}">{html.escape(text)}</div>'

    return guarded


class Explorer(ipywidgets.VBox):
    """Controls, a line for what went wrong, and one picture.

    Args:
        pictures: to choose from.
        controls: rows of widgets, of which those with a `value` redraw the picture when it changes.
        setters: those of the controls that only set others, and redraw nothing by themselves.
        clickable: tell `clicked` where the picture is clicked, where a browser can.
    """

    words: ipywidgets.Text = None  # of explorers that have words to type

    def __init__(
        self,
        pictures: Sequence[Picture],
        controls: Sequence[Sequence[ipywidgets.Widget]],
        *,
        setters: Sequence[ipywidgets.Widget] = (),
        clickable: bool = False,
    ):
        self._held, self._given = False, len(pictures)
        self.chooser = ipywidgets.Dropdown(options=[(p.title, p) for p in pictures], description="picture")
        self.upload = ipywidgets.FileUpload(accept="image/*", description="your own picture", layout=dict(width="auto"))
        self.upload.tooltip = "PNG, JPEG, ..."  # ipywidgets 7 has none, and takes no unknown names when it is made
        self.message, self.picture = ipywidgets.HTML(), self._make_picture(clickable)
        rows = [[self.chooser, self.upload], *controls]
        for control in (control for row in rows for control in row):
            control.style.description_width = "initial"  # names are shown whole
            if isinstance(control, ipywidgets.Checkbox):
                control.layout.width = "auto"
            if control not in (self.chooser, self.upload, *setters) and hasattr(control, "value"):
                control.observe(self.redraw, "value")
        self.chooser.observe(self._picture_changed, "value")
        self.upload.observe(self._uploaded, "value")
        wrapped = ipywidgets.Layout(flex_flow="row wrap", grid_gap="2px 16px")
        super().__init__([*(ipywidgets.Box(row, layout=wrapped) for row in rows), self.message, self.picture])
        with self.at_once():
            self.picture_changed()

    def figure(self) -> Drawing:
        """What the controls' values show now."""
        raise NotImplementedError

    def picture_changed(self) -> None:
        """Bring the controls in line with a newly chosen picture; one redraw follows."""

    def clicked(self, x: float, y: float) -> None:
        """The picture was clicked at these shares of its width and height."""

    @in_view
    def redraw(self, _change: object = None) -> None:
        """Draw the picture anew; an error stands above the one before."""
        self._draw()

    def _draw(self) -> None:
        if not self._held:
            png = self.figure().png(compress_level=1)  # quick rather than small
            self.message.value, self.picture.value = "", png

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let several controls change, and redraw once; errors are the caller's."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        self._draw()

    @in_view
    def _picture_changed(self, _change: object = None) -> None:
        if not self._held:
            with self.at_once():
                self.picture_changed()

    @in_view
    def _uploaded(self, change: dict[str, Any]) -> None:
        if not change["new"]:
            return
        self.upload.set_trait("value", type(change["new"])())  # the same file may be given again
        picture = picture_from_file(*sent_file(change["new"]))
        with self.at_once():
            own = [(title, known) for title, known in self.chooser.options[self._given :] if title != picture.title]
            self.chooser.options = (*self.chooser.options[: self._given], *own[1 - KEPT :], (picture.title, picture))
            self.chooser.value = picture
            self.picture_changed()

    def _make_picture(self, clickable: bool) -> ipywidgets.DOMWidget:
        if clickable:
            try:
                from cascadeclip.explorers.clickable import ClickablePicture
            except ModuleNotFoundError:
                pass  # without anywidget the sliders remain
            else:
                picture = ClickablePicture(alt=self._title())
                picture.on_click(in_view(lambda _, x, y: self.clicked(x, y)).__get__(self))
                return picture
        return ipywidgets.Image(format="png", layout=dict(width=f"{WIDTH}px", max_width="100%"))

    def _title(self) -> str:
        return (self.__doc__ or "").partition("\n")[0]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget where somebody shows it, and the picture for those who read the notebook without a kernel."""
        bundle: dict[str, Any] = {
            "text/plain": self._title(),
            "image/png": base64.b64encode(self.picture.value).decode(),
        }
        if _front_end_is_there():
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle

    _ipython_display_ = None  # ipywidgets 7 has one, which IPython would ask first; it shows no picture to readers


def sent_file(value: Sequence[Any] | Mapping[str, Any]) -> tuple[str, bytes]:
    """Name and content of the first file in the value of a `FileUpload`.

    Args:
        value: of ipywidgets 8, a sequence of files that know their names; of ipywidgets 7 (Colab), files by name.
    """
    name, file = next(iter(value.items())) if isinstance(value, Mapping) else (value[0]["name"], value[0])
    return name, bytes(file["content"])


def _front_end_is_there() -> bool:
    """Whether a front end with a person runs the cell: it takes questions (stdin), unlike what only executes it."""
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel is not None else None
    return bool(request and request.get("content", {}).get("allow_stdin"))


def words_field(description: str) -> ipywidgets.Text:
    field = ipywidgets.Text(description=description, continuous_update=False)
    field.tooltip = field.placeholder = "type, then press Enter"
    return field
