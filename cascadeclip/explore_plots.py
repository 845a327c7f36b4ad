"""The explorers' figures, each drawn by one function of plain values: the static view and the widget's are the same.

A redraw has to take less than 0.2 s, and a click has to find its patch (`patch_at`). Therefore panels stand at fixed
places, in pixels from the upper left corner, on one pair of axes, and maps of one kind share one image, a montage.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from cascadeclip.canvas import (
    DPI,
    MARK,
    WIDTH,
    Box,
    canvas,
    draw_frame,
    draw_key,
    draw_montage,
    draw_panel,
    heat,
    inside,
    plot_axes,
)
from cascadeclip.data.transforms import IGNORE
from cascadeclip.explore import WordMasks
from cascadeclip.figure import Figure
from cascadeclip.plots import HARMONIC_COLOUR, OTHER_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR, class_colours

FRAME, NOW = "#d1495b", "#3b6fa0"

# --- layer scrubber --------------------------------------------------------------------------------------------------

KINDS = 4  # kinds of maps, `explore.layer_maps`


def _layer_boxes(blocks: int, grid: tuple[int, int]) -> tuple[list[Box], Box, float]:
    """Where the picture and the large maps stand, the montage of all blocks, and the figure's height."""
    large = [inside((8 + 192 * place, 46, 176, 176), grid[1], grid[0]) for place in range(1 + KINDS)]
    sheet = (blocks * (grid[1] + 1) - 1, KINDS * (grid[0] + 1) - 1)
    small = inside((130, 46 + large[0][3] + 56, WIDTH - 140, 420), *sheet)
    return large, small, small[1] + small[3] + 12


def draw_layers(
    image: np.ndarray, maps: Mapping[str, np.ndarray], block: int, row: int, column: int, word: str
) -> Figure:
    """One block large, all blocks small: what a patch and a word look like at each; the patch is marked everywhere.

    Args:
        image: (H, W, 3) uint8.
        maps: `explore.layer_maps`; each map of values has its own range of brightness.
        block: 1..L, drawn large and framed below.
        row, column: the patch.
    """
    blocks, *grid = next(iter(maps.values())).shape[:3]
    large, small, tall = _layer_boxes(blocks, grid)
    figure, axis = canvas(tall)
    titles = {"likeness to the word": f"likeness to “{word}”"}
    draw_panel(axis, large[0], image, "picture and its patch")
    for box, (name, values) in zip(large[1:], maps.items(), strict=True):
        one, title = values[block - 1], titles.get(name, name)
        title += f"\n{one.min():.2f} to {one.max():.2f}" if one.ndim == 2 else "\nas far as three numbers go"
        draw_panel(axis, box, one if one.ndim == 3 else heat(one), title)
    cell = large[0][2] / grid[1]
    for left, top, *_ in large:
        draw_frame(axis, (left + cell * column, top + cell * row, cell, cell))
    note = f"Above: block {block}. Below: all blocks. Each map is brightest where it is highest itself; attention is "
    axis.text(8, small[1] - 40, note + "multiplied by the number of patches.", fontsize=8.5, va="center")
    rows = [[one if one.ndim == 3 else heat(one) for one in values] for values in maps.values()]
    names = [name.replace(" of", "\nof").replace(" to", "\nto") for name in maps]
    draw_montage(axis, small, rows, names, [f"block {b}" for b in range(1, blocks + 1)])
    cell = small[2] / (blocks * (grid[1] + 1) - 1)
    places = [(small[0] + cell * (b * (grid[1] + 1) + column + 0.5), small[1] + cell * (k * (grid[0] + 1) + row + 0.5))
              for b in range(blocks) for k in range(len(maps))]  # fmt: skip
    axis.plot(*zip(*places, strict=True), "s", mfc="none", mec=MARK, mew=1, ms=max(cell, 3) * 72 / DPI)
    start = small[0] + cell * ((block - 1) * (grid[1] + 1) - 0.5)
    draw_frame(axis, (start, small[1] - cell / 2, cell * (grid[1] + 1), small[3] + cell), FRAME)
    return figure


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


