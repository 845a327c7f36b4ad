"""Surgery without training: the last block of CLIP's image tower changed by hand, so that patches stay where they are.

`Surgery` (`dense/last_block.py`) is one operation with settings; the named methods of `dense` are some of them. Here is
what experiments by hand need: the surgery on a tower, and from the last block's input on.

Symbols as in `lenses.py`: B images, N = h * w patches, T = 1 + N tokens, D width, E joint width.
"""

import torch
from torch import Tensor

from cascadeclip.analysis.dense.last_block import ATTENTIONS, Surgery, attention_weights, repair_outliers
from cascadeclip.analysis.dense.trunk import Trunk
from cascadeclip.analysis.lenses import Tower, raw_lens

__all__ = [
    "ATTENTIONS", "CLEAR", "VALUE_PATH", "Surgery", "attention_weights", "last_block", "operate", "repair_outliers",
]  # fmt: skip

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
    trunk = Trunk(visual, images)
    return surgery(trunk, trunk.depth)


@torch.inference_mode()
def last_block(visual: Tower, tokens: Tensor, grid: tuple[int, int], surgery: Surgery) -> Tensor:
    """The rest of `operate`, from what goes into the last block, (B, T, D), on: (B, N, E)."""
    return raw_lens(visual, surgery.on(visual.transformer.resblocks[-1], tokens, grid)[:, 1:])
