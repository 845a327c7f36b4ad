"""What `segment` does: a trained model segments a picture, or a frozen CLIP by one method or by all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascadeclip.analysis.dense.registry import METHODS, get_method
from cascadeclip.analysis.dense.segment import segment_by_methods
from cascadeclip.cli.options import weights_of
from cascadeclip.clip.load import MINI, load_clip
from cascadeclip.errors import InputError
from cascadeclip.files import check_apart, check_writable
from cascadeclip.plots.dense import plot_methods
from cascadeclip.plots.figure import Figure
from cascadeclip.presets import get_preset
from cascadeclip.processes import this_process
from cascadeclip.segmenter import Segmentation, load

OPENAI = ("ViT-B-16", "openai")  # what is taken where only half is said


def check_out(out: Path, *inputs: str | Path | None) -> None:
    """An `InputError` unless `out` can become a PNG picture, in place of none of the inputs."""
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: the result is a PNG picture, give a name that ends in .png")
    check_writable(out.parent, out.name)
    check_apart((out,), inputs)


def segment_by_model(
    image: Path, words: Sequence[str], checkpoint: str | None, preset: str, weights: str | None, how: dict[str, Any]
) -> tuple[dict[str, Segmentation], Figure]:
    """`segment` without a method: segmentation by the model of a checkpoint, or the preset's own, and the figure."""
    chosen = get_preset(preset)
    model = load(checkpoint or chosen.name, preset=chosen, device=this_process().device, clip_weights=weights)
    result = model.segment(image, words, **how)
    return {"": result}, result.plot()


def segment_by_method(
    image: Path, words: Sequence[str], method: str, clip: str | None, weights: str | None, how: dict[str, Any]
) -> tuple[dict[str, Segmentation], Figure]:
    """`segment --method`: title -> segmentation, and the figure. All methods with `all`.

    Mini-CLIP unless a CLIP or weights are named; then what is not named is OpenAI's ViT-B/16, or its weights.
    """
    methods = tuple(METHODS) if method == "all" else (method,)
    for one in methods:
        get_method(one)
    name = clip or (MINI if weights is None else OPENAI[0])
    loaded = load_clip(name, weights_of(name, weights, OPENAI[1]))
    loaded.visual.to(this_process().device)
    found = segment_by_methods(loaded, image, words, methods, **how)
    if method == "all":
        return found, plot_methods(found)
    return {"": found[method]}, found[method].plot()


def print_shares(found: dict[str, Segmentation]) -> None:
    """A line a word: its share of the pixels; under the method's title where there are several."""
    for title, result in found.items():
        if title:
            print(f"{title}:")
        for name, share in result.shares().items():
            note = "  (unseen in training)" if result.called(name) != name else ""
            print(f"{name:16}{100 * share:6.1f} % of the pixels{note}")
