"""CLIP for the package: weights, tokenizer, and class words turned into text embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from cascadeclip.config import TowerConfig
from cascadeclip.data.emojiscenes import CAPTIONS
from cascadeclip.encoder import position_embedding, tower_config
from cascadeclip.errors import InputError
from cascadeclip.mini_clip import MiniTokenizer, build_mini_clip

MINI = "mini"


@dataclass
class Clip:
    """A CLIP that the package can build on.

    Attributes:
        name: `mini`, or an architecture of open_clip (`ViT-B-16`).
        pretrained: open_clip's tag of the weights, a file, or None.
        model: open_clip's model, frozen and in eval mode.
        tokenize: texts -> (number of texts, context length) int64.
    """

    name: str
    pretrained: str | None
    model: nn.Module
    tokenize: Callable[[list[str]], Tensor]

    @property
    def visual(self) -> VisionTransformer:
        return self.model.visual

    @property
    def tower(self) -> TowerConfig:
        """Sizes of the image tower."""
        return tower_config(self.visual)

    @torch.inference_mode()
    def class_embeddings(self, names: Sequence[str], templates: Sequence[str] = CAPTIONS) -> Tensor:
        """T (C, E) float32: per class the mean over the templates of its L2-normed embeddings, L2-normed again.

        Args:
            names: class words.
            templates: sentences with one `{}` for the class word.
        """
        tokens = self.tokenize([template.format(name) for name in names for template in templates])
        device = self.model.logit_scale.device  # the image tower may have been moved elsewhere by itself
        embedded = torch.cat([self.model.encode_text(chunk.to(device)).float() for chunk in tokens.split(512)])
        embedded = F.normalize(embedded, dim=-1).view(len(names), len(templates), -1)
        return F.normalize(embedded.mean(1), dim=-1).clone()


def load_clip(name: str = MINI, pretrained: str | None = None, *, image_size: int | None = None) -> Clip:
    """Mini-CLIP, shipped with the package, or a CLIP of open_clip.

    Args:
        name: `mini`, or an architecture that `open_clip.list_models()` names.
        pretrained: open_clip's tag (`openai`) or a weights file; None gives random weights.
        image_size: px; bring the position embedding to this size, bilinearly as the authors do.

    Raises:
        InputError: unknown name, weights that cannot be had, or a tower that cannot carry prompt tokens.
    """
    if name == MINI:
        model, tokenize = build_mini_clip(), MiniTokenizer()
        with as_file(files("cascadeclip") / "assets" / "mini_clip.safetensors") as path:
            model.load_state_dict({key: tensor.float() for key, tensor in load_file(path).items()})
    else:
        model, tokenize = _from_open_clip(name, pretrained)
    if image_size is not None:
        resize_positions(model.visual, image_size)
    return Clip(name, pretrained, model.eval().requires_grad_(False), tokenize)


def _from_open_clip(name: str, pretrained: str | None) -> tuple[nn.Module, Callable]:
    if name not in open_clip.list_models():
        raise InputError(f"unknown CLIP {name!r}: use {MINI!r} or a name from open_clip.list_models(), e.g. 'ViT-B-16'")
    try:
        model = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=pretrained == "openai")
    except Exception as error:  # open_clip and the hub raise many kinds; all mean that there are no weights
        raise InputError(
            f"cannot load weights {pretrained!r} of CLIP {name!r}: {error}. Give a weights file, or a tag from "
            f"open_clip.list_pretrained_tags_by_model({name!r}), downloaded on a machine with internet access"
        ) from error
    visual = model.visual
    plain = isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok"
    if not plain or not all(isinstance(block, ResidualAttentionBlock) for block in visual.transformer.resblocks):
        raise InputError(f"CLIP {name!r} has no plain ViT with a class token, which prompts and taps build on")
    return model, open_clip.get_tokenizer(name)


def resize_positions(visual: VisionTransformer, image_size: int) -> None:
    """Change, in place, the picture size that a tower stores its position embedding for."""
    patch = visual.patch_size[0]
    if image_size % patch:
        raise InputError(f"image_size={image_size} is not a multiple of the patch size {patch}")
    side = image_size // patch
    positions = position_embedding(visual, (side, side)).detach()
    visual.positional_embedding = nn.Parameter(positions, requires_grad=visual.positional_embedding.requires_grad)
    visual.grid_size, visual.image_size = (side, side), (image_size, image_size)
