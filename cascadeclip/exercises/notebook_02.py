"""Exercises of notebook 02, alignment: what is tested, and which mistakes are known.

Every expected value is computed here from its definition. Symbols: N patches, C words, n pairs, E joint width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer, uniform

# --- average_precision ----------------------------------------------------------------------------------------------


def _precision(scores: Tensor, is_class: Tensor, descending: bool = True) -> float:
    """Mean, over the patches of the class, of the precision among all that score at least as high."""
    among = is_class[scores.argsort(descending=descending)].double()
    return (among.cumsum(0) / torch.arange(1, len(among) + 1) * among).sum().item() / among.sum().item()


def _precision_test(one_patch: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            count = integer(random, 20, 40)
            is_class = torch.zeros(count, dtype=torch.bool)
            is_class[torch.randperm(count, generator=random)[: 1 if one_patch else count // 4]] = True
            scores = torch.randn(count, generator=random) + is_class
            among = is_class[scores.argsort(descending=True)].double()
            ranks, right = torch.arange(1, count + 1), int(is_class.sum())
            inside, outside = scores[is_class][:, None], scores[~is_class]
            mistakes = {
                "upside down: the patch with the *highest* score comes first": _precision(scores, is_class, False),
                "the mean runs over all ranks in yours; take it over the ranks of the class's patches only": (
                    (among.cumsum(0) / ranks).mean().item()
                ),
                "divide by the number of the class's patches, not by the number of all": (
                    _precision(scores, is_class) * right / count
                ),
                "this is the precision of the first R patches; take it at every patch of the class": (
                    among[:right].mean().item()
                ),
                "this is recall at each rank; precision divides by the rank": (
                    (among.cumsum(0) / right * among).sum().item() / right
                ),
                "this is AUROC; average precision looks at the precision at each patch of the class": (
                    (inside > outside).double().mean().item()
                ),
                "this is the prevalence, what a hit is worth by chance": right / count,
            }
            expect(ask(scores, is_class), _precision(scores, is_class), mistakes, "the average precision")

    return test


# --- nearest_present ------------------------------------------------------------------------------------------------


def _nearest_test(lower: float) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            patches, words = integer(random, 20, 30), integer(random, 8, 12)
            similarity = torch.rand(patches, words, generator=random) - lower
            present = (1 + torch.randperm(words - 1, generator=random)[:3]).sort().values
            among = similarity[:, present]
            masked = torch.zeros_like(similarity)
            masked[:, present] = among
            right = present[among.argmax(1)]
            mistakes = {
                "these are positions in the list of words present; give the number of the word itself": among.argmax(1),
                "absent words got a 0, and cosines can be negative: 0 wins then. Mask with minus infinity, or look "
                "only at the columns of words that are present": masked.argmax(1),
                "all words were on offer; only those in `present` are": similarity.argmax(1),
                "the *least* similar word wins in yours": present[among.argmin(1)],
                "these are the similarities; the numbers of the words are asked for": among.amax(1),
                "the maximum runs over the patches in yours; each patch chooses among the words": similarity.argmax(0),
            }
            expect(ask(similarity, present), right, mistakes, "the list of words")

    return test


# --- moved ----------------------------------------------------------------------------------------------------------


def _moved_test(whole: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            count, width = integer(random, 10, 15), integer(random, 5, 8)
            image, text = (
                F.normalize(torch.randn(count, width, generator=random) + torch.randn(width, generator=random), dim=-1)
                for _ in range(2)
            )
            share, gap = 1.0 if whole else uniform(random, 0.2, 0.8), image.mean(0) - text.mean(0)
            right = F.normalize(image - share * gap, dim=-1)
            mistakes = {
                "the pictures move *away* from the captions: the gap points from the captions to the pictures": (
                    F.normalize(image + share * gap, dim=-1)
                ),
                "bring every embedding back to length 1 after the move": image - share * gap,
                "you walk along a gap of length 1; go `share` of its whole way, so leave its length as it is": (
                    F.normalize(image - share * F.normalize(gap, dim=0), dim=-1)
                ),
                "each picture moves toward its own caption; the gap is one vector, between the two centroids": (
                    F.normalize(image - share * (image - text), dim=-1)
                ),
                "your `share` makes no difference": F.normalize(image - gap, dim=-1),
                "nothing has moved": image,
                "the captions moved; move the pictures": F.normalize(text + share * gap, dim=-1),
            }
            expect(ask(image, text, share), right, mistakes, "the moved embeddings")

    return test


EXERCISES = {
    "02.1": Exercise(
        "average_precision(scores, is_class)",
        (
            Part("one patch of the class", 1, _precision_test(one_patch=True)),
            Part("several patches of the class", 1, _precision_test(one_patch=False)),
        ),
        frozenset({"average_precision_score", "localise"}),
    ),
    "02.2": Exercise(
        "nearest_present(similarity, present)",
        (
            Part("with positive similarities", 1, _nearest_test(lower=0.0)),
            Part("with negative ones", 1, _nearest_test(lower=1.0)),
        ),
    ),
    "02.3": Exercise(
        "moved(image, text, share)",
        (
            Part("all the way", 1, _moved_test(whole=True)),
            Part("a share of the way", 1, _moved_test(whole=False)),
        ),
        frozenset({"loss_along_gap", "modality_gap"}),
    ),
}
