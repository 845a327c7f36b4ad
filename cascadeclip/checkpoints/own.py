"""Checkpoints: our safetensors format, strict and written atomically, and one door to every kind of file."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor

from cascadeclip._version import __version__
from cascadeclip.checkpoints.authors import read_authors
from cascadeclip.checkpoints.sizes import check_sizes
from cascadeclip.clip.load import MINI, RANDOM, Clip, fits_sizes, load_clip
from cascadeclip.config import ModelConfig, Offset
from cascadeclip.data.words import check_templates, check_words
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.files import parse_json, replace_file
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import tower_config
from cascadeclip.processes import plain_torch
from cascadeclip.schema import Range, check_fields
from cascadeclip.tensors import TOWER, check_finite, matched, read_safetensors

FORMAT = "cascadeclip-1"
_STORED = {  # metadata in JSON, and what files say that do not have it
    "model": "{}",
    "clip": "{}",
    "seen": "null",
    "templates": "null",
    "seen_offset": "0.1",
}
TRAINED = "model.safetensors"  # what training writes into its folder


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        model: the settings of its `CascadeCLIP`.
        clip: name and weights of the CLIP it was trained on, as `load_clip` takes them.
        seen: class words that had mask labels in training.
        tower_sha256: fingerprint of that CLIP's image tower.
        templates: sentences that class words were put into; None in files that do not say.
        seen_offset: what is taken off the seen classes, see `evaluation.predict`.
    """

    model: ModelConfig
    clip: dict[str, str | None]
    seen: tuple[str, ...]
    tower_sha256: str
    templates: Annotated[tuple[str, ...] | None, Range(1, 10_000)] = None
    seen_offset: Offset = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.clip.get("name"), str) or self.clip.keys() - {"name", "pretrained"}:
            raise InputError(f"clip={self.clip}: must give the name of a CLIP, and may give pretrained")
        check_words(self.seen, "seen words")
        if self.templates is not None:
            check_templates(self.templates)


@dataclass(frozen=True)
class Loaded:
    """A model read from a file, and where each of its tensors came from.

    Attributes:
        model: in eval mode.
        info: what the checkpoint says of itself; None in the authors' layout, which says nothing.
        clip: the CLIP that a checkpoint of ours was trained on; None in the authors' layout, which holds its tower.
        lines: for people: which tensors came from where, and which were dropped.
    """

    model: CascadeCLIP
    info: CheckpointInfo | None
    clip: Clip | None
    lines: tuple[str, ...]


def fingerprint(visual: VisionTransformer) -> str:
    """SHA-256 over names and float32 bytes of a tower's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(visual.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: str | Path,
    model: CascadeCLIP,
    *,
    clip: dict[str, str | None],
    seen: tuple[str, ...],
    templates: tuple[str, ...] | None = None,
    seen_offset: float = 0.1,
    half: bool = False,
) -> None:
    """Write everything but the frozen tower to one safetensors file (`half`: in float16).

    Raises:
        InputError: weights that are not finite numbers, settings that could not be read again, or a file that cannot be
            written.
    """
    tower = fingerprint(model.encoder.visual)
    CheckpointInfo(model.config, clip, seen, tower, templates, seen_offset)  # the check that reading makes
    tensors = {name: t.detach().cpu() for name, t in own_state(model).items()}
    tensors = {name: (t.half() if half else t).contiguous() for name, t in tensors.items()}
    check_finite(tensors, f"{path} was not written, the model is of no use")
    metadata = {
        "format": FORMAT,
        "version": __version__,
        "model": json.dumps(model.config.to_dict()),
        "clip": json.dumps(clip),
        "seen": json.dumps(list(seen)),
        "templates": json.dumps(templates),
        "seen_offset": json.dumps(seen_offset),
        "tower_sha256": tower,
    }
    replace_file(Path(path), lambda scratch: save_file(tensors, scratch, metadata=metadata))


def read_checkpoint(path: str | Path) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """Settings and tensors of a checkpoint of ours.

    Raises:
        InputError: no such file, cut short, not safetensors, or not a checkpoint of this package.
    """
    metadata, tensors = read_safetensors(Path(path))
    check_format(metadata.get("format"), FORMAT, f"{path} is no {FORMAT} checkpoint")
    stored: dict[str, Any] = {
        name: parse_json(metadata.get(name, before), f"{name} in the metadata of {path}")
        for name, before in _STORED.items()
    }
    try:
        info = CheckpointInfo(
            model=ModelConfig.from_dict(stored.pop("model")), tower_sha256=metadata.get("tower_sha256", ""), **stored
        )  # fmt: skip
    except InputError as error:
        raise DamagedFile(f"the settings stored in {path} do not fit: {error}") from error
    return info, tensors


def check_format(found: object, wanted: str, refusal: str) -> None:
    """An `InputError` that begins with `refusal` unless a file's format is the one wanted, `<name>-<number>`."""
    if found == wanted:
        return
    kind, _, number = wanted.rpartition("-")
    name, _, other = str(found).rpartition("-")
    newer = name == kind and other.isdecimal() and len(other) < 5 and int(other) > int(number)
    about = f": it was written by a newer cascadeclip; this is {__version__}: upgrade it" if newer else ""
    raise InputError(f"{refusal} (its metadata has format={found!r:.60}){about}")


