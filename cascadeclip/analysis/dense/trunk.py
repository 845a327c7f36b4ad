"""What all methods share: CLIP's own blocks, each run once per batch and only as deep as somebody asks.

Symbols: B images, N = h * w patches, T = 1 + N tokens (class token first), D width, E joint width, L blocks.
"""

from collections.abc import Sequence

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from cascadeclip.analysis.lenses import Tower, raw_lens
from cascadeclip.errors import InputError
from cascadeclip.model.tower import embed, run_block


class Trunk:
    """A batch on its way through an image tower, block by block and no further than needed; without gradients.

    Args:
        visual: open_clip image tower; it is not changed.
        images: (B, 3, H, W) float, normalised.

    Attributes:
        grid: (h, w), rows and columns of patches.
        depth: blocks of the tower, L.
    """

    def __init__(self, visual: Tower, images: Tensor):
        self.visual = visual
        with torch.inference_mode():
            first, self.grid = embed(visual, images, class_embedding_twice=False)
        self._states = [first]

    @property
    def depth(self) -> int:
        return len(self.visual.transformer.resblocks)

    def block(self, number: int) -> ResidualAttentionBlock:
        """Block `number`, counted from 1."""
        return self.visual.transformer.resblocks[number - 1]

    @torch.inference_mode()
    def after(self, number: int) -> Tensor:
        """Tokens (B, T, D) after block `number`; 0 for those before the first. What was run once is kept."""
        while len(self._states) <= number:
            self._states.append(run_block(self.block(len(self._states)), self._states[-1]))
        return self._states[number]

    def before(self, number: int) -> Tensor:
        """What goes into block `number`: (B, T, D)."""
        return self.after(number - 1)

    def joint(self, tokens: Tensor) -> Tensor:
        """CLIP's own `ln_post` and `proj`: (..., D) -> (..., E), L2-normed."""
        return raw_lens(self.visual, tokens)


def check_blocks(blocks: Sequence[int], depth: int) -> tuple[int, ...]:
    """The blocks as a tuple, ascending; an `InputError` for none, repeated ones, or any that is not one of 1..depth."""
    blocks = tuple(blocks)
    beyond = [block for block in blocks if type(block) is not int or not 1 <= block <= depth]
    if not blocks or beyond or len(set(blocks)) < len(blocks):
        raise InputError(f"blocks={blocks}: name one or more of the tower's blocks 1..{depth}, each once")
    return tuple(sorted(blocks))


def scaled_block(number: int, depth: int, of: int = 12) -> int:
    """A block of a tower of `of` blocks, at the same relative depth below the last of `depth` blocks; at least 1."""
    return max(1, min(depth - 1, round(number * depth / of)))


def gaussian_window(grid: tuple[int, int], std: float, device: torch.device) -> Tensor:
    """exp(-d^2 / (2 std^2)) of the distance d between any two patches, in patches: (N, N) float32."""
    rows, columns = (torch.arange(side, device=device, dtype=torch.float32) for side in grid)
    down, right = ((side[:, None] - side) ** 2 for side in (rows, columns))  # (h, h), (w, w)
    squared = down[:, None, :, None] + right[None, :, None, :]  # (h, w, h, w)
    return (-squared / (2 * std**2)).exp().flatten(2).flatten(0, 1)
