"""Exercises of notebook 00, quickstart: what is tested, and which mistakes are known.

Symbols: C words, H x W pixels.
"""

import torch
from torch import Tensor

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer

# --- called ---------------------------------------------------------------------------------------------------------


def _shares(found: Tensor, truth: Tensor, word: int, words: int) -> Tensor:
    """(words,): of the pixels that are truly `word`, the share called each word."""
    return torch.bincount(found[truth == word].flatten(), minlength=words) / (truth == word).sum()


def _called_test(all_names: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            words, size = integer(random, 4, 6), (integer(random, 8, 12), integer(random, 13, 16))
            truth = torch.randint(0, words, size, generator=random)
            confused = torch.rand(size, generator=random) < 0.4
            last = words if all_names else words - 1  # else one word is never given
            found = torch.where(confused, torch.randint(0, last, size, generator=random), truth.clamp(max=last - 1))
            word = integer(random, 0, words - 2)
            right, counts = _shares(found, truth, word, words), (truth == word).sum()
            whole = torch.bincount(found.flatten(), minlength=words)
            shorter = torch.bincount(found[truth == word].flatten()) / counts
            mistakes = {
                "these are counts; divide by the number of the word's true pixels": right * counts,
                "you divided by all pixels of the picture; divide by those that are truly the word": (
                    right * counts / truth.numel()
                ),
                "you divided by the pixels that were *called* each word (that is precision); divide by those that are "
                "truly the word": right * counts / whole.clamp(min=1),
                "these are the shares of all pixels; look only at those that are truly the word": whole / whole.sum(),
                "truth and answer are swapped: you looked at the pixels that were called the word": _shares(
                    truth, found, word, words
                ),
                "these are per cent; fractions are asked for": 100 * right,
                "a word that no pixel was called has a share as well: 0. Give one number for every word": shorter,
            }
            expect(ask(found.numpy(), truth.numpy(), word, words), right, mistakes, "the list of shares")

    return test


# --- share_right ----------------------------------------------------------------------------------------------------


def _right(scores: Tensor, truth: Tensor, offered: Tensor) -> float:
    """Share of the pixels that get their true word, chosen among those offered, by position."""
    return (offered[scores[offered].argmax(0)] == truth).double().mean().item()


def _share_test(whole_list: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            words, size = integer(random, 6, 8), (integer(random, 8, 12), integer(random, 13, 16))
            truth = torch.randint(0, 3, size, generator=random)
            scores = torch.rand(words, *size, generator=random)
            scores = scores + 0.5 * torch.nn.functional.one_hot(truth, words).permute(2, 0, 1)
            count = words if whole_list else integer(random, 3, words - 2)
            right, every = _right(scores, truth, torch.arange(count)), torch.arange(words)
            pixels = (scores.argmax(0) == truth).double().mean().item()
            mistakes = {
                "all words were on offer; only the first `count` are": pixels,
                "you choose among all words and throw away those pixels whose word is not on offer; let them choose "
                "again, among the words offered": _dropped(scores, truth, count),
                "the word with the *lowest* score wins in yours": _right(-scores, truth, every[:count]),
                "these are the wrong ones: the share that is right is asked for": 1 - right,
                "this is a count; divide by the number of pixels": right * truth.numel(),
                "this is per cent; a fraction is asked for": 100 * right,
                "one word too few is on offer in yours": _right(scores, truth, every[: count - 1]),
                "one word too many is on offer in yours": _right(scores, truth, every[: count + 1]),
            }
            expect(ask(scores.numpy(), truth.numpy(), count), right, mistakes, "the share")

    return test


def _dropped(scores: Tensor, truth: Tensor, count: int) -> float:
    found = scores.argmax(0)
    return (found == truth)[found < count].double().mean().item()


EXERCISES = {
    "00.1": Exercise(
        "called(found, truth, word, words)",
        (
            Part("the shares of one word's pixels", 1, _called_test(all_names=True)),
            Part("a number for every word, also for one that no pixel got", 1, _called_test(all_names=False)),
        ),
    ),
    "00.2": Exercise(
        "share_right(scores, truth, count)",
        (
            Part("with all words on offer", 1, _share_test(whole_list=True)),
            Part("with the first words only", 1, _share_test(whole_list=False)),
        ),
    ),
}
