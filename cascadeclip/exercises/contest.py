"""The open exercise of assignment 3: train a model of one's own choice within a budget, against a trained baseline.

It plays in a part of the mini world, so small that a training takes less than half a minute on two CPU cores. Settings
are chosen with classes held out of the *seen* ones, and judged on the unseen ones: no mask of these chooses anything.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import methodcaller
from typing import Any, cast

import torch
from torch import Tensor

from cascadeclip.analysis.lenses import last_layer_tokens, value_path_tokens
from cascadeclip.clip.load import Clip
from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.data import emojiscenes
from cascadeclip.data.distortion import draw_change
from cascadeclip.data.emojiscenes import CLASSES, STYLES, EmojiScenes
from cascadeclip.data.transforms import normalise
from cascadeclip.errors import InputError
from cascadeclip.evaluation.bands import argmax_at
from cascadeclip.evaluation.run import score, summarise
from cascadeclip.evaluation.scores import ConfusionMatrix
from cascadeclip.exercises.answering import quiet
from cascadeclip.exercises.checking import Wrong
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import MINI, Preset
from cascadeclip.processes import device, own_draws
from cascadeclip.training.loop import train
from cascadeclip.training.run import on_tower_of, open_clip_of

PICTURES = 480  # that a training may show the model: steps x batch_size
SCORED = 100  # scenes that a model is scored on
STYLE = "twemoji"
THINGS = (
    "cat", "elephant", "penguin", "whale", "burger", "strawberry", "truck", "airplane", "drum", "clock", "ball",
    "sunflower", "mushroom", "balloon", "house", "rabbit", "banana", "bus", "umbrella",
)  # fmt: skip
STUFF = ("grass", "water", "brick", "night", "sand", "snow")
HELD_OUT = ("elephant", "strawberry", "truck", "clock", "water")  # seen classes that stand in for unseen ones

# What is to be beaten, trained within the budget: a cascade of the paper's stages with the preset's start.
BASELINE: dict[str, Any] = {
    "stages": [[6, 7, 8], [9, 10, 11], [12]], "prompt_tokens": 0, "centre_text": True, "aligned_start": "all",
    "steps": 120, "batch_size": 4, "warmup": 15,
}  # fmt: skip

# What may be chosen, and between which ends; None where the model's own settings say what is allowed.
MODEL_CHOICES: dict[str, tuple[float, float] | None] = {
    "stages": None,
    "aggregation": None,
    "sigma": None,
    "prompt_tokens": (0, 20),
    "decoder_layers": (1, 4),
    "decoder_heads": None,
    "dropout": None,
    "class_embedding_twice": None,
    "train_taps": None,
    "train_aggregation": None,
    "shared_projection": None,
    "shared_decoder": None,
    "centre_text": None,
    "aligned_start": None,
}
TRAIN_CHOICES: dict[str, tuple[float, float] | None] = {
    "steps": (1, PICTURES),
    "batch_size": (1, PICTURES),
    "learning_rate": (0, 1),
    "weight_decay": None,
    "warmup": None,
    "power": (0, 10),
    "clip_norm": None,
    "focal_weight": (0, 1000),
    "dice_weight": (0, 1000),
    "ignored_are_negatives": None,
    "loss_size": (12, 48),
}
DATA_CHOICES: dict[str, tuple[float, float] | None] = {
    "things": (1, 3),
    "styles": None,
    "colours": None,
}
OFFSET = "seen_offset"
STAGES = 4  # at most, for each has a decoder that takes time


@dataclass(frozen=True)
class Settings:
    """Choices that keep to the rules."""

    model: ModelConfig
    training: TrainConfig
    data: dict[str, Any]
    seen_offset: float


@lru_cache(maxsize=2)
def small_world(split: str = "test") -> Preset:
    """Preset `mini` with a third of its classes, one drawing style and one thing per scene.

    Args:
        split: `val`, to choose settings: `HELD_OUT` play the unseen classes, and pixels of the real ones are ignored;
            `test`, to be judged on the real ones.
    """
    names = tuple(name for name in THINGS + STUFF if split == "test" or name not in emojiscenes.UNSEEN)
    table = torch.full((256,), 255, dtype=torch.uint8)
    table[[CLASSES.index(name) for name in names]] = torch.arange(len(names), dtype=torch.uint8)

    def collate(scenes: Sequence[emojiscenes.Scene]) -> tuple[Tensor, Tensor]:
        images, labels = emojiscenes.collate(scenes)
        return images, table[labels.long()]

    return replace(
        MINI,
        name=f"small-world-{split}",
        names=names,
        unseen=tuple(name for name in names if name in (emojiscenes.UNSEEN if split == "test" else HELD_OUT)),
        unseen_groups={},
        train_data=lambda seed: EmojiScenes(1_000_000, seed, **_options()),
        eval_data=lambda part: EmojiScenes.split(part, **_options()),
        collate=collate,
    )


def _options(things: int = 1, styles: Sequence[str] = (STYLE,)) -> dict[str, Any]:
    """What the scenes show; by default what models are scored on."""
    return dict(things=THINGS, stuff=STUFF, styles=tuple(styles), objects=(1, things))


def _with_data(world: Preset, data: Mapping[str, Any]) -> Preset:
    """The world with training scenes of a student's choice."""
    options = _options(**{name: data[name] for name in ("things", "styles") if name in data})

    def collate(scenes: Sequence[emojiscenes.Scene]) -> tuple[Tensor, ...]:
        images, labels = world.collate(scenes)
        return images, labels, torch.stack([draw_change(*image.shape[1:]) for image in images])

    return replace(
        world,
        train_data=lambda seed: EmojiScenes(1_000_000, seed, **options),
        collate=collate if data.get("colours") else world.collate,
    )


