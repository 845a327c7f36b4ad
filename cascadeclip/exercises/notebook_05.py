"""Exercises of notebook 05, real CLIP: what is tested, and which mistakes are known.

Every expected value is computed here from its definition. Symbols: h * w patches, C words, E joint width, n pictures.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.data.labels import IGNORE
from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, Wrong, all_apart, expect, integer, kind

# --- share_of_absent ------------------------------------------------------------------------------------------------


def _share(tokens: Tensor, text: Tensor, word: int, offered: list[int]) -> float:
    """Of the patches, the share that goes to `word` if these words are on offer."""
    scores = tokens @ text[offered].T
    return (scores.argmax(-1) == offered.index(word)).double().mean().item()


def _absent_mistakes(embedding: Tensor, tokens: Tensor, text: Tensor) -> tuple[float, dict[str, float]]:
    """The right share, and what mistakes make of it."""
    count = len(text)
    likeliest, second, *_, least = (text @ embedding).argsort(descending=True).tolist()
    by_patches = (tokens @ text.T).mean((0, 1)).argsort(descending=True).tolist()
    right = _share(tokens, text, least, [likeliest, least])
    return right, {
        "all words are on offer in yours; offer two only, the likeliest and the least likely": (
            _share(tokens, text, least, list(range(count)))
        ),
        "this share goes to the *likeliest* word; that of the other one is asked for": 1 - right,
        "these are the two likeliest words; take the likeliest and the *least* likely": (
            _share(tokens, text, second, [likeliest, second])
        ),
        "you took the first word of the list and the last; the picture's embedding says which are likely": (
            _share(tokens, text, count - 1, [0, count - 1])
        ),
        "you chose the two words by the mean over the patches; choose them by the picture's embedding": (
            _share(tokens, text, by_patches[-1], [by_patches[0], by_patches[-1]])
        ),
        "this is a count; divide by the number of patches": right * tokens[..., 0].numel(),
        "this is per cent; a fraction is asked for": 100 * right,
    }


def _absent_test(fewest: int, most: int) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            apart = False
            while not apart:
                rows, columns, words = integer(random, 6, 8), integer(random, 9, 12), integer(random, fewest, most)
                text = F.normalize(torch.randn(words, 16, generator=random), dim=-1)
                embedding = F.normalize(torch.randn(16, generator=random), dim=-1)
                tokens = F.normalize(torch.randn(rows, columns, 16, generator=random), dim=-1)
                right, mistakes = _absent_mistakes(embedding, tokens, text)
                apart = all_apart([right, *mistakes.values()])
            expect(ask(embedding, tokens, text), right, mistakes, "the share")

    return test


# --- differing ------------------------------------------------------------------------------------------------------

Names = tuple[set[str], set[str], set[str]]
KINDS = ("missing", "unexpected", "of another shape")


def _three_sets(answer: object) -> Names:
    """The answer as three sets of names; a `Wrong` if it is anything else."""
    asked = f"three sets of names are asked for ({', '.join(KINDS)})"
    if not isinstance(answer, list | tuple):
        raise Wrong(f"{asked}; the result is {kind(answer)}")
    if len(answer) != len(KINDS):
        raise Wrong(f"{asked}; the result has {len(answer)} parts")
    for which, names in zip(KINDS, answer, strict=True):
        if not isinstance(names, set | frozenset | list | tuple | type({}.keys())):
            raise Wrong(f"{asked}; what is {which} is {kind(names)}")
        if not all(isinstance(name, str) for name in names):
            raise Wrong(f"{asked}; what is {which} holds something that is no name")
    missing, unexpected, reshaped = map(set, answer)
    return missing, unexpected, reshaped


def _expect_names(answer: object, right: Names, mistakes: Mapping[str, Names]) -> None:
    """A `Wrong` unless the answer is `right`; `mistakes` as in `expect`."""
    found = _three_sets(answer)
    for message, mistake in mistakes.items():
        if found == mistake != right:
            raise Wrong(message)
    for which, names, wanted in zip(KINDS, found, right, strict=True):
        if lost := sorted(wanted - names):
            raise Wrong(f"{lost[0]!r} is {which}, and your answer does not say so")
        if added := sorted(names - wanted):
            raise Wrong(f"{added[0]!r} is not {which}, and your answer says so")


def _checkpoint(random: torch.Generator) -> dict[str, Tensor]:
    """Weights (wide, narrow) and biases (wide,) of a few layers."""
    tensors = {}
    for layer in range(integer(random, 3, 5)):
        wide, narrow = integer(random, 5, 8), integer(random, 2, 4)
        tensors[f"layer{layer}.weight"] = torch.randn(wide, narrow, generator=random)
        tensors[f"layer{layer}.bias"] = torch.randn(wide, generator=random)
    return tensors


def _differing_test(reshaped: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            needed = _checkpoint(random)
            first, second, gone, *_ = torch.randperm(len(needed) // 2, generator=random).tolist()
            given = {name: torch.randn(tensor.shape, generator=random) for name, tensor in needed.items()}
            del given[f"layer{gone}.bias"]
            given[f"head{integer(random, 0, 9)}.weight"] = torch.zeros(2)
            if reshaped:
                turned, longer = f"layer{first}.weight", f"layer{second}.bias"
                given[turned] = given[turned].T.clone()
                given[longer] = torch.cat([given[longer], given[longer]])
            missing, unexpected, common = needed.keys() - given, given.keys() - needed, needed.keys() & given
            other_shape = {name for name in common if given[name].shape != needed[name].shape}
            other_count = {name for name in common if given[name].numel() != needed[name].numel()}
            mistakes: dict[str, Names] = {
                "missing and unexpected are swapped: missing is what is needed and not given": (
                    (unexpected, missing, other_shape)
                ),
                "the numbers are free to differ, that is what training is for; only shapes have to be the same": (
                    (missing, unexpected, set(common))
                ),
                "nothing is missing in yours: what is not in `given` would stay at its random start": (
                    (set(), unexpected, other_shape)
                ),
                "nothing is unexpected in yours: look at the names that only `given` has, too": (
                    (missing, set(), other_shape)
                ),
                "you compared names only; compare the shapes of those in both": (missing, unexpected, set()),
                "you compared how many numbers a tensor holds: (2, 5) and (5, 2) have as many, and other shapes": (
                    (missing, unexpected, other_count)
                ),
                "only what is in both can have another shape; what is missing or unexpected has been named": (
                    (missing, unexpected, other_shape | missing | unexpected)
                ),
            }
            _expect_names(ask(given, needed), (missing, unexpected, other_shape), mistakes)

    return test


# --- shift_of -------------------------------------------------------------------------------------------------------

LARGEST = 3  # classes that labels may be shifted by, either way
LabelledAs = list[set[int]]  # for each picture, the things in it


def _shifted_scenes(random: torch.Generator, things: int, shift: int) -> tuple[np.ndarray, LabelledAs]:
    """Label maps (n, H, W) int64 of things and three grounds, shifted, and the things of each."""
    named, maps = [], []
    for picture in range(2 * things):
        other = (picture + integer(random, 1, things - 1)) % things
        ground = things + integer(random, 0, 2)
        named.append({picture % things, other})
        pixels = torch.tensor([picture % things, other, ground]).repeat(16)[torch.randperm(48, generator=random)]
        maps.append(pixels.reshape(6, 8) + shift)
    handed = torch.stack(maps)
    return handed.where((handed >= 0) & (handed < things + 3), torch.tensor(IGNORE)).numpy(), named


def _shift_test(sign: int) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            things, shift = integer(random, 6, 9), sign * integer(random, 1, 2)
            handed, named = _shifted_scenes(random, things, shift)
            mistakes: dict[str, Tensor | float] = {
                "this is by how many to move them *back*; by how many they are shifted has the other sign": -shift,
                "the smallest label tells only of shifts upward: downward, the first classes are lost at the end": (
                    int(handed.min())
                ),
                "all pictures together hold every thing, and every shift looks right then: compare each picture with "
                "its own caption": LARGEST,
                "this is a place in your list of shifts, counted from 0; give the shift itself": LARGEST - shift,
            }
            expect(ask(handed, named, things), shift, mistakes, "the shift")

    return test


EXERCISES = {
    "05.1": Exercise(
        "share_of_absent(embedding, tokens, text)",
        (
            Part("a list of three words", 1, _absent_test(3, 3)),
            Part("longer lists", 1, _absent_test(5, 9)),
        ),
    ),
    "05.2": Exercise(
        "differing(given, needed)",
        (
            Part("names", 1, _differing_test(reshaped=False)),
            Part("names and shapes", 1, _differing_test(reshaped=True)),
        ),
    ),
    "05.3": Exercise(
        "shift_of(handed, named, things)",
        (
            Part("labels shifted upward", 1, _shift_test(1)),
            Part("labels shifted downward", 1, _shift_test(-1)),
        ),
    ),
}
