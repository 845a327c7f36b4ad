"""Slides: a deck in Markdown becomes one HTML page that needs no network, its figures taken from the stored notebooks.

A deck is a title (`# `) and slides. A slide is its own title (`## `), a figure, a few words, and speaker notes, quoted:

    ## What the figure shows

    [Figure 2: what is in it](<../../notebooks/01_layer_features.ipynb#2. How alike are blocks? CKA>)

    Words on the slide.

    > What to say.

The number counts the figures under that heading of the notebook; without one it is the first.
"""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup
from sphinx.application import Sphinx

DECKS = Path(__file__).resolve().parents[1] / "slides"
LINK = re.compile(r"^\[Figure(?: (\d+))?: ([^\]]+)\]\(<([^#>]+)#([^>]+)>\)$", re.MULTILINE)


class BadSlide(ValueError):
    """A deck that cannot be shown: which slide, what is wrong with it, and what there is instead."""


@dataclass(frozen=True)
class Slide:
    """One slide; `figure` is a PNG, the rest is Markdown."""

    title: str
    figure: bytes
    alt: str
    words: str
    notes: str


@dataclass(frozen=True)
class Deck:
    """Slides under a title."""

    title: str
    slides: tuple[Slide, ...]


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(notebook: Path) -> dict[str, list[bytes]]:
    """Every heading of a stored notebook -> the PNGs that the cells under it have drawn, up to the next heading."""
    found: dict[str, list[bytes]] = {}
    heading = ""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            for heading in re.findall(r"^#+ (.+)$", "".join(cell["source"]), re.MULTILINE):
                found.setdefault(heading, [])
        for output in cell.get("outputs", ()):
            if drawn := output.get("data", {}).get("image/png"):
                found.setdefault(heading, []).append(base64.b64decode("".join(drawn)))
    return found


def figure(notebook: Path, heading: str, number: int = 1) -> bytes:
    """The PNG of the `number`-th figure under a heading, counted from 1.

    Raises:
        BadSlide: there is no such notebook, heading or figure.
    """
    if not notebook.is_file():
        raise BadSlide(f"there is no notebook {notebook.name}")
    there = figures(notebook)
    if heading not in there:
        drawn = "; ".join(one for one, pictures in there.items() if pictures)
        raise BadSlide(f"{notebook.name} has no heading {heading!r}; it has figures under: {drawn}")
    if not 1 <= number <= len(there[heading]):
        raise BadSlide(f"{notebook.name} has {len(there[heading])} figures under {heading!r}, and no figure {number}")
    return there[heading][number - 1]


# --- decks ------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Deck:
    """The deck of a Markdown file.

    Raises:
        BadSlide: a slide lacks a part, or its figure is gone; the message names the file and the slide.
    """
    first, *parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    title = re.match(r"# (.+)\n", first)
    if title is None or not parts:
        raise BadSlide(f"{path.name}: expected a title (# ...) and slides (## ...)")
    return Deck(title[1], tuple(_slide(path, part) for part in parts))


def _slide(path: Path, part: str) -> Slide:
    title, _, body = part.partition("\n")
    links = list(LINK.finditer(body))
    if len(links) != 1:
        raise BadSlide(f"{path.name}, slide {title!r}: expected one figure, found {len(links)}")
    number, alt, notebook, heading = links[0].groups()
    try:
        drawn = figure(path.parent / notebook, heading, int(number or 1))
    except BadSlide as gone:
        raise BadSlide(f"{path.name}, slide {title!r}: {gone}") from None
    lines = LINK.sub("", body).splitlines()
    notes = "\n".join(line[1:].removeprefix(" ") for line in lines if line.startswith(">"))
    words = "\n".join(line for line in lines if not line.startswith(">")).strip()
    if not notes or not words:
        raise BadSlide(f"{path.name}, slide {title!r}: expected words and, quoted (> ...), speaker notes")
    return Slide(title, drawn, alt, words, notes)


# --- pages ------------------------------------------------------------------------------------------------------------


def page(deck: Deck) -> str:
    """The deck as one HTML page with everything in it: figures, style, keys."""
    markdown = MarkdownIt("commonmark", {"html": False})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "line": lambda text: Markup(markdown.renderInline(text)),
        "text": lambda text: Markup(markdown.render(text)),
        "data": lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}",
    }
    return environment.get_template("slides.html").render(deck=deck)


def write(folder: Path) -> None:
    """Every deck's page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(DECKS.glob("*.md")):
        (folder / path.with_suffix(".html").name).write_text(page(read(path)), encoding="utf-8")


def _build(app: Sphinx) -> None:
    if app.builder.format == "html":
        write(Path(app.outdir) / "slides")


def setup(app: Sphinx) -> dict[str, bool]:
    """Pages beside the documentation's own, at every build."""
    app.connect("builder-inited", _build)
    return {"parallel_read_safe": True}
