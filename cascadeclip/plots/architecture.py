"""The cascade as a diagram: what is computed from what, with the shapes of a model's own settings."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from cascadeclip.config import ModelConfig
from cascadeclip.plots.figure import Figure

FROZEN, TRAINED, VALUE = "#e3e3e3", "#cfe0f1", "#ffffff"  # what a box is filled with
ROW = 1.9  # height of a stage's row
LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def plot_architecture(config: ModelConfig) -> Figure:
    """Picture and words on their way to mask logits: the tower runs down, every stage is a row, their sum on the right.

    B pictures, C words; the other numbers are those of `config`, for pictures of the size of its tower. Grey boxes are
    frozen, blue ones are trained, white ones are values.
    """
    tower, stages = config.tower, config.stages
    figure = Figure(figsize=(11.5, 1.05 * (ROW * len(stages) + 2.5)), layout="constrained")
    axis = figure.subplots()
    low, high = -1.35, ROW * len(stages) + 1.75
    rows = [ROW * (len(stages) - number) - 0.5 for number in range(len(stages))]  # middle of each decoder

    _box(axis, 0.9, high - 0.3, 1.8, 0.5, f"picture (B, 3, {tower.image_size}, {tower.image_size})", VALUE)
    _arrow(axis, (0.9, high - 0.55), (0.9, rows[0] + 1.45))
    before = min(block for stage in stages for block in stage) - 1
    prompts = f"\n+ {config.prompt_tokens} prompt tokens\nin every block" if config.prompt_tokens else ""
    first = "patches" + f", then\nblocks 1 to {before}" * (before > 0) + prompts
    _box(axis, 0.9, rows[0] + 1.05, 1.8, 0.8, first, FROZEN)
    for number, y in enumerate(rows, start=1):
        _arrow(axis, (0.9, y + (0.65 if number == 1 else ROW - 0.35)), (0.9, y + 0.35))
        _stage(axis, config, number, y)
    _sum_and_output(axis, rows, tower.image_size // tower.patch_size)
    words = f"T (C, {tower.embed_dim})" + "\ncentred" * config.centre_text
    _words(axis, rows, image=f"class token\ng (B, {tower.embed_dim})", text=words)
    for place, (fill, meaning) in enumerate(((FROZEN, "frozen"), (TRAINED, "trained"), (VALUE, "values"))):
        _box(axis, 7.9 + 1.55 * place, high - 0.3, 1.35, 0.4, meaning, fill)
    axis.set(xlim=(-0.1, 12.5), ylim=(low, high))
    axis.set_axis_off()
    return figure


def _stage(axis: Axes, config: ModelConfig, number: int, y: float) -> None:
    """The row of a stage, numbered from 1: its blocks, their taps, what merges them, decoder and mask logits."""
    tower, blocks, layers = config.tower, config.stages[number - 1], config.decoder_layers - 1
    side, width = tower.image_size // tower.patch_size, tower.embed_dim
    patches, alone = side * side, len(blocks) == 1
    _box(axis, 0.9, y, 1.8, 0.7, f"block{'s' * (not alone)} {', '.join(map(str, blocks))}\n"
         f"(B, 1 + {patches}, {tower.width})", FROZEN)  # fmt: skip

    tapped = [block for block in blocks if block < tower.layers]
    tap = (
        "taps: norm, projection" if len(tapped) == len(blocks) else "taps, CLIP's exit" if tapped else "CLIP's own exit"
    )
    read = _letter("H", blocks[0]) + (f" … {_letter('H', blocks[-1])}" if not alone else "")
    fill = TRAINED if tapped and config.train_taps else FROZEN
    _box(axis, 3.1, y, 1.9, 0.7, f"{tap}\n{read} (B, {patches}, {width})", fill)

    merge = "one block: as it is" if alone else f"aggregation: {config.aggregation.replace('nga', 'NGA')}"
    learns = not alone and config.train_aggregation and config.aggregation not in ("sum", "mean")
    fill = TRAINED if learns else VALUE
    _box(axis, 5.3, y, 1.9, 0.7, f"{merge}\n{_letter('Z', number)} (B, {patches}, {width})", fill)

    looks = f" {layers} layer{'s' * (layers > 1)},\nthen the mask layer" if layers else "\nthe mask layer alone"
    _box(axis, 7.7, y, 1.9, 0.7, f"decoder:{looks}", TRAINED)
    _box(axis, 7.7, y - 0.98, 1.9, 0.6, f"descriptor\n{_letter('q', number)} (B, C, {width})", TRAINED)
    _box(axis, 9.65, y, 1.3, 0.7, f"{_letter('M', number)}\n(B, C, {side}, {side})", VALUE)
    for start, end in ((1.8, 2.15), (4.05, 4.35), (6.25, 6.75), (8.65, 9.0)):
        _arrow(axis, (start, y), (end, y))
    _arrow(axis, (7.7, y - 0.68), (7.7, y - 0.35))


def _sum_and_output(axis: Axes, rows: list[float], side: int) -> None:
    """The stages' mask logits meet in a sum in the middle of the rows."""
    middle = (rows[0] + rows[-1]) / 2
    for y in rows:
        _arrow(axis, (10.3, y), (10.74, middle + (y > middle) * 0.12 - (y < middle) * 0.12))
    axis.text(10.9, middle, "+", fontsize=15, ha="center", va="center",
              bbox={"boxstyle": "circle,pad=0.15", "fc": VALUE, "ec": "black", "lw": 0.9})  # fmt: skip
    _box(axis, 11.75, middle, 1.15, 0.9, f"mask logits\nM\n(B, C, {side}, {side})", VALUE)
    _arrow(axis, (11.05, middle), (11.17, middle))


