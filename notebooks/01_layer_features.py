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
# # 01 · What CLIP knows at each block
#
# Cascade-CLIP reads several blocks of CLIP's image tower instead of the last one alone. Before building anything, we
# look: what is in those blocks, how much do they differ, and which of them knows where an object ends?
#
# **What you will learn**
#
# 1. to picture the features of every block so that colours can be compared from block to block;
# 2. to measure how alike blocks are with CKA, and why the usual estimate of it misleads;
# 3. to ask each block a question with a linear probe, with the controls that make its answer mean something.
#
# **Time:** less than two minutes on a laptop CPU with two cores; a GPU is used if there is one.

# %%
# On Colab, install the package first: see the README.
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from cascadeclip.analysis import (
    CKA,
    FeatureColours,
    attention_distance,
    boundary_patches,
    fit_ridge,
    patch_labels,
    probe,
)
from cascadeclip.analysis_plots import plot_maps, plot_matrices, plot_over_blocks
from cascadeclip.clip import load_clip
from cascadeclip.data.emojiscenes import CLASSES, THINGS, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.encoder import build_tower
from cascadeclip.lenses import attention_maps, block_tokens

device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"device: {device}")

# %% [markdown]
# ## The tower and the pictures
#
# The tower is Mini-CLIP, a ViT of 12 blocks that was trained on pictures and captions, never on masks. Change the next
# line to `load_clip("ViT-B-16", "openai")` for the real one (and bring pictures of your own).

# %%
# NBVAL_CHECK_OUTPUT
clip = load_clip()
visual = clip.visual.to(device)
grid = visual.grid_size
scenes = [EmojiScenes(320, seed=11)[i] for i in range(320)]
images, labels = collate(scenes)
train, test = slice(0, 240), slice(240, 320)
print("blocks:", len(visual.transformer.resblocks), "| patches:", grid, "| pictures:", tuple(images.shape))


# %% [markdown]
# One pass over the pictures gives the tokens after each block. They are kept in half precision.


# %%
# NBVAL_CHECK_OUTPUT
@torch.inference_mode()
def all_tokens(tower):
    """(L, images, 1 + N, D) float16 on the CPU."""
    parts = [torch.stack(block_tokens(tower, normalise(some).to(device))).half().cpu() for some in images.split(40)]
    return torch.cat(parts, dim=1)


tokens = all_tokens(visual)
class_tokens, patch_tokens = tokens[:, :, 0].float(), tokens[:, :, 1:].float().numpy()
print("tokens:", tuple(tokens.shape), "|", round(tokens.nbytes / 1e6), "MB")

# %% [markdown]
# ## 1. Features as colours
#
# A patch token has 192 numbers. Its three main directions of variation, drawn as red, green and blue, show which
# patches a block treats alike. Three things must be *fixed once, on a reference set*, or the colours mean nothing: the
# mean and directions (not per picture), the range of values (not per picture), and the signs and axes from block to
# block, which PCA leaves free; here each block's are rotated onto those of the block before.

# %%
reference = [block[train].reshape(-1, block.shape[-1])[::7] for block in patch_tokens]
colours = FeatureColours(reference)
shown, blocks = [240, 243, 247, 251], [1, 3, 5, 7, 9, 11, 12]
maps = {f"block {b}": [colours(b - 1, patch_tokens[b - 1][i]).reshape(*grid, 3) for i in shown] for b in blocks}
plot_maps([scenes[i].image for i in shown], maps)

# %% [markdown]
# Early blocks separate textures and colours; in the middle, objects stand out as wholes; in the last blocks patches of
# one picture blend into each other. How much of the variation can three colours show?

# %%
plot_over_blocks(
    {"three components": 100 * colours.explained}, "variance shown, per cent", title="what the colours can show"
)

# %% [markdown]
# The colours show only this share of what varies; where the curve is low, two patches of one colour may still differ.
#
# ## 2. How alike are blocks? CKA
#
# CKA compares two sets of features of the same pictures through the similarities between pictures that each implies.
# It ranges from 0 (unrelated) to 1 (the same up to rotation and scale). The estimate matters. Below, two
# *independent* sets of random numbers, 64 samples each:

# %%
# NBVAL_CHECK_OUTPUT
generator = torch.Generator().manual_seed(0)
for width in (16, 192, 768):
    estimates = {}
    for name, debiased in (("naive", False), ("debiased", True)):
        cka = CKA(debiased=debiased)
        for _ in range(20):
            cka.update([torch.randn(64, width, generator=generator) for _ in range(2)])
        estimates[name] = cka.result()[0, 1].item()
    print(f"width {width:3}: naive {estimates['naive']:.2f}, debiased {abs(estimates['debiased']):.2f}")