def draw_words(image: np.ndarray, found: WordMasks, stages: Sequence[str]) -> Figure:
    """Masks word by word: a row per word and one for the choice among them, a column per stage and one for their sum.

    Args:
        image: (H, W, 3) uint8.
        found: `explore.word_masks`; stages that are off are drawn pale.
        stages: name of each.
    """
    logits, names = found.masks, found.names
    reach, colours = max(float(np.abs(logits).max()), 1e-6), class_colours(len(names))
    on, (height, width) = [*found.on, True], logits.shape[2:]
    pale = [1.0 if state else 0.25 for state in on]
    rows = [[1 - a + a * heat(c[w], "RdBu_r", -reach, reach) for a, c in zip(pale, logits, strict=True)]
            for w in range(len(names))]  # fmt: skip
    rows.append([1 - a + a * colours[s] for a, s in zip(pale, found.best, strict=True)])
    above = [name if state else f"{name}\n(off)" for name, state in zip([*stages, "sum"], on, strict=True)]
    left = [*(name + "\n(unseen)" * (name in found.unseen) for name in names), "best word"]
    gap, place = max(1, width // 16), (374, 44, WIDTH - 384, 700)
    wide = inside(place, len(above) * (width + gap) - gap, len(rows) * (height + gap) - gap)
    picture = inside((8, 44, 240, 240), image.shape[1], image.shape[0])
    below = picture[1] + picture[3] + 14
    figure, axis = canvas(max(wide[1] + wide[3] + 26, below + 17 * (len(names) + 2) + 10))
    draw_montage(axis, place, rows, left, above, gap)
    step = wide[2] / (len(above) * (width + gap) - gap) * (width + gap)
    for c, right in enumerate(found.right() if (found.truth != IGNORE).any() else ()):
        place = (wide[0] + step * (c + 0.5) - 4, wide[1] + wide[3] + 4)
        axis.text(*place, f"right: {100 * right:.0f} %", fontsize=8, ha="center", va="top")
    draw_panel(axis, picture, image, "picture")
    masks = [("#b2182b", f"mask: the word is here (logit up to {reach:.1f})"),
             ("#2166ac", f"mask: it is not (down to {-reach:.1f})")]  # fmt: skip
    draw_key(axis, 8, below, [*((colours[w], f"best word: {name}") for w, name in enumerate(names)), *masks])
    return figure


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
) -> Figure:
    """What NGA's weights and the seen offset do: segmentations above, the weights and the scores below.

    Args:
        image: (H, W, 3) uint8.
        maps: title -> (h, w) indices into `names`, or 255; up to three. The key names the classes of the first map
            first; in each, unseen ones are outlined.
        weights: `as trained` and `now`: stage (from 0) -> one per block.
        blocks: numbers of the blocks of each stage.
        offset: the seen offset now.
        curves: `as trained` and `now`: `mIoU_seen`, `mIoU_unseen` and `hIoU` as fractions at each of `offsets`; None
            without labelled pictures.
    """
    figure, axis = canvas(470)
    named = _classes_to_name(list(maps.values()))
    palette = np.tile(np.array(OTHER_COLOUR), (256, 1))
    palette[named], palette[IGNORE] = class_colours(len(named)), 1.0
    hidden = [list(names).index(name) for name in unseen]
    for place, (title, panel) in enumerate({"picture": image, **maps}.items()):
        box = inside((8 + 196 * place, 30, 182, 182), image.shape[1], image.shape[0])
        draw_panel(axis, box, panel if panel.ndim == 3 else _outlined(palette[panel], np.isin(panel, hidden)), title)
    entries = [(palette[c], names[c] + (" (unseen)" if c in hidden else "")) for c in named]
    shown = np.concatenate([np.unique(panel) for panel in maps.values()])
    if not np.isin(shown, [*named, IGNORE]).all():
        entries.append((OTHER_COLOUR, "other words"))
    draw_key(axis, 800, 32, entries)
    _draw_weights(plot_axes(figure, (50, 262, 330, 150)), weights, blocks)
    if curves is None:
        axis.text(450, 330, "No scores: these pictures have no labels.", fontsize=9)
    else:
        _draw_curves(plot_axes(figure, (450, 262, 300, 150)), curves, offset, offsets)
    return figure


def _classes_to_name(maps: Sequence[np.ndarray]) -> list[int]:
    """Up to `NAMED` classes: those of the first map by their pixels, then those of the next ones."""
    named: list[int] = []
    for one in maps:
        found, pixels = np.unique(one[one != IGNORE], return_counts=True)
        named += [c for c in found[np.argsort(-pixels, kind="stable")].tolist() if c not in named]
    return named[:NAMED]


def _outlined(colours: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) with the inner rim of a mask (h, w) in black."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where((mask & ~inner)[..., None], 0.0, colours)


