"""The explorers' figures, each drawn by one function of plain values: the static view and the widget's are the same.

A redraw has to be quick, and a click has to find its patch (`patch_at`). Therefore panels stand at fixed places, in px
from the upper left corner of a `canvas.Drawing`, and maps of one kind share one image, a montage.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cascadeclip.colours import HARMONIC_COLOUR, OTHER_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR, class_colours
from cascadeclip.data.labels import ignored_label
from cascadeclip.explorers.canvas import WIDTH, Box, Drawing, Plot, heat, inside
from cascadeclip.explorers.compute import WordMasks

FRAME, NOW, THEN = "#d1495b", "#3b6fa0", "0.75"

# --- layer scrubber --------------------------------------------------------------------------------------------------

KINDS = 4  # kinds of maps, `compute.layer_maps`


def _layer_boxes(blocks: int, grid: tuple[int, int]) -> tuple[list[Box], Box, float]:
    """Where the picture and the large maps stand, the montage of all blocks, and the figure's height."""
    large = [inside((8 + 192 * place, 46, 176, 176), grid[1], grid[0]) for place in range(1 + KINDS)]
    sheet = (blocks * (grid[1] + 1) - 1, KINDS * (grid[0] + 1) - 1)
    small = inside((130, 46 + large[0][3] + 56, WIDTH - 140, 420), *sheet)
    return large, small, small[1] + small[3] + 12


def draw_layers(
    image: np.ndarray, maps: Mapping[str, np.ndarray], block: int, row: int, column: int, word: str
) -> Drawing:
    """One block large, all blocks small: what a patch and a word look like at each; the patch is marked everywhere.

    Args:
        image: (H, W, 3) uint8.
        maps: `compute.layer_maps`; each map of values has its own range of brightness.
        block: 1..L, drawn large and framed below.
        row, column: the patch.
    """
    blocks, high, wide = next(iter(maps.values())).shape[:3]
    large, small, tall = _layer_boxes(blocks, (high, wide))
    drawing, titles = Drawing(tall), {"similarity to the word": f"similarity to “{word}”"}
    drawing.panel(large[0], image, "picture and its patch")
    for box, (name, values) in zip(large[1:], maps.items(), strict=True):
        one, title = values[block - 1], titles.get(name, name)
        title += f"\n{one.min():.2f} to {one.max():.2f}" if one.ndim == 2 else "\nas far as three numbers go"
        drawing.panel(box, one if one.ndim == 3 else heat(one), title)
    note = f"Above: block {block}. Below: all blocks. Each map is brightest where it is highest itself; attention is "
    drawing.text(8, small[1] - 40, note + "multiplied by the number of patches.", 11.5)
    rows = [[one if one.ndim == 3 else heat(one) for one in values] for values in maps.values()]
    names = [name.replace(" of", "\nof").replace(" to", "\nto") for name in maps]
    drawing.montage(small, rows, names, [str(b) for b in range(1, blocks + 1)])
    drawing.text(small[0] - 6, small[1] - 5, "block", 11.5, "rd")
    for place, box in enumerate(_patch_boxes(blocks, (high, wide), row, column)):
        drawing.frame(box, thickness=2 if place < len(large) else 1)
    cell = small[2] / (blocks * (wide + 1) - 1)
    start = small[0] + cell * ((block - 1) * (wide + 1) - 0.5)
    drawing.frame((start, small[1] - cell / 2, cell * (wide + 1), small[3] + cell), FRAME)
    return drawing


def _patch_boxes(blocks: int, grid: tuple[int, int], row: int, column: int) -> list[Box]:
    """Where a patch stands: in the picture, in the large maps, then block by block in the small ones."""
    large, small, _ = _layer_boxes(blocks, grid)
    cell = large[0][2] / grid[1]
    boxes = [(left + cell * column, top + cell * row, cell, cell) for left, top, *_ in large]
    cell = small[2] / (blocks * (grid[1] + 1) - 1)
    return boxes + [
        (small[0] + cell * (block * (grid[1] + 1) + column), small[1] + cell * (kind * (grid[0] + 1) + row), cell, cell)
        for block in range(blocks)
        for kind in range(KINDS)
    ]