@plain_torch()
def load_any(
    path: str | Path,
    clip: Callable[[CheckpointInfo], Clip] | None = None,
    *,
    heads: int = 12,
    decoder_heads: int = 8,
    quick_gelu: bool = True,
) -> Loaded:
    """A model from a checkpoint of ours, or from one in the layout of Cascade-CLIP's or ZegCLIP's authors.

    Args:
        path: a `.safetensors` file of either kind, or a `.pth` of the authors.
        clip: gives the CLIP that a checkpoint of ours names; by default `load_clip` does.
        heads, decoder_heads, quick_gelu: of a checkpoint in the authors' layout, see `from_authors`.

    Raises:
        InputError: as `read_checkpoint`, `build_model` and `from_authors`.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or _is_authors(read_safetensors(path)[1]):
        model, dropped = read_authors(path, heads=heads, decoder_heads=decoder_heads, quick_gelu=quick_gelu)
        lines = (*_origins(model, path.name, path.name), f"dropped: {len(dropped)} tensors that never reach a mask")
        return Loaded(model, None, None, lines)
    info, tensors = read_checkpoint(path)
    check_sizes(info.model, tensors, tower=False)  # before its CLIP is fetched
    built_on = (clip or clip_of)(info)
    model = _on_tower(info, tensors, built_on.visual)
    weights = info.clip.get("pretrained")
    tower = f"{info.clip.get('name')} ({weights})" if weights else str(info.clip.get("name"))
    return Loaded(model, info, built_on, _origins(model, tower, path.name))


def _is_authors(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.removeprefix("module.").startswith("backbone.") for name in tensors)


def clip_of(info: CheckpointInfo, name: str | None = None, weights: str | Path | None = None) -> Clip:
    """The CLIP that a checkpoint was trained on.

    Args:
        name: what it is said to be; None believes the checkpoint.
        weights: where they lie here, a file or a tag of open_clip, or "random"; None: where the checkpoint says.

    Raises:
        InputError: a checkpoint on another CLIP or on other weights, or weights that cannot be had.
    """
    if name is not None and name != info.clip["name"]:
        raise InputError(f"the checkpoint was trained on CLIP {info.clip['name']!r}, not on {name!r}: leave --clip out")
    own_weights = info.clip["name"] == MINI  # whatever stands beside it: earlier versions wrote the preset's tag there
    known = None if own_weights else info.clip.get("pretrained")
    if weights is not None and (own_weights or (weights == RANDOM and known not in (None, RANDOM))):
        its = "its own weights" if known is None else f"the weights {known!r}"
        raise InputError(
            f"the checkpoint was trained on CLIP {info.clip['name']!r} with {its}, not on {str(weights)!r}: leave "
            "--clip-weights out"
        )
    if not fits_sizes(str(info.clip["name"]), info.model.tower):
        raise _other_weights(info)
    asked = known if weights is None else weights
    try:
        return load_clip(str(info.clip["name"]), asked, image_size=info.model.tower.image_size)
    except InputError as error:
        raise InputError(f"{error}. Weights that lie elsewhere: --clip-weights, or clip_weights=") from error


def _origins(model: CascadeCLIP, tower: str, own: str) -> tuple[str, ...]:
    return (
        f"tower: {len(model.encoder.visual.state_dict())} tensors from {tower}",
        f"decoders, prompts, taps: {len(own_state(model))} tensors from {own}",
    )


def build_model(info: CheckpointInfo, tensors: Mapping[str, Tensor], visual: VisionTransformer) -> CascadeCLIP:
    """The checkpoint's model on the CLIP tower it was trained on, in eval mode.

    Raises:
        InputError: another tower, or tensors that are missing, unknown or of other shapes.
    """
    check_sizes(info.model, tensors, tower=False)
    return _on_tower(info, tensors, visual)


def _on_tower(info: CheckpointInfo, tensors: Mapping[str, Tensor], visual: VisionTransformer) -> CascadeCLIP:
    """`build_model`, once the sizes were checked."""
    if tower_config(visual) != info.model.tower or fingerprint(visual) != info.tower_sha256:
        raise _other_weights(info)
    model = CascadeCLIP(info.model, visual)
    load_own_state(model, tensors)
    return model.eval()


def _other_weights(info: CheckpointInfo) -> InputError:
    return InputError(f"the checkpoint was trained on other weights of CLIP {info.clip}; load those")


def own_state(model: CascadeCLIP) -> dict[str, Tensor]:
    """The model's tensors without those of the frozen tower, which is kept elsewhere."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(TOWER)}


def load_own_state(model: CascadeCLIP, tensors: Mapping[str, Tensor]) -> None:
    """Load, strictly, what `own_state` gave; the tower stays."""
    model.load_state_dict(matched(own_state(model), tensors), strict=False)  # `matched` is strict about its own
