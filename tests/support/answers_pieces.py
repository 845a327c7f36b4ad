"""Answers to assignment 2, as in `answers.py`."""

import math

import torch
from torch.nn import functional as F

import cascadeclip.config
import cascadeclip.model
from tests.support.answers import right, wrong

# --- run_prompted -------------------------------------------------------------------------------------------------


def beside(own, tokens):
    return torch.cat([tokens, own.expand(len(tokens), -1, -1)], dim=1)


@wrong("run_prompted", "set of its own, prompts\\[l\\]")
def first_set_for_all(blocks, tokens, prompts):
    found = []
    for block in blocks:
        tokens = block(beside(prompts[0], tokens))[:, : tokens.shape[1]]
        found.append(tokens)
    return found


@wrong("run_prompted", "go on through all blocks")
def prompts_go_on(blocks, tokens, prompts):
    length, found = tokens.shape[1], []
    tokens = beside(prompts[0], tokens)
    for block in blocks:
        tokens = block(tokens)
        found.append(tokens[:, :length])
    return found


@wrong("run_prompted", "cut off the wrong end")
def cuts_patches(blocks, tokens, prompts):
    found = []
    for block, own in zip(blocks, prompts, strict=True):
        out = block(torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1))
        found.append(out[:, : tokens.shape[1]])
        tokens = out[:, len(own) :]
    return found


@wrong("run_prompted", "make no difference")
def without_prompts(blocks, tokens, prompts):
    found = []
    for block in blocks:
        tokens = block(tokens)
        found.append(tokens)
    return found


@wrong("run_prompted", "last block alone|expected shape")
def last_block_only(blocks, tokens, prompts):
    for block, own in zip(blocks, prompts, strict=True):
        tokens = block(beside(own, tokens))[:, : tokens.shape[1]]
    return tokens


@wrong("run_prompted", "still in what you return")
def prompts_stay(blocks, tokens, prompts):
    found = []
    for block, own in zip(blocks, prompts, strict=True):
        out = block(torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1))
        found.append(out)
        tokens = out[:, len(own) :]
    return found


@right("run_prompted")
def prompts_behind(blocks, tokens, prompts):
    found = [tokens]
    for number in range(len(blocks)):
        found.append(blocks[number](beside(prompts[number], found[-1]))[:, : tokens.shape[1]])
    return torch.stack(found[1:])


# --- attend -------------------------------------------------------------------------------------------------------


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def scores_of(q, k, heads):
    return heads_of(q, heads) @ heads_of(k, heads).mT / math.sqrt(q.shape[-1] / heads)


def merged(weights, v, heads):
    return (weights @ heads_of(v, heads)).transpose(1, 2).flatten(2)


@wrong("attend", "sqrt\\(E\\)")
def scaled_by_whole_width(q, k, v, heads, is_patch):
    scores = heads_of(q, heads) @ heads_of(k, heads).mT / math.sqrt(q.shape[-1])
    return merged(scores.masked_fill(~is_patch[:, None, None], -math.inf).softmax(-1), v, heads)


@wrong("attend", "over the classes")
def softmax_over_queries(q, k, v, heads, is_patch):
    return merged(scores_of(q, k, heads).softmax(-2) * is_patch[:, None, None], v, heads)


@wrong("attend", "one head does all the work")
def forgets_heads(q, k, v, heads, is_patch):
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~is_patch[:, None], -math.inf)
    return scores.softmax(-1) @ v


@wrong("attend", "heads and rows got mixed up")
def merges_wrongly(q, k, v, heads, is_patch):
    scores = scores_of(q, k, heads).masked_fill(~is_patch[:, None, None], -math.inf)
    return (scores.softmax(-1) @ heads_of(v, heads)).reshape(len(q), q.shape[1], -1)


@wrong("attend", "`scaled_dot_product_attention`")
def ready_made(q, k, v, heads, is_patch):
    parts = (heads_of(x, heads) for x in (q, k, v))
    return F.scaled_dot_product_attention(*parts, is_patch[:, None, None]).transpose(1, 2).flatten(2)


