"""The second family: a second path beside CLIP's own over the last blocks, on which tokens meet only tokens like them.

Beside the tokens x_b of CLIP's own blocks runs y_b, which starts as x and takes from each block another attention of
the *original* tokens, and no feed-forward:

    y_b = y_(b-1) + out_proj(A(ln_1(x_(b-1))) v),   y = x before the first of these blocks

Read are the patch tokens of y. Symbols as in `trunk.py`; C words, d = D / heads.
"""

from collections.abc import Callable

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis.dense.trunk import Trunk
from cascadeclip.analysis.lenses import queries_keys_values
from cascadeclip.errors import InputError

LAST = 6  # blocks with a second path, in both papers' code; all there are in a shallower tower


def clip_surgery(trunk: Trunk, block: int, *, depth: int | None = None) -> Tensor:
    """CLIP Surgery's architecture surgery (Li et al. 2023, Pattern Recognition 2025, arXiv 2304.05653).

    Formula: A = softmax(v v' / sqrt(d)), on a second path over the last `depth` blocks, without feed-forward. The class
    token stays that of CLIP's own path. Its feature surgery on similarities is `feature_surgery`.

    Args:
        depth: blocks with a second path; 6, or as many as there are up to `block`.
    """
    return trunk.joint(_second_path(trunk, block, depth, _value_value)[:, 1:])


def gem(
    trunk: Trunk, block: int, *, depth: int | None = None, iterations: int = 1, temperature: float | None = None
) -> Tensor:
    """GEM, the grounding everything module (Bousselham et al., CVPR 2024, arXiv 2312.00878).

    Formula: the mean of three attentions A_p v with p = q, k, v, on a second path over the last `depth` blocks. Each
    compares p with itself: p <- normalise(p) is replaced `iterations` times by softmax(t p p') p, normalised again, and
    A_p = softmax(t p p'). The temperature t is the mean length of the picture's tokens after `ln_1`, / sqrt(d).

    Args:
        depth: blocks with a second path; 6, or as many as there are up to `block`.
        iterations: of the clustering by self-attention.
        temperature: t itself, the larger the sharper, instead of that length / sqrt(d).
    """
    if iterations < 0:
        raise InputError(f"iterations={iterations} must not be negative")
    if temperature is not None and not temperature > 0:
        raise InputError(f"temperature={temperature} must be positive")

    def attend(one: ResidualAttentionBlock, normed: Tensor) -> Tensor:
        return _self_self(one, normed, iterations, temperature)

    return trunk.joint(_second_path(trunk, block, depth, attend)[:, 1:])


def _second_path(
    trunk: Trunk, block: int, depth: int | None, attend: Callable[[ResidualAttentionBlock, Tensor], Tensor]
) -> Tensor:
    """y after `block`: (B, T, D); `attend` turns the original tokens after `ln_1` into A v, (B, heads, T, d)."""
    depth = min(LAST, block) if depth is None else depth
    if not 1 <= depth <= block:
        raise InputError(f"depth={depth}: up to block {block} there are {block} blocks; give 1..{block}")
    path = trunk.before(block - depth + 1)
    for number in range(block - depth + 1, block + 1):
        one = trunk.block(number)
        mixed = attend(one, one.ln_1(trunk.before(number)))
        path = path + one.ls_1(one.attn.out_proj(mixed.transpose(1, 2).flatten(2)))
    return path


def _value_value(block: ResidualAttentionBlock, normed: Tensor) -> Tensor:
    value = queries_keys_values(block, normed)[2]
    return F.scaled_dot_product_attention(value, value, value)


def _self_self(
    block: ResidualAttentionBlock, normed: Tensor, iterations: int, temperature: float | None = None
) -> Tensor:
    projected = queries_keys_values(block, normed)
    value = projected[2]
    length = normed.norm(dim=-1).mean(-1)[:, None, None, None]  # one temperature per picture
    if temperature is not None:
        length = torch.full_like(length, temperature * value.shape[-1] ** 0.5)
    mixed = torch.zeros_like(value)
    for part in projected:
        unit = F.normalize(part, dim=-1)
        for _ in range(iterations):  # the product scales by 1 / sqrt(d) itself
            unit = F.normalize(F.scaled_dot_product_attention(length * unit, unit, unit), dim=-1)
        mixed = mixed + F.scaled_dot_product_attention(length * unit, unit, value)
    return mixed / len(projected)


def class_token(trunk: Trunk, block: int) -> Tensor:
    """The class token of CLIP's own path through `ln_post` and `proj`: (B, 1, E), L2-normed."""
    return trunk.joint(trunk.after(block)[:, :1])


def feature_surgery(patches: Tensor, image: Tensor, text: Tensor) -> Tensor:
    """CLIP Surgery's feature surgery: similarities less what all words have in common in them.

    Formula: with s = softmax_c(2 g T'), w = s / mean_c(s), the similarity of patch token f and word c is
    w_c f T_c' - mean over c' of w_c' f T_c'. A picture's most obvious word weighs most in what is taken off.

    Args:
        patches: (B, N, E) float, L2-normed.
        image: (B, 1, E) float, L2-normed, the class token g.
        text: (C, E) float, L2-normed; one word has everything in common with itself: its similarities become 0.

    Returns:
        (B, N, C) float.
    """
    weight = (2 * image @ text.T).softmax(-1)
    weighted = patches @ text.T * (weight / weight.mean(-1, keepdim=True))
    return weighted - weighted.mean(-1, keepdim=True)
