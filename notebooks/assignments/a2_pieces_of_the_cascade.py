# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Assignment 2 · The pieces of the cascade
#
# Notebook 03 builds Cascade-CLIP piece by piece. Here you write those pieces that it leaves to the package, or does in
# another way: prompt tokens through all blocks, attention that pads, the authors' learning rate, a loss that leaves out
# what is absent or ignored, and training itself. At the end your pieces train a small decoder.
#
# **What you will learn**
#
# 1. how prompt tokens steer a frozen tower, and how queries look at patches of pictures of several sizes;
# 2. what the loss asks of a mask, and what it does not ask;
# 3. what one training step consists of, and in which order.
#
# **Time:** two to three hours of your work; all cells together take under a minute on a laptop CPU, nothing is
# downloaded. **Background:** notebook 03. **Points:** 20, in five exercises.
#
# **How it is graded.** Write your answer where it says `YOUR CODE HERE` and remove the line below it. The cell after
# each answer runs your function on random inputs, new ones every time, says what is wrong, and ends with your points.
# Grading runs the same tests on other inputs; nothing else is tested. It runs the notebook from its first cell to its
# last (do so yourself: *Restart and run all*); a cell of yours may work for 30 seconds there, and one call of a
# function in a test for 20. Tests print nothing of what your function prints. Keep the functions' names, and do not
# write into what you are given. The package has pieces like these: do not call those.
#
# Symbols: B pictures, C classes, N patches, P prompt tokens of a block, D width of the tower, E joint width.

# %%
# On Colab, install the package first: see the README.
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from cascadeclip.analysis import block_tokens, raw_lens
from cascadeclip.clip import load_clip
from cascadeclip.data.emojiscenes import CLASSES, UNSEEN, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.plots.evaluation import plot_maps

print("device: cpu")
clip = load_clip()
seen = [c for c, name in enumerate(CLASSES) if name not in UNSEEN]
words = clip.class_embeddings(CLASSES)
words = F.normalize(words - words[seen].mean(0), dim=-1)  # centred, as the decoders read them
print("words:", tuple(words.shape), "| seen:", len(seen))

# %% [markdown]
# ### Exercise 1 · `run_prompted` · 3 points · medium · 25 minutes
#
# `blocks` is a list of L transformer blocks; each takes tokens (B, T, D), any number T of them, and returns as many.
# `tokens` (B, 1 + N, D) is what the first block would get, `prompts` (L, P, D) holds a set of P prompt tokens for every
# block, the same for all pictures. Before block l, put its set `prompts[l]` beside the tokens; behind it, throw away
# what became of them. The next block gets the other tokens, and a set of its own. Return a list of the L tensors
# (B, 1 + N, D) behind the blocks, in their order, without prompt tokens.
#
# <details><summary>Hint</summary>
# <code>prompts[l].expand(B, -1, -1)</code> gives every picture the set; <code>torch.cat(..., dim=1)</code> puts tokens
# beside each other. If the prompt tokens stand in front, the first P of the result are theirs.
# </details>


# %% answer="run_prompted"
def run_prompted(blocks, tokens, prompts):
    """L blocks, tokens (B, 1 + N, D), prompts (L, P, D) -> L tensors (B, 1 + N, D)."""
    ### BEGIN SOLUTION
    found = []
    for block, own in zip(blocks, prompts, strict=True):
        beside = torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = block(beside)[:, len(own) :]
        found.append(tokens)
    return found
    ### END SOLUTION


# %% test="run_prompted" seed=60407
# build.py writes the test

# %% [markdown]
# ### Exercise 2 · `attend` · 4 points · hard · 35 minutes
#
# Multi-head cross-attention, without its linear layers, for pictures of several sizes in one batch: the smaller ones
# are filled up with *padding*. `queries` (B, C, E), `keys` and `values` (B, N, E) are cut along E into `heads` equal,
# contiguous pieces. In each head, every query scores every patch, $\text{score} = q \cdot k / \sqrt{E/\text{heads}}$; a
# softmax over the **patches** makes weights of the scores, and the values are averaged with these. Where `is_patch`
# (B, N) is False there is no patch but padding: it gets a weight of **exactly 0**, and the weights of the others add up
# to 1. The heads' results stand side by side: (B, C, E). (`F.scaled_dot_product_attention` would do it for you: write
# it out, and try to do without a loop over the heads.)
#
# <details><summary>Hint</summary>
# <code>x.unflatten(-1, (heads, -1)).transpose(1, 2)</code> is (B, heads, ..., E / heads). At the end, transpose back
# <i>before</i> you flatten the last two axes. Of what number is the exponential 0?
# <code>scores.masked_fill(~is_patch[:, None, None], ...)</code> writes it.
# </details>


