"""What the command line's options are called, say and mean: types of `typer`, and how presets are made of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.errors import InputError

if TYPE_CHECKING:
    from cascadeclip.presets import Preset

Settings = TypeVar("Settings", ModelConfig, TrainConfig)

PresetName = Annotated[
    str, typer.Option("--preset", help="CLIP, data, model and schedule: mini, voc12, context59, coco-stuff, or one of "
                      "these with -transductive, -strict (no picture of an unseen class in training) or (to evaluate "
                      "a --method) -training-free.")
]  # fmt: skip
DataRoot = Annotated[Path | None, typer.Option(help="Folder with the benchmarks' data (voc12, context59, coco-stuff).")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of crops and windows in px, to try a benchmark on a small scale.")
]
Own = Annotated[
    Path | None, typer.Option(help="Instead of a preset: a JSON file about your own data; `data init` makes one.")
]
ClipName = Annotated[str | None, typer.Option("--clip", help="Another CLIP of open_clip, e.g. ViT-L-14-quickgelu.")]
ClipWeights = Annotated[
    str | None, typer.Option(help="CLIP's weights: open_clip's tag, a file, or 'random' to try things out.")
]
Unseen = Annotated[
    str | None,
    typer.Option(help="Unseen classes, separated by commas, for another split than the preset's; '' for none."),
]
Compile = Annotated[
    bool | None, typer.Option(help="torch.compile the model: minutes at the start, then often faster. For long runs.")
]
Precision = Annotated[str | None, typer.Option(help="bf16 (where the device has it), fp16 (CUDA) or fp32.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]
Checkpoint = Annotated[str | None, typer.Option(help="A checkpoint file; the one shipped for the preset by default.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Evaluate on the first pictures only.")]
MethodName = Annotated[
    str | None, typer.Option("--method", help="A frozen CLIP instead of a checkpoint: naclip, sc_clip, maskclip, ...")
]
Blocks = Annotated[str | None, typer.Option(help="Blocks that a --method is applied to, e.g. '10,11,12'.")]
Pamr = Annotated[int, typer.Option(min=0, help="How often masks are refined along edges; 10 in papers, 0: not at all.")]
Background = Annotated[
    str | None,
    typer.Option(help="Where no word scores this much (0 to 1) there is none of them; or words for the rest: sky,wall"),
]
Workers = Annotated[int | None, typer.Option(help="Processes that read pictures; by default one a core but one.")]


def chosen_preset(
    name: str,
    data_root: Path | None,
    own: Path | None,
    image_size: int | None,
    clip: str | None,
    clip_weights: str | None,
    unseen: str | None,
    *,
    trained: bool = False,
) -> "Preset":
    """The preset that the options describe. A `trained` model knows its CLIP's weights: they may be left unsaid."""
    from cascadeclip.presets import get_preset, read_own_preset

    if own is not None:
        chosen = read_own_preset(own, image_size=image_size)
    else:
        chosen = get_preset(name, data_root, image_size=image_size)
    if clip is not None or clip_weights is not None:
        of = clip or chosen.clip["name"]
        otherwise = chosen.clip["pretrained"]
        weights = None if trained and clip_weights is otherwise is None else weights_of(of, clip_weights, otherwise)
        chosen = replace(chosen, clip={"name": of, "pretrained": weights})
    if unseen is not None:
        chosen = chosen.with_unseen([word.strip() for word in unseen.split(",") if word.strip()])
    return chosen


def read_by(
    checkpoint: str | Path | None, weights: str | None, own: Path | None, data: Callable[[], object]
) -> Iterator[str | Path | None]:
    """The files that a command reads, as its options and the data set that `data` makes say."""
    from cascadeclip.checkpoints.own import TRAINED
    from cascadeclip.data.folders import files_of
    from cascadeclip.presets import PATHS, own_arguments

    yield from (checkpoint, weights, own)
    if checkpoint is not None:
        yield Path(checkpoint) / TRAINED  # of a folder
    if own is not None:
        described = own_arguments(own)
        yield from (described.get(key) for key in PATHS)
    yield from files_of(data())


def weights_of(clip: str, given: str | None, otherwise: str | None) -> str | None:
    """`--clip-weights` of a `--clip` as `load_clip` takes them; an `InputError` if it has none, or had some already.

    Args:
        clip: its name.
        given: the option.
        otherwise: weights to take without it.
    """
    from cascadeclip.clip.load import MINI

    if clip == MINI:
        if given is not None:
            raise InputError(f"--clip-weights {given}: {MINI!r} comes with its weights; which other CLIP? --clip")
        return None
    weights = otherwise if given is None else given
    if weights is None:
        raise InputError(f"--clip {clip}: which weights? --clip-weights, 'random' to try things out")
    return weights


def blocks_of(text: str | None) -> tuple[int, ...] | None:
    """'10,11,12' -> (10, 11, 12)."""
    if text is None:
        return None
    try:
        return tuple(int(block) for block in text.split(","))
    except ValueError as error:
        raise InputError(f"--blocks {text!r}: numbers with commas between them, as in '10,11,12'") from error


def background_of(text: str | None) -> float | list[str] | None:
    """'0.1' -> 0.1, a threshold; 'sky,wall' -> words."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InputError(
            f"--background {text!r}: a threshold such as 0.1, or words with commas between them: 'sky,wall'"
        )
    return words


def stages_of(text: str | None) -> tuple[tuple[int, ...], ...] | None:
    """'6,7,8 9,10,11 12' -> ((6, 7, 8), (9, 10, 11), (12,))."""
    if text is None:
        return None
    try:
        return tuple(tuple(int(block) for block in stage.split(",")) for stage in text.split())
    except ValueError as error:
        raise InputError(
            f"--stages {text!r}: commas between blocks, spaces between stages: '6,7,8 9,10,11 12'"
        ) from error


def changed(settings: Settings, **values: Any) -> Settings:
    """`settings` with those values that were given."""
    return replace(settings, **{name: value for name, value in values.items() if value is not None})
