"""The CLIP that a cascade builds on: any plain ViT of open_clip (`load`), or Mini-CLIP, which is shipped (`mini`); and
how words become classes, with synonyms, sentences and a background (`vocabulary`), of which the tokens are checked
(`sentences`).

Of other rooms it may import `model` and, for the words that Mini-CLIP knows, `data`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.clip.load import Clip, load_clip, misfit, resize_positions, scaled_stages
    from cascadeclip.clip.mini import MiniTokenizer, build_mini_clip
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "Clip",
    "MiniTokenizer",
    "build_mini_clip",
    "load_clip",
    "misfit",
    "resize_positions",
    "scaled_stages",
]
