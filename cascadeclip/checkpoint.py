"""Checkpoints: our safetensors format, strict and written atomically; a reader of the authors' `.pth` layout."""

import hashlib
import json
import logging
import math
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascadeclip.cascade import CascadeCLIP
from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.errors import InputError

logger = logging.getLogger(__name__)

FORMAT = "cascadeclip-1"
TOWER = "encoder.visual."  # the frozen tower's tensors are CLIP's, not the checkpoint's


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        model: the settings of its `CascadeCLIP`.
        clip: name and weights of the CLIP it was trained on, as `load_clip` takes them.
        seen: class words that had mask labels in training.
        tower_sha256: fingerprint of that CLIP's image tower.
    """

    model: ModelConfig
    clip: dict[str, str | None]
    seen: tuple[str, ...]
    tower_sha256: str


def fingerprint(visual: VisionTransformer) -> str:
    """SHA-256 over names and float32 bytes of a tower's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(visual.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def replace_file(path: Path, write) -> None:
    """Call `write(temporary path)` and move the result to `path` in one step; a reader never sees half a file."""
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        os.replace(scratch, path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {path}: {error}; choose a folder you may write to") from error
    finally:
        if scratch.exists():
            scratch.unlink()


def save_checkpoint(
    path: str | Path, model: CascadeCLIP, *, clip: dict[str, str | None], seen: tuple[str, ...], half: bool = False
) -> None:
    """Write everything but the frozen tower to one safetensors file (`half`: in float16)."""
    tensors = {name: t.detach().cpu() for name, t in own_state(model).items()}
    tensors = {name: (t.half() if half else t).contiguous() for name, t in tensors.items()}
    metadata = {
        "format": FORMAT,
        "model": json.dumps(model.config.to_dict()),
        "clip": json.dumps(clip),
        "seen": json.dumps(list(seen)),
        "tower_sha256": fingerprint(model.encoder.visual),
    }
    replace_file(Path(path), lambda scratch: save_file(tensors, scratch, metadata=metadata))


def read_checkpoint(path: str | Path) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """Settings and tensors of a checkpoint of ours.

    Raises:
        InputError: no such file, cut short, not safetensors, or not a checkpoint of this package.
    """
    metadata, tensors = _read_safetensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is no {FORMAT} checkpoint (its metadata has format={metadata.get('format')!r})")
    try:
        info = CheckpointInfo(
            model=ModelConfig.from_dict(json.loads(metadata["model"])),
            clip=dict(json.loads(metadata["clip"])),
            seen=tuple(json.loads(metadata["seen"])),
            tower_sha256=metadata["tower_sha256"],
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the settings stored in {path} are damaged: {error!r}; save or copy it again") from error
    return info, tensors


def build_model(info: CheckpointInfo, tensors: Mapping[str, Tensor], visual: VisionTransformer) -> CascadeCLIP:
    """The checkpoint's model on the CLIP tower it was trained on, in eval mode.

    Raises:
        InputError: another tower, or tensors that are missing, unknown or of other shapes.
    """
    if fingerprint(visual) != info.tower_sha256:
        raise InputError(f"the checkpoint was trained on other weights of CLIP {info.clip}; load those")
    model = CascadeCLIP(info.model, visual)
    load_own_state(model, tensors)
    return model.eval()


def own_state(model: CascadeCLIP) -> dict[str, Tensor]:
    """The model's tensors without those of the frozen tower, which is kept elsewhere."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(TOWER)}


def load_own_state(model: CascadeCLIP, tensors: Mapping[str, Tensor]) -> None:
    """Load, strictly, what `own_state` gave; the tower stays."""
    model.load_state_dict(_matched(own_state(model), tensors), strict=False)  # `_matched` is strict about its own


def load_strictly(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`load_state_dict` with one clear message for missing, unknown and misshapen tensors."""
    model.load_state_dict(_matched(model.state_dict(), tensors))


def _matched(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    misshapen = [
        f"{name}: {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & given.keys())
        if wanted[name].shape != given[name].shape
    ]
    problems = [
        f"{what} {_shorten(names)}"
        for what, names in (("missing", missing), ("unknown", unknown), ("other sizes:", misshapen))
        if names
    ]
    if problems:
        raise InputError(f"the checkpoint does not fit the model: {'; '.join(problems)}")
    return {name: given[name].to(wanted[name].dtype) for name in wanted}


def _shorten(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); copy or download it again") from error


# --- the authors' layout --------------------------------------------------------------------------------------------

_RENAME = [  # authors' name -> ours
    (r"backbone\.(prompt_proj|prompt_norm)\.(.+)", r"encoder.\1.\2"),
    (r"backbone\.ln_layers\.(.+)", r"encoder.tap_norms.\1"),
    (r"backbone\.proj_layers", r"encoder.tap_projections"),
    (r"backbone\.(.+)", TOWER + r"\1"),
    (r"decode_head\.q_projs\.(\d+)\.(.+)", r"descriptors.\1.linear.\2"),
]
_RENAME_IN_LAYER = {
    "multihead_attn.q": "query",
    "multihead_attn.k": "key",
    "multihead_attn.v": "value",
    "multihead_attn.proj": "out",
    "norm2": "norm_attention",
    "norm3": "norm_feed_forward",
    "linear1": "expand",
    "linear2": "contract",
}
_LAYER = re.compile(r"decode_head\.cascade_decoders\.(\d+)\.layers\.(\d+)\.(.+)[._](weight|bias)")
_DIMENSIONS = {
    "backbone.conv1.weight": 4,
    "backbone.positional_embedding": 2,
    "backbone.proj": 2,
    "backbone.proj_layers": 3,
    "backbone.prompt_embeddings": 3,
    "backbone.deep_prompt_embeddings": 3,
}
_DEAD_IN_LAYER = {"self_attn.in_proj", "self_attn.out_proj", "norm1"}
_DEAD_IN_LAST_LAYER = {*_DEAD_IN_LAYER, *_RENAME_IN_LAYER} - {"multihead_attn.q", "multihead_attn.k"}
_DEAD = re.compile(r"text_encoder\..*|decode_head\.loss_decode\..*")  # not part of the model that makes masks


def from_authors(
    mapping_or_path: Mapping | str | Path, *, heads: int, decoder_heads: int, quick_gelu: bool = True
) -> CascadeCLIP:
    """Build a `CascadeCLIP` from a checkpoint in the layout of the authors' code.

    Args:
        mapping_or_path: a `.pth` or `.safetensors` file, or what is in one: tensors by name, bare or under
            `state_dict`, with or without a `module.` prefix.
        heads: attention heads of the image tower (12 for ViT-B/16); no tensor's shape tells.
        decoder_heads: attention heads of the decoders (8 in the authors' settings).
        quick_gelu: the tower's activation; True for OpenAI's weights.

    Returns:
        The model in eval mode; every other size is read off the tensors. Tensors that never reach a mask (see the
        log) are dropped.

    Raises:
        InputError: an unreadable or unsafe file, a missing tensor, an unknown one, or one of another size.
    """
    tensors = _authors_tensors(mapping_or_path)
    try:
        config = _authors_config(tensors, heads, decoder_heads, quick_gelu)
    except KeyError as error:
        raise InputError(f"not a Cascade-CLIP checkpoint of the authors: tensor {error} is missing") from error
    renamed, dropped = _rename_authors(tensors, config)
    logger.info("dropped %d tensors that never reach a mask: %s", len(dropped), _shorten(dropped))
    model = CascadeCLIP(config)
    load_strictly(model, renamed)
    return model.eval()


def _authors_tensors(source: Mapping | str | Path) -> dict[str, Tensor]:
    if not isinstance(source, Mapping):
        path = Path(source)
        if not path.is_file():
            raise InputError(f"no checkpoint at {path}")
        if path.suffix == ".safetensors":
            source = _read_safetensors(path)[1]
        else:
            try:
                source = torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                raise InputError(f"{path} holds more than tensors; it was not opened, for safety ({error})") from error
            except Exception as error:  # a file of other content makes the unpickler raise anything
                raise InputError(f"{path} is cut short or no PyTorch checkpoint ({error!r})") from error
    if isinstance(source, Mapping):
        source = source.get("state_dict", source)
    if not isinstance(source, Mapping) or not source:
        raise InputError(f"not a checkpoint: expected tensors by name, found {type(source).__name__}")
    strange = [str(name) for name, value in source.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise InputError(f"not a checkpoint: entries that are no tensors by name: {_shorten(strange)}")
    return {name.removeprefix("module."): tensor for name, tensor in source.items()}


def _authors_config(tensors: dict[str, Tensor], heads: int, decoder_heads: int, quick_gelu: bool) -> ModelConfig:
    def count(pattern: str) -> int:
        return 1 + max((int(m[1]) for name in tensors if (m := re.match(pattern, name))), default=-1)

    for name, dimensions in _DIMENSIONS.items():
        if tensors[name].ndim != dimensions:
            raise InputError(f"{name} has shape {tuple(tensors[name].shape)}; expected {dimensions} dimensions")
    width, _, patch, _ = tensors["backbone.conv1.weight"].shape
    layers = count(r"backbone\.transformer\.resblocks\.(\d+)\.")
    stages, block = [], layers - len(tensors["backbone.proj_layers"])
    for stage in range(1, count(r"decode_head\.cascade_decoders\.(\d+)\.")):
        depth = tensors[f"decode_head.weights_s{stage}"].numel()
        stages.append(tuple(range(block, block + depth)))
        block += depth
    if block != layers:
        raise InputError(f"{layers - block} tapped blocks belong to no stage of the checkpoint")
    tower = TowerConfig(
        image_size=patch * math.isqrt(len(tensors["backbone.positional_embedding"]) - 1),
        patch_size=patch,
        width=width,
        layers=layers,
        heads=heads,
        embed_dim=tensors["backbone.proj"].shape[1],
        quick_gelu=quick_gelu,
    )
    return ModelConfig(
        stages=(*stages, (layers,)),
        prompt_tokens=tensors["backbone.prompt_embeddings"].shape[1],
        decoder_layers=count(r"decode_head\.cascade_decoders\.0\.layers\.(\d+)\."),
        decoder_heads=decoder_heads,
        tower=tower,
    )


def _rename_authors(tensors: dict[str, Tensor], config: ModelConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under our names, and the authors' names of those that never reach a mask."""
    tensors, renamed, dropped = dict(tensors), {}, []
    first, deep = (tensors.pop(f"backbone.{name}prompt_embeddings") for name in ("", "deep_"))
    if first.shape[1:] != deep.shape[1:]:
        raise InputError(
            f"prompt_embeddings {tuple(first.shape)} and deep_prompt_embeddings {tuple(deep.shape)} differ"
        )
    renamed["encoder.prompts"] = torch.cat([first, deep])
    for name, tensor in tensors.items():
        target = None
        if layer := _LAYER.fullmatch(name):
            target = _rename_in_decoder(*layer.groups(), last=config.decoder_layers - 1)
        elif weights := re.fullmatch(r"decode_head\.weights_s(\d+)", name):
            target = f"aggregations.{int(weights[1]) - 1}.weights"
            if tensor.numel() == 1:  # a stage of one block is that block, it has no weight here
                target = None
                if tensor.item() != 1:
                    raise InputError(f"{name} is {tensor.item()}: a stage of one block can only have the weight 1")
        elif not _DEAD.fullmatch(name):
            target = next((re.sub(old, new, name) for old, new in _RENAME if re.fullmatch(old, name)), name)
        if target is None:
            dropped.append(name)
        else:
            renamed[target] = tensor
    return renamed, dropped


def _rename_in_decoder(decoder: str, layer: str, part: str, kind: str, *, last: int) -> str | None:
    """Our name of a decoder tensor; None for one that never reaches a mask. An unknown one keeps its name."""
    is_last = int(layer) == last
    if part in (_DEAD_IN_LAST_LAYER if is_last else _DEAD_IN_LAYER):
        return None
    place = "mask" if is_last else f"layers.{layer}"
    return f"decoders.{decoder}.{place}.{_RENAME_IN_LAYER.get(part, part)}.{kind}"
