"""The ten procedural "stuff" textures of EmojiScenes.

Everything is integer arithmetic on PCG64 random bits and Pillow's fixed-point resizing, so that a texture has
the same bytes on every platform.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SHEET = 256  # px: side of a texture sheet at the reference scene size of 96 px
VARIANTS = 3  # sheets per texture


def _noise(rng: np.random.Generator, columns: int, rows: int) -> np.ndarray:
    """Smooth noise (SHEET, SHEET) int32 in 0..255 with `columns` x `rows` random cells."""
    cells = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    return np.asarray(cells.resize((SHEET, SHEET), Image.Resampling.BICUBIC), dtype=np.int32)


def _blend(low: tuple[int, int, int], high: tuple[int, int, int], amount: np.ndarray) -> np.ndarray:
    """Colour ramp (SHEET, SHEET, 3) int32: `low` where amount is 0, `high` where it is 255."""
    start, end = np.array(low, dtype=np.int32), np.array(high, dtype=np.int32)
    return start + (end - start) * np.clip(amount, 0, 255)[..., None] // 255


def _grass(rng: np.random.Generator) -> np.ndarray:
    blades = (_noise(rng, 128, 24) * 2 + _noise(rng, 12, 12)) // 3
    return _blend((24, 84, 20), (130, 196, 62), blades)


def _water(rng: np.random.Generator) -> np.ndarray:
    waves = (_noise(rng, 10, 56) * 2 + _noise(rng, 5, 10)) // 3
    return _blend((8, 62, 130), (96, 186, 226), waves)


def _sand(rng: np.random.Generator) -> np.ndarray:
    grains = (_noise(rng, 160, 160) + _noise(rng, 6, 18)) // 2
    return _blend((184, 146, 92), (242, 218, 160), grains)


def _brick(rng: np.random.Generator) -> np.ndarray:
    wall = _blend((138, 50, 34), (186, 84, 58), _noise(rng, 64, 64))
    rows, columns = np.indices((SHEET, SHEET))
    course, shift = rows // 14, (rows // 14 % 2) * 15
    tone = rng.integers(-22, 23, (SHEET, SHEET), dtype=np.int32)[course, (columns + shift) // 30]
    mortar = (rows % 14 < 2) | ((columns + shift) % 30 < 2)
    return np.where(mortar[..., None], np.array((206, 198, 186)), wall + tone[..., None])


def _wood(rng: np.random.Generator) -> np.ndarray:
    grain = (_noise(rng, 5, 110) * 2 + _noise(rng, 4, 14)) // 3
    planks = _blend((92, 52, 22), (184, 124, 66), grain)
    gap = np.indices((SHEET, SHEET))[0] % 40 < 2
    return np.where(gap[..., None], np.array((54, 30, 14)), planks)


def _sky(rng: np.random.Generator) -> np.ndarray:
    clouds = np.clip((_noise(rng, 6, 9) * 3 + _noise(rng, 20, 26)) // 4 * 3 - 300, 0, 255)
    return _blend((104, 174, 240), (255, 255, 255), clouds)


def _snow(rng: np.random.Generator) -> np.ndarray:
    drifts = (_noise(rng, 7, 10) * 3 + _noise(rng, 128, 128)) // 4
    return _blend((206, 220, 240), (255, 255, 255), drifts)


def _night(rng: np.random.Generator) -> np.ndarray:
    sky = _blend((8, 10, 40), (36, 30, 92), _noise(rng, 5, 5))
    stars = rng.integers(0, 1000, (SHEET, SHEET)) < 7
    stars[:, 1:] |= stars[:, :-1] & (rng.integers(0, 2, (SHEET, SHEET - 1)) == 0)
    return np.where(stars[..., None], np.array((250, 244, 196)), sky)


def _stone(rng: np.random.Generator) -> np.ndarray:
    relief = _noise(rng, 14, 14)
    stone = _blend((96, 96, 100), (172, 170, 168), (relief + _noise(rng, 90, 90)) // 2)
    cracks = abs(_noise(rng, 16, 16) - 128) < 7
    return np.where(cracks[..., None], np.array((58, 58, 62)), stone)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    canvas = Image.new("RGB", (SHEET, SHEET), (46, 34, 16))
    pen = ImageDraw.Draw(canvas)
    colours = [(178, 92, 22), (206, 138, 34), (150, 56, 22), (196, 170, 60), (122, 76, 28)]
    for x, y, width, height, colour in rng.integers((0, 0, 8, 5, 0), (SHEET, SHEET, 20, 14, 5), (1400, 5)).tolist():
        pen.ellipse((x - width // 2, y - height // 2, x + width // 2, y + height // 2), fill=colours[colour])
    return np.asarray(canvas, dtype=np.int32)


TEXTURES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "brick": _brick,
    "wood": _wood,
    "sky": _sky,
    "snow": _snow,
    "night": _night,
    "stone": _stone,
    "leaves": _leaves,
}


@lru_cache(maxsize=4)
def texture_sheets(scene_size: int) -> dict[str, np.ndarray]:
    """All sheets for scenes of `scene_size` px: name -> (VARIANTS, side, side, 3) uint8, side = scene_size * 8 / 3."""
    side = scene_size * SHEET // 96
    sheets = {}
    for position, (name, draw) in enumerate(TEXTURES.items()):
        variants = []
        for variant in range(VARIANTS):
            pixels = draw(np.random.default_rng([position, variant]))
            sheet = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            variants.append(np.asarray(sheet.resize((side, side), Image.Resampling.BILINEAR)))
        sheets[name] = np.stack(variants)
    return sheets
