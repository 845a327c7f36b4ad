"""CLIP's frozen image tower as open_clip builds it, run block by block: what the encoder stands on.

Symbols: B images, N = h * w patches, T tokens, P prompt tokens, D width of the tower, X width of a head.
"""

import copy
from typing import cast

import torch
from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from cascadeclip.config import TowerConfig
from cascadeclip.errors import InputError


def build_tower(config: TowerConfig) -> VisionTransformer:
    """open_clip's image tower with random weights, of the sizes in `config`."""
    return VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        mlp_ratio=4.0,
        output_dim=config.embed_dim,
        act_layer=QuickGELU if config.quick_gelu else nn.GELU,
        norm_layer=LayerNorm,
    )


def tower_config(visual: VisionTransformer) -> TowerConfig:
    """Sizes of a tower of open_clip."""
    blocks, (width, embed_dim) = visual.transformer.resblocks, visual.proj.shape
    return TowerConfig(
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        width=width,
        layers=len(blocks),
        heads=blocks[0].attn.num_heads,
        embed_dim=embed_dim,
        quick_gelu=isinstance(blocks[0].mlp.gelu, QuickGELU),
    )


def frozen_twin(visual: VisionTransformer) -> VisionTransformer:
    """A tower of its own with the same weights, frozen: in the same memory until one of the two goes to a device.

    So a model can be moved and trained while the tower that it was built on, which its CLIP and other models use, too,
    stays on its device, in its mode, and with its parameters' flags.
    """
    parameters = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in visual.parameters()}
    return copy.deepcopy(visual, parameters | {id(buffer): buffer.detach() for buffer in visual.buffers()})


def position_embedding(visual: VisionTransformer, grid: tuple[int, int]) -> Tensor:
    """Position embedding (1 + N, D) for a grid of patches, resized bilinearly from the tower's own."""
    stored = visual.positional_embedding
    if grid == visual.grid_size:
        return stored
    image = stored[1:].T.reshape(1, -1, *visual.grid_size)
    image = F.interpolate(image, grid, mode="bilinear", align_corners=False)
    return torch.cat([stored[:1], image.flatten(2)[0].T])


def embed(visual: VisionTransformer, images: Tensor, class_embedding_twice: bool) -> tuple[Tensor, tuple[int, int]]:
    """Class token and patch tokens (B, 1 + N, D) before the first block, and the grid (h, w)."""
    ph, pw = visual.patch_size
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] < ph or images.shape[3] < pw:
        raise InputError(
            f"images have shape {tuple(images.shape)}; expected (B, 3, H, W) with H >= {ph} and W >= {pw} px"
        )
    patches = patch_embedding(visual, images)
    grid = (images.shape[2] // ph, images.shape[3] // pw)
    positions = position_embedding(visual, grid)
    class_token = visual.class_embedding + positions[0]
    if class_embedding_twice:
        class_token = class_token + visual.class_embedding
    patches = patches + positions[1:]
    tokens = torch.cat([class_token.to(patches.dtype).expand(len(images), 1, -1), patches], dim=1)
    return visual.ln_pre(tokens), grid


def patch_embedding(visual: VisionTransformer, images: Tensor) -> Tensor:
    """`visual.conv1`: images (B, 3, H, W) -> (B, N, D); what is left of a side beyond whole patches is left out.

    On CUDA as a product: a convolution of float32 computes in TF32 there, unless the process is told otherwise.
    """
    if images.device.type != "cuda":
        return visual.conv1(images).flatten(2).transpose(1, 2)
    ph, pw = visual.patch_size
    rows, columns = images.shape[2] // ph, images.shape[3] // pw
    cut = images[:, :, : rows * ph, : columns * pw].unflatten(3, (-1, pw)).unflatten(2, (-1, ph))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2) @ visual.conv1.weight.flatten(1).T


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(X)) v: q (B, heads, T, X), k and v (B, heads, S, X) -> (B, heads, T, X).

    On a CPU, the gradient of PyTorch's fused attention in bfloat16 takes about three times as long as that of the
    products written out (155 keys; 1.5 times with 1035).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and (q.requires_grad or v.requires_grad):
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return F.dropout(weights, dropout).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def run_block(block: ResidualAttentionBlock, tokens: Tensor, prompts: Tensor | None = None) -> Tensor:
    """One block of the tower, (B, T, D) -> (B, T, D): x + attention(norm(x)), then x + mlp(norm(x)).

    Prompt tokens (B, P, D) are looked at and look at nothing: what a block would make of them is thrown away before
    the next, so they are keys and values only. Without them this is `block(tokens)`, written out because
    `nn.MultiheadAttention` turns its input to (T, B, D), and with frozen weights the product then copies the weights
    once per token; training on a CPU spends half of its time there.

    Under autocast the tokens stay float32 between blocks. In bfloat16 they would be half as large, but the patch tokens
    of the shipped mini model are then up to 0.9 % off instead of 0.7 %, too near to the 1 % that is allowed for.
    """
    attention, width = block.attn, tokens.shape[-1]

    def project(normed: Tensor, first: int, last: int) -> list[Tensor]:
        """0 queries, 1 keys and 2 values, from the `first` to before the `last`: each (B, heads, T or P, X)."""
        rows = slice(first * width, last * width)
        projected = F.linear(normed, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
        return [
            part.transpose(1, 2) for part in projected.unflatten(-1, (last - first, attention.num_heads, -1)).unbind(2)
        ]

    normed = block.ln_1(tokens)
    if prompts is None:
        q, k, v = project(normed, 0, 3)
    else:  # queries by themselves: as a part of one product they would hold its keys and values until the backward pass
        (q,), (k, v), (prompt_k, prompt_v) = (
            project(normed, 0, 1),
            project(normed, 1, 3),
            project(block.ln_1(prompts), 1, 3),
        )
        k, v = torch.cat([prompt_k, k], dim=2), torch.cat([prompt_v, v], dim=2)
    mixed = attend(q, k, v).transpose(1, 2).flatten(2)
    tokens = tokens + block.ls_1(attention.out_proj(mixed))
    return tokens + block.ls_2(feed_forward(block.mlp, block.ln_2(tokens)))


def feed_forward(mlp: nn.Sequential, x: Tensor) -> Tensor:
    """`mlp(x)`, (B, T, D) -> (B, T, D), with fewer passes over the hidden layer.

    QuickGELU, x sigmoid(a x) with a = 1.702, is silu(a x) / a, and the matrix products before and after it take
    factors at no cost.
    """
    if not isinstance(mlp.gelu, QuickGELU):
        return mlp(x)
    expand, contract, a = cast(nn.Linear, mlp.c_fc), cast(nn.Linear, mlp.c_proj), 1.702
    hidden = F.silu(torch.addmm(a * expand.bias, x.flatten(0, 1), expand.weight.T, alpha=a))
    return torch.addmm(contract.bias, hidden, contract.weight.T, alpha=1 / a).view_as(x)