# %% answer="attend"
def attend(queries, keys, values, heads, is_patch):
    """(B, C, E), (B, N, E), (B, N, E), a number, (B, N) bool -> (B, C, E)."""
    ### BEGIN SOLUTION
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~is_patch[:, None, None], -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    ### END SOLUTION


# %% test="attend" seed=77345
# build.py writes the test

# %% [markdown]
# ### Exercise 3 · `learning_rate` · 3 points · easy · 15 minutes
#
# The authors let the learning rate fall along a power, and rise from zero before: at `step` (0, 1, ...) of `steps`,
#
# $$\text{rate} = \text{peak} \cdot \Big(1 - \frac{\text{step}}{\text{steps}}\Big)^{0.9} \cdot \min\Big(1,
# \frac{\text{step}}{\text{warmup}}\Big)$$
#
# Without a warm-up, `warmup` is 0, and the last factor is 1 everywhere.
#
# <details><summary>Hint</summary>
# Two lines, and an <code>if</code> that keeps you from dividing by zero.
# </details>


# %% answer="learning_rate"
def learning_rate(step, steps, peak, warmup):
    """Four numbers -> one."""
    ### BEGIN SOLUTION
    rate = peak * (1 - step / steps) ** 0.9
    return rate * step / warmup if step < warmup else rate
    ### END SOLUTION


# %% test="learning_rate" seed=31864
# build.py writes the test

# %% [markdown]
# ### Exercise 4 · `mask_loss` · 5 points · hard · 40 minutes
#
# A loss that asks less than that of notebook 03: only masks of classes that are **present** count, and pixels without a
# label count for nobody. `logits` (B, C, H, W) are as large as `labels` (B, H, W), which hold class numbers, or 255 for
# ignored pixels. With $p = \mathrm{sigmoid}(\text{logit})$, and target $t = 1$ where the label is the class, else 0,
# take every pair (picture, class) for which some pixel of the picture has that label:
#
# - **focal** of a pair: the mean, over the picture's labelled pixels, of $-\tfrac14 (1-p)^2 \ln p$ where $t = 1$ and
#   $-\tfrac34\, p^2 \ln(1-p)$ where $t = 0$;
# - **dice** of a pair: $1 - \frac{2\sum p t + 1}{\sum p + \sum t + 1}$, the sums over the picture's labelled pixels.
#
# Return two numbers, (focal, dice): each is the mean over all these pairs.
#
# <details><summary>Hint</summary>
# <code>labels[:, None] == torch.arange(C)[:, None, None]</code> is all targets at once, (B, C, H, W);
# <code>F.logsigmoid(x)</code> is ln p and <code>F.logsigmoid(-x)</code> is ln(1 - p), safe for large numbers. A mask of
# labelled pixels, (B, 1, H, W), multiplies whatever is summed.
# </details>


# %% answer="mask_loss"
def mask_loss(logits, labels):
    """(B, C, H, W), (B, H, W) int64 with 255 for ignored -> (focal, dice)."""
    ### BEGIN SOLUTION
    target = labels[:, None] == torch.arange(logits.shape[1])[:, None, None]
    labelled = (labels != 255)[:, None].float()
    present = target.flatten(2).any(-1)
    signed = torch.where(target, logits, -logits)
    cost = -torch.where(target, 0.25, 0.75) * (-signed).sigmoid() ** 2 * F.logsigmoid(signed)
    focal = (cost * labelled).sum((2, 3)) / labelled.sum((2, 3)).clamp(min=1)  # without a label: 0, not 0 / 0
    p = logits.sigmoid() * labelled
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    return focal[present].mean(), dice[present].mean()
    ### END SOLUTION


# %% test="mask_loss" seed=53589
# build.py writes the test

