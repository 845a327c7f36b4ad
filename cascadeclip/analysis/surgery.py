"""Surgery without training: the last block of CLIP's image tower changed by hand, so that patches stay where they are.

CLIP trained its last block for the class token alone. What it does to patch tokens was never judged, and it spoils
them: they come out mixed with the whole picture. Four cuts help, none of which trains anything:

- other attention, so that patches attend to patches like themselves: query-query, key-key (SCLIP, Wang et al. 2024;
  ClearCLIP, Lan et al. 2024) or each to itself alone (MaskCLIP, Zhou et al. 2022);
- no residual: the block's input is not added to what attention gives (ClearCLIP);
- no feed-forward (MaskCLIP, ClearCLIP);
- outliers repaired: patches of far too long tokens, in which large CLIPs keep notes about the whole picture (Darcet et
  al. 2024), are filled from their neighbours.

Symbols as in `lenses.py`: B images, N = h * w patches, T = 1 + N tokens, D width, E joint width.
"""

from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis.lenses import Tower, block_inputs, raw_lens
from cascadeclip.errors import InputError

ATTENTIONS = ("query-key", "query-query", "key-key", "itself")


@dataclass(frozen=True)
class Surgery:
    """What is done to the last block; the defaults leave it as CLIP made it.

    Attributes:
        attention: who is compared with whom: `query-key` is CLIP's own; `query-query` and `key-key` compare like with
            like; in `itself` every token keeps its own value vector.
        residual: add the block's input to what attention gives.
        feed_forward: run the feed-forward that follows, with the residual around it.
        repair: patches whose token, on its way into the block, is longer than this many times the median of the
            picture's patches are filled from their neighbours; None repairs nothing.
    """

    attention: str = "query-key"
    residual: bool = True
    feed_forward: bool = True
    repair: float | None = None

    def __post_init__(self):
        if self.attention not in ATTENTIONS:
            raise InputError(f"attention={self.attention!r}: choose from {', '.join(ATTENTIONS)}")
        if self.repair is not None and not self.repair >= 1:
            raise InputError(f"repair={self.repair}: a patch is an outlier from so many medians on, at least 1")


CLEAR = Surgery("query-query", residual=False, feed_forward=False)  # ClearCLIP
VALUE_PATH = Surgery("itself", residual=False, feed_forward=False)  # MaskCLIP, `lenses.value_path_tokens`


@torch.inference_mode()
def operate(visual: Tower, images: Tensor, surgery: Surgery) -> Tensor:
    """Patch tokens after the last block under surgery, through the raw lens.

    Args:
        visual: open_clip image tower; it is not changed.
        images: (B, 3, H, W) float32, normalised.

    Returns:
        (B, N, E) float, L2-normed: a product with text embeddings gives cosine similarities.
    """
    grid = tuple(side // patch for side, patch in zip(images.shape[2:], visual.patch_size, strict=True))
    return last_block(visual, block_inputs(visual, images)[-1], grid, surgery)


@torch.inference_mode()
def last_block(visual: Tower, tokens: Tensor, grid: tuple[int, int], surgery: Surgery) -> Tensor:
    """The rest of `operate`, from what goes into the last block, (B, T, D), on: (B, N, E)."""
    if surgery.repair is not None:
        tokens, _ = repair_outliers(tokens, grid, surgery.repair)
    block = visual.transformer.resblocks[-1]
    mixed = block.ls_1(attend(block, block.ln_1(tokens), surgery.attention))
    tokens = tokens + mixed if surgery.residual else mixed
    if surgery.feed_forward:
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return raw_lens(visual, tokens[:, 1:])


def attend(block: ResidualAttentionBlock, normed: Tensor, attention: str) -> Tensor:
    """A block's attention with other weights: tokens after `ln_1` (B, T, D) -> (B, T, D)."""
    width = normed.shape[-1]
    weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
    value = F.linear(normed, weight, bias)
    if attention != "itself":
        value = value.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)  # (B, heads, T, D / heads)
        value = (attention_weights(block, normed, attention) @ value).transpose(1, 2).flatten(2)
    return block.attn.out_proj(value)


def attention_weights(block: ResidualAttentionBlock, normed: Tensor, attention: str = "query-key") -> Tensor:
    """softmax(a b' / sqrt(d)) of the two projections that `attention` names: (B, T, D) -> (B, heads, T, T)."""
    heads, width = block.attn.num_heads, normed.shape[-1]
    projected = F.linear(normed, block.attn.in_proj_weight[: 2 * width], block.attn.in_proj_bias[: 2 * width])
    query, key = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in projected.chunk(2, dim=-1))
    one, other = {"query-key": (query, key), "query-query": (query, query), "key-key": (key, key)}[attention]
    return (one @ other.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1)


def repair_outliers(tokens: Tensor, grid: tuple[int, int], factor: float) -> tuple[Tensor, Tensor]:
    """Fill patches of too long tokens with the mean of their up to eight neighbours that are none of them.

    An outlier among outliers takes the mean of all good patches of its picture. The class token stays.

    Args:
        tokens: (B, T, D) float.
        grid: (h, w) with T = 1 + h * w.
        factor: how many times the median length makes an outlier, at least 1.

    Returns:
        tokens (B, T, D), and which patches were outliers, (B, N) bool.
    """
    patches = tokens[:, 1:]
    length = patches.norm(dim=-1)
    outlier = length > factor * length.median(dim=1, keepdim=True).values
    good = (~outlier)[..., None].to(tokens.dtype)
    total, count = (_sum_of_neighbours(part, grid) for part in (patches * good, good))
    everywhere = (patches * good).sum(1, keepdim=True) / good.sum(1, keepdim=True)
    filled = torch.where(count > 0, total / count.clamp(min=1), everywhere)
    return torch.cat([tokens[:, :1], torch.where(outlier[..., None], filled, patches)], dim=1), outlier


def _sum_of_neighbours(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, K) -> the sum over each patch's eight neighbours inside the picture, (B, N, K)."""
    (rows, columns), padded = grid, F.pad(values.unflatten(1, grid), (0, 0, 1, 1, 1, 1))
    shifts = [(down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1)]
    return sum(padded[:, down : down + rows, right : right + columns] for down, right in shifts).flatten(1, 2)
