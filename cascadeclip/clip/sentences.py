"""Sentences as a CLIP's tokenizer has read them: whole, none with marks of its own inside, and no two alike."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cascadeclip.data.words import quoted
from cascadeclip.errors import InputError

logger = logging.getLogger(__name__)

Tokenizer = Callable[..., Tensor]  # texts -> (texts, context length) int64


def check_marks(tokenize: Tokenizer, sentences: Sequence[str], tokens: Tensor, clip: str) -> None:
    """Refuse sentences that hold a tokenizer's start or end of text: text towers read no further than the first end.

    An empty text consists of these marks and padding, whatever they are in a tokenizer, so that nothing has to be known
    of how it spells them.

    Args:
        tokens: (sentences, context length) int64, what `tokenize` makes of them.
        clip: its name, for people.
    """
    bare = tokenize([""])[0]
    marks = bare[bare != bare[-1]]
    more = torch.isin(tokens, marks).sum(1) > len(marks)
    if more.any():
        first = sentences[int(more.int().argmax())]
        raise InputError(
            f"CLIP {clip!r} reads a start or end of text inside the sentence {quoted([first])}: leave marks such as "
            "<end_of_text> out of words and templates"
        )


def check_whole(
    tokenize: Tokenizer, words: Sequence[str], sentences: Sequence[str], tokens: Tensor, clip: str, long_texts: str
) -> None:
    """Refuse, or warn of, sentences of which the tokenizer cut the end off.

    Args:
        words: the word of each sentence.
        tokens: (sentences, context length) int64, what `tokenize` makes of them.
        clip: its name, for people.
        long_texts: "refuse" or "warn".
    """
    length, cut = tokens.shape[1], []
    (padding,) = tokenize([""])[:, -1].tolist()
    if full := (tokens[:, -1] != padding).nonzero().flatten().tolist():
        # With room for one token more, a sentence that fits leaves the last place to padding.
        longer = tokenize([sentences[row] for row in full], context_length=length + 1)
        cut = [words[row] for row, end in zip(full, longer[:, -1].tolist(), strict=True) if end != padding]
    if cut:
        said = (
            f"{len(cut)} sentences are longer than the {length} tokens that CLIP {clip!r} reads, those of "
            f"{quoted(dict.fromkeys(cut))}"
        )
        if long_texts == "refuse":
            raise InputError(f"{said}; shorten the words, or use their beginnings: long_texts='warn'")
        logger.warning("%s; only their beginnings are used", said)


def check_apart(names: Sequence[str], tokens: Tensor) -> None:
    """Two words of the same tokens, (words, all of their sentences) int64, would be one class with two names."""
    first: dict[tuple[int, ...], str] = {}
    for name, row in zip(names, tokens.tolist(), strict=True):
        other = first.setdefault(tuple(row), name)
        if other != name:
            raise InputError(
                f"CLIP reads {quoted([other])} and {quoted([name])} as the same text: change or leave out one of them"
            )
