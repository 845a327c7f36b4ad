"""From tapped layers and class words to mask logits: aggregation, descriptor, text-image decoder, cascade.

The method of Li et al., "Cascade-CLIP", ICML 2024; its equations stand beside the lines that compute them.
Symbols: B images, C classes, N = h * w patches, E joint image-text width, d blocks in a stage.
"""

import math
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from cascadeclip.config import ModelConfig
from cascadeclip.errors import InputError
from cascadeclip.model.encoder import PromptedEncoder
from cascadeclip.model.tower import attend, build_tower, tower_config
from cascadeclip.schema import Count, Range, checked


@checked(blocks=Count, sigma=Annotated[float, Range(1e-3)])
def nga_weights(blocks: int, sigma: float = 1.0) -> Tensor:
    """Initial weights (d,) of Neighborhood Gaussian Aggregation: w_i = exp(-(d - i)^2 / (2 sigma^2)), i = 1..d.

    The paper prints (d - i + 1)^2; its code uses (d - i)^2, so that the deepest block starts at 1. Not normalised.
    """
    distance = torch.arange(blocks - 1, -1, -1, dtype=torch.float32)
    return torch.exp(-(distance**2) / (2 * sigma**2))


def weighted_sum(weights: Tensor, features: list[Tensor]) -> Tensor:
    """Z_s = sum_i w_i H_i: weights (d,), d tensors (B, N, E) -> (B, N, E).

    Written out: for the gradient of a product over stacked layers PyTorch may compile a kernel on CUDA.
    """
    return sum(weight * feature for weight, feature in zip(weights, features, strict=True))


class Aggregation(nn.Module):
    """The d blocks of a stage become one set of patch tokens; a stage of one block is that block.

    Args:
        blocks: how many a stage has, d.
        width: of the patch tokens, E.
        kind: `nga`, `sum`, `mean`, `concat` or `attention`, see `ModelConfig`.
        sigma: of NGA's Gaussian.
    """

    def __init__(self, blocks: int, width: int, *, kind: str = "nga", sigma: float = 1.0):
        super().__init__()
        self.kind = kind if blocks > 1 else "single"
        if self.kind == "nga":
            self.weights = nn.Parameter(nga_weights(blocks, sigma))
        elif self.kind == "concat":
            self.mix = nn.Linear(blocks * width, width)
        elif self.kind == "attention":
            self.query = nn.Parameter(torch.zeros(width))  # starts as the mean of the blocks

    def forward(self, features: list[Tensor]) -> Tensor:
        """d tensors (B, N, E) -> (B, N, E)."""
        if self.kind == "single":
            return features[0]
        if self.kind == "concat":
            return self.mix(torch.cat(features, dim=-1))
        if self.kind == "nga":
            return weighted_sum(self.weights, features)
        stacked = torch.stack(features)  # (d, B, N, E)
        if self.kind == "attention":
            return ((stacked @ self.query).softmax(0)[..., None] * stacked).sum(0)
        return stacked.sum(0) if self.kind == "sum" else stacked.mean(0)


class RelationshipDescriptor(nn.Module):
    """Text embeddings seen in the light of one image: q = Linear([T * g, T]), one such layer per stage."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, text: Tensor, image_embedding: Tensor) -> Tensor:
        """text T (C, E), image_embedding g (B, E) -> queries (B, C, E)."""
        text = text.expand(len(image_embedding), -1, -1)
        return self.linear(torch.cat([text * image_embedding[:, None], text], dim=-1))


class DecoderLayer(nn.Module):
    """Queries look at patch tokens, then a feed-forward: post-norm, no self-attention between the queries.

    The key's bias moves all scores of a query alike and drops out of the softmax; the authors' weights have it.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """queries (B, C, E), tokens (B, N, E) -> queries (B, C, E)."""
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, C or N, E / heads)
            for x in (self.query(queries), self.key(tokens), self.value(tokens))
        )
        drop = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, drop)
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        queries = self.norm_attention(queries + F.dropout(mixed, drop))
        hidden = F.dropout(self.expand(queries).relu(), drop)
        return self.norm_feed_forward(queries + F.dropout(self.contract(hidden), drop))


class MaskLayer(nn.Module):
    """The decoder's last layer, of which only the attention scores are used: they are the mask logits.

    With `aligned` they start as |z| cos(q, z) of query and patch token (the queries' norm is sqrt(E)), plus what the
    usual random weights add.
    """

    def __init__(self, width: int, heads: int, *, aligned: bool = False):
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        if aligned:
            with torch.no_grad():
                self.query.weight += torch.eye(width)
                self.key.weight += math.sqrt(heads) * torch.eye(width)
        # mean over heads of (q_h . k_h) / sqrt(E / heads) is one product over the whole width
        self.scale = 1 / (heads * math.sqrt(width / heads))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """queries (B, C, E), tokens (B, N, E) -> mask logits (B, C, N)."""
        q = self.query(queries) * self.scale
        # q (W z + b) = (q W) z + q b: queries are fewer than patch tokens, so W is cheaper on their side
        return q @ self.key.weight @ tokens.transpose(1, 2) + (q @ self.key.bias)[..., None]


