"""The layout of the authors' checkpoints, Cascade-CLIP's and ZegCLIP's: read and written.

Theirs is what mmcv saves: `{"state_dict": tensors by name, "meta": ...}`. The tower is in it; heads and activation are
not. ZegCLIP is the model of one stage, with other names for its decoder.
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cascadeclip.checkpoints.sizes import check_sizes
from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import build_tower
from cascadeclip.tensors import TOWER, check_finite, load_strictly, read_pth, read_safetensors, shorten, write_pth

logger = logging.getLogger(__name__)

_PREFIXES = [  # theirs, ours; the first that fits
    ("backbone.prompt_proj.", "encoder.prompt_proj."),
    ("backbone.prompt_norm.", "encoder.prompt_norm."),
    ("backbone.ln_layers.", "encoder.tap_norms."),
    ("backbone.proj_layers", "encoder.tap_projections"),
    ("backbone.", TOWER),
]
_IN_LAYER = {
    "multihead_attn.q": "query",
    "multihead_attn.k": "key",
    "multihead_attn.v": "value",
    "multihead_attn.proj": "out",
    "norm2": "norm_attention",
    "norm3": "norm_feed_forward",
    "linear1": "expand",
    "linear2": "contract",
}
_IN_LAYER_OURS = {ours: theirs for theirs, ours in _IN_LAYER.items()}
_LAYER = re.compile(r"decode_head\.cascade_decoders\.(\d+)\.layers\.(\d+)\.(.+)[._](weight|bias)")
_LAYER_OURS = re.compile(r"decoders\.(\d+)\.(?:layers\.(\d+)|mask)\.(\w+)\.(weight|bias)")
_DIMENSIONS = {
    "backbone.conv1.weight": 4,
    "backbone.positional_embedding": 2,
    "backbone.proj": 2,
    "backbone.proj_layers": 3,
    "backbone.prompt_embeddings": 3,
    "backbone.deep_prompt_embeddings": 3,
}
_DEAD_IN_LAYER = {"self_attn.in_proj", "self_attn.out_proj", "norm1"}
_DEAD_IN_LAST_LAYER = {*_DEAD_IN_LAYER, *_IN_LAYER} - {"multihead_attn.q", "multihead_attn.k"}
_DEAD = re.compile(r"text_encoder\..*|decode_head\.loss_decode\..*")  # not part of the model that makes masks
_ZEGCLIP = {  # Cascade-CLIP's prefixes -> ZegCLIP's
    "decode_head.cascade_decoders.0.": "decode_head.decoder_1.",
    "decode_head.q_projs.0.": "decode_head.q_proj.",
}


def from_authors(
    mapping_or_path: Mapping[str, Any] | str | Path, *, heads: int, decoder_heads: int, quick_gelu: bool = True
) -> CascadeCLIP:
    """Build a `CascadeCLIP` from a checkpoint in the layout of the authors' code, Cascade-CLIP's or ZegCLIP's.

    Args:
        mapping_or_path: a `.pth` or `.safetensors` file, or what is in one: tensors by name, bare or under
            `state_dict`, with or without a `module.` prefix.
        heads: attention heads of the image tower (12 for ViT-B/16); no tensor's shape tells.
        decoder_heads: attention heads of the decoders (8 in the authors' settings).
        quick_gelu: the tower's activation; True for OpenAI's weights.

    Returns:
        The model in eval mode; every other size is read off the tensors. Tensors that never reach a mask (see the
        log) are dropped. A checkpoint of ZegCLIP becomes a model of one stage, the last block.

    Raises:
        InputError: an unreadable or unsafe file, a missing tensor, an unknown one, or one of another size.
    """
    return read_authors(mapping_or_path, heads=heads, decoder_heads=decoder_heads, quick_gelu=quick_gelu)[0]


def read_authors(
    mapping_or_path: Mapping[str, Any] | str | Path, *, heads: int, decoder_heads: int, quick_gelu: bool = True
) -> tuple[CascadeCLIP, list[str]]:
    """`from_authors`, and the authors' names of the tensors that were dropped because they never reach a mask."""
    tensors = _named_as_cascade(_tensors(mapping_or_path))
    try:
        config = _config(tensors, heads, decoder_heads, quick_gelu)
    except KeyError as error:
        raise InputError(
            f"not a checkpoint of Cascade-CLIP's or ZegCLIP's authors: tensor {error} is missing"
        ) from error
    renamed, dropped = _rename(tensors, config)
    logger.info("dropped %d tensors that never reach a mask: %s", len(dropped), shorten(dropped))
    check_sizes(config, renamed, tower=True)
    model = CascadeCLIP(config)
    load_strictly(model, renamed)
    return model.eval(), dropped


def to_authors(model: CascadeCLIP) -> dict[str, Tensor]:
    """The model's tensors, copied to the CPU, under the authors' names: the inverse of `from_authors`.

    A model of one stage takes ZegCLIP's names. The dead tensors of the authors' modules are not made up: their loader
    reports them as missing and leaves them as they were built, which changes nothing, since they never reach a mask.
    Settings without tensors (heads, activation, dropout, `upsample_through_training_size`) are not in the layout.

    Raises:
        InputError: a model that the layout cannot express; the message says why.
    """
    if problems := _inexpressible(model):
        raise InputError(f"the authors' layout cannot hold this model: {'; '.join(problems)}")
    config, tensors = model.config, {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().clone()
        if name == "encoder.prompts":
            tensors["backbone.prompt_embeddings"] = tensor[:1].clone()
            tensors["backbone.deep_prompt_embeddings"] = tensor[1:].clone()
        else:
            tensors[_name_for_authors(name, last=config.decoder_layers - 1)] = tensor
    if len(config.stages) == 1:
        del tensors["backbone.proj_layers"]  # of no blocks
        return _replace_prefixes(tensors, _ZEGCLIP)
    for number, stage in enumerate(config.stages[:-1], start=1):
        if len(stage) == 1:  # their aggregation has a weight there too
            tensors[f"decode_head.weights_s{number}"] = torch.ones(1)
    return tensors


def save_authors(path: str | Path, model: CascadeCLIP) -> None:
    """Write `to_authors(model)` as a `.pth` for the authors' code, in one step; `from_authors` reads it back.

    `meta` says what no tensor does: `heads`, `decoder_heads` and `quick_gelu`, the arguments of `from_authors`.

    Raises:
        InputError: a model that the layout cannot express, weights that are not finite numbers, or a file that cannot
            be written.
    """
    check_finite(model.state_dict(), f"{path} was not written, the model is of no use")
    config = model.config
    meta = {
        "heads": config.tower.heads,
        "decoder_heads": config.decoder_heads,
        "quick_gelu": config.tower.quick_gelu,
        "stages": [list(stage) for stage in config.stages],
    }
    write_pth(Path(path), {"meta": meta, "state_dict": to_authors(model)})


# --- reading --------------------------------------------------------------------------------------------------------


def _tensors(mapping_or_path: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    source: object = mapping_or_path
    if not isinstance(mapping_or_path, Mapping):
        path = Path(mapping_or_path)
        source = read_safetensors(path)[1] if path.suffix == ".safetensors" else read_pth(path)
    if isinstance(source, Mapping):
        source = source.get("state_dict", source)
    if not isinstance(source, Mapping) or not source:
        raise InputError(f"not a checkpoint: expected tensors by name, found {type(source).__name__}")
    strange = [str(name) for name, value in source.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise InputError(f"not a checkpoint: entries that are no tensors by name: {shorten(strange)}")
    return {name.removeprefix("module."): tensor for name, tensor in source.items()}


def _named_as_cascade(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """ZegCLIP's tensors under Cascade-CLIP's names; Cascade-CLIP's as they are."""
    if not any(name.startswith(tuple(_ZEGCLIP.values())) for name in tensors):
        return tensors
    if any(name.startswith("decode_head.cascade_decoders.") for name in tensors):
        return tensors  # not ZegCLIP's; what is foreign to Cascade-CLIP will be named as unknown
    projected = sorted(name for name in tensors if re.match(r"decode_head\.(input_proj|proj_norm)_\d+\.", name))
    if projected:
        raise InputError(
            "a ZegCLIP checkpoint trained with use_proj=True: it projects and normalises the patch tokens before its "
            f"decoder ({shorten(projected)}), and this model has no such layer. Checkpoints of ZegCLIP's published "
            "zero-shot settings (use_proj=False) can be read"
        )
    renamed = _replace_prefixes(tensors, {theirs: cascade for cascade, theirs in _ZEGCLIP.items()})
    if "backbone.proj" in renamed:
        return {
            "backbone.proj_layers": renamed["backbone.proj"].new_empty(0, *renamed["backbone.proj"].shape),
            **renamed,
        }
    return renamed


def _replace_prefixes(tensors: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    def rename(name: str) -> str:
        return next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name)

    return {rename(name): tensor for name, tensor in tensors.items()}


def _config(tensors: dict[str, Tensor], heads: int, decoder_heads: int, quick_gelu: bool) -> ModelConfig:
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
        image_size=patch * math.isqrt(max(len(tensors["backbone.positional_embedding"]) - 1, 0)),
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


def _rename(tensors: dict[str, Tensor], config: ModelConfig) -> tuple[dict[str, Tensor], list[str]]:
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
            target = _name_in_decoder(*layer.groups(), last=config.decoder_layers - 1)
        elif weights := re.fullmatch(r"decode_head\.weights_s(\d+)", name):
            target = f"aggregations.{int(weights[1]) - 1}.weights"
            if tensor.numel() == 1:  # a stage of one block is that block, it has no weight here
                target = None
                if tensor.item() != 1:
                    raise InputError(f"{name} is {tensor.item()}: a stage of one block can only have the weight 1")
        elif descriptor := re.fullmatch(r"decode_head\.q_projs\.(\d+)\.(.+)", name):
            target = f"descriptors.{descriptor[1]}.linear.{descriptor[2]}"
        elif not _DEAD.fullmatch(name):
            known = (ours + name.removeprefix(theirs) for theirs, ours in _PREFIXES if name.startswith(theirs))
            target = next(known, name)
        if target is None:
            dropped.append(name)
        else:
            renamed[target] = tensor
    return renamed, dropped


def _name_in_decoder(decoder: str, layer: str, part: str, kind: str, *, last: int) -> str | None:
    """Our name of a decoder tensor; None for one that never reaches a mask. An unknown one keeps its name."""
    is_last = int(layer) == last
    if part in (_DEAD_IN_LAST_LAYER if is_last else _DEAD_IN_LAYER):
        return None
    place = "mask" if is_last else f"layers.{layer}"
    return f"decoders.{decoder}.{place}.{_IN_LAYER.get(part, part)}.{kind}"


# --- writing --------------------------------------------------------------------------------------------------------


def _name_for_authors(name: str, *, last: int) -> str:
    if found := _LAYER_OURS.fullmatch(name):
        decoder, layer, part, kind = found.groups()
        layer = last if layer is None else layer
        return f"decode_head.cascade_decoders.{decoder}.layers.{layer}.{_IN_LAYER_OURS[part]}.{kind}"
    if found := re.fullmatch(r"descriptors\.(\d+)\.linear\.(\w+)", name):
        return f"decode_head.q_projs.{found[1]}.{found[2]}"
    if found := re.fullmatch(r"aggregations\.(\d+)\.weights", name):
        return f"decode_head.weights_s{int(found[1]) + 1}"
    return next(theirs + name.removeprefix(ours) for theirs, ours in _PREFIXES if name.startswith(ours))


def _inexpressible(model: CascadeCLIP) -> list[str]:
    """What the authors' layout has no place for, in words."""
    config, layers, problems = model.config, model.config.tower.layers, []
    *tapped, last = config.stages
    blocks = [block for stage in tapped for block in stage]
    if last != (layers,):
        problems.append(f"the last stage is {last}, theirs is always the last block alone, ({layers},)")
    if blocks != list(range(layers - len(blocks), layers)):
        problems.append(f"the stages {tapped} are not consecutive blocks that end with block {layers - 1}")
    if config.aggregation != "nga" and any(len(stage) > 1 for stage in config.stages):
        problems.append(f"aggregation={config.aggregation!r}, theirs is always 'nga'")
    if not config.prompt_tokens:
        problems.append("prompt_tokens=0, their tower always has prompts")
    if config.centre_text:
        problems.append("centre_text=True, their model takes text embeddings as they are")
    if not config.class_embedding_twice:
        problems.append("class_embedding_twice=False, their tower always adds it twice")
    problems += [
        f"{name}, theirs has no such setting"
        for name in ("shared_projection", "shared_decoder")
        if getattr(config, name)
    ]
    if config.spectral_blocks:
        problems.append(f"spectral_blocks={config.spectral_blocks}, theirs has no spectral prompt")
    with torch.device("meta"):
        plain = _leaves(build_tower(config.tower))
    own = _leaves(model.encoder.visual)
    different = sorted(name for name in plain.keys() | own.keys() if plain.get(name) != own.get(name))
    if different:
        problems.append(f"the tower is not their plain ViT but differs in {shorten(different)}")
    return problems


def _leaves(module: nn.Module) -> dict[str, str]:
    """Innermost modules by name, in words: kind and settings."""
    return {name: repr(part) for name, part in module.named_modules() if not any(part.children())}