# %% [markdown]
# Naive CKA calls pure noise similar as soon as features outnumber samples: it comes out near $p/(n+p)$ for width $p$
# and $n$ samples. The debiased estimate leaves out each picture's similarity with itself, and gives 0.
#
# Now the blocks, on class tokens: one independent sample per picture. Patches of one picture would not be independent.

# %%
likeness = {}
for name, debiased in (("debiased", True), ("naive", False)):
    cka = CKA(debiased=debiased)
    for some in class_tokens.split(80, dim=1):
        cka.update(list(some))
    likeness[name] = cka.result().numpy()
plot_matrices(likeness, "CKA of class tokens")

# %%
# NBVAL_CHECK_OUTPUT
debiased = likeness["debiased"]
print("neighbours more alike than first and last block:", bool(np.diag(debiased, 1).min() > debiased[0, -1]))
print("naive says more alike than debiased, for every pair:", bool((likeness["naive"] >= debiased - 1e-9).all()))

# %% [markdown]
# Neighbouring blocks are alike and distant ones are not: they hold *different* information, which is the reason to
# read more than one. The naive matrix shows the same order but paints everything more alike than it is.
#
# ## 3. Linear probes, with controls
#
# A linear probe asks: can a linear map read the class of each patch off this block? It is fitted on the masks of 240
# pictures and scored on 80 others, at the resolution of pixels. Pictures are split, never patches: two patches of one
# picture are nearly the same. Regularisation is chosen per block on held-out pictures. Three controls say what a number
# is worth: the same tower with *random weights*, *shuffled labels*, and *position only*.

# %%
truth = patch_labels(labels, grid).numpy()
probed = [
    probe(block[train], truth[train], block[test], labels[test], len(CLASSES), grid).mIoU for block in patch_tokens
]
torch.manual_seed(0)
untrained = all_tokens(build_tower(clip.tower).eval().to(device))[:, :, 1:].float().numpy()
control = [probe(block[train], truth[train], block[test], labels[test], len(CLASSES), grid).mIoU for block in untrained]

# %%
best = int(np.argmax(probed))
shuffled = np.random.default_rng(0).permutation(truth[train].reshape(-1)).reshape(truth[train].shape)
by_chance = probe(patch_tokens[best][train], shuffled, patch_tokens[best][test], labels[test], len(CLASSES), grid).mIoU
place = np.broadcast_to(np.eye(grid[0] * grid[1], dtype=np.float32), (320, grid[0] * grid[1], grid[0] * grid[1]))
by_place = probe(place[train], truth[train], place[test], labels[test], len(CLASSES), grid).mIoU
plot_over_blocks(
    {"Mini-CLIP": [100 * v for v in probed], "random weights": [100 * v for v in control]},
    "mIoU on 80 other pictures, per cent",
    baselines={"shuffled labels": 100 * by_chance, "position only": 100 * by_place},
    title=f"linear probe, {len(CLASSES)} classes",
)

# %%
# NBVAL_CHECK_OUTPUT
print("trained beats random weights at every block after the second:", bool((np.array(probed) > control)[2:].all()))
print("the best block beats shuffled labels ten times over:", bool(probed[best] > 10 * by_chance))
print("the best block is the last one:", best == len(probed) - 1)

# %% [markdown]
# Classes can be read off best from blocks in the *middle*; toward the last one it gets harder again. What is readable
# comes from training: random weights tell some textures and no more, shuffled labels and position alone reach next to
# nothing. A probe was *taught* the classes with masks, though. That a class can be decoded does not mean that its
# *word* points there: that is the question of notebook 02.
#
# ## Which block knows boundaries best?
#
# The same probe with another question: does this patch hold a border between two classes? The score is the chance that
# a patch with a border is ranked above one without (AUROC; 0.5 is guessing).

# %%
border = boundary_patches(labels, grid).numpy()


def border_auroc(features):
    model, *_ = fit_ridge(features[train], border[train][..., None].astype(np.float32))
    return roc_auc_score(border[test].ravel(), model.predict(features[test].reshape(-1, features.shape[-1])))


trained_border = [border_auroc(block) for block in patch_tokens]
random_border = [border_auroc(block) for block in untrained]
plot_over_blocks(
    {"Mini-CLIP": trained_border, "random weights": random_border},
    "AUROC",
    baselines={"guessing": 0.5},
    title="does the patch hold a border?",
)

