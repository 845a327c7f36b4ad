"""Settings as dataclasses. One `ModelConfig` states every variant of the model; presets live in `presets.py`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, TypeVar

from cascadeclip._version import __version__
from cascadeclip.errors import InputError
from cascadeclip.schema import Range, check_fields

PRECISIONS = ("fp32", "bf16", "fp16")
AGGREGATIONS = ("nga", "sum", "mean", "concat", "attention")
ALIGNED = ("none", "last", "all")

# Settings that files of older versions do not have, and the value that means "as it was before there was a choice".
# Whoever adds a setting to a configuration adds a row here.
AS_BEFORE: dict[str, Any] = {
    "train_aggregation": True,
    "shared_projection": False,
    "shared_decoder": False,
    "spectral_blocks": [],
    "centre_text": False,
    "aligned_start": "none",
    "compile": False,
}

# Far above what anybody uses; a damaged file must not make us reserve terabytes.
Size = Annotated[int, Range(high=2**14)]
Steps = Annotated[int, Range(high=10**9)]
Offset = Annotated[float, Range(-1, 1)]  # what is taken off the probability of seen classes
MOST_PATCHES = 256  # in a row; no tensor of a checkpoint has to have as many


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of the frozen image tower (Mini-CLIP's by default).

    Attributes:
        image_size: px; side of the pictures that the position embedding is stored for.
        patch_size: px.
        width: D, width of the tokens.
        layers: L, number of blocks.
        heads: attention heads per block.
        embed_dim: E, width of the joint image-text space.
        quick_gelu: x * sigmoid(1.702 x) instead of GELU, as in OpenAI's weights.
    """

    image_size: Size = 96
    patch_size: Size = 8
    width: Size = 192
    layers: Annotated[int, Range(high=1000)] = 12
    heads: Size = 3
    embed_dim: Size = 128
    quick_gelu: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "tower.")
        for name in ("image_size", "patch_size", "width", "layers", "heads", "embed_dim"):
            _require(getattr(self, name) >= 1, f"tower.{name}={getattr(self, name)} must be at least 1")
        _require(self.width % self.heads == 0, f"tower.width={self.width} does not split into {self.heads} heads")
        _require(
            self.image_size % self.patch_size == 0,
            f"tower.image_size={self.image_size} is not a multiple of tower.patch_size={self.patch_size}",
        )
        _require(
            self.image_size <= MOST_PATCHES * self.patch_size,
            f"tower.image_size={self.image_size} is more than {MOST_PATCHES} patches of {self.patch_size} px",
        )


