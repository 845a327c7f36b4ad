"""Lenses: ways to read patch tokens of a plain CLIP in the joint image-text space."""

import open_clip
import torch
from torch.nn import functional as F


def last_layer_tokens(visual: open_clip.transformer.VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """Patch tokens after the last block through `ln_post` and `proj`, as CLIP reads its class token.

    Args:
        visual: open_clip image tower with L blocks, width D, joint width E.
        images: (B, 3, H, W) float32, normalised.

    Returns:
        (B, N, E) float, L2-normed.
    """
    tokens = visual.transformer(visual._embeds(images))[:, 1:]
    return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)


def value_path_tokens(visual: open_clip.transformer.VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """Patch tokens through the value path of the last attention alone (MaskCLIP, Zhou et al. 2022).

    Each patch keeps its own value vector instead of the attention's mixture of all; residual and feed-forward of the
    last block are left out. Arguments and result as in `last_layer_tokens`.
    """
    *blocks, last = visual.transformer.resblocks
    tokens = visual._embeds(images)
    for block in blocks:
        tokens = block(tokens)
    width = tokens.shape[-1]
    weight, bias = last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :]
    values = last.attn.out_proj(F.linear(last.ln_1(tokens[:, 1:]), weight, bias))
    return F.normalize(visual.ln_post(values) @ visual.proj, dim=-1)
