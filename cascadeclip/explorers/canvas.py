"""Drawings: pieces at fixed places, in pixels from the upper left corner, put together with Pillow.

The explorers redraw at every touch of a slider; a matplotlib figure of the same content takes about five times as long.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.typing import ColorType
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

WIDTH = 960  # px of every drawing
MARK = "#00c8ff"
SMOOTH = 3  # lines are drawn this many times as large, and brought down
Box = tuple[float, float, float, float]  # left, top, width, height in px
Colour = str | float | Sequence[float]  # as matplotlib understands them: a name, a grey, red-green-blue


class Drawing:
    """A white sheet, WIDTH px wide. It shows itself as the last value of a notebook's cell.

    Attributes:
        image: what was drawn so far, a Pillow image, to be saved or looked at.
    """

    def __init__(self, height: float):
        self.image = Image.new("RGB", (WIDTH, round(height)), "white")
        self._pen = ImageDraw.Draw(self.image)

    def png(self, compress_level: int = 6) -> bytes:
        """The sheet as a PNG file; level 1 is quick, 9 is small."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG", compress_level=compress_level)
        return buffer.getvalue()

    _repr_png_ = png

    def text(self, left: float, top: float, text: str, size: float = 12, anchor: str = "lm", room: float = 1e9) -> None:
        """Write text of `size` px.

        Args:
            anchor: which point of the text stands at (left, top), as two letters: left, middle or right of it ("l",
                "m", "r"), then ascender, middle or descender ("a", "m", "d").
            room: px in a row; what does not fit is cut short.
        """
        align = {"l": "left", "m": "center", "r": "right"}[anchor[0]]
        text = "\n".join(_cut(line, size, room) for line in text.split("\n"))
        self._pen.text((left, top), text, "black", font(size), anchor, align=align, spacing=2)

    def panel(self, box: Box, panel: np.ndarray, title: str = "") -> None:
        """An image (h, w, 3), uint8 or floats in 0..1, that fills its box; its title above."""
        left, top, width, height = box
        pixels = panel if panel.dtype == np.uint8 else (255 * panel).round().astype(np.uint8)
        edges = [round(edge) for edge in (left, top, left + width, top + height)]
        size = max(1, edges[2] - edges[0]), max(1, edges[3] - edges[1])
        self.image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST), (edges[0], edges[1]))
        room = max(font(12).getlength(line) for line in title.split("\n")) / 2 + 4  # of a title wider than its panel
        self.text(max(left + width / 2, room), top - 5, title, anchor="md")

    def rectangle(self, box: Box, fill: Colour) -> None:
        left, top, width, height = box
        self._pen.rectangle([round(x) for x in (left, top, left + width - 1, top + height - 1)], _bytes(fill))

    def frame(self, box: Box, colour: Colour = MARK, thickness: int = 2) -> None:
        """A frame whose outer rim lies half its thickness outside the box."""
        left, top, width, height = box
        half = thickness / 2
        corners = [round(x) for x in (left - half, top - half, left + width + half - 1, top + height + half - 1)]
        self._pen.rectangle(corners, outline=_bytes(colour), width=thickness)

    def key(self, left: float, top: float, entries: Sequence[tuple[Colour, str]], room: float = 1e9) -> None:
        """A legend: coloured squares and what they mean, from the upper left corner given."""
        for place, (colour, label) in enumerate(entries):
            self.rectangle((left, top + 17 * place, 18, 12), colour)
            self.text(left + 26, top + 17 * place + 6, label, 11, room=room)

    def montage(
        self, box: Box, rows: Sequence[Sequence[np.ndarray]], left: Sequence[str], above: Sequence[str], gap: int = 1
    ) -> Box:
        """A `montage` as large as it goes into `box`, its rows and columns named; returns where it stands."""
        sheet, (height, width) = montage(rows, gap), rows[0][0].shape[:2]
        box = inside(box, sheet.shape[1], sheet.shape[0])
        cell = box[2] / sheet.shape[1]
        self.panel(box, sheet)
        for r, name in enumerate(left):
            self.text(box[0] - 6, box[1] + cell * (r * (height + gap) + height / 2), name, 11.5, "rm", room=114)
        for c, name in enumerate(above):
            middle = box[0] + cell * (c * (width + gap) + width / 2)
            self.text(middle, box[1] - 5, name, 11.5, "md", room=cell * (width + gap) + 4)
        return box

    def lines(self, lines: Sequence[np.ndarray], colour: Colour, thickness: float = 2) -> None:
        """Lines from point to point, each (points, 2), smooth at their rims."""
        with self._smooth(np.concatenate(lines), colour, thickness) as (pen, place):
            for line in lines:
                pen.line([tuple(point) for point in place(line)], 255, round(thickness * SMOOTH), joint="curve")

    def dot(self, left: float, top: float, colour: Colour, size: float = 7) -> None:
        """A round dot, `size` px across."""
        with self._smooth(np.array([[left, top]]), colour, size) as (pen, place):
            (x, y), radius = place([[left, top]])[0], size * SMOOTH / 2
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], 255)

    @contextmanager
    def _smooth(
        self, points: np.ndarray, colour: Colour, margin: float
    ) -> Iterator[tuple[ImageDraw.ImageDraw, Callable[[ArrayLike], list[Any]]]]:
        """A pen for a larger sheet, and the function that finds places there; its mean is how much `colour` covers."""
        low, high = np.floor(points.min(0) - margin), np.ceil(points.max(0) + margin)
        sheet = Image.new("L", tuple(((high - low) * SMOOTH).astype(int).tolist()))
        yield ImageDraw.Draw(sheet), lambda places: ((np.asarray(places) - low) * SMOOTH).tolist()
        mask, (left, top) = sheet.reduce(SMOOTH), low.astype(int).tolist()
        self.image.paste(_bytes(colour), (left, top, left + mask.width, top + mask.height), mask)