@dataclass(frozen=True)
class ModelConfig:
    """What a `CascadeCLIP` is made of.

    Attributes:
        stages: blocks of each stage, numbered 1..L. `((12,),)` is ZegCLIP.
        aggregation: how a stage of several blocks becomes one: `nga` (the paper's), `sum`, `mean`, `concat`
            (followed by a linear layer) or `attention` (a softmax over the blocks at each patch).
        sigma: width of NGA's Gaussian at initialisation, in blocks.
        prompt_tokens: P, prompt tokens per block; 0 leaves CLIP frozen as it is.
        decoder_layers, decoder_heads: of each text-image decoder.
        dropout: on prompts, attention and feed-forward while training.
        tower: sizes of the image tower.
        class_embedding_twice: quirk of the authors' code: the class token is class embedding + class embedding +
            position, where CLIP adds the class embedding once.
        train_taps: False is a quirk of the authors' code: LayerNorm and projection of the tapped blocks keep their
            random initial values. True trains them.
        centre_text: subtract the mean text embedding of the classes trained on, then normalise again. CLIP's text
            embeddings all lie in a narrow cone; what words differ in is what the masks need.
        aligned_start: the stages for which query and key of the decoder's last layer start near the identity, so that
            their first mask logits are the similarity of query and patch token; training has to find this otherwise.
            "last": those that read the last block, whose tokens CLIP aligned with words; "all"; or "none". (Files of
            older versions have true for "all" and false for "none".)
        train_aggregation: False freezes NGA's weights.
        shared_projection, shared_decoder: all stages use one descriptor, one decoder.
        spectral_blocks: SPT-SEG's spectral prompt is added before these blocks, see `spectral.py`.
        upsample_through_training_size: quirk of the authors' code: at inference the mask logits are brought to
            `tower.image_size` squared first, whatever the picture's size, and from there to the picture.
    """

    stages: Annotated[tuple[tuple[int, ...], ...], Range(high=1000)] = ((6, 7, 8), (9, 10, 11), (12,))
    aggregation: str = "nga"
    sigma: Annotated[float, Range(high=1e6)] = 1.0
    prompt_tokens: Annotated[int, Range(high=10_000)] = 10
    decoder_layers: Annotated[int, Range(high=100)] = 3
    decoder_heads: int = 8
    dropout: float = 0.1
    tower: TowerConfig = field(default_factory=TowerConfig)
    class_embedding_twice: bool = True
    train_taps: bool = False
    upsample_through_training_size: bool = True
    centre_text: bool = False
    aligned_start: str = "none"
    train_aggregation: bool = True
    shared_projection: bool = False
    shared_decoder: bool = False
    spectral_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        nested = isinstance(self.stages, list | tuple) and all(isinstance(stage, list | tuple) for stage in self.stages)
        _require(nested, f"stages={self.stages!r:.60}: write a list of blocks for every stage, as in [[6, 7, 8], [12]]")
        check_fields(self)
        layers, width = self.tower.layers, self.tower.embed_dim
        _require(self.stages and all(self.stages), f"stages={self.stages}: name at least one block in every stage")
        for stage in self.stages:
            missing = [block for block in stage if not 1 <= block <= layers]
            _require(not missing, f"stages={self.stages}: the tower has blocks 1..{layers}, not {missing}")
            _require(len(set(stage)) == len(stage), f"stages={self.stages}: a block stands twice in {stage}")
        _require(
            self.aggregation in AGGREGATIONS,
            f"aggregation={self.aggregation!r}: choose from {', '.join(AGGREGATIONS)}",
        )
        _require(
            self.aligned_start in ALIGNED, f"aligned_start={self.aligned_start!r}: choose from {', '.join(ALIGNED)}"
        )
        beyond = [block for block in self.spectral_blocks if not 1 <= block <= layers]
        _require(not beyond, f"spectral_blocks={self.spectral_blocks}: the tower has blocks 1..{layers}, not {beyond}")
        _require(self.sigma >= 1e-3, f"sigma={self.sigma} must be positive, 0.001 blocks at least")
        _require(self.prompt_tokens >= 0, f"prompt_tokens={self.prompt_tokens} must not be negative")
        _require(self.decoder_layers >= 1, f"decoder_layers={self.decoder_layers} must be at least 1")
        _require(0 <= self.dropout < 1, f"dropout={self.dropout} must be in [0, 1)")
        _require(
            self.decoder_heads >= 1 and width % self.decoder_heads == 0,
            f"decoder_heads={self.decoder_heads}: the joint width {width} does not split into so many heads",
        )

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks below the last one that some stage reads, ascending."""
        return tuple(sorted({block for stage in self.stages for block in stage} - {self.tower.layers}))

    def aligns(self, blocks: tuple[int, ...]) -> bool:
        """Whether the decoder of these blocks has an aligned start."""
        return self.aligned_start == "all" or (self.aligned_start == "last" and self.tower.layers in blocks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Strict: an unknown or missing setting is an `InputError`. Of settings that files of older versions do not
        have, `AS_BEFORE` says the value.
        """
        _require(isinstance(values, Mapping), f"settings of a model must be an object, {{...}}, not {values!r:.60}")
        if type(values.get("aligned_start")) is bool:
            values = {**values, "aligned_start": "all" if values["aligned_start"] else "none"}
        tower = values.get("tower", {})
        _require(isinstance(tower, Mapping), f"tower must be an object, {{...}}, not {tower!r:.60}")
        return _strict(cls, {**values, "tower": _strict(TowerConfig, tower)})


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Defaults are the authors', but for the length of the run.

    Attributes:
        steps: optimiser steps.
        batch_size: pictures per optimiser step, over all processes.
        accumulate: each process runs its share of a step in so many parts, to save memory.
        gradient_checkpointing: recompute the tower's blocks in the backward pass: less memory, about a third slower.
        learning_rate, weight_decay: of AdamW, the same for everything trainable.
        warmup: steps of linear warm-up, from `warmup_factor` of the learning rate.
        power, min_learning_rate: of the polynomial decay that follows.
        clip_norm: the gradient's norm is cut to this; None leaves it.
        focal_weight, dice_weight: of the two parts of the loss.
        ignored_are_negatives: quirk of the authors' code, see `losses.segmentation_loss`.
        transductive: self-training, see `training.train`.
        loss_size: px; labels are reduced to this side before the loss. None: full resolution.
        seed: fixes initial weights, data order and dropout; 0 to 2**20 - 1.
        precision: `bf16` (float32 where the device has none), `fp16` (CUDA, with loss scaling) or `fp32`.
        compile: `torch.compile` the model: minutes at the start, then faster on many devices (measure it with
            `cascadeclip bench --compile`); on a CPU it needs a C++ compiler and Python's headers.
        workers: processes that read pictures, per training process; 0: the training process reads; None: as many as its
            share of the processor cores allows, see `processes.readers`.
        validate_every, checkpoint_every: steps; 0 for only at the end.
        keep_every: steps between models that are kept for good; 0 keeps none but the last.
    """

    steps: Steps = 20_000
    batch_size: Steps = 16
    accumulate: Steps = 1
    gradient_checkpointing: bool = False
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup: Steps = 1500
    warmup_factor: Annotated[float, Range(0, 1)] = 1e-6
    power: Annotated[float, Range(0)] = 0.9
    min_learning_rate: Annotated[float, Range(0)] = 1e-6
    clip_norm: Annotated[float | None, Range(0)] = None
    focal_weight: Annotated[float, Range(0)] = 100.0
    dice_weight: Annotated[float, Range(0)] = 1.0
    ignored_are_negatives: bool = True
    transductive: bool = False
    loss_size: Annotated[int | None, Range(1, 2**14)] = None
    seed: int = 0
    precision: str = "bf16"
    compile: bool = False
    workers: Annotated[int | None, Range(0, 10_000)] = 0
    validate_every: Steps = 0
    checkpoint_every: Steps = 0
    keep_every: Steps = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "batch_size", "learning_rate", "accumulate"):
            _require(getattr(self, name) > 0, f"{name}={getattr(self, name)} must be positive")
        for name in ("weight_decay", "warmup", "validate_every", "checkpoint_every", "keep_every"):
            _require(getattr(self, name) >= 0, f"{name}={getattr(self, name)} must not be negative")
        _require(self.clip_norm != 0, "clip_norm=0 leaves nothing of any gradient; None (null) cuts none")
        _require(
            self.focal_weight or self.dice_weight,
            f"focal_weight={self.focal_weight} and dice_weight={self.dice_weight}: one must be positive",
        )
        _require(0 <= self.seed < 2**20, f"seed={self.seed} must be from 0 to {2**20 - 1}")
        _require(self.precision in PRECISIONS, f"precision={self.precision!r}: choose from {', '.join(PRECISIONS)}")

    def learning_rate_at(self, step: int) -> float:
        """Polynomial decay over the whole run; the first `warmup` steps (at most half of it) are scaled up linearly."""
        warmup = min(self.warmup, self.steps // 2)
        low, high = self.min_learning_rate, self.learning_rate
        rate = (high - low) * (1 - step / self.steps) ** self.power + low
        if step < warmup:
            rate *= 1 - (1 - step / warmup) * (1 - self.warmup_factor)
        return rate


Kind = TypeVar("Kind", TowerConfig, ModelConfig)


def _strict(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    names = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - names)
    _require(
        not unknown,
        f"{kind.__name__}: unknown settings {unknown}, written by a newer cascadeclip; this is {__version__}: "
        "upgrade it",
    )
    values = {name: value for name, value in AS_BEFORE.items() if name in names} | dict(values)
    missing = sorted(names - set(values))
    _require(not missing, f"{kind.__name__}: missing settings {missing}")
    return kind(**values)


def _require(condition: object, message: str) -> None:
    if not condition:
        raise InputError(message)