def patch_at(x: float, y: float, blocks: int, grid: tuple[int, int]) -> tuple[int | None, int, int] | None:
    """What stands at a point of `draw_layers`' figure: (block, row, column), block None in the upper maps.

    Args:
        x, y: shares of the figure's width and height from its upper left corner.

    Returns:
        None beside the maps.
    """
    large, small, tall = _layer_boxes(blocks, grid)
    x, y = x * WIDTH, y * tall
    for left, top, width, height in large:
        if left <= x < left + width and top <= y < top + height:
            return None, int((y - top) / height * grid[0]), int((x - left) / width * grid[1])
    cell = small[2] / (blocks * (grid[1] + 1) - 1)
    block, column = divmod(int((x - small[0]) // cell), grid[1] + 1)
    kind, row = divmod(int((y - small[1]) // cell), grid[0] + 1)
    if not (0 <= block < blocks and 0 <= kind < KINDS and row < grid[0] and column < grid[1]):
        return None
    return block + 1, row, column


# --- word explorer ---------------------------------------------------------------------------------------------------


def draw_words(image: np.ndarray, found: WordMasks, stages: Sequence[str]) -> Drawing:
    """Masks word by word: a row per word and one for the choice among them, a column per stage and one for their sum.

    Args:
        image: (H, W, 3) uint8.
        found: `compute.word_masks`; stages that are off are drawn pale, a training-free method on a scale of its own.
        stages: name of each.
    """
    logits, names = found.masks, found.names
    colours, beside = class_colours(names), [found.beside] if found.beside is not None else []
    on, (height, width) = [*found.on, True, *(True for _ in beside)], logits.shape[2:]
    reach = max(float(np.abs(logits[: len(found.on) + 1]).max()), 1e-6)
    own = max(float(np.abs(logits[-1]).max()), 1e-6) if beside else reach  # a method's similarities are no logits
    ends = [reach] * (len(found.on) + 1) + [own] * len(beside)
    pale = [1.0 if state else 0.25 for state in on]
    rows = [[1 - a + a * heat(c[w], "RdBu_r", -end, end) for a, c, end in zip(pale, logits, ends, strict=True)]
            for w in range(len(names))]  # fmt: skip
    rows.append([1 - a + a * colours[s] for a, s in zip(pale, found.best, strict=True)])
    above = [name if state else f"{name}\n(off)" for name, state in zip([*stages, "sum", *beside], on, strict=True)]
    left = [*(name + "\n(unseen)" * (name in found.unseen) for name in names), "best word"]
    gap, place = max(1, width // 16), (374, 60, WIDTH - 384, 700)
    wide = inside(place, len(above) * (width + gap) - gap, len(rows) * (height + gap) - gap)
    picture = inside((8, 60, 240, 240), image.shape[1], image.shape[0])
    below = picture[1] + picture[3] + 14
    drawing = Drawing(max(wide[1] + wide[3] + 26, below + 17 * (len(names) + 2) + 10))
    drawing.montage(place, rows, left, above, gap)
    step = wide[2] / (len(above) * (width + gap) - gap) * (width + gap)
    for c, right in enumerate(found.right() if found.known.any() else ()):
        drawing.text(wide[0] + step * (c + 0.5) - 4, wide[1] + wide[3] + 4, f"right: {100 * right:.0f} %", 11, "ma")
    drawing.panel(picture, image, "picture")
    masks = [("#b2182b", f"mask: the word is here (logit up to {reach:.1f})"),
             ("#2166ac", f"mask: it is not (down to {-reach:.1f})")]  # fmt: skip
    drawing.key(8, below, [*((colours[w], f"best word: {name}") for w, name in enumerate(names)), *masks], room=232)
    return drawing


# --- cascade explorer ------------------------------------------------------------------------------------------------

LINES = {
    "mIoU_seen": ("seen", SEEN_COLOUR),
    "mIoU_unseen": ("unseen", UNSEEN_COLOUR),
    "hIoU": ("harmonic mean", HARMONIC_COLOUR),
}
NAMED = 9  # classes that the key has room for


def draw_cascade(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    names: Sequence[str],
    unseen: Sequence[str],
    weights: Mapping[str, Mapping[int, Sequence[float]]],
    blocks: Sequence[Sequence[int]],
    offset: float,
    curves: Mapping[str, Mapping[str, Sequence[float]]] | None,
    offsets: Sequence[float],
) -> Drawing:
    """What NGA's weights and the seen offset do: segmentations above, the weights and the scores below.

    Args:
        image: (H, W, 3) uint8.
        maps: title -> (h, w) indices into `names`, or the label of ignored pixels; up to three. The key names the
            classes of the first map first; in each, unseen ones are outlined.
        weights: `as trained` and `now`: stage (from 0) -> one per block.
        blocks: numbers of the blocks of each stage.
        offset: the seen offset now.
        curves: `as trained` and `now`: `mIoU_seen`, `mIoU_unseen` and `hIoU` as fractions at each of `offsets`; None
            without labelled pictures.
    """
    ignored = ignored_label(len(names))
    named = _classes_to_name(list(maps.values()), ignored)
    palette = np.tile(np.array(OTHER_COLOUR), (ignored + 1, 1))
    palette[named], palette[ignored] = class_colours([names[position] for position in named]), 1.0
    hidden, (*_, tall) = [list(names).index(name) for name in unseen], inside((0, 0, 182, 182), *image.shape[1::-1])
    below = max(30 + tall, 32 + 17 * (len(named) + 1)) + 50
    drawing = Drawing(below + 208)
    for place, (title, panel) in enumerate({"picture": image, **maps}.items()):
        box = inside((8 + 196 * place, 30, 182, 182), *image.shape[1::-1])
        drawing.panel(box, panel if panel.ndim == 3 else _outlined(palette[panel], np.isin(panel, hidden)), title)
    entries = [(palette[c], names[c] + (" (unseen)" if c in hidden else "")) for c in named]
    shown = np.concatenate([np.unique(panel) for panel in maps.values()])
    if not np.isin(shown, [*named, ignored]).all():
        entries.append((OTHER_COLOUR, "other words"))
    drawing.key(800, 32, entries, room=WIDTH - 830)
    _draw_weights(drawing, (50, below, 330, 150), weights, blocks)
    if curves is None:
        drawing.text(450, below + 70, "No scores: these pictures have no labels.")
    else:
        _draw_curves(drawing, (450, below, 300, 150), curves, offset, offsets)
    return drawing


def _classes_to_name(maps: Sequence[np.ndarray], ignored: int) -> list[int]:
    """Up to `NAMED` classes: those of the first map by their pixels, then those of the next ones."""
    named: list[int] = []
    for one in maps:
        found, pixels = np.unique(one[one != ignored], return_counts=True)
        named += [c for c in found[np.argsort(-pixels, kind="stable")].tolist() if c not in named]
    return named[:NAMED]


def _outlined(colours: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) with the inner rim of a mask (h, w) in black."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where((mask & ~inner)[..., None], 0.0, colours)


def _draw_weights(
    drawing: Drawing, box: Box, weights: Mapping[str, Mapping[int, Sequence[float]]], blocks: Sequence[Sequence[int]]
) -> None:
    values = [[value for stage in of.values() for value in stage] for of in weights.values()]
    low, high = min(0.0, *map(min, values)), max(2.0, *map(max, values))
    plot = Plot(drawing, box, (-0.5, len(values[0]) - 0.5), (low, high))
    for shift, own, colour in zip((-0.4, 0.02), values, (THEN, NOW), strict=True):
        for place, value in enumerate(own):
            plot.bar((place + shift, place + shift + 0.38), (min(0.0, value), max(0.0, value)), colour)
    numbers = [block for stage in next(iter(weights.values())) for block in blocks[stage]]
    step = max(1, round((high - low) / 4))
    plot.axes("NGA's weight of each block", {place: str(number) for place, number in enumerate(numbers)},
              {value: str(value) for value in range(int(low), int(high) + 1, step)}, "block")  # fmt: skip
    drawing.key(box[0] + 12, box[1], list(zip((THEN, NOW), weights, strict=True)))


def _draw_curves(
    drawing: Drawing, box: Box, curves: Mapping[str, Mapping[str, Sequence[float]]], offset: float,
    offsets: Sequence[float],
) -> None:  # fmt: skip
    then, now = curves["as trained"], curves["now"]
    plot = Plot(drawing, box, (min(offsets), max(offsets)), (0, 100))
    place, right = plot.at(offset, 0)[0], box[0] + box[2] + 12
    drawing.rectangle((place, box[1], 1, box[3]), "0.6")
    for row, (key, (label, colour)) in enumerate(LINES.items()):
        value = 100 * np.interp(offset, offsets, now[key])
        if np.isnan(value):
            drawing.key(right, box[1] + 40 + 17 * row, [(colour, f"{label}: none in the pictures")])
            continue
        plot.line(offsets, 100 * np.asarray(then[key]), colour, dashed=True)
        plot.line(offsets, 100 * np.asarray(now[key]), colour)
        drawing.dot(*plot.at(offset, value), colour)
        drawing.key(right, box[1] + 40 + 17 * row, [(colour, f"{label}: {value:.1f}")])
    drawing.text(right, box[1] + 104, "dotted: weights as trained", 11)
    plot.axes("mIoU in per cent, choice among all words", {x: f"{x:.1f}" for x in offsets[::2]},
              {y: str(y) for y in range(0, 101, 25)}, "offset taken off the seen classes")  # fmt: skip


# --- surgery bench ---------------------------------------------------------------------------------------------------


def draw_surgery(
    image: np.ndarray,
    similarity: Mapping[str, np.ndarray],
    names: Sequence[str],
    scores: Mapping[str, Mapping[str, float]] | None,
    repaired: np.ndarray | None = None,
    background: Mapping[str, np.ndarray] | None = None,
) -> Drawing:
    """Patch-text maps before and after surgery, the word each patch is nearest to, and the scores.

    Args:
        image: (H, W, 3) uint8.
        similarity: row's name -> (C, h, w) cosine similarities; every map has its own range of brightness.
        names: the C words.
        scores: row's name -> label -> mIoU as fraction; None without labelled pictures.
        repaired: bool by patch, those that were filled, framed in the picture.
        background: row's name -> (h, w) bool, where the nearest word is too far to count: drawn grey.
    """
    colours, (height, width), rows = class_colours(names), next(iter(similarity.values())).shape[1:], []
    for name, maps in similarity.items():
        nearest = colours[maps.argmax(0)]
        nearest[(background or {}).get(name, np.zeros((height, width), dtype=bool))] = OTHER_COLOUR
        rows.append([*(heat(one) for one in maps), nearest])
    place = (250, 40, WIDTH - 258, 300)
    wide = inside(place, (len(names) + 1) * (width + 1) - 1, len(rows) * (height + 1) - 1)
    picture = inside((8, 40, 160, 160), width, height)
    below = picture[1] + picture[3] + 14
    bottom = max(wide[1] + wide[3], below + 17 * (len(names) + bool(background))) + 36
    drawing = Drawing(bottom + (17 * sum(map(len, scores.values())) + 56 if scores else 40))
    drawing.panel(picture, image, "picture")
    cell = picture[2] / (width if repaired is None else repaired.shape[1])
    for row, column in () if repaired is None else np.argwhere(repaired):
        drawing.frame((picture[0] + cell * column, picture[1] + cell * row, cell, cell))
    drawing.montage(place, rows, list(similarity), [*names, "nearest word"])
    key = [(colours[c], name) for c, name in enumerate(names)] + (
        [(OTHER_COLOUR, "none of them")] if background else []
    )
    drawing.key(8, below, key, room=190)
    if scores is None:
        drawing.text(250, bottom + 10, "No scores: these pictures have no labels.")
    else:
        _draw_bars(drawing, (290, bottom, 560), scores)
    return drawing


def _draw_bars(drawing: Drawing, place: tuple[float, float, float], scores: Mapping[str, Mapping[str, float]]) -> None:
    """A bar a score, at `place`: left, top, width.

    The first of each group is in colour, with its change against the first group; the others are baselines.
    """
    bars = [(group, label, value) for group, own in scores.items() for label, value in own.items()]
    (first, right, before), plot = bars[0], Plot(drawing, (*place, 17 * len(bars)), (0, 100), (len(bars), 0))
    for row, (group, label, value) in enumerate(bars):
        plot.bar((0, 100 * value), (row + 0.88, row + 0.12), NOW if label == right else THEN)
        change = f" ({100 * (value - before):+.1f})" if group != first and label == right else ""
        drawing.text(*plot.at(100 * value + 0.8, row + 0.5), f"{100 * value:.1f}{change}", 11)
    names = {row + 0.5: f"{group}: {label}" for row, (group, label, _) in enumerate(bars)}
    label = "mIoU over patches, choice among each picture's own words, per cent"
    plot.axes("", {x: str(x) for x in range(0, 101, 20)}, names, label)
