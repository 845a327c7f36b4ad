"""Exercises of the explorers' notebook: what is tested, and which mistakes are known.

Every expected value is computed here from its definition. Symbols: S stages, C words, h x w pixels.
"""

from itertools import product

import torch
from torch import Tensor

from cascadeclip.data.labels import IGNORE
from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, all_apart, expect, integer, uniform

# --- worth_of_worst -------------------------------------------------------------------------------------------------


def _right(scores: Tensor, truth: Tensor) -> float:
    """Share of the pixels with a known word that scores (C, h, w) give it."""
    return (scores.argmax(0) == truth)[truth != IGNORE].double().mean().item()


def _worst_mistakes(logits: Tensor, truth: Tensor) -> tuple[float, dict[str, float]]:
    """What the stage that is worst alone adds to the sum, and what mistakes make of it."""
    alone = [_right(one, truth) for one in logits]
    worst, best = alone.index(min(alone)), alone.index(max(alone))
    whole = _right(logits.sum(0), truth)
    added = [whole - _right(logits.sum(0) - one, truth) for one in logits]
    labelled, probabilities = (truth != IGNORE).double().mean().item(), logits.sigmoid()
    right = added[worst]
    mistakes = {
        "the other way round: positive is what the sum of all gains by that stage": -right,
        "this is what that stage gets right alone; ask what the sum loses without it": alone[worst],
        "this is the share without that stage; take it from the share of all stages": whole - right,
        "this is the share of all stages; take from it the share without the worst": whole,
        "you left out the *best* stage; the worst is asked for": added[best],
        "you left out the stage that adds least to the sum; leave out the one that is worst *alone*": min(added),
        "you added probabilities; the cascade adds logits": (
            _right(probabilities.sum(0), truth) - _right(probabilities.sum(0) - probabilities[worst], truth)
        ),
        "these are per cent; a fraction is asked for": 100 * right,
    }
    if labelled < 1:
        mistakes["pixels labelled 255 count as wrong in yours; leave them out"] = labelled * right
    return right, mistakes


def _worst_test(all_known: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            apart = False
            while not apart:
                words, rows, columns = integer(random, 3, 5), integer(random, 10, 12), integer(random, 13, 15)
                truth = torch.randint(0, words, (rows, columns), generator=random)
                is_word = (truth == torch.arange(words)[:, None, None]).float()
                sureness = 0.5 + 2 * torch.rand(3, 1, 1, 1, generator=random)
                signal = 0.3 + torch.rand(3, 1, 1, 1, generator=random)
                logits = sureness * (signal * is_word + torch.randn(3, *is_word.shape, generator=random))
                if not all_known:
                    unknown = torch.rand(truth.shape, generator=random) < 0.2
                    truth = truth.where(~unknown, torch.tensor(IGNORE))
                right, mistakes = _worst_mistakes(logits, truth)
                apart = all_apart([right, *mistakes.values()])
            expect(ask(logits.numpy(), truth.numpy()), right, mistakes, "what the worst stage adds")

    return test


# --- lost_without ---------------------------------------------------------------------------------------------------

ATTENTION = ("query-key", "itself")  # as CLIP is, and cut


def _lost_test(together: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            order = torch.randperm(3, generator=random).tolist()
            gains = [0.02 + 0.08 * place + uniform(random, 0, 0.04) for place in order]
            score = {}  # which of the three cuts are made -> mIoU
            for made in product((0, 1), repeat=3):
                beside_others = uniform(random, 0, 0.2) if together else 0.0
                score[made] = 0.3 + sum(gain for gain, cut in zip(gains, made, strict=True) if cut) + beside_others
            given = {(ATTENTION[one], not two, not three): found for (one, two, three), found in score.items()}
            whole, bare = score[1, 1, 1], score[0, 0, 0]
            one_back = torch.tensor([score[0, 1, 1], score[1, 0, 1], score[1, 1, 0]])
            one_made = torch.tensor([score[1, 0, 0], score[0, 1, 0], score[0, 0, 1]])
            right = whole - one_back
            mistakes: dict[str, Tensor | float] = {
                "this is what each cut gains *alone*; beside the two others it may be worth more, or less": (
                    one_made - bare
                ),
                "upside down: a loss is the score of all three cuts less the score without one": -right,
                "these are the scores without a cut; take them from the score of all three": one_back,
                "you took two cuts back at a time; take back one": whole - one_made,
                "residual and feed-forward have changed places": right[[0, 2, 1]],
                "this is what the two other cuts gain over CLIP as it is": one_back - bare,
                "these are per cent; a difference of scores is asked for": 100 * right,
            }
            expect(ask(given), right, mistakes, "the list of losses")

    return test


EXERCISES = {
    "explorer.1": Exercise(
        "worth_of_worst(logits, truth)",
        (
            Part("where the word of every pixel is known", 1, _worst_test(all_known=True)),
            Part("where some are not", 1, _worst_test(all_known=False)),
        ),
    ),
    "explorer.2": Exercise(
        "lost_without(scores)",
        (
            Part("cuts that do not mind each other", 1, _lost_test(together=False)),
            Part("cuts that do", 1, _lost_test(together=True)),
        ),
    ),
}
