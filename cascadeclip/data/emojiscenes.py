"""EmojiScenes: a small segmentation world drawn on the fly from shipped sprites.

A scene is 1-3 "thing" sprites over 1-2 "stuff" textures; every pixel has a label. A scene is a pure function of
(seed, index): integer arithmetic only, so that it has the same bytes on every platform and in every worker.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from cascadeclip.data.textures import TEXTURES, VARIANTS, texture_sheets
from cascadeclip.data.transforms import to_tensor
from cascadeclip.errors import InputError
from cascadeclip.schema import Natural, checked

_ASSETS = files("cascadeclip") / "assets"
_INDEX = json.loads((_ASSETS / "sprites.json").read_text(encoding="utf-8"))

STYLES: tuple[str, ...] = tuple(_INDEX["styles"])
THINGS: tuple[str, ...] = tuple(_INDEX["things"])
STUFF: tuple[str, ...] = tuple(TEXTURES)
CLASSES: tuple[str, ...] = THINGS + STUFF
UNSEEN: tuple[str, ...] = (
    "tiger", "rabbit", "owl", "turtle", "banana", "pizza", "bus", "rocket", "guitar", "umbrella", "camera", "cactus",
    "sand", "snow",
)  # fmt: skip
SEEN: tuple[str, ...] = tuple(name for name in CLASSES if name not in UNSEEN)

# Fixed sets: (seed, number of scenes). Training scenes use any other seed. In "balanced", which comparisons are scored
# on, every thing stands in 39 scenes and every texture in 186.
BALANCED = "balanced"
SPLITS = {"val": (900_001, 300), "test": (900_002, 1000), BALANCED: (900_004, 1240)}

GRID = 96  # layout unit: 1/96 of the scene's side, whatever its size in pixels
# Smallest and largest side of a thing, in layout units, when there are one, two, three or more of them.
THING_SIDE = ((48, 80), (38, 58), (30, 48))
PLACEMENTS = 8  # candidate positions per thing; the one that covers earlier things least is kept

CAPTIONS = ("a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}", "a scene with {}", "{}")


@dataclass(frozen=True)
class Scene:
    """One drawn scene.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        labels: (S, S) uint8, indices into `CLASSES`.
        caption: a sentence that names every thing, and often the stuff.
        things, stuff: the classes' names; every one of them owns at least one pixel.
        style: drawing style of the things.
    """

    image: np.ndarray
    labels: np.ndarray
    caption: str
    things: tuple[str, ...]
    stuff: tuple[str, ...]
    style: str


@lru_cache(maxsize=1)
def _atlas() -> Image.Image:
    with (_ASSETS / "sprites.png").open("rb") as file:
        return Image.open(file).convert("RGBA")


@lru_cache(maxsize=512)  # some 10 MB; all that can be asked for would be half a gigabyte, and a sprite is soon made
def sprite(thing: str, style: str, side: int, mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """One thing's picture: colours (side, side, 3) int16 and opacity (side, side, 1) int16, both 0..255."""
    cell = _INDEX["cell"]
    left, top = THINGS.index(thing) * cell, STYLES.index(style) * cell
    picture = _atlas().crop((left, top, left + cell, top + cell))
    picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(picture, dtype=np.int16)
    return pixels[..., :3], pixels[..., 3:]