@dataclass(frozen=True)
class Plot:
    """Scales inside a drawing: what stands at (x, y) in numbers stands at `at(x, y)` in px.

    Attributes:
        box: where the plot stands, without the numbers at its scales.
        x, y: the numbers at the left and right, and at the bottom and top.
    """

    drawing: Drawing
    box: Box
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        left, top, width, height = self.box
        across, up = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + width * across, top + height * (1 - up)

    def axes(self, title: str, across: Mapping[float, str], up: Mapping[float, str], label: str = "") -> None:
        """The left and the lower scale.

        Args:
            across, up: number -> what is written there.
            label: of the lower scale.
        """
        left, top, width, height = self.box
        self.drawing.rectangle((left, top, 1, height), "black")
        self.drawing.rectangle((left, top + height, width, 1), "black")
        for x, name in across.items():
            place = self.at(x, self.y[0])
            self.drawing.rectangle((*place, 1, 4), "black")
            self.drawing.text(place[0], place[1] + 6, name, 11, "ma")
        for y, name in up.items():
            place = self.at(self.x[0], y)
            self.drawing.rectangle((place[0] - 4, place[1], 4, 1), "black")
            self.drawing.text(place[0] - 7, place[1], name, 11, "rm")
        self.drawing.text(left + width / 2, top - 8, title, anchor="md")
        self.drawing.text(left + width / 2, top + height + 24, label, anchor="ma")

    def bar(self, x: tuple[float, float], y: tuple[float, float], colour: Colour) -> None:
        """A bar from one corner to the other, in numbers."""
        (left, bottom), (right, top) = self.at(x[0], y[0]), self.at(x[1], y[1])
        if right - left >= 1 and bottom - top >= 1:
            self.drawing.rectangle((left, top, right - left, bottom - top), colour)

    def line(self, x: Iterable[float], y: Iterable[float], colour: Colour, dashed: bool = False) -> None:
        points = np.array([self.at(*place) for place in zip(x, y, strict=True)])
        if dashed:
            along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
            pieces = [(start, min(start + 2, along[-1])) for start in np.arange(0, along[-1], 5)]
            dashes = [np.stack([np.interp(ends, along, part) for part in points.T], axis=1) for ends in pieces]
        self.drawing.lines(dashes if dashed else [points], colour, 1.4 if dashed else 2)


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """matplotlib's own font, so that drawings and figures look alike."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _cut(line: str, size: float, room: float) -> str:
    """The line, or as much of its beginning as there is room for."""
    if font(size).getlength(line) <= room:
        return line
    while line and font(size).getlength(line + "…") > room:
        line = line[:-1]
    return line + "…"


def _bytes(colour: Colour) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in to_rgb(cast(ColorType, colour)))


@cache
def _table(cmap: str) -> np.ndarray:
    """(256, 3) colours of a colour map."""
    return matplotlib.colormaps[cmap](np.arange(256))[:, :3]


def heat(values: np.ndarray, cmap: str = "magma", low: float | None = None, high: float | None = None) -> np.ndarray:
    """(h, w) -> colours (h, w, 3), from the lowest value to the highest unless told otherwise."""
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return _table(cmap)[(255 * ((values - low) / max(high - low, 1e-12)).clip(0, 1)).round().astype(int)]


def montage(rows: Sequence[Sequence[np.ndarray]], gap: int = 1) -> np.ndarray:
    """Images of one size side by side on white, `gap` cells apart: (R rows of (h, w, 3)) -> one image."""
    height, width = rows[0][0].shape[:2]
    sheet = np.ones((len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3))
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def inside(box: Box, columns: float, rows: float) -> Box:
    """The largest box of that shape inside `box`, at its upper left."""
    scale = min(box[2] / columns, box[3] / rows)
    return box[0], box[1], columns * scale, rows * scale
