"""The explorers' figures, each drawn by one function of plain values: the static view and the widget's are the same.

Layouts are in pixels from the upper left corner, without a layout engine: a redraw has to take less than 0.2 s, and a
click has to find its patch (`patch_at`). Maps of one kind share one image, a montage, for the same reason.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from cascadeclip.figure import Figure
from cascadeclip.plots import HARMONIC_COLOUR, OTHER_COLOUR, SEEN_COLOUR, UNSEEN_COLOUR, class_colours

WIDTH, DPI = 960, 100  # px of every figure
MARK, FRAME = "#00c8ff", "#d1495b"
Box = tuple[float, float, float, float]  # left, top, width, height in px


def _canvas(height: float) -> Figure:
    return Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")


def _axes(figure: Figure, box: Box) -> Axes:
    left, top, width, height = box
    tall = figure.get_figheight() * DPI
    return figure.add_axes((left / WIDTH, 1 - (top + height) / tall, width / WIDTH, height / tall))


def _panel(figure: Figure, box: Box, panel: np.ndarray, title: str = "", extent=None) -> Axes:
    """An RGB image that fills its box; `extent` is (columns, rows), the units it is measured in."""
    axis = _axes(figure, box)
    columns, rows = extent or (panel.shape[1], panel.shape[0])
    axis.imshow(panel, interpolation="nearest", aspect="auto", extent=(0, columns, rows, 0))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=9, pad=4)
    return axis


def _heat(values: np.ndarray, cmap: str = "magma", low: float | None = None, high: float | None = None) -> np.ndarray:
    """(h, w) -> colours (h, w, 3), from the lowest value to the highest unless told otherwise."""
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return matplotlib.colormaps[cmap]((values - low) / max(high - low, 1e-12))[..., :3]


def _montage(rows: Sequence[Sequence[np.ndarray]], gap: int = 1) -> np.ndarray:
    """Images of one size side by side on white, `gap` cells apart: (R rows of (h, w, 3)) -> one image."""
    height, width = rows[0][0].shape[:2]
    sheet = np.ones((len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3))
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def _inside(box: Box, columns: float, rows: float) -> Box:
    """The largest box of that shape inside `box`, at its upper left."""
    scale = min(box[2] / columns, box[3] / rows)
    return box[0], box[1], columns * scale, rows * scale


# --- layer scrubber --------------------------------------------------------------------------------------------------

KINDS = 4  # kinds of maps, `explore.layer_maps`


def _layer_boxes(blocks: int, grid: tuple[int, int]) -> tuple[list[Box], Box]:
    """Where the picture and the large maps stand, and the montage of all blocks."""
    large = [_inside((8 + 192 * place, 46, 176, 176), grid[1], grid[0]) for place in range(1 + KINDS)]
    below = 46 + large[0][3] + 58
    sheet = (blocks * (grid[1] + 1) - 1, KINDS * (grid[0] + 1) - 1)
    return large, _inside((136, below, WIDTH - 148, 420), *sheet)


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
    grid, blocks = next(iter(maps.values())).shape[1:3], len(next(iter(maps.values())))
    large, small = _layer_boxes(blocks, grid)
    figure, size = _canvas(small[1] + small[3] + 34), (grid[1], grid[0])
    titles = {"likeness to the word": f"likeness to “{word}”"}
    axes = [_panel(figure, large[0], image, "picture\nand its patch", size)]
    for box, (name, values) in zip(large[1:], maps.items(), strict=True):
        one, title = values[block - 1], titles.get(name, name)
        if one.ndim == 2:
            title += f"\n{one.min():.2f} to {one.max():.2f}"
        axes.append(_panel(figure, box, one if one.ndim == 3 else _heat(one), title, size))
    for axis in axes:
        axis.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=MARK, linewidth=2))
    sheet = _montage([[one if one.ndim == 3 else _heat(one) for one in values] for values in maps.values()])
    _draw_all_blocks(_panel(figure, small, sheet), maps, grid, block, (row, column), small[2] / sheet.shape[1])
    figure.text(8 / WIDTH, 1 - (small[1] - 26) / (figure.get_figheight() * DPI), f"Above: block {block}. Below: all "
                "blocks; each map is bright where it is highest in itself.", fontsize=9, va="center")  # fmt: skip
    return figure


def _draw_all_blocks(axis: Axes, maps, grid: tuple[int, int], block: int, patch: tuple[int, int], cell: float) -> None:
    """Names, the frame around one block, and the patch in every map of the montage; `cell` is a patch's side in px."""
    (height, width), blocks = grid, len(next(iter(maps.values())))
    axis.set_xticks([b * (width + 1) + width / 2 for b in range(blocks)], range(1, blocks + 1), fontsize=8)
    axis.set_yticks([k * (height + 1) + height / 2 for k in range(len(maps))],
                    [name.replace(" of", "\nof").replace(" to", "\nto") for name in maps], fontsize=8)  # fmt: skip
    axis.tick_params(length=0)
    axis.get_xticklabels()[block - 1].set(color=FRAME, weight="bold")
    places = [(b * (width + 1) + patch[1] + 0.5, k * (height + 1) + patch[0] + 0.5)
              for b in range(blocks) for k in range(len(maps))]  # fmt: skip
    axis.plot(*zip(*places, strict=True), "s", mfc="none", mec=MARK, mew=1, ms=max(cell, 3) * 72 / DPI)
    tall = len(maps) * (height + 1)
    frame = ((block - 1) * (width + 1) - 0.5, -0.5)
    axis.add_patch(Rectangle(frame, width + 1, tall, fill=False, edgecolor=FRAME, linewidth=2, clip_on=False))