@lru_cache(maxsize=1)
def _clip() -> Clip:
    return open_clip_of(small_world("test"))


def checked(choices: object) -> Settings:
    """The settings, or a `Wrong` that says which rule they break."""
    if not isinstance(choices, Mapping):
        wanted = "a dict such as {'stages': [[12]], 'steps': 60}"
        raise Wrong(f"the settings must be {wanted}, not of type {type(choices).__name__}")
    for name in choices:
        _allowed_name(name)
    for name, ends in (MODEL_CHOICES | TRAIN_CHOICES | DATA_CHOICES | {OFFSET: (-1, 1)}).items():
        if name in choices and ends is not None:
            _between(name, choices[name], *ends)
    data = _checked_data(choices)
    world = small_world("test")
    try:
        model = replace(world.model, **{name: choices[name] for name in MODEL_CHOICES if name in choices})
        training = replace(world.training, **{name: choices[name] for name in TRAIN_CHOICES if name in choices})
    except (InputError, TypeError, ValueError) as error:
        raise Wrong(f"no model can be built from these settings: {error}") from error
    shown = training.steps * training.batch_size
    if shown > PICTURES:
        raise Wrong(
            f"over budget: {training.steps} steps of {training.batch_size} pictures are {shown} pictures, allowed are "
            f"{PICTURES}. Take fewer steps or a smaller batch"
        )
    if len(model.stages) > STAGES:
        raise Wrong(f"{len(model.stages)} stages: at most {STAGES} are allowed, for each has a decoder that costs time")
    return Settings(model, training, data, float(choices.get(OFFSET, world.seen_offset)))


def _checked_data(choices: Mapping[Any, Any]) -> dict[str, Any]:
    """The choices of training scenes."""
    data = {name: choices[name] for name in DATA_CHOICES if name in choices}
    styles, colours = data.get("styles", [STYLE]), data.get("colours", False)
    if not isinstance(styles, list | tuple) or not styles or not set(map(str, styles)) <= set(STYLES):
        raise Wrong(f"`styles` is {styles!r:.60}; it must be a list of some of {', '.join(STYLES)}")
    if not isinstance(colours, bool):
        raise Wrong(f"`colours` is {colours!r:.60}; it must be True or False")
    return data