# %% [markdown]
# ### Exercise 5 · `train_steps` · 5 points · hard · 35 minutes
#
# Train `model` for one step per batch. `batches` is a list of (inputs, targets); `loss_of(model(inputs), targets)` is
# the loss of a batch, one number; `optimiser_of(model.parameters())` makes the optimiser, **once**. At step i:
#
# 1. every group in `optimiser.param_groups` gets the learning rate `rates[i]`, under the key `"lr"`;
# 2. the gradient of this batch's loss is computed, and of nothing else: gradients of the step before are removed;
# 3. the norm of the whole gradient, of all parameters together, is cut to `clip` at most;
# 4. the optimiser takes its step.
#
# Return the list of the losses, as numbers: each batch's **before** its step.
#
# <details><summary>Hint</summary>
# <code>loss.backward()</code> adds to the gradients that are there. <code>torch.nn.utils.clip_grad_norm_</code> has to
# come when there is a gradient and before it is used. <code>loss.item()</code> is a plain number.
# </details>


# %% answer="train_steps"
def train_steps(model, batches, loss_of, optimiser_of, rates, clip):
    """A module, a list of (inputs, targets), two functions, learning rates, a number -> a list of losses."""
    ### BEGIN SOLUTION
    optimiser, losses = optimiser_of(model.parameters()), []
    for (inputs, targets), rate in zip(batches, rates, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(model(inputs), targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        losses.append(loss.item())
    return losses
    ### END SOLUTION


# %% test="train_steps" seed=79323
# build.py writes the test

# %% [markdown]
# ## Your pieces at work
#
# A small decoder on the last block of Mini-CLIP: one linear layer for queries, one for patches, and their products are
# the mask logits. It is trained by your functions on the masks of the seen words.


# %%
def prepared(count, seed):
    """Scenes -> the scenes, patch tokens (count, 144, E), labels (count, 24, 24) of the seen words, 255 for others."""
    scenes = [EmojiScenes(count, seed=seed)[i] for i in range(count)]
    images, labels = collate(scenes)
    with torch.no_grad():
        tokens = raw_lens(clip.visual, block_tokens(clip.visual, normalise(images))[-1])[:, 1:]
    table = torch.full((256,), 255)
    table[seen] = torch.arange(len(seen))
    return scenes, tokens, table[labels[:, 2::4, 2::4].long()]


class Head(torch.nn.Module):
    """Patch tokens (B, 144, E) -> mask logits (B, words, 24, 24)."""

    def __init__(self, width):
        super().__init__()
        self.query, self.key = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.words = words[seen]

    def forward(self, tokens):
        logits = self.key(tokens) @ self.query(self.words).T
        maps = logits.transpose(1, 2).unflatten(2, (12, 12))
        return F.interpolate(maps, (24, 24), mode="bilinear")


def loss_of(logits, labels):
    focal, dice = mask_loss(logits, labels)
    return 50 * focal + dice


STEPS = 80
_, tokens, labels = prepared(96, seed=17)
torch.manual_seed(0)
head = Head(words.shape[1])
batches = [(tokens[rows], labels[rows]) for rows in (torch.randint(96, (8,)) for _ in range(STEPS))]
rates = [learning_rate(step, STEPS, 1e-2, 8) for step in range(STEPS)]
losses = train_steps(head, batches, loss_of, partial(torch.optim.AdamW, weight_decay=0.01), rates, 1.0)
print(f"loss: {losses[0]:.2f} at first, {sum(losses[-10:]) / 10:.2f} in the last ten steps")

# %%
figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
axis.plot(range(STEPS), losses)
axis.set(xlabel="step", ylabel="loss", title="your training step, your loss, your learning rate")
plt.show()

# %%
scenes, tokens, _ = prepared(3, seed=18)
head.words = words  # all of them, now: the words that no mask was shown of, too
with torch.no_grad():
    probabilities = F.interpolate(head(tokens), (96, 96), mode="bilinear").sigmoid()
    probabilities[:, seen] -= 0.1
truth = torch.stack([torch.from_numpy(scene.labels).long() for scene in scenes])
mine = probabilities.argmax(1)
plot_maps([scene.image for scene in scenes], {"truth": truth.numpy(), "yours": mine.numpy()}, CLASSES, UNSEEN)

# %% [markdown]
# How far do one linear layer on each side and 80 steps get? What the paper adds to this (prompts, several blocks,
# decoder layers) you have met in notebook 03.
#
# ## Recap
#
# 1. **Prompts and attention.** Prompt tokens stand beside the others for one block each; a query's weights run over
#    real patches, and add up to 1.
# 2. **Loss.** Focal looks at pixels, dice at masks as a whole; who is absent or ignored is asked nothing here.
# 3. **A step.** Rate, loss, gradient of this batch alone, its norm cut, step: in this order.