@wrong("attend", "padding takes part")
def forgets_padding(q, k, v, heads, is_patch):
    return merged(scores_of(q, k, heads).softmax(-1), v, heads)


@wrong("attend", "exp\\(0\\) is 1")
def zero_scores(q, k, v, heads, is_patch):
    return merged((scores_of(q, k, heads) * is_patch[:, None, None]).softmax(-1), v, heads)


@wrong("attend", "no longer adds up to 1")
def masks_behind(q, k, v, heads, is_patch):
    return merged(scores_of(q, k, heads).softmax(-1) * is_patch[:, None, None], v, heads)


@right("attend")
def attend_head_by_head(q, k, v, heads, is_patch):
    found = []
    for i in range(heads):
        part = slice(i * q.shape[-1] // heads, (i + 1) * q.shape[-1] // heads)
        scores = torch.einsum("bce,bne->bcn", q[..., part], k[..., part]) * (q.shape[-1] // heads) ** -0.5
        weights = scores.exp() * is_patch[:, None]
        found.append(weights / weights.sum(-1, keepdim=True) @ v[..., part])
    return torch.cat(found, -1)


# --- learning_rate ------------------------------------------------------------------------------------------------


@wrong("learning_rate", "a straight line")
def straight(step, steps, peak, warmup):
    return peak * (1 - step / steps) * (min(1, step / warmup) if warmup else 1)


@wrong("learning_rate", "there is no warm-up in yours")
def no_warmup(step, steps, peak, warmup):
    return peak * (1 - step / steps) ** 0.9


@wrong("learning_rate", "not the peak")
def warms_up_to_the_peak(step, steps, peak, warmup):
    return peak * step / warmup if step < warmup else peak * (1 - step / steps) ** 0.9


@wrong("learning_rate", "starts it behind the warm-up")
def decays_later(step, steps, peak, warmup):
    return peak * step / warmup if step < warmup else peak * (1 - (step - warmup) / (steps - warmup)) ** 0.9


@wrong("learning_rate", "from 1; step 0 has a rate of 0")
def counts_from_one(step, steps, peak, warmup):
    return peak * (1 - step / steps) ** 0.9 * (min(1, (step + 1) / warmup) if warmup else 1)


@wrong("learning_rate", "ZeroDivisionError")
def divides_by_no_warmup(step, steps, peak, warmup):
    return peak * (1 - step / steps) ** 0.9 * min(1, step / warmup)


@wrong("learning_rate", "uses `learning_rate_at`")
def rate_of_package(step, steps, peak, warmup):
    config = cascadeclip.config.TrainConfig(steps=steps, learning_rate=peak, warmup=warmup)
    return config.learning_rate_at(step)


@right("learning_rate")
def rate_in_logarithms(step, steps, peak, warmup):
    share = 1.0 if warmup == 0 else min(step, warmup) / warmup
    return torch.tensor(share * peak * math.exp(0.9 * math.log(1 - step / steps)))


# --- mask_loss ----------------------------------------------------------------------------------------------------


def lost(logits, labels, *, inside=0.25, power=2, keep=None, one=1.0, counted=None):
    """Both losses, pair by pair, over the pixels `counted`."""
    counted = labels != 255 if counted is None else counted
    focal, dice = [], []
    for picture in range(len(labels)):
        at = counted[picture]
        for c in range(logits.shape[1]):
            t, x = (labels[picture] == c)[at], logits[picture, c][at]
            if t.any() or keep == "all":
                p = x.sigmoid()
                cost = torch.where(t, -inside * (1 - p) ** power * p.log(), -(1 - inside) * p**power * (1 - p).log())
                focal.append(cost.mean())
                dice.append(1 - (2 * p[t].sum() + one) / (p.sum() + t.sum() + one))
    return torch.stack(focal), torch.stack(dice)


def averaged(logits, labels, **mistake):
    """Mean over the pairs of each loss, of `lost` with a mistake."""
    focal, dice = lost(logits, labels, **mistake)
    return focal.mean(), dice.mean()


@wrong("mask_loss", "absent from a picture count")
def absent_masks_count(logits, labels):
    return averaged(logits, labels, keep="all")


@wrong("mask_loss", "sum over the pairs")
def sum_of_pairs(logits, labels):
    focal, dice = lost(logits, labels)
    return focal.sum(), dice.sum()


@wrong("mask_loss", "swapped")
def weights_swapped(logits, labels):
    return averaged(logits, labels, inside=0.75)


@wrong("mask_loss", "makes it \\*focal\\* is missing")
def plain_cross_entropy(logits, labels):
    return averaged(logits, labels, power=0)


@wrong("mask_loss", "1 above and below")
def without_the_ones(logits, labels):
    return averaged(logits, labels, one=0.0)


@wrong("mask_loss", "the dice coefficient")
def dice_coefficient(logits, labels):
    focal, dice = lost(logits, labels)
    return focal.mean(), 1 - dice.mean()


@wrong("mask_loss", "ignored pixels count as pixels outside")
def ignored_as_negatives(logits, labels):
    return averaged(logits, labels, counted=torch.ones_like(labels, dtype=torch.bool))


@wrong("mask_loss", "return two numbers")
def losses_added(logits, labels):
    focal, dice = lost(logits, labels)
    return focal.mean() + dice.mean()


@wrong("mask_loss", "write (it|this one) yourself")
def loss_of_package(logits, labels):
    found = cascadeclip.model.segmentation_loss(logits, labels, focal_weight=1.0, ignored_are_negatives=False)
    return found["focal"], found["dice"]


@right("mask_loss")
def pair_by_pair(logits, labels):
    focal, dice = lost(logits.double(), labels)
    return [focal.mean().item(), dice.mean().item()]


# --- train_steps --------------------------------------------------------------------------------------------------


def trained(model, batches, loss_of, optimiser_of, rates, clip, *, leave=()):
    """Training by hand, with something left out."""
    optimiser, losses = optimiser_of(model.parameters()), []
    for (inputs, targets), rate in zip(batches, rates, strict=True):
        if "rates" not in leave:
            optimiser.param_groups[0].update(lr=rate)
        if "zero" not in leave:
            model.zero_grad()
        loss = loss_of(model(inputs), targets)
        loss.backward()
        if "clip" not in leave:
            norm = sum(p.grad.pow(2).sum() for p in model.parameters()).sqrt()
            for p in model.parameters():
                p.grad *= min(1.0, clip / norm.item())
        if "step" not in leave:
            optimiser.step()
        losses.append(loss)
    return losses


@wrong("train_steps", "`optimiser.step\\(\\)` missing")
def never_steps(*given):
    return [loss.item() for loss in trained(*given, leave=("step",))]


@wrong("train_steps", "add up")
def keeps_gradients(*given):
    return [loss.item() for loss in trained(*given, leave=("zero",))]


@wrong("train_steps", "as long as they come")
def never_clips(*given):
    return [loss.item() for loss in trained(*given, leave=("clip",))]


@wrong("train_steps", "learning rates make no difference")
def never_sets_the_rate(*given):
    return [loss.item() for loss in trained(*given, leave=("rates",))]


@wrong("train_steps", "each parameter's gradient by itself")
def clips_each(model, batches, loss_of, optimiser_of, rates, clip):
    optimiser, losses = optimiser_of(model.parameters()), []
    for (inputs, targets), rate in zip(batches, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        loss = loss_of(model(inputs), targets)
        optimiser.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            torch.nn.utils.clip_grad_norm_(parameter, clip)
        optimiser.step()
        losses.append(loss.item())
    return losses


@wrong("train_steps", "\\*behind\\* the steps")
def loss_behind_the_step(model, batches, loss_of, optimiser_of, rates, clip):
    losses, optimiser = [], optimiser_of(model.parameters())
    for (inputs, targets), rate in zip(batches, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        loss_of(model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        losses.append(loss_of(model(inputs), targets).item())
    return losses


@wrong("train_steps", "this is one loss")
def last_loss(*given):
    return trained(*given)[-1]


@right("train_steps")
def trained_by_hand(*given):
    return torch.stack(trained(*given))
