"""What the model's speed and memory are measured against: CLIP's tower alone, and the method written down as it reads.

`PlainCascade` shares its weights with a `CascadeCLIP` and computes the same numbers the long way: head by head, the
last decoder layer in full, one-hot targets, windows one by one.
"""

import math

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from cascadeclip.model.cascade import CascadeCLIP, DecoderLayer, MaskLayer
from cascadeclip.model.tower import embed


class TowerAlone(nn.Module):
    """CLIP's image tower, frozen, without prompts, taps or decoders: all tokens of the last block in text space.

    Written with PyTorch's own layers and fused attention, batch first: open_clip's own block would take longer, for
    `nn.MultiheadAttention` copies frozen weights.
    """

    def __init__(self, visual: VisionTransformer):
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + N, E)."""
        tokens, _ = embed(self.visual, images, class_embedding_twice=False)
        tokens = tokens.requires_grad_(torch.is_grad_enabled())  # a gradient has to come back to the first block
        for block in self.visual.transformer.resblocks:
            tokens = tokens + self._attention(block, block.ln_1(tokens))
            tokens = tokens + block.mlp(block.ln_2(tokens))
        return self.visual.ln_post(tokens) @ self.visual.proj

    @staticmethod
    def _attention(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
        attention = block.attn
        q, k, v = (
            x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for x in F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        )
        return attention.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class PlainCascade(nn.Module):
    """The method, step by step, on the weights of a `CascadeCLIP`.

    Args:
        model: with NGA; its weights are shared, not copied.
    """

    def __init__(self, model: CascadeCLIP):
        super().__init__()
        self.model, width = model, model.config.tower.embed_dim
        # what the mask does not need, and the authors' last layer computes all the same
        self.unused = nn.ModuleList(
            DecoderLayer(width, model.config.decoder_heads, model.config.dropout) for _ in model.decoders
        ).requires_grad_(False)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """(B, 3, H, W) and (C, E) -> mask logits (B, C, h, w)."""
        tapped, image_embedding, grid = self._encode(images)
        total = 0
        for stage, blocks in enumerate(self.model.config.stages):
            tokens = self._aggregate(stage, [tapped[block] for block in blocks])
            described = torch.stack([torch.cat([text * g, text], dim=-1) for g in image_embedding])
            total = total + self._decode(stage, self.model.descriptors[stage].linear(described), tokens)
        return total.unflatten(-1, grid)

    def _encode(self, images: Tensor) -> tuple[dict[int, Tensor], Tensor, tuple[int, int]]:
        encoder, visual = self.model.encoder, self.model.encoder.visual
        tokens, grid = embed(visual, images, encoder.class_embedding_twice)
        patches, tapped = math.prod(grid), {}
        for number, block in enumerate(visual.transformer.resblocks, start=1):
            if encoder.prompts is not None:
                prompts = encoder.prompt_dropout(encoder.prompt_proj(encoder.prompts[number - 1]))
                prompts = prompts.expand(len(tokens), -1, -1)
                tokens = torch.cat([tokens[:, :1], prompts, tokens[:, -patches:]], dim=1)
            tokens = block(tokens)
            if number in encoder.taps:
                tap = encoder.taps.index(number)
                normed = encoder.tap_norms[tap](encoder.prompt_norm(tokens))
                tapped[number] = F.normalize(normed @ encoder.tap_projections[tap], dim=-1)[:, -patches:]
        joint = F.normalize(visual.ln_post(encoder.prompt_norm(tokens)) @ visual.proj, dim=-1)
        tapped[number] = joint[:, -patches:]
        return tapped, joint[:, 0], grid

    def _aggregate(self, stage: int, features: list[Tensor]) -> Tensor:
        if len(features) == 1:
            return features[0]
        weights = self.model.aggregations[stage].weights
        return sum(weight * feature for weight, feature in zip(weights, features, strict=True))

    def _decode(self, stage: int, queries: Tensor, tokens: Tensor) -> Tensor:
        decoder = self.model.decoders[stage]
        for layer in decoder.layers:
            mixed, _ = self._attend(layer, layer.value, layer.out, queries, tokens)
            queries = self._feed_forward(layer, queries, mixed)
        rest = self.unused[stage]
        mixed, scores = self._attend(decoder.mask, rest.value, rest.out, queries, tokens)
        self._feed_forward(rest, queries, mixed)  # never used
        return torch.stack(scores).mean(0)

    def _attend(
        self, layer: DecoderLayer | MaskLayer, value: nn.Linear, out: nn.Linear, queries: Tensor, tokens: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Head by head; the mixed values (B, C, E), and each head's scores (B, C, N)."""
        heads, drop = self.model.config.decoder_heads, self.model.config.dropout
        q, k, v = (x.chunk(heads, dim=-1) for x in (layer.query(queries), layer.key(tokens), value(tokens)))
        scores = [q[h] @ k[h].transpose(1, 2) / math.sqrt(q[h].shape[-1]) for h in range(heads)]
        mixed = [F.dropout(scores[h].softmax(-1), drop, self.training) @ v[h] for h in range(heads)]
        return out(torch.cat(mixed, dim=-1)), scores

    def _feed_forward(self, layer: DecoderLayer, queries: Tensor, mixed: Tensor) -> Tensor:
        def drop(x: Tensor) -> Tensor:
            return F.dropout(x, self.model.config.dropout, self.training)

        queries = layer.norm_attention(queries + drop(mixed))
        hidden = drop(layer.expand(queries).relu())
        return layer.norm_feed_forward(queries + drop(layer.contract(hidden)))


def plain_loss(mask_logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """100 * focal + dice, ignored pixels being negatives of every class, from one-hot targets at full resolution."""
    logits = F.interpolate(mask_logits.float(), labels.shape[1:], mode="bilinear", align_corners=False)
    target = torch.stack([labels == name for name in range(logits.shape[1])], dim=1).float()
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (target * 0.25 * (1 - p) ** 2 + (1 - target) * 0.75 * p**2) * cross_entropy
    present = target.sum((2, 3)) > 0
    pairs = present.sum().clamp(min=1)
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    return 100 * focal.mean((2, 3)).sum() / pairs + dice[present].sum() / pairs


@torch.inference_mode()
def plain_predict(
    plain: PlainCascade, images: Tensor, text: Tensor, seen: list[int], seen_offset: float, window: int, stride: int
) -> Tensor:
    """Scores (B, C, H, W) of a picture at least as large as the window, window by window, overlaps averaged."""
    height, width = images.shape[2:]
    total, visits = torch.zeros(len(images), len(text), height, width), torch.zeros(height, width)
    for row in range(math.ceil((height - window) / stride) + 1):
        for column in range(math.ceil((width - window) / stride) + 1):
            top, left = min(row * stride, height - window), min(column * stride, width - window)
            crop = images[:, :, top : top + window, left : left + window]
            logits = F.interpolate(plain(crop, text), (window, window), mode="bilinear", align_corners=False)
            scores = logits.sigmoid()
            scores[:, seen] = scores[:, seen] - seen_offset
            total[:, :, top : top + window, left : left + window] += scores
            visits[top : top + window, left : left + window] += 1
    return total / visits
