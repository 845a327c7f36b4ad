"""The frozen image tower of CLIP with deep visual prompts, read at several blocks.

Symbols: B images, N = h * w patches, D width of the tower, E joint image-text width, L blocks, P prompt tokens.
"""

import math
from dataclasses import dataclass

import torch
from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cascadeclip.config import TowerConfig
from cascadeclip.errors import InputError
from cascadeclip.spectral import SpectralPrompt


@dataclass
class EncoderOutput:
    """What the encoder read off one batch.

    Attributes:
        features: block number -> patch tokens (B, N, E), L2-normed; the tapped blocks, then the last block L.
        image_embedding: g (B, E), the class token of the last block, L2-normed.
        grid: (h, w), N = h * w.
    """

    features: dict[int, Tensor]
    image_embedding: Tensor
    grid: tuple[int, int]


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
    patches = visual.conv1(images)  # (B, D, h, w)
    grid = (patches.shape[2], patches.shape[3])
    positions = position_embedding(visual, grid)
    class_token = visual.class_embedding + positions[0]
    if class_embedding_twice:
        class_token = class_token + visual.class_embedding
    patches = patches.flatten(2).transpose(1, 2) + positions[1:]
    tokens = torch.cat([class_token.to(patches.dtype).expand(len(images), 1, -1), patches], dim=1)
    return visual.ln_pre(tokens), grid


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(X)) v: q (B, heads, T, X), k and v (B, heads, S, X) -> (B, heads, T, X).

    On a CPU, the gradient of PyTorch's fused attention in bfloat16 takes about three times as long as that of the
    products written out (155 tokens; 1.5 times with 1035).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return F.dropout(weights, dropout).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def run_block(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """One block of the tower, (B, T, D) -> (B, T, D): x + attention(norm(x)), then x + mlp(norm(x)).

    The same as `block(tokens)`. `nn.MultiheadAttention` turns its input to (T, B, D), and with frozen weights the
    product then copies the weights once per token; training on a CPU spends half of its time there.
    """
    attention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (
        x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (B, heads, T, D / heads)
        for x in projected.chunk(3, dim=-1)
    )
    mixed = attend(q, k, v).transpose(1, 2).flatten(2)
    tokens = tokens + block.ls_1(attention.out_proj(mixed))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


class PromptedEncoder(nn.Module):
    """Frozen tower + one set of prompt tokens per block + taps.

    Args:
        visual: open_clip image tower; its parameters are frozen here.
        taps: numbers (1..L-1) of the blocks to read besides the last one.
        prompt_tokens: P; 0 leaves the tower as CLIP made it.
        dropout: on the prompt tokens, while training.
        class_embedding_twice, train_taps, spectral_blocks: see `ModelConfig`.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        *,
        taps: tuple[int, ...],
        prompt_tokens: int = 10,
        dropout: float = 0.1,
        class_embedding_twice: bool = True,
        train_taps: bool = False,
        spectral_blocks: tuple[int, ...] = (),
    ):
        super().__init__()
        self.visual = visual.requires_grad_(False)
        self.taps = taps
        self.class_embedding_twice = class_embedding_twice
        self.recompute = False  # True: blocks are computed again in the backward pass, which saves memory
        layers, (width, embed_dim) = len(visual.transformer.resblocks), visual.proj.shape
        self.prompts = self.prompt_proj = None
        self.prompt_norm = nn.Identity()
        if prompt_tokens:
            bound = math.sqrt(6 / (3 * math.prod(visual.patch_size) + width))  # Xavier, as if a patch made the token
            self.prompts = nn.Parameter(torch.empty(layers, prompt_tokens, width).uniform_(-bound, bound))
            self.prompt_proj = nn.Linear(width, width)
            nn.init.kaiming_normal_(self.prompt_proj.weight, mode="fan_out")
            nn.init.zeros_(self.prompt_proj.bias)
            self.prompt_norm = nn.LayerNorm(width, eps=1e-6)
        self.prompt_dropout = nn.Dropout(dropout)
        self.spectral_blocks = spectral_blocks
        self.spectral = SpectralPrompt(width, visual.grid_size) if spectral_blocks else None
        self.tap_norms = nn.ModuleList(nn.LayerNorm(width) for _ in taps).requires_grad_(train_taps)
        projections = torch.randn(len(taps), width, embed_dim) * width**-0.5
        self.tap_projections = nn.Parameter(projections, requires_grad=train_taps and bool(taps))

    def forward(self, images: Tensor) -> EncoderOutput:
        """Encode a batch.

        Args:
            images: (B, 3, H, W) float, normalised; any H, W of at least one patch.

        Raises:
            InputError: another shape.
        """
        tokens, grid = embed(self.visual, images, self.class_embedding_twice)
        features = {}
        for block, module in enumerate(self.visual.transformer.resblocks, start=1):
            if block in self.spectral_blocks:
                tokens = self.spectral(tokens, grid)
            tokens = self.insert_prompts(tokens, block, patches=math.prod(grid))
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(run_block, module, tokens, use_reentrant=False)
            else:
                tokens = run_block(module, tokens)
            if block in self.taps:
                position = self.taps.index(block)
                tapped = self.tap_norms[position](self.prompt_norm(self.patch_tokens(tokens, grid)))
                features[block] = F.normalize(tapped @ self.tap_projections[position], dim=-1)
        joint = self.visual.ln_post(self.prompt_norm(tokens)) @ self.visual.proj
        features[block] = F.normalize(self.patch_tokens(joint, grid), dim=-1)
        return EncoderOutput(features, F.normalize(joint[:, 0], dim=-1), grid)

    def insert_prompts(self, tokens: Tensor, block: int, patches: int) -> Tensor:
        """Put the prompt tokens of `block` between class token and patches; those of the block before are dropped."""
        if self.prompts is None:
            return tokens
        prompts = self.prompt_dropout(self.prompt_proj(self.prompts[block - 1]).expand(len(tokens), -1, -1))
        return torch.cat([tokens[:, :1], prompts.to(tokens.dtype), tokens[:, -patches:]], dim=1)

    @staticmethod
    def patch_tokens(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Leave out class and prompt tokens: (B, 1 + P + N, X) -> (B, N, X)."""
        return tokens[:, -math.prod(grid) :]