def _draw_weights(axis: Axes, weights, blocks) -> None:
    for shift, (label, of), colour in zip((-0.2, 0.2), weights.items(), ("0.7", NOW), strict=True):
        values = [value for stage in of.values() for value in stage]
        axis.bar(np.arange(len(values)) + shift, values, 0.38, color=colour, label=label)
    axis.set_xticks(range(len(values)), [block for stage in of for block in blocks[stage]])
    axis.set_xlabel("block", fontsize=9)
    axis.set_ylim(0, 1.3 * max(1.0, axis.get_ylim()[1]))
    axis.set_title("NGA's weight of each block", fontsize=9)
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")


def _draw_curves(axis: Axes, curves, offset: float, offsets: Sequence[float]) -> None:
    then, now = curves["as trained"], curves["now"]
    for key, (label, colour) in LINES.items():
        value = 100 * np.interp(offset, offsets, now[key])
        axis.plot(offsets, 100 * np.asarray(now[key]), color=colour, label=f"{label}: {value:.1f}")
        axis.plot(offsets, 100 * np.asarray(then[key]), color=colour, linestyle=":", linewidth=1.2)
        axis.plot(offset, value, "o", color=colour, markersize=5)
    axis.plot([], [], color="0.4", linestyle=":", label="weights as trained")
    axis.axvline(offset, color="0.6", linewidth=0.8)
    axis.set(xlim=(min(offsets), max(offsets)), ylim=(0, 100))
    axis.set_xlabel("offset taken off the seen classes", fontsize=9)
    axis.set_ylabel("mIoU, per cent", fontsize=9)
    axis.set_title("scores, choice among all words", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))


# --- surgery bench ---------------------------------------------------------------------------------------------------


def draw_surgery(
    image: np.ndarray,
    similarity: Mapping[str, np.ndarray],
    names: Sequence[str],
    scores: Mapping[str, Mapping[str, float]] | None,
    repaired: np.ndarray | None = None,
) -> Figure:
    """Patch-text maps before and after surgery, the word each patch is nearest to, and the scores.

    Args:
        image: (H, W, 3) uint8.
        similarity: row's name -> (C, h, w) cosine similarities; every map has its own range of brightness.
        names: the C words.
        scores: row's name -> label -> mIoU as fraction; None without labelled pictures.
        repaired: (h, w) bool, patches that were filled, framed in the picture.
    """
    colours, (height, width) = class_colours(len(names)), next(iter(similarity.values())).shape[1:]
    rows = [[*(heat(one) for one in maps), colours[maps.argmax(0)]] for maps in similarity.values()]
    place = (250, 40, WIDTH - 258, 300)
    wide = inside(place, (len(names) + 1) * (width + 1) - 1, len(rows) * (height + 1) - 1)
    picture = inside((8, 40, 160, 160), width, height)
    below = picture[1] + picture[3] + 14
    bottom = max(wide[1] + wide[3], below + 17 * len(names)) + 36
    figure, axis = canvas(bottom + 210)
    draw_panel(axis, picture, image, "picture")
    cell = picture[2] / width
    for row, column in () if repaired is None else np.argwhere(repaired):
        draw_frame(axis, (picture[0] + cell * column, picture[1] + cell * row, cell, cell))
    draw_montage(axis, place, rows, list(similarity), [*names, "nearest word"])
    draw_key(axis, 8, below, [(colours[c], name) for c, name in enumerate(names)])
    if scores is None:
        axis.text(250, bottom + 60, "No scores: these pictures have no labels.", fontsize=9)
    else:
        _draw_bars(plot_axes(figure, (250, bottom, 560, 160)), scores)
    return figure


def _draw_bars(axis: Axes, scores: Mapping[str, Mapping[str, float]]) -> None:
    bars = [(f"{group}: {label}", value) for group, own in scores.items() for label, value in own.items()]
    first = [place for own in scores.values() for place in range(len(own))]  # the rest of a group are baselines
    drawn = axis.barh(range(len(bars)), [100 * value for _, value in bars], color=["0.75" if p else NOW for p in first])
    axis.bar_label(drawn, fmt="%.1f", fontsize=8, padding=3)
    axis.set_yticks(range(len(bars)), [label for label, _ in bars])
    axis.set_xlim(0, 100)
    axis.set_xlabel("mIoU over patches, choice among each picture's own words, per cent", fontsize=9)
    axis.invert_yaxis()
