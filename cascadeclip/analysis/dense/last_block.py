"""The first family: the last block cut open. OpenAI's CLIP trained it for the class token alone, Mini-CLIP for the mean
of the patch tokens as well; what it does to a single one was never judged, and it spoils them: they come out mixed with
the whole picture.

All of it is settings of one operation, `Surgery`, and every method of the family is one line of them:

    x' = [x +] out_proj(A v),   then   [x' + mlp(ln_2(x'))]

with x the tokens on their way into the block, q, k, v their projections per head, A the attention (`ATTENTIONS`), and
both brackets, residual and feed-forward, kept or left out. Symbols as in `trunk.py`; d = D / heads.
"""

from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis.dense.outliers import fill_from_neighbours
from cascadeclip.analysis.dense.trunk import Trunk, gaussian_window
from cascadeclip.analysis.lenses import queries_keys_values
from cascadeclip.errors import InputError

ATTENTIONS = ("query-key", "query-query", "key-key", "value-value", "query-query + key-key", "itself")
_PLACES = {"query": 0, "key": 1, "value": 2}


@dataclass(frozen=True)
class Surgery:
    """What is done to a block that is read as the last one; the defaults leave it as CLIP made it.

    Attributes:
        attention: who is compared with whom. `query-key` is CLIP's own, softmax(q k' / sqrt(d)); `query-query`,
            `key-key` and `value-value` compare like with like; `query-query + key-key` adds two softmaxes; in `itself`
            every token keeps its own value vector.
        residual: add the block's input to what attention gives.
        feed_forward: run the feed-forward that follows, with the residual around it.
        repair: patches whose token, on its way into the block, is longer than this many times the median of the
            picture's patches are filled from their neighbours; None repairs nothing.
        window: standard deviation, in patches, of a Gaussian of the distance between two patches that is added before
            each softmax (at most 1, next to logits); None adds none. The class token has no place: nothing is added.
    """

    attention: str = "query-key"
    residual: bool = True
    feed_forward: bool = True
    repair: float | None = None
    window: float | None = None

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise InputError(f"attention={self.attention!r}: choose from {', '.join(ATTENTIONS)}")
        if self.repair is not None and not self.repair >= 1:
            raise InputError(f"repair={self.repair}: a patch is an outlier from so many medians on, at least 1")
        if self.window is not None and not self.window > 0:
            raise InputError(f"window={self.window}: the Gaussian's deviation in patches must be positive")

    def __call__(self, trunk: Trunk, number: int) -> Tensor:
        """Patch tokens (B, N, E), L2-normed, as if the tower ended with block `number` under this surgery."""
        return trunk.joint(self.on(trunk.block(number), trunk.before(number), trunk.grid)[:, 1:])

    def on(self, block: ResidualAttentionBlock, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """What a block makes of tokens (B, T, D) under this surgery: (B, T, D)."""
        if self.repair is not None:
            tokens, _ = repair_outliers(tokens, grid, self.repair)
        mixed = block.ls_1(self.attend(block, block.ln_1(tokens), grid))
        tokens = tokens + mixed if self.residual else mixed
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens))) if self.feed_forward else tokens

    def attend(self, block: ResidualAttentionBlock, normed: Tensor, grid: tuple[int, int]) -> Tensor:
        """The attention alone: tokens after `ln_1` (B, T, D) -> (B, T, D)."""
        if self.attention == "itself":
            width = normed.shape[-1]
            weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
            return block.attn.out_proj(F.linear(normed, weight, bias))
        added = None if self.window is None else F.pad(gaussian_window(grid, self.window, normed.device), (1, 0, 1, 0))
        projected = queries_keys_values(block, normed)
        mixed = torch.zeros_like(projected[2])
        for pair in self.attention.split(" + "):
            one, other = (projected[_PLACES[name]] for name in pair.split("-"))
            mixed = mixed + F.scaled_dot_product_attention(one, other, projected[2], attn_mask=added)
        return block.attn.out_proj(mixed.transpose(1, 2).flatten(2))


def attention_weights(block: ResidualAttentionBlock, normed: Tensor, attention: str = "query-key") -> Tensor:
    """softmax(a b' / sqrt(d)) of the two projections that `attention` names: (B, T, D) -> (B, heads, T, T)."""
    projected = queries_keys_values(block, normed)
    one, other = (projected[_PLACES[name]] for name in attention.split("-"))
    return (one @ other.transpose(-2, -1) / one.shape[-1] ** 0.5).softmax(-1)


def repair_outliers(tokens: Tensor, grid: tuple[int, int], factor: float) -> tuple[Tensor, Tensor]:
    """Fill patches of too long tokens with the mean of their up to eight neighbours that are none of them.

    Large CLIPs keep notes about the whole picture in such tokens (Darcet et al. 2024). An outlier among outliers takes
    the mean of all good patches of its picture. The class token stays.

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
    everywhere = (patches * good).sum(1, keepdim=True) / good.sum(1, keepdim=True)
    filled = fill_from_neighbours(patches, outlier, grid, otherwise=everywhere)
    return torch.cat([tokens[:, :1], filled], dim=1), outlier


def clip(trunk: Trunk, block: int) -> Tensor:
    """CLIP as it is: patch tokens of its last block (Radford et al., ICML 2021, arXiv 2103.00020).

    Changes nothing: x + attention(x), then the feed-forward, `ln_post`, `proj`. The baseline of every table.
    Published (in the abstract of SCLIP, arXiv 2312.01597): 14.1 % mIoU, mean of eight data sets, ViT-B/16.
    """
    return trunk.joint(trunk.after(block)[:, 1:])


def maskclip(trunk: Trunk, block: int) -> Tensor:
    """MaskCLIP's value path (Zhou, Loy, Dai, ECCV 2022, arXiv 2112.01071).

    Formula: out_proj(v). Every patch keeps its own value vector instead of the attention's mixture; no residual, no
    feed-forward. The paper's key smoothing and prompt denoising come after the features and are left out here.
    """
    return Surgery("itself", residual=False, feed_forward=False)(trunk, block)


def sclip(trunk: Trunk, block: int) -> Tensor:
    """SCLIP's correlative self-attention (Wang, Mei, Yuille, ECCV 2024, arXiv 2312.01597).

    Formula: A = softmax(q q' / sqrt(d)) + softmax(k k' / sqrt(d)), a sum, not a mean. Residual and feed-forward of the
    block are kept.
    Published (abstract): 38.2 % mIoU, mean of eight data sets, ViT-B/16, with post-processing.
    """
    return Surgery("query-query + key-key")(trunk, block)


def clearclip(trunk: Trunk, block: int) -> Tensor:
    """ClearCLIP (Lan et al., ECCV 2024, arXiv 2407.12442).

    Formula: A = softmax(q q' / sqrt(d)). No residual, which carries what is common to all patches, and no feed-forward.
    """
    return Surgery("query-query", residual=False, feed_forward=False)(trunk, block)


def naclip(trunk: Trunk, block: int, *, std: float = 5.0) -> Tensor:
    """NACLIP, attention to neighbours (Hajimiri, Ben Ayed, Dolz, WACV 2025, arXiv 2404.08181).

    Formula: A = softmax(k k' / sqrt(d) + w), w(i, j) = exp(-|i - j|^2 / (2 std^2)) between two patches and 0 where one
    of them is the class token. No residual, no feed-forward.

    Args:
        std: of the window, in patches.
    """
    return Surgery("key-key", residual=False, feed_forward=False, window=std)(trunk, block)