# %%
# NBVAL_CHECK_OUTPUT
knows = int(np.argmax(trained_border)) + 1
print("borders are known best before the last block:", knows < len(trained_border))
print("training helps: best block beats the best of random weights:", max(trained_border) > max(random_border))

# %%
print(f"block {knows} knows borders best: AUROC {max(trained_border):.3f}; the last block has {trained_border[-1]:.3f}")

# %% [markdown]
# Borders are known best well *before* the end, though by little: the curve is nearly flat, and in this small world a
# border is easy to see. The last block has lost more of *what* is where (the probe above) than of where something ends.
#
# ## How far do blocks look?
#
# Attention mixes patches. Its mean distance, in pixels, says how far a head looks.

# %%
with torch.inference_mode():
    distance = attention_distance(attention_maps(visual, normalise(images[:32]).to(device)).cpu(), grid, 8).numpy()
everywhere = attention_distance(torch.ones(1, 1, 1, grid[0] * grid[1] + 1, grid[0] * grid[1] + 1), grid, 8).item()
plot_over_blocks(
    {f"head {h + 1}": distance[:, h] for h in range(distance.shape[1])},
    "mean attention distance, px",
    baselines={"looking everywhere alike": everywhere},
    title="how far each head looks",
)

# %% [markdown]
# The dashed level is what a head that spreads its attention evenly over the picture would have. Heads below it prefer
# what is near, early ones most of all; above it a head prefers the far side of the picture. In this small tower all of
# them look far: none is as local as the early heads of large ones are known to be.
#
# ### Exercise 1: the naive estimate, predicted
# For which width would naive CKA call independent noise 0.9 similar, at 64 samples? Solve $p/(n+p)=0.9$, then test it.

# %%
# your code here

# %% jupyter={"source_hidden": true} tags=["solution"] cellView="form"
# @title Solution
width = 9 * 64  # p = 0.9 n / 0.1
cka = CKA(debiased=False)
for _ in range(20):
    cka.update([torch.randn(64, width, generator=generator) for _ in range(2)])
noise = cka.result()[0, 1].item()
assert abs(noise - 0.9) < 0.02, "naive CKA of independent noise should be close to p / (n + p)"
print(f"width {width}: naive CKA of noise {noise:.2f}")

# %% [markdown]
# ### Exercise 2: what happens if patches are split instead of pictures?
# Fit a ridge probe on every second patch of the test pictures' best block and measure its accuracy on the patches
# between them. Compare with the accuracy on pictures it has not seen.

# %%
# your code here

# %% jupyter={"source_hidden": true} tags=["solution"] cellView="form"
# @title Solution
features, one_hot = patch_tokens[best], np.eye(len(CLASSES), dtype=np.float32)


def accuracy(model, x, y):
    return (model.predict(x.reshape(-1, x.shape[-1])).argmax(1) == y.reshape(-1)).mean()


by_patch, *_ = fit_ridge(features[test][:, ::2], one_hot[truth[test][:, ::2]])
by_picture, *_ = fit_ridge(features[train], one_hot[truth[train]])
leaky = accuracy(by_patch, features[test][:, 1::2], truth[test][:, 1::2])
honest = accuracy(by_picture, features[test], truth[test])
assert leaky > honest, "neighbouring patches of one picture resemble each other: the split by patch should look better"
print("split by patch looks better, with a third of the data:", leaky > honest)

# %% [markdown]
# ### Exercise 3: thing or stuff?
# Which is easier to decode at block 1, things or stuff? Score the probe's classes apart.

# %%
# your code here

# %% jupyter={"source_hidden": true} tags=["solution"] cellView="form"
# @title Solution
model, *_ = fit_ridge(patch_tokens[0][train], one_hot[truth[train]])
guessed = model.predict(patch_tokens[0][test].reshape(-1, patch_tokens.shape[-1])).argmax(1).reshape(truth[test].shape)
is_thing = truth[test] < len(THINGS)
right = guessed == truth[test]
assert right[~is_thing].mean() > right[is_thing].mean(), "block 1 sees texture: stuff should be the easier one"
print(f"block 1 is right on {right[is_thing].mean():.0%} of thing patches, {right[~is_thing].mean():.0%} of stuff")

# %% [markdown]
# ## Recap
#
# 1. Feature maps can be compared only if mean, axes, signs and range are fixed once for all pictures; then textures
#    (early), objects (middle) and blended pictures (late) can be seen.
# 2. Distant blocks hold different information; the debiased CKA says so without flattering, the naive one scores noise.
# 3. Probes with controls: classes and borders are both read off best before the last block, borders earlier than
#    classes. A model that reads the last block alone gives that up.
#
# Next: **02 · Alignment gaps**, where the words come in.