def _allowed_name(name: object) -> None:
    if name == "transductive":
        raise Wrong(
            "self-training (`transductive`) looks at which pixels are of unseen classes; this contest is inductive: "
            "labels of unseen classes may not be touched"
        )
    if name in ("unseen", "names", "seen"):
        raise Wrong(
            f"`{name}`: the split is fixed, labels of unseen classes may not be touched. With its masks in training, a "
            "class is no longer unseen"
        )
    if name == "seed":
        raise Wrong("`seed` is not yours to choose: settings that win with one lucky seed only are not good settings")
    known = [*MODEL_CHOICES, *TRAIN_CHOICES, *DATA_CHOICES, OFFSET]
    if name not in known:
        raise Wrong(f"there is no setting `{name}` to choose; there are {', '.join(known)}")


def _between(name: str, value: object, low: float, high: float) -> None:
    if name in ("loss_size",) and value is None:
        raise Wrong(f"`{name}` is None, full resolution: that takes too long here, choose from {low:g} to {high:g}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"`{name}` is {value!r}; it must be a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise Wrong(f"`{name}` is {value!r:.20}; it must lie between {low:g} and {high:g}")
    if name not in ("learning_rate", "power", "focal_weight", "dice_weight", OFFSET) and not isinstance(value, int):
        raise Wrong(f"`{name}` is {value!r:.20}; it must be a whole number")


def compete(choices: object, seed: int = 0, split: str = "val") -> dict[str, float]:
    """Train with these settings and score the model.

    Args:
        choices: see `MODEL_CHOICES`, `TRAIN_CHOICES` and `DATA_CHOICES`; what is left out is as in `small_world`.
        seed: of initial weights, training scenes and dropout.
        split: `val`, to choose settings by, or `test`, to grade them on; see `small_world`.

    Returns:
        pAcc, mIoU_seen, mIoU_unseen and hIoU as fractions.

    Raises:
        Wrong: the settings break a rule, or the training went astray.
    """
    checked(choices)
    given = cast(Mapping[str, object], choices)  # `checked` saw that it is one
    as_text = json.dumps(dict(given), sort_keys=True, default=methodcaller("item"))  # NumPy's numbers have an `item`
    return dict(_competed(as_text, seed, split))


@lru_cache(maxsize=16)
def _competed(choices: str, seed: int, split: str) -> tuple[tuple[str, float], ...]:
    """`compete`, remembered as long as the kernel lives: a test and a plot may ask for the same training."""
    settings, clip = checked(json.loads(choices)), _clip()
    world = replace(small_world(split), seen_offset=settings.seen_offset)
    shown = _with_data(world, settings.data)
    text = clip.class_embeddings(world.names, world.templates)
    with own_draws(seed), quiet():
        model = CascadeCLIP(on_tower_of(clip, settings.model), clip.visual).to(device())
        training = replace(settings.training, seed=seed, checkpoint_every=0)
        try:
            train(
                model, shown.train_data(seed), text, world.names, world.unseen, training, collate=shown.collate,
                progress=False,
            )  # fmt: skip
        except InputError as error:
            raise Wrong(f"the training broke off: {error}") from error
        return tuple(summarise(world, score(world, clip, model, split, limit=SCORED)).items())


@lru_cache(maxsize=4)
def _plain_clip(split: str, value_path: bool) -> tuple[tuple[str, float], ...]:
    world, clip = small_world(split), _clip()
    data = world.eval_data(split)
    images, labels = world.collate([data[i] for i in range(SCORED)])
    text = clip.class_embeddings(world.names, world.templates)
    with torch.inference_mode():
        tokens = (value_path_tokens if value_path else last_layer_tokens)(clip.visual, normalise(images))
        maps = (tokens @ text.T).transpose(1, 2).unflatten(2, clip.visual.grid_size)
        confusion = ConfusionMatrix(len(world.names))
        confusion.update(argmax_at(maps, labels.shape[1:]), labels)
    return tuple(summarise(world, confusion.scores(world.names, world.unseen)).items())


def plain_clip(split: str = "val", *, value_path: bool = False) -> dict[str, float]:
    """Scores of CLIP without any training, on the same scenes as in `compete`.

    Args:
        value_path: read the value path of the last attention (MaskCLIP) instead of the last block as it is.
    """
    return dict(_plain_clip(split, value_path))
