"""The figure that every plotting function of the package returns, and how it writes people's own words."""

import io
import logging
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import matplotlib.figure
from matplotlib import font_manager, ticker
from matplotlib.backend_bases import RendererBase
from matplotlib.category import StrCategoryFormatter
from matplotlib.ft2font import FT2Font
from matplotlib.legend import Legend
from matplotlib.text import Text

from cascadeclip.data.words import shortened
from cascadeclip.files import replace_file

logger = logging.getLogger(__name__)

LONGEST = 120  # letters of a line of a title
OF_WORDS = (ticker.FuncFormatter, ticker.FixedFormatter, StrCategoryFormatter)  # have people's words at ticks
PLACEHOLDER_FONTS = ("Last Resort",)  # have every character, and draw none of them


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that shows itself as the last value of a notebook's cell, whether or not pyplot is in use.

    Its texts are people's words: `$`, `_` and `^` are characters of them, no mathematics, and what the font lacks is
    taken from another one on the machine, or written as its number. Long ones are `shortened`, so that pictures have
    room beside them.
    """

    def draw(self, renderer: RendererBase) -> None:
        for axes in self.findobj(matplotlib.axes.Axes):
            for axis in (axes.xaxis, axes.yaxis):
                if isinstance(inner := axis.get_major_formatter(), OF_WORDS):
                    axis.set_major_formatter(_Readable(inner))
                if isinstance(inner, ticker.LogFormatterMathtext):  # writes its powers of ten as mathematics
                    axis.set_major_formatter(ticker.LogFormatter())
                if isinstance(axis.get_minor_formatter(), ticker.LogFormatterMathtext):
                    axis.set_minor_formatter(ticker.LogFormatter(labelOnlyBase=True))
        for text in (text for legend in self.findobj(Legend) for text in legend.get_texts()):
            text.set_text(in_short(text.get_text()))
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_text(readable(in_short(text.get_text(), LONGEST)))
            if others := fonts_with(text.get_text()):
                text.set_fontfamily([*dict.fromkeys([*text.get_fontfamily(), *others])])
        super().draw(renderer)

    def head(self, title: str) -> None:
        """Writes what the figure shows above all of its panels; an empty title takes no room."""
        if title:
            self.suptitle(title, fontsize=10)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


class _Readable(ticker.Formatter):
    """Words at the ticks of an axis as `readable` writes them."""

    def __init__(self, inner: ticker.Formatter):
        self.inner = inner

    def __call__(self, value: float, position: int | None = None) -> str:
        return readable(in_short(self.inner(value, position)))

    def format_ticks(self, values: list[float]) -> list[str]:
        return [readable(in_short(text)) for text in self.inner.format_ticks(values)]


def in_short(text: str, most: int = 48) -> str:
    """The text, each of its lines `shortened`."""
    return "\n".join(shortened(line, most) for line in text.split("\n"))


@lru_cache(maxsize=4096)
def readable(text: str) -> str:
    """The text, each character that no font on this machine has as its number in Unicode: `[732B]`."""
    lacking = [letter for letter in dict.fromkeys(text) if _font_of(letter) is None]
    if lacking:
        logger.warning(
            "no font here has %s; written as numbers. Install one that does, such as Noto Sans CJK",
            ", ".join(f"{letter if letter.isprintable() else ''} (U+{ord(letter):04X})".strip() for letter in lacking),
        )
    return "".join(f"[{ord(letter):04X}]" if letter in lacking else letter for letter in text)


def fonts_with(text: str) -> list[str]:
    """Fonts, by name, of the characters that the usual one lacks; empty for most texts."""
    return list(dict.fromkeys(font for letter in text if (font := _font_of(letter))))


@lru_cache(maxsize=4096)
def _font_of(letter: str) -> str | None:
    """A font that has a character: "" for the usual one, a name, or None if none has it."""
    if letter == "\n" or ord(letter) in _characters(_usual_font()):
        return ""
    if unicodedata.category(letter) == "Cc":  # a tab or a bell, which no font draws
        return None
    for font in font_manager.fontManager.ttflist:
        if not font.name.startswith(PLACEHOLDER_FONTS) and ord(letter) in _characters(font.fname):
            return font.name
    return None


def _usual_font() -> str:
    return font_manager.findfont(font_manager.FontProperties())


@lru_cache(maxsize=512)
def _characters(path: str) -> frozenset[int]:
    """Numbers of the characters that a font file has; none for one that cannot be drawn with."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # colour emoji, for one
        return frozenset()


def save_figure(figure: matplotlib.figure.Figure, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a matplotlib figure as PNG, in one step; `metadata` are texts that the file holds, by name."""
    said = None if metadata is None else dict(metadata)
    replace_file(path, lambda scratch: figure.savefig(scratch, format="png", dpi=120, metadata=said))