class TextImageDecoder(nn.Module):
    """Layers of queries that look at patch tokens, ending in mask logits."""

    def __init__(self, width: int, *, heads: int = 8, layers: int = 3, dropout: float = 0.1, aligned: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers - 1))
        self.mask = MaskLayer(width, heads, aligned=aligned)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """queries (B, C, E), tokens (B, N, E) -> mask logits (B, C, N)."""
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.mask(queries, tokens)


@dataclass
class CascadeOutput:
    """What the model computed for a batch, piece by piece.

    Attributes:
        mask_logits: (B, C, h, w) float, sum of the stages; a sigmoid makes probabilities of it.
        stage_logits: one (B, C, h, w) per stage.
        stage_queries: one (B, C, E) per stage.
        stage_tokens: one (B, N, E) per stage, after aggregation.
        layer_features: one (B, E, h, w) per tapped block and one for the last block, L2-normed over E.
        image_embedding: g (B, E), L2-normed.
    """

    mask_logits: Tensor
    stage_logits: list[Tensor]
    stage_queries: list[Tensor]
    stage_tokens: list[Tensor]
    layer_features: list[Tensor]
    image_embedding: Tensor


class CascadeCLIP(nn.Module):
    """Cascade-CLIP: a frozen CLIP image tower with prompts, read by one decoder per stage; the masks are added.

    Args:
        config: which blocks form which stages, and everything else.
        visual: open_clip image tower to build on, of `config.tower`'s sizes; one with random weights if None. The model
            has a frozen twin of it: wherever the model goes, the tower given stays as and where it is.

    Raises:
        InputError: a `visual` of other sizes.

    Example:
        >>> model = CascadeCLIP(ModelConfig())
        >>> model(torch.randn(2, 3, 96, 96), torch.randn(5, 128)).mask_logits.shape
        torch.Size([2, 5, 12, 12])
    """

    text_mean: Tensor | None

    def __init__(self, config: ModelConfig, visual: VisionTransformer | None = None):
        super().__init__()
        self.config, width = config, config.tower.embed_dim
        visual = build_tower(config.tower) if visual is None else visual
        if tower_config(visual) != config.tower:
            raise InputError(f"the tower given is {tower_config(visual)}, the configuration says {config.tower}")
        self.encoder = PromptedEncoder(
            visual,
            taps=config.taps,
            prompt_tokens=config.prompt_tokens,
            dropout=config.dropout,
            class_embedding_twice=config.class_embedding_twice,
            train_taps=config.train_taps,
            spectral_blocks=config.spectral_blocks,
        )
        self.aggregations = nn.ModuleList(
            Aggregation(len(stage), width, kind=config.aggregation, sigma=config.sigma) for stage in config.stages
        ).requires_grad_(config.train_aggregation)
        # set by training, see `centre_on`
        self.register_buffer("text_mean", torch.zeros(width) if config.centre_text else None)
        stages = len(config.stages)
        self.descriptors = nn.ModuleList(
            RelationshipDescriptor(width) for _ in range(1 if config.shared_projection else stages)
        )
        self.decoders = nn.ModuleList(
            TextImageDecoder(
                width,
                heads=config.decoder_heads,
                layers=config.decoder_layers,
                dropout=config.dropout,
                aligned=config.aligns(blocks),
            )
            for blocks in ([tuple(chain(*config.stages))] if config.shared_decoder else config.stages)
        )

    @torch.no_grad()
    def centre_on(self, text: Tensor) -> None:
        """From now on, subtract the mean of these text embeddings (C, E); does nothing without `centre_text`."""
        if self.text_mean is not None:
            self.text_mean.copy_(text.mean(0))

    def centred(self, text: Tensor) -> Tensor:
        """Text (C, E) as the decoders read it: with `centre_text` less the mean and L2-normed again."""
        return text if self.text_mean is None else F.normalize(text - self.text_mean, dim=-1)

    def forward(self, images: Tensor, text: Tensor) -> CascadeOutput:
        """Mask logits of every class on every image.

        Args:
            images: (B, 3, H, W) float, normalised.
            text: T (C, E) float, one text embedding per class, L2-normed.

        Raises:
            InputError: another shape, or text of another width.
        """
        width = self.config.tower.embed_dim
        if text.ndim != 2 or text.shape[1] != width or not len(text):
            raise InputError(f"text has shape {tuple(text.shape)}; expected (classes, {width}), at least one class")
        text, encoded = self.centred(text), self.encoder(images)
        tokens = [
            aggregate([encoded.features[block] for block in stage])
            for aggregate, stage in zip(self.aggregations, self.config.stages, strict=True)
        ]
        queries = [self._of_stage(self.descriptors, s)(text, encoded.image_embedding) for s in range(len(tokens))]
        logits = [
            self._of_stage(self.decoders, s)(q, z).unflatten(-1, encoded.grid)
            for s, (q, z) in enumerate(zip(queries, tokens, strict=True))
        ]
        return CascadeOutput(
            mask_logits=torch.stack(logits).sum(0),  # the cascade: M = sum_s M_s
            stage_logits=logits,
            stage_queries=queries,
            stage_tokens=tokens,
            layer_features=[f.transpose(1, 2).unflatten(-1, encoded.grid) for f in encoded.features.values()],
            image_embedding=encoded.image_embedding,
        )

    @staticmethod
    def _of_stage(modules: nn.ModuleList, stage: int) -> nn.Module:
        """A stage's own module, or the one that all stages share."""
        return modules[stage % len(modules)]
