"""Lenses: ways to read a plain CLIP tower block by block, and its patch tokens in the joint image-text space.

Symbols: B images, N = h * w patches, T = 1 + N tokens (class token first), D width, E joint width, L blocks.
"""

from typing import TypeAlias

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.model.tower import embed, run_block

Tower: TypeAlias = VisionTransformer


def block_inputs(visual: Tower, images: Tensor) -> list[Tensor]:
    """What goes into every block: L tensors (B, T, D). The last block is not run; arguments as in `block_tokens`."""
    tokens = [embed(visual, images, class_embedding_twice=False)[0]]
    for block in visual.transformer.resblocks[:-1]:
        tokens.append(run_block(block, tokens[-1]))
    return tokens


def block_tokens(visual: Tower, images: Tensor) -> list[Tensor]:
    """Tokens after every block.

    Args:
        visual: open_clip image tower.
        images: (B, 3, H, W) float32, normalised.

    Returns:
        L tensors (B, T, D); number b - 1 is what block b left behind.
    """
    inputs = block_inputs(visual, images)
    return [*inputs[1:], run_block(visual.transformer.resblocks[-1], inputs[-1])]


def queries_keys_values(block: ResidualAttentionBlock, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a block's attention projects: tokens after `ln_1` (B, T, D) -> three of (B, heads, T, D / heads)."""
    attention = block.attn
    projected = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    return projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def attention_maps(visual: Tower, images: Tensor) -> Tensor:
    """Attention weights of every block, (L, B, heads, T, T); each row sums to 1."""
    maps = []
    for block, tokens in zip(visual.transformer.resblocks, block_inputs(visual, images), strict=True):
        query, key, _ = queries_keys_values(block, block.ln_1(tokens))
        maps.append((query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1))
    return torch.stack(maps)


def raw_lens(visual: Tower, tokens: Tensor) -> Tensor:
    """The raw lens, CLIP's own `ln_post` and `proj` on tokens of any block: (..., D) -> (..., E), L2-normed.

    OpenAI trained both on the last block's class token alone; Mini-CLIP's were also trained on the mean of the last
    block's patch tokens. No loss ever judged a single patch, or a token of another block.
    """
    return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)


def last_layer_tokens(visual: Tower, images: Tensor) -> Tensor:
    """Patch tokens after the last block through the raw lens: (B, N, E), L2-normed."""
    return raw_lens(visual, block_tokens(visual, images)[-1][:, 1:])


def value_path_tokens(visual: Tower, images: Tensor) -> Tensor:
    """Patch tokens through the value path of the last attention alone (MaskCLIP, Zhou et al. 2022).

    Each patch keeps its own value vector instead of the attention's mixture of all; residual and feed-forward of the
    last block are left out. Arguments and result as in `last_layer_tokens`.
    """
    last, tokens = visual.transformer.resblocks[-1], block_inputs(visual, images)[-1]
    width = tokens.shape[-1]
    weight, bias = last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :]
    return raw_lens(visual, last.attn.out_proj(F.linear(last.ln_1(tokens[:, 1:]), weight, bias)))
