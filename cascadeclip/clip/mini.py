"""Mini-CLIP: the small CLIP of the mini world. Its architecture is open_clip's own `CLIP`; ours are sizes and words."""

import difflib
import re
from collections.abc import Sequence
from typing import Annotated

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from cascadeclip.data.emojiscenes import CAPTIONS, CLASSES
from cascadeclip.data.words import quoted
from cascadeclip.errors import InputError
from cascadeclip.schema import Range, checked

# Every word that can stand in a caption of EmojiScenes.
WORDS: tuple[str, ...] = tuple(sorted({*CLASSES, "a", "an", "and", "on", *re.findall(r"[a-z]+", " ".join(CAPTIONS))}))

EMBED_DIM = 128
VISION = dict(image_size=96, patch_size=8, width=192, head_width=64, layers=12)
TEXT = dict(context_length=20, width=128, heads=4, layers=3, vocab_size=len(WORDS) + 3)


class MiniTokenizer:
    """Whole-word tokenizer over the closed vocabulary `WORDS`.

    Ids: 0 pads, 1 starts, the last one ends a text (open_clip's text tower reads the position of the largest id).

    Args:
        texts: one sentence or several; letters count, case and punctuation do not.

    Returns:
        (number of texts, context_length) int64.

    Raises:
        InputError: a word outside the vocabulary (names the nearest known ones), or a text that is too long or empty.
    """

    context_length = TEXT["context_length"]
    start, end = 1, len(WORDS) + 2
    ids = {word: position + 2 for position, word in enumerate(WORDS)}

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = re.findall(r"\w+", text.lower())
            if not words or len(words) > self.context_length - 2:
                raise InputError(
                    f"{quoted([text])} has {len(words)} words; Mini-CLIP reads texts of 1 to "
                    f"{self.context_length - 2} words"
                )
            ids = [self.start, *(self._id(word) for word in words), self.end]
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens

    def _id(self, word: str) -> int:
        if word not in self.ids:
            near = difflib.get_close_matches(word, WORDS, n=3, cutoff=0.65)
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise InputError(
                f"Mini-CLIP does not know the word {quoted([word])}: {hint}It knows these classes: "
                f"{', '.join(CLASSES)}. A checkpoint on a real CLIP (for example preset voc12) takes any word."
            )
        return self.ids[word]


@checked(patch_dropout=Annotated[float, Range(0, 0.99)])
def build_mini_clip(patch_dropout: float = 0.0) -> open_clip.CLIP:
    """Mini-CLIP with random weights. `patch_dropout` is the share of patches left out while it trains."""
    return open_clip.CLIP(
        embed_dim=EMBED_DIM,
        vision_cfg=CLIPVisionCfg(**VISION, patch_dropout=patch_dropout),
        text_cfg=CLIPTextCfg(**TEXT),
    )