def _draw_stuff(rng: np.random.Generator, names: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Background: one texture, or two on either side of a slanted line. Returns image int16 and labels uint8."""
    image = np.empty((size, size, 3), dtype=np.int16)
    labels = np.empty((size, size), dtype=np.uint8)
    middle, slant, upright = rng.integers((30, -20, 0), (67, 21, 2)).tolist()  # the line, in layout units
    for position, name in enumerate(names):
        sheet = texture_sheets(size)[name]
        variant, row, column, mirrored, gain = rng.integers((0, 0, 0, 0, 205), (VARIANTS, 1000, 1000, 2, 296)).tolist()
        room = sheet.shape[1] - size
        row, column = row * room // 999, column * room // 999
        patch = sheet[variant, row : row + size, column : column + size].astype(np.int16)
        patch = np.minimum((patch[:, ::-1] if mirrored else patch) * np.int32(gain) >> 8, 255)
        if position == 0:
            image[:], labels[:] = patch, CLASSES.index(name)
            continue
        along = np.arange(size, dtype=np.int32)
        border = (middle * size + slant * (along - size // 2)) // GRID
        beyond = along[:, None] >= border[None, :]
        beyond = beyond.T if upright else beyond
        image[beyond], labels[beyond] = patch[beyond], CLASSES.index(name)
    return image, labels


def _place(rng: np.random.Generator, side: int, placed: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Top and left of a new square, in layout units, that overlaps the squares (top, left, side) placed least."""
    spots = rng.integers(0, GRID - side + 1, (PLACEMENTS, 2)).tolist()

    def overlap(spot: list[int]) -> int:
        return sum(
            max(0, min(spot[0] + side, top + other) - max(spot[0], top))
            * max(0, min(spot[1] + side, left + other) - max(spot[1], left))
            for top, left, other in placed
        )

    return min(spots, key=overlap)


def _caption(rng: np.random.Generator, things: Sequence[str], stuff: Sequence[str]) -> str:
    template, articles, name_stuff = rng.integers((0, 0, 0), (len(CAPTIONS), 2, 5)).tolist()
    words = [(("an " if name[0] in "aeiou" else "a ") if articles else "") + name for name in things]
    text = ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
    if name_stuff:  # four captions in five
        text += " on " + " and ".join(stuff)
    return CAPTIONS[template].replace("{}", text)


def _dealt(seed: int, index: int, names: Sequence[str], fewest: int, most: int) -> list[str]:
    """Classes of scene `index` such that every `len(names)` scenes hold each class equally often.

    Within such a block of scenes all hold the same number of classes, `fewest` in the first and one more in each that
    follows, up to `most`. Scene r of a block takes the cards at r, r + a third of the deck and so on, which differ.
    """
    block, place = divmod(index, len(names))
    deck = np.random.default_rng([seed, block, len(names)]).permutation(len(names))
    count = fewest + block % (most - fewest + 1)
    return [names[deck[(place + card * len(names) // count) % len(names)]] for card in range(count)]


def draw_scene(
    seed: int,
    index: int,
    *,
    size: int = 96,
    styles: Sequence[str] = STYLES,
    things: Sequence[str] = THINGS,
    stuff: Sequence[str] = STUFF,
    objects: tuple[int, int] = (1, 3),
    balanced: bool = False,
) -> Scene:
    """Draw scene number `index` of the world `seed`; see `EmojiScenes` for the options."""
    rng = np.random.default_rng([seed, index])
    n_things, n_stuff, style = rng.integers((objects[0], 1, 0), (objects[1] + 1, 3, len(styles))).tolist()
    n_stuff, style = min(n_stuff, len(stuff)), styles[style]
    ground = [stuff[i] for i in rng.permutation(len(stuff))[:n_stuff]]
    actors = [things[i] for i in rng.permutation(len(things))[:n_things]]
    if balanced:
        ground = _dealt(seed, index, stuff, 1, min(2, len(stuff)))
        actors = _dealt(seed, index, things, *objects)
        n_things = len(actors)
    image, labels = _draw_stuff(rng, ground, size)
    smallest, largest = THING_SIDE[min(n_things, len(THING_SIDE)) - 1]
    placed: list[tuple[int, int, int]] = []
    for name in actors:
        side, mirrored, gain = rng.integers((smallest, 0, 218), (largest + 1, 2, 283)).tolist()
        top, left = _place(rng, side, placed)
        placed.append((top, left, side))
        top, left, side = top * size // GRID, left * size // GRID, max(side * size // GRID, 1)
        colours, opacity = sprite(name, style, side, bool(mirrored))
        colours = np.minimum(colours * np.int32(gain) >> 8, 255)
        window = np.s_[top : top + side, left : left + side]
        image[window] += ((colours - image[window]) * opacity // 255).astype(np.int16)
        labels[window][opacity[..., 0] > 127] = CLASSES.index(name)
    visible = set(np.unique(labels).tolist())
    seen_things, seen_stuff = (
        tuple(name for name in names if CLASSES.index(name) in visible) for names in (actors, ground)
    )
    caption = _caption(rng, seen_things, seen_stuff)
    return Scene(image.astype(np.uint8), labels, caption, seen_things, seen_stuff, style)


class EmojiScenes(Dataset[Scene]):
    """Scenes number 0..length-1 of one world, drawn when asked for.

    Args:
        length: number of scenes.
        seed: which world; `SPLITS` holds the fixed validation and test seeds.
        size: side of the square scene in px.
        styles: drawing styles to draw things in, a subset of `STYLES`.
        things, stuff: classes to draw, subsets of `THINGS` and `STUFF`.
        objects: fewest and most things per scene.
        balanced: deal the classes instead of drawing them, so that every class comes equally often.

    Raises:
        InputError: an unknown style or class, an empty list, or a range of objects that cannot be drawn.

    Example:
        >>> scene = EmojiScenes.split("test")[0]
        >>> scene.image.shape, scene.labels.shape
        ((96, 96, 3), (96, 96))
    """

    @checked(length=Natural, seed=Natural, size=int, objects=tuple[int, ...])
    def __init__(
        self,
        length: int,
        seed: int = 0,
        *,
        size: int = 96,
        styles: Sequence[str] = STYLES,
        things: Sequence[str] = THINGS,
        stuff: Sequence[str] = STUFF,
        objects: tuple[int, int] = (1, 3),
        balanced: bool = False,
    ):
        for what, given, known in (("style", styles, STYLES), ("thing", things, THINGS), ("stuff", stuff, STUFF)):
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                raise InputError(f"EmojiScenes: unknown or no {what}: {unknown}; choose from {', '.join(known)}")
        if not 1 <= objects[0] <= objects[1] <= len(things):
            raise InputError(f"EmojiScenes: objects={objects} must be 1 <= fewest <= most <= {len(things)} things")
        if size < 16:
            raise InputError(f"EmojiScenes: size={size} px is too small to draw in; use 16 or more")
        self.length, self.seed = length, seed
        self.options: dict[str, Any] = dict(
            size=size, styles=tuple(styles), things=tuple(things), stuff=tuple(stuff), objects=objects,
            balanced=balanced,
        )  # fmt: skip

    @classmethod
    def split(cls, name: str, **options: Any) -> "EmojiScenes":
        """The fixed `"val"`, `"test"` or `"balanced"` set."""
        if name not in SPLITS:
            raise InputError(f"EmojiScenes: no split {name!r}; choose from {', '.join(SPLITS)}")
        seed, length = SPLITS[name]
        return cls(length, seed, **{"balanced": name == BALANCED} | options)

    def without(self, classes: Sequence[int]) -> "EmojiScenes":
        """The same world without these classes, given by their indices: scenes in which none of them is drawn.

        Raises:
            InputError: no thing or no stuff is left to draw.
        """
        options = dict(self.options)
        for group in ("things", "stuff"):
            options[group] = tuple(name for name in options[group] if CLASSES.index(name) not in classes)
        return EmojiScenes(self.length, self.seed, **options)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of a set of {self.length}")
        return draw_scene(self.seed, index, **self.options)


def collate(scenes: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch: images (B, 3, S, S) uint8 and labels (B, S, S) uint8."""
    images = torch.stack([to_tensor(scene.image) for scene in scenes])
    return images, torch.stack([torch.from_numpy(scene.labels) for scene in scenes])
