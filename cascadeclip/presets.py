"""Presets: a CLIP, its data, the model and the schedule that go together, under one name."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch.utils.data import Dataset

from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.data import emojiscenes
from cascadeclip.errors import InputError


@dataclass(frozen=True)
class Preset:
    """Everything that a run needs to know.

    Attributes:
        clip: arguments of `load_clip`.
        model, training: settings.
        names, unseen: class words, and those without mask labels in training.
        templates: sentences for the text embeddings.
        train_data: seed -> data set of pictures and label maps to train on.
        eval_data: split name -> data set to evaluate on.
        seen_offset, window, stride: of `evaluation.predict`.
    """

    name: str
    clip: dict[str, str | None]
    model: ModelConfig
    training: TrainConfig
    names: tuple[str, ...]
    unseen: tuple[str, ...]
    templates: tuple[str, ...]
    train_data: Callable[[int], Dataset]
    eval_data: Callable[[str], Dataset]
    seen_offset: float = 0.1
    window: int | None = None
    stride: int | None = None
    unseen_groups: dict[str, tuple[str, ...]] = field(default_factory=dict)  # reported apart

    @property
    def seen(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name not in self.unseen)


MINI = Preset(
    name="mini",
    clip={"name": "mini", "pretrained": None},
    # In runs this short, dropout costs more than it gains, and so do a class token that Mini-CLIP was not trained with
    # and tap projections that stay random.
    model=ModelConfig(dropout=0.0, class_embedding_twice=False, train_taps=True),
    training=TrainConfig(
        steps=400,
        batch_size=8,
        learning_rate=3e-3,
        warmup=50,
        clip_norm=1.0,
        focal_weight=50.0,
        loss_size=24,
        validate_every=0,
        checkpoint_every=200,
    ),
    names=emojiscenes.CLASSES,
    unseen=emojiscenes.UNSEEN,
    templates=emojiscenes.CAPTIONS,
    train_data=lambda seed: emojiscenes.EmojiScenes(1_000_000, seed),
    eval_data=emojiscenes.EmojiScenes.split,
    unseen_groups={
        "things": tuple(name for name in emojiscenes.UNSEEN if name in emojiscenes.THINGS),
        "stuff": tuple(name for name in emojiscenes.UNSEEN if name in emojiscenes.STUFF),
    },
)

PRESETS = {preset.name: preset for preset in (MINI,)}


def get_preset(name: str) -> Preset:
    """The preset of that name; an `InputError` lists the names there are."""
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