def patch_at(x: float, y: float, blocks: int, grid: tuple[int, int]) -> tuple[int | None, int, int] | None:
    """What stands at a point of `draw_layers`' figure: (block, row, column), block None in the upper maps.

    Args:
        x, y: shares of the figure's width and height from its upper left corner.

    Returns:
        None beside the maps.
    """
    large, small = _layer_boxes(blocks, grid)
    x, y = x * WIDTH, y * (small[1] + small[3] + 34)
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


def draw_words(
    image: np.ndarray,
    logits: np.ndarray,
    segmentations: np.ndarray,
    names: Sequence[str],
    unseen: Sequence[str],
    stages: Sequence[str],
    on: Sequence[bool],
    truth: np.ndarray | None = None,
) -> Figure:
    """Masks word by word: a row per word and one for the choice among them, a column per stage and one for their sum.

    Args:
        image: (H, W, 3) uint8.
        logits: (S + 1, C, h, w) mask logits, the sum of the stages that are on last.
        segmentations: (S + 1, h, w) integer, the word chosen at each place.
        names, unseen: the C words, and those that never had a mask label.
        stages, on: name of each stage, and whether it counts; the others are drawn pale.
        truth: (h, w) index of the right word or 255; then the share of right pixels is said.
    """
    reach, colours = max(float(np.abs(logits).max()), 1e-6), class_colours(len(names))
    on = [*on, True]
    pale = [1.0 if state else 0.25 for state in on]
    rows = [[1 - a + a * _heat(c[w], "RdBu_r", -reach, reach) for a, c in zip(pale, logits, strict=True)]
            for w in range(len(names))]  # fmt: skip
    rows.append([1 - a + a * colours[s] for a, s in zip(pale, segmentations, strict=True)])
    sheet = _montage(rows, gap := max(1, logits.shape[-1] // 16))
    height, width = logits.shape[2:]
    box = _inside((374, 44, WIDTH - 384, 700), sheet.shape[1], sheet.shape[0])
    figure = _canvas(max(box[1] + box[3] + 30, 330))
    axis = _panel(figure, box, sheet)
    titles = [name if state else f"{name}\n(off)" for name, state in zip([*stages, "sum"], on, strict=True)]
    axis.set_xticks([c * (width + gap) + width / 2 for c in range(len(titles))], titles, fontsize=9)
    labels = [name + "\n(unseen)" * (name in unseen) for name in names]
    axis.set_yticks([r * (height + gap) + height / 2 for r in range(len(rows))], [*labels, "best word"], fontsize=9)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    if truth is not None and (truth != 255).any():
        for c, found in enumerate(segmentations):
            right = (found == truth)[truth != 255].mean()
            axis.text(c * (width + gap) + width / 2, sheet.shape[0] * 1.01, f"right: {100 * right:.0f} %",
                      fontsize=8, ha="center", va="top")  # fmt: skip
    picture = _inside((8, 44, 240, 240), image.shape[1], image.shape[0])
    _panel(figure, picture, image, "picture").legend(
        handles=[*(Patch(color=colours[w], label=f"{name}: best word") for w, name in enumerate(names)),
                 Patch(color="#b2182b", label=f"mask: word is here (logit to {reach:.1f})"),
                 Patch(color="#2166ac", label=f"mask: word is not here (to {-reach:.1f})")],
        loc="upper left", bbox_to_anchor=(0, -0.02), fontsize=8, frameon=False,
    )  # fmt: skip
    return figure


# --- cascade explorer ------------------------------------------------------------------------------------------------

LINES = {"mIoU_seen": ("seen", SEEN_COLOUR), "mIoU_unseen": ("unseen", UNSEEN_COLOUR), "hIoU": ("harmonic", HARMONIC_COLOUR)}


def draw_cascade(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    names: Sequence[str],
    unseen: Sequence[str],
    weights: tuple[Mapping[int, Sequence[float]], Mapping[int, Sequence[float]]],
    blocks: Mapping[int, Sequence[int]],
    offset: float,
    curves: tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]] | None,
    offsets: Sequence[float],
) -> Figure:
    """What NGA's weights and the seen offset do: segmentations above, the weights and the scores below.

    Args:
        image: (H, W, 3) uint8.
        maps: title -> (h, w) indices into `names`, or 255; up to three.
        weights: now and as trained, stage -> one per block.
        blocks: stage -> numbers of its blocks.
        offset: the seen offset now.
        curves: now and as trained, `mIoU_seen`, `mIoU_unseen` and `hIoU` as fractions at each of `offsets`; None
            without labelled pictures.
    """
    colours, figure = np.vstack([class_colours(len(names)), np.ones((256 - len(names), 3))]), _canvas(500)
    found, pixels = np.unique(np.concatenate([one[one != 255] for one in maps.values()]), return_counts=True)
    named = found[np.argsort(-pixels, kind="stable")][:9]
    others = np.setdiff1d(np.arange(len(names)), named)
    colours[others] = OTHER_COLOUR
    for place, (title, panel) in enumerate({"picture": image, **maps}.items()):
        box = _inside((8 + 198 * place, 30, 184, 184), image.shape[1], image.shape[0])
        axis = _panel(figure, box, panel if panel.ndim == 3 else colours[panel], title)
        hidden = np.isin(panel, [names.index(name) for name in unseen]) if panel.ndim == 2 else np.zeros(1, bool)
        if hidden.any() and not hidden.all():
            axis.contour(hidden, levels=[0.5], colors="black", linewidths=1.2,
                         extent=(0, panel.shape[1], 0, panel.shape[0]))  # fmt: skip
    handles = [Patch(color=colours[c], label=names[c] + (" (unseen)" if names[c] in unseen else "")) for c in named]
    if np.isin(found, others).any():
        handles.append(Patch(color=OTHER_COLOUR, label="other words"))
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(800 / WIDTH, 1 - 24 / 500), fontsize=8, frameon=False)
    _draw_weights(_axes(figure, (50, 280, 330, 160)), *weights, blocks)
    if curves is None:
        figure.text(0.48, 0.3, "No scores: the pictures have no labels.", fontsize=9)
    else:
        _draw_curves(_axes(figure, (450, 280, 350, 160)), *curves, offset, offsets)
    return figure


