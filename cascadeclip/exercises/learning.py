"""Assignment 2: the tests of `learning_rate`, `mask_loss` and `train_steps`, how the pieces learn.

Every expected value is computed here from its formula. Symbols: B pictures, C classes, p = sigmoid of a mask logit.
"""

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cascadeclip.exercises.checking import CASES, Ask, Test, Wrong, expect, integer, uniform

IGNORE = 255
POWER = 0.9  # of the decay, as in the authors' code

# --- learning_rate -------------------------------------------------------------------------------------------------


def _decayed(step: int, steps: int, peak: float, power: float = POWER) -> float:
    return peak * (1 - step / steps) ** power


def decay_test(ask: Ask, random: torch.Generator) -> None:
    for _ in range(CASES):
        steps, peak = integer(random, 50, 200), uniform(random, 0.5, 2.0)
        step = integer(random, steps // 4, 3 * steps // 4)
        told = {
            "the power 0.9 is missing: this is a straight line": _decayed(step, steps, peak, 1.0),
            "the power belongs to what is left of the way, 1 - step / steps, and not to the rate as a whole": (
                peak * (1 - step / steps)
            )
            ** POWER,
            "yours grows with the steps: what is *left* of the way counts, 1 - step / steps": _decayed(
                steps - step, steps, peak
            ),
            "this is a cosine; the authors' decay is a power": peak * (1 + math.cos(math.pi * step / steps)) / 2,
            "the rate does not fall in yours": peak,
        }
        expect(ask(step, steps, peak, 0), _decayed(step, steps, peak), told, "the learning rate")


def warmup_test(ask: Ask, random: torch.Generator) -> None:
    for case in range(CASES + 1):
        steps, peak, warmup = integer(random, 50, 200), uniform(random, 0.5, 2.0), integer(random, 12, 20)
        step = (integer(random, warmup, 2 * warmup), integer(random, 2, warmup - 2), 0, warmup - 1)[case]
        decayed, share = _decayed(step, steps, peak), min(1.0, step / warmup)
        told = {
            "there is no warm-up in yours: the first `warmup` steps are scaled by step / warmup": decayed,
            "in the warm-up, step / warmup scales the rate that the decay gives, not the peak": (
                peak * share if step < warmup else decayed
            ),
            "the decay runs from step 0 in the formula; yours starts it behind the warm-up": share
            * peak
            * min(1.0, (1 - (step - warmup) / (steps - warmup))) ** POWER,
            "yours counts the steps of the warm-up from 1; step 0 has a rate of 0": decayed
            * min(1.0, (step + 1) / warmup),
            "the scale goes on growing behind the warm-up: it stops at 1": decayed * step / warmup,
        }
        expect(ask(step, steps, peak, warmup), decayed * share, told, "the learning rate")


# --- mask_loss -----------------------------------------------------------------------------------------------------


def _losses(
    logits: Tensor, labels: Tensor, *, positive: float = 0.25, gamma: float = 2.0, all_masks: bool = False,
    ignored: str = "out", smooth: float = 1.0, double: float = 2.0, mean: bool = True, union: bool = False,
) -> Tensor:  # fmt: skip
    """Focal and dice loss (2,) float64; the keywords make mistakes."""
    x, target = logits.double(), labels[:, None] == torch.arange(logits.shape[1])[:, None, None]
    counted = (labels != IGNORE if ignored != "negative" else torch.ones_like(labels, dtype=torch.bool))[:, None]
    signed = torch.where(target, x, -x)
    cost = (
        -torch.where(target, positive, 1 - positive) * (-signed).sigmoid() ** gamma * nn.functional.logsigmoid(signed)
    )
    pixels = torch.tensor(1.0) if not mean else counted.sum((2, 3)).double()
    focal = (cost * counted).sum((2, 3)) / (labels[0].numel() if ignored == "mean" else pixels)
    p = x.sigmoid() * counted
    overlap, areas = (p * target).sum((2, 3)), (p + target.double()).sum((2, 3))
    if union:
        areas, double = areas - overlap, 1.0
    dice = 1 - (double * overlap + smooth) / (areas + smooth)
    present = target.flatten(2).any(-1) | all_masks
    return torch.stack([focal[present].mean(), dice[present].mean()])


def _shared_mistakes(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What goes wrong in both losses."""
    right = _losses(logits, labels)
    present = (labels[:, None] == torch.arange(logits.shape[1])[:, None, None]).flatten(2).any(-1)
    return {
        "masks of classes that are absent from a picture count in yours: take the pairs (picture, class) that are "
        "present": _losses(logits, labels, all_masks=True),
        "yours is the sum over the pairs that are present; take their mean": right * present.sum(),
    }


def _ignored_mistakes(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {
        "ignored pixels count as pixels outside every mask in yours; leave them out of all sums": _losses(
            logits, labels, ignored="negative"
        ),
        "ignored pixels add nothing to focal, but its mean still runs over them: divide by the labelled pixels": (
            _losses(logits, labels, ignored="mean")
        ),
    }


def _loss_mistakes(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    loss = partial(_losses, logits, labels)
    return {
        "1/4 belongs to the pixels inside a mask, 3/4 to those outside; yours has them swapped": loss(positive=0.75),
        "the factor (1 - p)^2 or p^2 that makes it *focal* is missing": loss(gamma=0.0),
        "the factor (1 - p) or p must be squared": loss(gamma=1.0),
        "focal is a *mean* over the pixels of the picture; yours is their sum": loss(mean=False),
        "focal has the other sign in yours: a loss is positive": loss() * torch.tensor([-1, 1]),
        "yours is the dice coefficient, which is 1 for a perfect mask; the loss is 1 minus it": (
            torch.tensor([0.0, 1.0]) + loss() * torch.tensor([1, -1])
        ),
        "the 1 above and below the fraction of dice is missing": loss(smooth=0.0),
        "the 2 above the fraction of dice is missing": loss(double=1.0),
        "this is 1 - IoU: what is in both masks stands twice below the fraction of dice": loss(union=True),
    }


def loss_test(which: int | None) -> Test:
    """Of focal (0) or dice (1) where every pixel has a label, or of both where some are ignored (None)."""
    names = ("focal", "dice")

    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            classes, size = integer(random, 4, 6), (integer(random, 5, 7), integer(random, 4, 6))
            logits = 2 * torch.randn(2, classes, *size, generator=random)
            labels = torch.randint(0, classes - 1, (2, *size), generator=random)  # the last class is absent
            labels[1][labels[1] == 0] = 1  # another one is in one picture only
            told = _shared_mistakes(logits, labels) | _loss_mistakes(logits, labels)
            if which is None:
                labels[0, :2], labels[1, :, 0] = IGNORE, IGNORE
                told = _ignored_mistakes(logits, labels) | _shared_mistakes(logits, labels)
            answer: Any = ask(logits, labels)
            answer = list(answer) if isinstance(answer, Tensor) and answer.ndim else answer
            if not isinstance(answer, list | tuple) or len(answer) != 2:
                raise Wrong("return two numbers: focal and dice")
            right = _losses(logits, labels)
            for number in range(2) if which is None else (which,):
                one = {message: value[number] for message, value in told.items()}
                expect(answer[number], right[number], one, names[number])

    return test


# --- train_steps ---------------------------------------------------------------------------------------------------


def _trained(
    model: nn.Module, batches: list[Any], loss_of: nn.Module, optimiser_of: Any, rates: list[float], clip: float,
    mistake: str = "",
) -> Tensor:  # fmt: skip
    """The losses (steps,) of a training, right or with one mistake."""
    model = copy.deepcopy(model)
    optimiser, losses = optimiser_of(model.parameters()), []
    for step, (inputs, targets) in enumerate(batches):
        if mistake == "one batch":
            inputs, targets = batches[0]
        rate = {"first": rates[0], "late": rates[max(step - 1, 0)], "uphill": -rates[step]}.get(mistake, rates[step])
        for group in optimiser.param_groups:
            group["lr"] = group["lr"] if mistake == "unset" else rate
        with torch.enable_grad():
            loss = loss_of(model(inputs), targets)
            if mistake != "kept":
                optimiser.zero_grad()
            loss.backward()
        parameters = list(model.parameters())
        if mistake == "values":
            nn.utils.clip_grad_value_(parameters, clip)
        elif mistake == "each":
            for parameter in parameters:
                nn.utils.clip_grad_norm_(parameter, clip)
        elif mistake != "unclipped":
            nn.utils.clip_grad_norm_(parameters, clip)
        if mistake != "still":
            optimiser.step()
        losses.append((loss_of(model(inputs), targets) if mistake == "after" else loss).detach())
    return torch.stack(losses)


def _training(random: torch.Generator) -> dict[str, Any]:
    """A small model, batches of four steps, and what belongs to them."""
    width, steps = integer(random, 3, 5), 4
    model = nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, 2))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    batches = [(torch.randn(8, width, generator=random), 2 * torch.randn(8, 2, generator=random)) for _ in range(steps)]
    optimiser_of = partial(torch.optim.SGD, momentum=0.5)  # its learning rate is set at every step
    return dict(model=model, batches=batches, loss_of=nn.MSELoss(), optimiser_of=optimiser_of, rates=[0.05] * steps)


def _norm_at_first(given: dict[str, Any]) -> float:
    """Of the first batch's gradient."""
    (inputs, targets), *_ = given["batches"]
    with torch.enable_grad():
        loss = given["loss_of"](given["model"](inputs), targets)
        gradients = torch.autograd.grad(loss, list(given["model"].parameters()))
    return torch.stack([gradient.norm() for gradient in gradients]).norm().item()


STEP_MISTAKES = {
    "the losses do not change as they should without a step: is `optimiser.step()` missing?": "still",
    "gradients of earlier steps are still there and add up: `optimiser.zero_grad()` before each `backward`": "kept",
    "these are losses *behind* the steps; return what each batch's loss was before its step": "after",
    "every step takes the first batch in yours": "one batch",
    "the learning rates make no difference in yours: write a step's rate into every group of "
    '`optimiser.param_groups`, under the key "lr"': "unset",
    "yours climbs: the optimiser goes *down* the gradient by itself": "uphill",
}


def _expect_losses(answer: object, given: dict[str, Any], mistakes: dict[str, str]) -> None:
    right = _trained(**given)
    told: dict[str, Tensor | float] = {
        message: _trained(**given, mistake=kind) for message, kind in {**STEP_MISTAKES, **mistakes}.items()
    }
    told["this is one loss: return the losses of all steps, as a list"] = right[-1]
    told["this is the mean of the losses: return those of all steps, as a list"] = right.mean()
    expect(answer, right, told, "the list of losses")


def steps_test(rates_change: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            given = _training(random) | {"clip": 1e6}
            mistakes: dict[str, str] = {}
            if rates_change:
                given["rates"] = [0.1, 0.02, 0.08, 0.05]
                mistakes = {
                    "all steps have the learning rate of the first: set it anew at every step, in every group of "
                    "`optimiser.param_groups`": "first",
                    "the learning rates come one step late: set a step's rate before `optimiser.step()`": "late",
                }
            _expect_losses(ask(*given.values()), given, mistakes)

    return test


def clipping_test(ask: Ask, random: torch.Generator) -> None:
    for _ in range(CASES):
        given = _training(random)
        given |= {"rates": [0.2] * len(given["batches"]), "clip": uniform(random, 0.3, 0.4) * _norm_at_first(given)}
        mistakes = {
            "gradients are as long as they come in yours: cut their norm to `clip`, between `backward` and `step`": (
                "unclipped"
            ),
            "you cut every single number to `clip`; it is the norm of the whole gradient that is bounded": "values",
            "you cut each parameter's gradient by itself; the norm is that of all of them together": "each",
        }
        _expect_losses(ask(*given.values()), given, mistakes)
