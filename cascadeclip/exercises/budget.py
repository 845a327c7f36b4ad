"""Assignment 3, beat the baseline: what is tested, and which mistakes are known.

Symbols: B images, C classes; S and U are the mean IoU of seen and unseen classes, H their harmonic mean.
"""

import math
from typing import Any

import torch
from torch import Tensor

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, Wrong, expect, integer, shaped, uniform
from cascadeclip.exercises.contest import BASELINE, checked, compete

IGNORE = 255

# --- harmonic_mean -------------------------------------------------------------------------------------------------


def _harmonic(seen: float, unseen: float) -> float:
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


def _mean_test(zeros: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for case in range(CASES):
            seen, unseen = uniform(random, 0.4, 0.9), uniform(random, 0.05, 0.3)
            if zeros:
                seen, unseen = ((0.0, 0.0), (seen, 0.0), (seen, unseen))[case]
            mistakes = {
                "this is the plain mean; the harmonic mean leans to the smaller of the two": (seen + unseen) / 2,
                "this is the geometric mean, the root of the product": math.sqrt(seen * unseen),
                "this is the smaller one; the harmonic mean lies between the two": min(seen, unseen),
                "the factor 2 is missing": _harmonic(seen, unseen) / 2,
                "this is the mean of the reciprocals: turn it round once more": _harmonic(1 / seen, 1 / unseen) ** -1
                if seen and unseen
                else math.nan,
            }
            expect(ask(seen, unseen), _harmonic(seen, unseen), mistakes, "the harmonic mean")

    return test


# --- seen_unseen_scores --------------------------------------------------------------------------------------------


def _scores(counts: Tensor, unseen: list[int]) -> Tensor:
    """S, U and H (3,) of a confusion matrix, rows are true classes."""
    right, true, guessed = counts.diag().double(), counts.sum(1).double(), counts.sum(0).double()
    iou = torch.where(true > 0, right / (true + guessed - right), math.nan)
    return _means(iou, unseen)


def _means(values: Tensor, unseen: list[int]) -> Tensor:
    hidden = torch.zeros(len(values), dtype=torch.bool)
    hidden[unseen] = True
    seen_mean, unseen_mean = values[~hidden].nanmean().item(), values[hidden].nanmean().item()
    return torch.tensor([seen_mean, unseen_mean, _harmonic(seen_mean, unseen_mean)])


def _scores_test(absent: bool, shown: slice) -> Test:
    names = ("S", "U", "hIoU")[shown]

    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            classes = integer(random, 6, 9)
            order = torch.randperm(classes, generator=random).tolist()
            unseen = sorted(order[: integer(random, 2, 3)])
            counts = torch.randint(1, 60, (classes, classes), generator=random)
            counts += torch.diag(torch.randint(100, 400, (classes,), generator=random))
            if absent:
                counts[[order[0], order[-1]]] = 0  # no pixel is of these classes, but some are taken for them
            right, diagonal = _scores(counts, unseen), counts.diag().double()
            true, guessed = counts.sum(1).double(), counts.sum(0).double()
            iou = diagonal / (true + guessed - diagonal)
            filled = iou.nan_to_num(0.0)
            told = {
                "divide by true *or* predicted pixels: yours divides by the true ones alone (that is recall)": _means(
                    diagonal / true, unseen
                ),
                "divide by true *or* predicted pixels: yours divides by the predicted ones alone (that is precision)": (
                    _means(diagonal / guessed, unseen)
                ),
                "pixels that are both true and predicted are counted twice below: subtract them once": _means(
                    diagonal / (true + guessed), unseen
                ),
                "classes without a true pixel count as 0 in yours: their IoU is unknown, leave them out": _means(
                    filled, unseen
                ),
                "seen and unseen are swapped": right[[1, 0, 2]],
                "these are per cent; fractions are asked for": 100 * right,
                "the third value is the plain mean of S and U; hIoU is the harmonic one": torch.stack(
                    [right[0], right[1], right[:2].mean()]
                ),
                "hIoU is the harmonic mean of S and U, not the mean IoU over all classes": torch.stack(
                    [right[0], right[1], iou.nanmean()]
                ),
            }
            answer = ask(counts, unseen)
            if not isinstance(answer, list | tuple | Tensor) or len(answer) != 3:
                raise Wrong("return three numbers: S, U and hIoU")
            answer = [float(value) for value in answer]
            expect(answer[shown], right[shown], {m: v[shown] for m, v in told.items()}, f"({', '.join(names)})")

    return test


# --- training_labels -----------------------------------------------------------------------------------------------


def _hidden(labels: Tensor, unseen: list[int], answer: Tensor) -> None:
    """A `Wrong` unless exactly the unseen classes and what was ignored before are ignored."""
    was_unseen, was_ignored = torch.isin(labels, torch.tensor(unseen)), labels == IGNORE
    left = answer[was_unseen] != IGNORE
    if left.any() and torch.equal(answer, labels.double()):
        raise Wrong("nothing has changed: the labels of unseen classes are still there")
    if left.any() and (answer[was_unseen] == 0).all():
        raise Wrong("labels of unseen classes became class 0, so training takes them for it; ignored is 255")
    if left.any():
        raise Wrong(
            f"{int(left.sum())} pixels of unseen classes still have a class, perhaps under another number: that is "
            "touching unseen labels. They become 255"
        )
    if (answer[was_ignored] != IGNORE).any():
        raise Wrong("pixels that were ignored before, 255, got a class")
    if (answer[~was_unseen & ~was_ignored] == IGNORE).any():
        raise Wrong("pixels of seen classes are ignored: only the *unseen* ones are hidden")


def _labels_test(numbered: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            classes = integer(random, 6, 9)
            unseen = sorted((1 + torch.randperm(classes - 1, generator=random)[:2]).tolist())
            seen = [c for c in range(classes) if c not in unseen]
            labels = torch.randint(0, classes, (2, 8, 9), generator=random)
            labels[0, 0, :3] = IGNORE
            labels[1, 0, :2] = torch.tensor(unseen)
            answer = shaped(ask(labels, unseen, classes), labels.shape, "the array of labels")
            _hidden(labels, unseen, answer)
            if numbered:
                table = torch.full((256,), IGNORE)
                table[seen] = torch.arange(len(seen))
                old = torch.where(torch.isin(labels, torch.tensor(unseen)), IGNORE, labels)
                message = (
                    "the seen classes keep their old numbers; the model is asked for the seen words only, so number "
                    "them 0, 1, 2, ... without gaps"
                )
                expect(answer, table[labels], {message: old}, "the label")

    return test


# --- best_offset ---------------------------------------------------------------------------------------------------


def _sweep(scores: Tensor, labels: Tensor, seen: list[int], offsets: list[float], sign: int = -1) -> Tensor:
    """(len(offsets), 4): S, U, H and pixel accuracy after the offset is taken off the seen classes."""
    classes, rows = scores.shape[1], []
    for offset in offsets:
        moved = scores.clone()
        moved[:, seen] += sign * offset
        found = moved.argmax(1)
        counts = torch.bincount((labels * classes + found).flatten(), minlength=classes**2).view(classes, classes)
        unseen = [c for c in range(classes) if c not in seen]
        rows.append([*_scores(counts, unseen).tolist(), (found == labels).double().mean().item()])
    return torch.tensor(rows)


def _validation(random: torch.Generator) -> tuple[Tensor, Tensor, list[int], list[float], Tensor]:
    """Scores, labels, seen classes, offsets and what these give; the best offset is best by hIoU alone."""
    offsets = [round(0.1 * step, 1) for step in range(8)]
    while True:
        classes = integer(random, 6, 8)
        seen = sorted(torch.randperm(classes, generator=random)[2:].tolist())
        labels = torch.randint(0, classes, (3, 12, 12), generator=random)
        scores = torch.rand(3, classes, 12, 12, generator=random)
        scores.scatter_add_(1, labels[:, None], torch.full((3, 1, 12, 12), 0.35))
        scores[:, seen] += uniform(random, 0.1, 0.6)
        swept = _sweep(scores, labels, seen, offsets)
        seen_best, unseen_best, best, accurate = swept.argmax(0).tolist()
        if best not in (seen_best, unseen_best, accurate):
            return scores, labels, seen, offsets, swept


def _offset_test(value: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            scores, labels, seen, offsets, swept = _validation(random)
            added = _sweep(scores, labels, seen, offsets, sign=1)
            best = swept[:, 2].argmax()
            chosen = {
                "you added the offset to the seen classes; it is taken off": added[:, 2].argmax(),
                "this offset has the highest pixel accuracy; hIoU is asked for": swept[:, 3].argmax(),
                "this offset has the highest sum of S and U; hIoU is asked for": swept[:, :2].sum(1).argmax(),
                "this offset has the highest S: with all attention on seen classes": swept[:, 0].argmax(),
                "this offset has the highest U: with all attention on unseen classes": swept[:, 1].argmax(),
                "this offset has the lowest hIoU": swept[:, 2].argmin(),
            }
            answer = ask(scores, labels, seen, offsets)
            if not isinstance(answer, list | tuple) or len(answer) != 2:
                raise Wrong("return two numbers: the best offset, and its hIoU")
            if value:
                told: dict[str, Any] = {
                    "this is the pixel accuracy at the best offset": swept[best, 3],
                    "this is the hIoU without any offset": swept[0, 2],
                    "this is the plain mean of S and U at the best offset": swept[best, :2].mean(),
                }
                expect(answer[1], swept[best, 2], told, "the best hIoU")
            else:
                told = {message: offsets[int(position)] for message, position in chosen.items()}
                expect(answer[0], offsets[int(best)], told, "the best offset")

    return test


# --- my_settings ---------------------------------------------------------------------------------------------------


def _rules(settings: object, random: torch.Generator) -> None:
    checked(settings)


def _beats(factor: float) -> Test:
    """The model reaches more than `factor` times the baseline's hIoU, on the unseen classes of test scenes; both are
    trained with one seed of the grader's, on the same scenes.
    """

    def test(settings: object, random: torch.Generator) -> None:
        checked(settings)
        seed = integer(random, 1, 1000)
        mine, baseline = (100 * compete(one, seed, "test")["hIoU"] for one in (settings, BASELINE))
        if not mine > factor * baseline:
            more = "" if factor == 1 else f", and {factor:g} times as much, {factor * baseline:.1f}, is asked for"
            raise Wrong(
                f"trained with another seed and scored on the unseen classes of the test scenes, your model reaches "
                f"hIoU {mine:.1f}; the baseline, trained with the same seed, reaches {baseline:.1f}{more}. If yours is "
                "ahead in the classes that are held out, it may be ahead by luck there: try several seeds"
            )

    return test


EXERCISES = (
    Exercise(
        "harmonic_mean(seen, unseen)",
        (Part("two numbers", 1, _mean_test(zeros=False)), Part("zeros", 1, _mean_test(zeros=True))),
        frozenset({"harmonic_mean"}),
    ),
    Exercise(
        "seen_unseen_scores(counts, unseen)",
        (
            Part("S and U", 2, _scores_test(absent=False, shown=slice(0, 2))),
            Part("classes without ground truth", 1, _scores_test(absent=True, shown=slice(0, 2))),
            Part("hIoU", 1, _scores_test(absent=False, shown=slice(2, 3))),
        ),
        frozenset({"ConfusionMatrix", "Scores", "iou_of_counts"}),
    ),
    Exercise(
        "training_labels(labels, unseen, classes)",
        (
            Part("unseen classes are hidden", 2, _labels_test(numbered=False)),
            Part("seen classes are numbered anew", 1, _labels_test(numbered=True)),
        ),
        frozenset({"seen_only"}),
    ),
    Exercise(
        "best_offset(scores, labels, seen, offsets)",
        (Part("the best offset", 2, _offset_test(value=False)), Part("its hIoU", 2, _offset_test(value=True))),
        frozenset({"sweep_offsets"}),
    ),
    Exercise(
        "my_settings",
        (
            Part("within the rules", 1, _rules),
            Part("more hIoU than the trained baseline", 4, _beats(1.0)),
            Part("a tenth more than the trained baseline", 2, _beats(1.1)),
        ),
    ),
)
