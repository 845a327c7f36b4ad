"""The frozen image tower of CLIP with deep visual prompts, read at several blocks.

Symbols: B images, N = h * w patches, D width of the tower, E joint image-text width, L blocks, P prompt tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cascadeclip.model.spectral import SpectralPrompt
from cascadeclip.model.tower import embed, frozen_twin, run_block

# images, blocks to read -> their tokens, and the grid
RunTower: TypeAlias = Callable[[Tensor, tuple[int, ...]], tuple[dict[int, Tensor], tuple[int, int]]]


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


class PromptedEncoder(nn.Module):
    """Frozen tower + one set of prompt tokens per block + taps.

    Args:
        visual: open_clip image tower; it stays as it is, see `tower.frozen_twin`.
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
        self.visual = frozen_twin(visual)
        self.taps = taps
        self.class_embedding_twice = class_embedding_twice
        self.recompute = False  # True: blocks are computed again in the backward pass, which saves memory
        self.recall: RunTower | None = None  # called instead of `run_tower`, see `training.recall`
        layers, (width, embed_dim) = len(visual.transformer.resblocks), visual.proj.shape
        self.prompts: nn.Parameter | None = None
        self.prompt_proj: nn.Linear | None = None
        self.prompt_norm: nn.Module = nn.Identity()
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
        last = len(self.visual.transformer.resblocks)
        tokens, grid = (self.run_tower if self.recall is None else self.recall)(images, (*self.taps, last))
        features = {}
        for position, block in enumerate(self.taps):
            tapped = self.tap_norms[position](self.prompt_norm(tokens[block][:, 1:]))
            features[block] = F.normalize(tapped @ self.tap_projections[position], dim=-1)
        joint = self.visual.ln_post(self.prompt_norm(tokens[last])) @ self.visual.proj
        features[last] = F.normalize(joint[:, 1:], dim=-1)
        return EncoderOutput(features, F.normalize(joint[:, 0], dim=-1), grid)

    def run_tower(self, images: Tensor, read: tuple[int, ...]) -> tuple[dict[int, Tensor], tuple[int, int]]:
        """Tokens (B, 1 + N, D) after the blocks to read, by block number, and the grid (h, w); images as `forward`."""
        tokens, grid = embed(self.visual, images, self.class_embedding_twice)
        blocks = zip(self.visual.transformer.resblocks, self.projected_prompts(len(images)), strict=True)
        found = {}
        for block, (module, prompts) in enumerate(blocks, start=1):
            if self.spectral is not None and block in self.spectral_blocks:
                tokens = self.spectral(tokens, grid)
            if self.recompute and torch.is_grad_enabled():
                tokens = checkpoint(run_block, module, tokens, prompts, use_reentrant=False)
            else:
                tokens = run_block(module, tokens, prompts)
            if block in read:
                found[block] = tokens
        return found, grid

    def projected_prompts(self, images: int) -> list[Tensor | None]:
        """The prompt tokens of every block, each (B, P, D): the same for all images but for the dropout."""
        if self.prompts is None or self.prompt_proj is None:
            return [None] * len(self.visual.transformer.resblocks)
        projected = self.prompt_proj(self.prompts)  # (L, P, D)
        return [self.prompt_dropout(own.expand(images, -1, -1)) for own in projected]