def _draw_weights(axis: Axes, now, trained, blocks) -> None:
    places = [f"{block}" for stage in now for block in blocks[stage]]
    for shift, values, colour, label in ((-0.2, trained, "0.7", "as trained"), (0.2, now, "#3b6fa0", "now")):
        axis.bar(np.arange(len(places)) + shift, [w for stage in now for w in values[stage]], 0.38, color=colour, label=label)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(places)), places)
    axis.set_xlabel("block", fontsize=9)
    axis.set_title("NGA's weight of each block", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_curves(axis: Axes, now, trained, offset: float, offsets: Sequence[float]) -> None:
    for key, (label, colour) in LINES.items():
        axis.plot(offsets, 100 * np.asarray(now[key]), color=colour, label=label)
        axis.plot(offsets, 100 * np.asarray(trained[key]), color=colour, linestyle=":", linewidth=1.2)
        value = 100 * np.interp(offset, offsets, now[key])
        axis.plot(offset, value, "o", color=colour, markersize=5)
        axis.annotate(f"{value:.0f}", (offset, value), xytext=(5, 3), textcoords="offset points", fontsize=8, color=colour)
    axis.plot([], [], color="0.4", linestyle=":", label="as trained")
    axis.axvline(offset, color="0.6", linewidth=0.8)
    axis.set(xlim=(min(offsets), max(offsets)), ylim=(0, 100))
    axis.set_xlabel("offset taken off the seen classes", fontsize=9)
    axis.set_ylabel("mIoU, per cent", fontsize=9)
    axis.set_title("scores, choice among all words", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axis.spines[["top", "right"]].set_visible(False)


# --- surgery bench ---------------------------------------------------------------------------------------------------


def draw_surgery(
    image: np.ndarray,
    similarity: Mapping[str, np.ndarray],
    names: Sequence[str],
    scores: Mapping[str, Mapping[str, float]] | None,
    repaired: np.ndarray | None = None,
) -> Figure:
    """Patch-text maps before and after surgery, the word each patch is likest to, and the scores.

    Args:
        image: (H, W, 3) uint8.
        similarity: row title -> (C, h, w) cosine similarities; every map has its own range of brightness.
        names: the C words.
        scores: bar's colour group (`similarity`'s titles) -> label -> mIoU as fraction; None without labelled pictures.
        repaired: (h, w) bool, patches that were filled, framed in the picture.
    """
    colours, (height, width) = class_colours(len(names)), next(iter(similarity.values())).shape[1:]
    rows = [[*(_heat(one) for one in maps), colours[maps.argmax(0)]] for maps in similarity.values()]
    sheet = _montage(rows)
    box = _inside((250, 40, WIDTH - 258, 300), sheet.shape[1], sheet.shape[0])
    figure, bottom = _canvas(590), max(box[1] + box[3], 40 + 200) + 60
    picture = _panel(figure, _inside((8, 40, 160, 160), width, height), image, "picture", (width, height))
    for row, column in np.argwhere(repaired) if repaired is not None else ():
        picture.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=MARK, linewidth=1.5))
    axis = _panel(figure, box, sheet)
    axis.set_xticks([(width + 1) * c + width / 2 for c in range(len(names) + 1)], [*names, "likest word"], fontsize=9)
    axis.set_yticks([(height + 1) * r + height / 2 for r in range(len(rows))], similarity, fontsize=9)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    handles = [Patch(color=colours[c], label=name) for c, name in enumerate(names)]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 1 - 204 / 590), fontsize=8, frameon=False)
    if scores is None:
        figure.text(0.27, 0.25, "No scores: the pictures have no labels.", fontsize=9)
    else:
        _draw_bars(_axes(figure, (250, bottom, 560, 540 - bottom)), scores)
    return figure


def _draw_bars(axis: Axes, scores: Mapping[str, Mapping[str, float]]) -> None:
    bars = [(group, label, value) for group, own in scores.items() for label, value in own.items()]
    shades = ["#3b6fa0" if label == "the map above" else "0.75" for _, label, _ in bars]
    drawn = axis.barh(range(len(bars)), [100 * value for _, _, value in bars], color=shades)
    axis.bar_label(drawn, fmt="%.1f", fontsize=8, padding=3)
    axis.set_yticks(range(len(bars)), [f"{group}: {label}" for group, label, _ in bars], fontsize=8)
    axis.set(xlim=(0, 100))
    axis.set_xlabel("mIoU over patches, each picture's own words, per cent", fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