def _words(axis: Axes, rows: list[float], image: str, text: str) -> None:
    """The class token's embedding and the words below all stages, and the line that brings both to the descriptors."""
    low, bus = rows[-1] - 2.05, 6.5
    _box(axis, 0.9, low, 1.8, 0.7, image, VALUE)
    _arrow(axis, (0.9, rows[-1] - 0.35), (0.9, low + 0.35))
    _box(axis, 3.1, low, 1.9, 0.7, "C words\nthrough the text tower", FROZEN)
    _box(axis, 5.1, low, 1.3, 0.7, text, VALUE)
    _arrow(axis, (4.05, low), (4.45, low))
    under = rows[-1] - 1.5
    axis.plot([1.5, bus], [under, under], color="black", lw=0.9)
    axis.plot([1.5, 1.5], [under, low + 0.35], color="black", lw=0.9)
    axis.plot([5.1, 5.1], [under, low + 0.35], color="black", lw=0.9)
    axis.plot([bus, bus], [under, rows[0] - 0.98], color="black", lw=0.9)
    for y in rows[1:]:  # it passes below the arrow into the decoder, and has no part in it
        axis.plot([bus, bus], [y - 0.1, y + 0.1], color="white", lw=4, zorder=2.5)
    axis.text(bus - 0.08, rows[-1] - 1.32, "T and g", fontsize=9, ha="right", va="center")
    axis.plot([5.1, *[bus] * (len(rows) - 1)], [under, *(y - 0.98 for y in rows[1:])], "o", color="black", ms=3)
    for y in rows:
        _arrow(axis, (bus, y - 0.98), (6.75, y - 0.98))


def _letter(letter: str, index: int) -> str:
    return letter + str(index).translate(LOWERED)


def _box(axis: Axes, x: float, y: float, width: float, height: float, text: str, fill: str) -> None:
    """A box around (x, y) with its text in the middle."""
    corner = (x - width / 2, y - height / 2)
    axis.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.08", fc=fill, lw=0.9))
    axis.text(x, y, text, ha="center", va="center", fontsize=9)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": "black", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=look)
