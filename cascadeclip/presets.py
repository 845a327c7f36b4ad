"""Presets: a CLIP, its data, the model and the schedule that go together, under one name."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor
from torch.utils.data import Dataset

from cascadeclip.config import ModelConfig, Offset, Size, Steps, TowerConfig, TrainConfig
from cascadeclip.data import emojiscenes, folders
from cascadeclip.data.benchmarks import BENCHMARKS, Benchmark
from cascadeclip.data.classes import ONE_TEMPLATE
from cascadeclip.data.folders import FolderDataset, Found, LabelReader
from cascadeclip.data.own import OwnData
from cascadeclip.data.transforms import Augment, ToWorkingSize
from cascadeclip.data.words import check_names, check_templates, in_order, positions_of, shortened
from cascadeclip.errors import InputError
from cascadeclip.files import read_json
from cascadeclip.schema import check_value

TRANSDUCTIVE = "-transductive"  # end of the names of the presets that train on pseudo labels of unseen classes
TRAINING_FREE = "training-free"  # as a preset: VOC 2012's; as the end of a benchmark's name: the same protocol on it
STRICT = "-strict"  # end of the names of the presets that train without the pictures that show an unseen class
SIDE, STRIDE = 512, 426  # px: crops and windows of the benchmarks, and from window to window


class Sortable(Protocol):
    """Training pictures that can be sorted by what they show."""

    def without(self, classes: Sequence[int]) -> Dataset[Any]:
        """Those without a pixel of the classes, given by their indices."""


@dataclass(frozen=True)
class Preset:
    """Everything that a run needs to know.

    Attributes:
        clip: arguments of `load_clip`.
        model, training: settings.
        names, unseen: class words, and those without mask labels in training, in the order of `names`.
        templates: sentences for the text embeddings.
        train_data: seed -> data set of pictures and label maps, and changes of colours where pictures are augmented;
            `training_data` gives those to train on.
        eval_data: split name -> data set to evaluate on.
        collate: items of both data sets -> a batch.
        final_split: what reported scores are measured on.
        scoring_batch: pictures that are scored together; 1 where their sizes differ.
        seen_offset, window, stride: of `evaluation.predict`.
        unseen_groups: groups of unseen classes that are reported apart.
        strict: leave pictures with a pixel of an unseen class out of training. In the usual inductive setting they stay
            and these pixels are ignored; as negatives of every seen class, they still tell where unseen classes are.
    """

    name: str
    clip: dict[str, Any]
    model: ModelConfig
    training: TrainConfig
    names: tuple[str, ...]
    unseen: tuple[str, ...]
    templates: tuple[str, ...]
    train_data: Callable[[int], Dataset[Any]]
    eval_data: Callable[[str], Dataset[Any]]
    collate: Callable[[Sequence[Any]], tuple[Tensor, ...]]
    final_split: str
    scoring_batch: int = 1
    seen_offset: float = 0.1
    window: int | None = None
    stride: int | None = None
    unseen_groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    strict: bool = False

    def __post_init__(self) -> None:
        check_value(self.seen_offset, Offset, "seen_offset")  # now, and not when a trained model is to be saved
        check_templates(self.templates, check_names(self.names))
        known = set(self.names)
        unknown = [name for name in self.unseen if name not in known]
        if unknown or not self.seen:
            raise InputError(
                f"{self.name}: unseen words must be among the class words and leave some seen; "
                f"{len(self.names)} words, unseen but no class: {', '.join(map(shortened, unknown)) or 'none'}"
            )
        positions_of(self.unseen, self.names)  # each once
        object.__setattr__(self, "unseen", in_order(self.unseen, self.names))  # or kept work would not be found again

    @property
    def seen(self) -> tuple[str, ...]:
        hidden = set(self.unseen)
        return tuple(name for name in self.names if name not in hidden)

    def training_data(self, seed: int) -> Dataset[Any]:
        """The pictures to train on, with the whole of their label maps.

        Raises:
            InputError: `strict`, and no picture is without unseen classes; what the preset's data raise.
        """
        data = self.train_data(seed)
        if not self.strict:
            return data
        return cast(Sortable, data).without(positions_of(self.unseen, self.names))

    def with_unseen(self, unseen: Sequence[str]) -> "Preset":
        """The same with another split of the classes."""
        return replace(self, unseen=tuple(unseen), unseen_groups={})


def self_training(preset: Preset) -> Preset:
    """The transductive setting of a preset: half the steps on pseudo labels of unseen classes, no offset."""
    training = replace(preset.training, steps=preset.training.steps // 2, transductive=True, keep_every=0)
    return replace(preset, name=preset.name + TRANSDUCTIVE, training=training, seen_offset=0.0)


MINI = Preset(
    name="mini",
    clip={"name": "mini", "pretrained": None},
    # In runs this short, dropout costs more than it gains, and so do a class token that Mini-CLIP was not trained with
    # and tap projections that stay random. Centred text and the aligned start let so short a run get from textures to
    # things.
    model=ModelConfig(dropout=0.0, class_embedding_twice=False, train_taps=True, centre_text=True, aligned_start="all"),
    training=TrainConfig(
        steps=200,
        batch_size=8,
        learning_rate=3e-3,
        warmup=50,
        clip_norm=1.0,
        focal_weight=50.0,
        loss_size=24,
        validate_every=0,
        checkpoint_every=50,
    ),
    names=emojiscenes.CLASSES,
    unseen=emojiscenes.UNSEEN,
    templates=emojiscenes.CAPTIONS,
    train_data=lambda seed: emojiscenes.EmojiScenes(1_000_000, seed),
    eval_data=emojiscenes.EmojiScenes.split,
    collate=emojiscenes.collate,
    final_split="test",
    scoring_batch=25,
    unseen_groups={
        "things": tuple(name for name in emojiscenes.UNSEEN if name in emojiscenes.THINGS),
        "stuff": tuple(name for name in emojiscenes.UNSEEN if name in emojiscenes.STUFF),
    },
)

# For comparisons: nine times as long as the preset above. Without prompt tokens a step costs half, and tokens can be
# kept, see `training.recall`; what prompts add is a comparison of its own. The rate falls by a power of 2, so that it
# is small in the whole last quarter: with the authors' 0.9 the falling rate itself lifts seen classes by one to two
# points at the end, after 1200 steps as after 2000, and no curve gets flat.
FROZEN = replace(
    MINI,
    name="mini-frozen",
    model=replace(MINI.model, prompt_tokens=0),
    training=replace(MINI.training, steps=1800, power=2.0, checkpoint_every=100),
    final_split=emojiscenes.BALANCED,
)
MINIS = {MINI.name: MINI, FROZEN.name: FROZEN}

# The benchmarks' settings are the authors': steps, and prompt tokens per block.
SCHEDULES = {"voc12": (20_000, 10), "context59": (40_000, 35), "coco-stuff": (80_000, 50)}
NAMES = (
    *(name + end for name in (*MINIS, *BENCHMARKS) for end in ("", TRANSDUCTIVE, STRICT)),
    *(TRAINING_FREE, *(f"{name}-{TRAINING_FREE}" for name in BENCHMARKS)),
)


def get_preset(name: str, data_root: str | Path | None = None, *, image_size: int | None = None) -> Preset:
    """The preset of that name.

    Args:
        name: one of `NAMES`.
        data_root: folder with the benchmarks' data; not looked at before pictures are needed.
        image_size: px; crops and windows of this side instead of 512, for small tries.

    Raises:
        InputError: an unknown name (lists the known ones), or options that the preset cannot use.
    """
    if name not in NAMES:
        raise InputError(f"no preset {name!r}; choose from {', '.join(NAMES)}")
    if name.endswith(TRAINING_FREE):
        return _training_free_preset(name, data_root, image_size)
    base = name.removesuffix(TRANSDUCTIVE).removesuffix(STRICT)
    if base in MINIS:
        if data_root is not None or image_size is not None:
            raise InputError(f"preset {base} draws its own pictures of 96 px: it takes no data root and no image size")
        preset = MINIS[base]
    else:
        preset = _benchmark_preset(BENCHMARKS[base], data_root, SIDE if image_size is None else image_size)
    if name.endswith(STRICT):
        return replace(preset, name=name, strict=True)
    return self_training(preset) if name.endswith(TRANSDUCTIVE) else preset


def _benchmark_preset(benchmark: Benchmark, data_root: str | Path | None, side: int) -> Preset:
    def find(split: str) -> tuple[list[tuple[Path, Path]], LabelReader]:
        if data_root is None:
            raise InputError(f"preset {benchmark.name} needs the folder with its data: --data-root, or data_root=")
        return benchmark.pairs(data_root, split), benchmark.label_map

    steps, prompt_tokens = SCHEDULES[benchmark.name]
    return _vit_preset(
        benchmark.name, benchmark.names, benchmark.unseen, benchmark.templates, find,
        benchmark.label_map.ignore, side, steps=steps, prompt_tokens=prompt_tokens,
    )  # fmt: skip


def _training_free_preset(name: str, data_root: str | Path | None, window: int | None) -> Preset:
    """How papers on training-free dense CLIP read a benchmark: 336 px in windows of 224 and steps of 112, with OpenAI's
    80 ImageNet sentences and all classes alike. The split into seen and unseen is for reports only."""
    from cascadeclip.clip.vocabulary import TEMPLATE_SETS

    window = 224 if window is None else window
    base = name.removesuffix(TRAINING_FREE).removesuffix("-") or "voc12"
    preset = _benchmark_preset(BENCHMARKS[base], data_root, window * 3 // 32 * 16)  # 3/2 windows, in whole patches
    templates = TEMPLATE_SETS["openai80"]
    return replace(preset, name=name, templates=templates, window=window, stride=window // 2, seen_offset=0.0)


def own_preset(
    images: str | Path | None = None,
    masks: str | Path | None = None,
    names: Sequence[str] | None = None,
    unseen: Sequence[str] = (),
    *,
    templates: str | Sequence[str] = ONE_TEMPLATE,
    steps: int = 20_000,
    prompt_tokens: int = 10,
    image_size: int = SIDE,
    strict: bool = False,
    **data: Any,
) -> Preset:
    """Your own pictures and masks, with the settings of the benchmarks.

    Args:
        images, masks: folders to train on; a mask is a PNG with one number per pixel and the picture's file name.
        names: class words; their order is the order of the numbers.
        unseen: those of them whose masks training must not see.
        templates: sentences with one `{}` for the class word.
        steps, prompt_tokens: of training and model; more of both for more classes.
        image_size: px; side of crops and windows.
        strict: leave pictures with a pixel of an unseen class out of training.
        data: what else says where data lie and what masks mean, as fields of `data.OwnData`: `val_images`, `val_masks`,
            `val_share`, `values`, `mask_name`, `picture_name`, `first`, `ignored`, `pairs`, `val_pairs`, `coco`,
            `val_coco`.

    Raises:
        InputError: words or numbers that do not fit together; when pictures are needed: folders or files missing.
        TypeError: no such argument.

    Example:
        >>> preset = own_preset("train/images", "train/masks", ["cat", "sofa", "floor"], ["sofa"],
        ...                     val_images="val/images", val_masks="val/masks")
        >>> preset.seen
        ('cat', 'floor')
    """
    own = OwnData(images=images, masks=masks, names=names, unseen=unseen, **data)
    for what, value, wanted in (
        ("steps", steps, Steps), ("prompt_tokens", prompt_tokens, int), ("image_size", image_size, Size),
        ("strict", strict, bool), ("templates", templates, str | Sequence[str]),
    ):  # fmt: skip
        check_value(value, wanted, what)
    words = own.words
    preset = _vit_preset(
        "own", words, check_names(unseen) if unseen else (), check_templates(templates, words), own.find,
        own.label_map.ignore, image_size, steps=steps, prompt_tokens=prompt_tokens,
    )  # fmt: skip
    return replace(preset, strict=strict)


PATHS = ("images", "masks", "val_images", "val_masks", "pairs", "val_pairs", "coco", "val_coco")


def own_arguments(path: str | Path) -> dict[str, Any]:
    """Arguments of `own_preset` out of a JSON file that holds them; its paths start at the file's folder.

    Raises:
        InputError: no such file, or one that holds something else.
    """
    arguments = read_json(path, "description of own data")
    known = {*inspect.signature(own_preset).parameters, *(one.name for one in fields(OwnData))} - {"data"}
    strange = [key for key in arguments if key not in known]
    if strange:
        raise InputError(f"{path}: unknown {', '.join(map(repr, strange))}; its keys are: {', '.join(sorted(known))}")
    for key in PATHS:
        if isinstance(arguments.get(key), str):
            arguments[key] = Path(path).parent / arguments[key]
    return arguments


def read_own_preset(path: str | Path, *, image_size: int | None = None) -> Preset:
    """The preset that a JSON file with the arguments of `own_preset` describes.

    Raises:
        InputError: as `own_preset`; the message names the file.
    """
    arguments = own_arguments(path) | ({} if image_size is None else {"image_size": image_size})
    try:
        return own_preset(**arguments)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _vit_preset(
    name: str,
    names: tuple[str, ...],
    unseen: tuple[str, ...],
    templates: tuple[str, ...],
    find: Callable[[str], tuple[Found | list[tuple[Path, Path]], LabelReader]],
    ignore: int,
    side: int,
    *,
    steps: int,
    prompt_tokens: int,
) -> Preset:
    """The authors' settings on OpenAI's ViT-B/16; a model half-way is kept for self-training.

    Args:
        find: split -> its pictures with label maps, and what reads these.
        ignore: label of pixels of no class.
        side: px, of crops and windows.
    """
    return Preset(
        name=name,
        clip={"name": "ViT-B-16-quickgelu", "pretrained": "openai"},
        model=ModelConfig(prompt_tokens=prompt_tokens, tower=vit_b_16(side)),
        training=TrainConfig(steps=steps, keep_every=steps // 2, checkpoint_every=500, workers=None),
        names=names,
        unseen=unseen,
        templates=templates,
        train_data=lambda seed: FolderDataset(*find("train"), Augment(side, ignore)),
        eval_data=lambda split: FolderDataset(*find(split), ToWorkingSize(side)),
        collate=folders.collate,
        final_split="val",
        window=side,
        stride=side * STRIDE // SIDE,
    )


def vit_b_16(side: int) -> TowerConfig:
    """Sizes of OpenAI's ViT-B/16 for pictures of `side` px."""
    return TowerConfig(image_size=side, patch_size=16, width=768, layers=12, heads=12, embed_dim=512, quick_gelu=True)
