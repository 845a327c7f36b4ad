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
# # 02 · Where each block stands toward the text
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cascadeclip/blob/main/notebooks/02_alignment_gaps.ipynb)
#
# Notebook 01 found out what can be *decoded* from a block when masks teach a probe. Zero-shot segmentation has no masks
# of the classes it is asked for: it needs a block's patch tokens to lie near the *word*. Do they?
#
# **What you will learn**
#
# 1. two lenses for reading a block's patch tokens in the space of words, and what each assumes;
# 2. to measure how well words find their patches, with chance levels and intervals;
# 3. what the modality gap is, and that moving along it after training makes the match no better.
#
# **Time:** between one and two minutes on a laptop CPU with two cores; a GPU is used if there is one.
#
# Letters and words are those of the [notation and glossary](../docs/method/notation.md).

# %%
# Where the package is missing (Colab, Kaggle), it is installed; the torch and NumPy that are there stay.
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

if not find_spec("cascadeclip"):
    kept = [f"{name}=={version(name)}" for name in ("torch", "torchvision", "numpy") if find_spec(name)]
    package = "cascadeclip[notebooks] @ git+https://github.com/OWNER/cascadeclip"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *kept, package], check=True)

# %%
import numpy as np
import torch
from torch.nn import functional as F

import cascadeclip
from cascadeclip import analysis
from cascadeclip.analysis import block_inputs, block_tokens, curves_of, fit_ridge, localise, patch_labels
from cascadeclip.analysis.alignment import chance_of_average_precision
from cascadeclip.clip import load_clip
from cascadeclip.data.emojiscenes import CAPTIONS, CLASSES, UNSEEN, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.exercises import check
from cascadeclip.explorers import SurgeryBench
from cascadeclip.plots import plot_classes_over_blocks, plot_lines, plot_over_blocks
from cascadeclip.plots.layers import plot_maps

device = cascadeclip.device()
print(f"device: {device}")

# %% [markdown]
# ## Pictures and words in one space
#
# CLIP gives a picture and a text one vector each, in the same *joint space*, and was trained to bring those together
# that belong together. Every class is a word, put into the sentences of captions; the mean over the sentences is its
# *text embedding*. We keep the patch tokens that each block of the tower leaves behind.


# %%
# NBVAL_CHECK_OUTPUT
@torch.inference_mode()
def read(what):
    """What a function gives for all pictures, 40 at a time; pictures stand third from the end."""
    return torch.cat([what(normalise(some).to(device)).float().cpu() for some in images.split(40)], dim=-3)


clip = load_clip()
visual = clip.visual.to(device)
grid, text = visual.grid_size, clip.class_embeddings(CLASSES, CAPTIONS).cpu()
scenes = [EmojiScenes(280, seed=12)[i] for i in range(280)]
images, labels = collate(scenes)
fitting, test = slice(0, 200), slice(200, 280)
truth = patch_labels(labels, grid)
tokens = read(lambda some: torch.stack(block_tokens(visual, some)))
class_tokens, patches = tokens[:, :, 0], tokens[:, :, 1:]
print("blocks, pictures, patches, width:", tuple(patches.shape), "| text embeddings:", tuple(text.shape))

# %% [markdown]
# ## Lens 1, *raw*: CLIP's own way out, taken early
#
# CLIP ends with a LayerNorm and a projection into the joint space. They were trained on the last block's class token
# (and, in Mini-CLIP, on the mean of its patch tokens, see the model card), never on a single patch and never on another
# block. But nothing stops us from applying them to any patch token of any block: for a token $x$ of block $b$,
#
# $$\mathrm{raw}(x) = \frac{\mathrm{LN}(x)\,P}{\|\mathrm{LN}(x)\,P\|}.$$
#
# A map shows the similarity of every patch to one word: the cosine, which for vectors of length 1 is the dot product.


# %%
@torch.inference_mode()
def raw_lens(some):
    """Tokens (..., D) of any block -> (..., E), of length 1."""
    return F.normalize(visual.ln_post(some.to(device)) @ visual.proj, dim=-1).cpu()


def word_maps(embedded, blocks=(2, 4, 6, 8, 10, 11, 12)):
    """Column title -> for each shown picture, the similarity of its patches to its first word."""
    similarity = {b: [embedded[b - 1, i] @ text[CLASSES.index(scenes[i].things[0])] for i in shown] for b in blocks}
    return {f"block {b}": [one.reshape(grid).numpy() for one in of] for b, of in similarity.items()}


raw, shown = raw_lens(patches), [200, 203, 206]
print("words:", ", ".join(scenes[i].things[0] for i in shown))
plot_maps([scenes[i].image for i in shown], word_maps(raw), "similarity to the word")

# %% [markdown]
# Each map has its own range of brightness; the numbers below it say which. Look where they are dark: through the raw
# lens most words point *away* from their object, at the background. The same was found in real CLIPs, where it is
# called "opposite visualisation" (Li et al. 2023, *CLIP Surgery*, arXiv 2304.05653). So the information is there, with
# the wrong sign. Training does not forbid this: a loss on the class token, or on the mean over patches, asks *what* is
# in the picture, and not *which* patches say so; attention can carry the news of an object to the many patches of its
# background. (That is a likely reason; it is not tested here.)
#
# ## Lens 2, *learnt*: a linear map per block, fitted without labels
#
# The raw lens may be unfair: a block can hold the information in another *direction*. So we fit, per block, a ridge
# regression (notebook 01) from its patch tokens to one fixed target in the joint space.
#
# Which target? In attention, a patch asks all others and collects their *values*; after the last block every patch has
# collected from everywhere. The **value path** (*MaskCLIP*, Zhou et al. 2022) leaves out the asking: each patch keeps
# its own value.


# %%
# NBVAL_CHECK_OUTPUT
def value_path(some):
    """Patches (B, N, E): the last attention's own values alone; no mixing, no residual, no feed-forward."""
    last, before = visual.transformer.resblocks[-1], block_inputs(visual, some)[-1][:, 1:]
    weight, bias = (whole.chunk(3)[2] for whole in (last.attn.in_proj_weight, last.attn.in_proj_bias))
    own = last.attn.out_proj(F.linear(last.ln_1(before), weight, bias))
    return F.normalize(visual.ln_post(own) @ visual.proj, dim=-1)


target = read(value_path)
theirs = read(lambda some: analysis.value_path_tokens(visual, some))
print("the same as the package's:", bool(torch.allclose(target, theirs, atol=1e-5)))
for name, embedded in {"last block as it is": raw[-1], "value path": target}.items():
    found = localise(embedded[test] @ text.T, truth[test], present_only=True)
    right = found.confusion.diagonal(axis1=1, axis2=2).sum() / found.confusion.sum()
    print(f"{name:20} of a picture's own words, the right one is nearest in {100 * right:.0f} % of the patches")

# %% [markdown]
# Two things follow. The value path is computed from what block 11 leaves behind, so the target is a reading of block
# 11, not of the last block, and not where CLIP finally puts a patch. And no label and no word enters the *fit*, but the
# target was chosen for the labelled score just printed: the lens is not quite free of labels. The R² on held-out
# pictures says how much of the target a block determines; where it is low, do not trust the lens.

# %%
learnt, r2 = [], []
for block in patches:
    model, _, held_out = fit_ridge(block[fitting].numpy(), target[fitting].numpy(), strengths=(10.0, 1000.0))
    predicted = torch.from_numpy(model.predict(block.flatten(0, 1).numpy())).float()
    learnt.append(F.normalize(predicted.view(target.shape), dim=-1))
    r2.append(held_out)
learnt = torch.stack(learnt)
plot_over_blocks({"learnt lens": r2}, "R² on held-out pictures", baselines={"predicting the mean": 0.0})

# %%
plot_maps([scenes[i].image for i in shown], word_maps(learnt), "similarity to the word")

# %% [markdown]
# The same pictures and words as above, now through a fitted lens. Objects that were dark are bright, and early.
#
# The value path is itself a piece of surgery on the last block: attention `itself` (each patch attends to itself alone,
# and so keeps its own value), no residual, no feed-forward. Make these cuts one at a time in the explorer below, and
# watch maps and mIoU. Each score stands beside three controls under the same cuts: *wrong words* (what are the words
# worth?), *shuffled patches* (what are the places worth?) and a *random tower* (what is training worth?). Uncut, CLIP
# does not beat them all: words that point away from their objects are worse than words that point nowhere. (Without a
# running kernel you see how the explorer starts: CLIP as it is, twice.)

# %%
SurgeryBench(clip)

# %% [markdown]
# ## The numbers, and what guessing gives
#
# For every picture and every class in it we rank the patches by their similarity to the word:
#
# - **AUROC**: the chance that a patch of the class stands above another patch. Guessing: 0.5.
# - **hit**: is the very first patch right? Guessing: the *prevalence*, the share of such patches.
# - **average precision**: the mean, over the class's patches, of the precision down to that patch. Guessing: *more*
#   than the prevalence, because the first patches count most and luck there pays. With $R$ right patches of $N$ it is
#   $\frac{H_N}{N} + \frac{R-1}{N-1}\left(1 - \frac{H_N}{N}\right)$ with $H_N = 1 + \frac12 + \dots + \frac1N$.
#
# Do not take the last formula on trust; random orders can be drawn.

# %%
# NBVAL_CHECK_OUTPUT
N, right = grid[0] * grid[1], (1, 2, 3, 4, 6, 8, 12, 16, 20, 24)
generator, drawn = torch.Generator().manual_seed(0), []
ranks = torch.rand(20_000, N, generator=generator).argsort(1)  # of every patch, in 20,000 random orders
for R in right:
    first = ranks[:, :R].sort(1).values + 1.0  # ranks of the right ones, from the top
    drawn.append((torch.arange(1, R + 1) / first).mean().item())
chance = chance_of_average_precision(np.array(right), np.full(len(right), N))
print("formula and random orders agree within 0.003:", bool(abs(chance - drawn).max() < 0.003))
print("for one right patch, times the prevalence:", round(chance[0] * N, 1))
plot_lines(
    right,
    {"average precision, random orders": drawn, "the formula": chance, "prevalence R / N": np.divide(right, N)},
    f"right patches R, of {N}",
    "what guessing gives",
    lowest_marked=False,
)

# %% [markdown]
# The first two curves lie on each other, above the prevalence where a class has few patches.
#
# Everything below is measured on patches of 80 pictures that no lens was fitted on. Bands are 95 % intervals by the
# bootstrap over pictures (notebook 01).

# %%
lenses = {"raw": raw, "learnt": learnt}
found = {name: [localise(block[test] @ text.T, truth[test]) for block in lens] for name, lens in lenses.items()}
lines, bands = curves_of(found, "auroc")
title = "do words find their patches within a picture?"
plot_over_blocks(lines, "AUROC, mean over classes", baselines={"guessing": 0.5}, intervals=bands, title=title)

# %%
lines, bands = {}, {}
for measure, word in (("average_precision", "average precision"), ("hit", "hit")):
    more = curves_of({f"{word}, {name}": results for name, results in found.items()}, measure)
    lines, bands = lines | more[0], bands | more[1]
levels = {
    "guessing, average precision": found["raw"][-1].mean("chance_precision"),
    "guessing, hit (prevalence)": found["raw"][-1].mean("prevalence"),
}
plot_over_blocks(lines, "mean over classes", baselines=levels, intervals=bands, bottom=0)

# %%
# NBVAL_CHECK_OUTPUT
auroc = {name: np.array([r.mean("auroc") for r in results]) for name, results in found.items()}
print("AUROC, learnt above raw at blocks 6 to 10:", bool((auroc["learnt"] > auroc["raw"])[5:10].all()))
print("AUROC, raw below guessing from block 3 to 9:", bool((auroc["raw"][2:9] < 0.5).all()))
above = found["raw"][-1].mean("chance_precision") > found["raw"][-1].mean("prevalence")
print("guessing gives more in average precision than in hits:", bool(above))

# %% [markdown]
# An AUROC far below 0.5 still carries information: the sign is flipped. Through the learnt lens the same tokens find
# the words' patches from the first blocks on.
#
# A mean over classes hides the classes. Here is each of them: every row a class, every column a block; the best class
# of the learnt lens stands on top; unseen classes are red, with a star.

# %%
tables = {f"{name} lens": np.array([r.per_class("auroc") for r in results]).T for name, results in found.items()}
held = np.array([(truth[test] == c).any(1).sum() for c in range(len(CLASSES))])
print(f"a class is in {np.median(held):.0f} of the 80 pictures (median); in none:", *np.array(CLASSES)[held == 0])
plot_classes_over_blocks(tables, CLASSES, UNSEEN, "AUROC (white: guessing)")

# %% [markdown]
# Unseen classes are spread among the seen ones: Mini-CLIP met all of them in captions, and no mask has been used so
# far. Through the raw lens most rows are red, words point at the background; through the learnt lens most are blue. A
# caution: a typical class is in very few of the pictures (printed above), so do not rank single classes by this figure.
#
# ## Decodable is not aligned
#
# Now the figure that motivates the paper. For every block: what a probe taught with masks can decode (of the 72
# classes, which is this patch?), and what the words find by themselves, scored alike: mIoU over patches, from one
# confusion matrix.

# %%
one_hot, decodable = np.eye(len(CLASSES), dtype=np.float32)[truth[fitting].numpy()], []
for block in patches:
    probe, *_ = fit_ridge(block[fitting].numpy(), one_hot, strengths=(100.0,))
    scores = torch.from_numpy(probe.predict(block[test].flatten(0, 1).numpy()).astype(np.float32))
    decodable.append(localise(scores.view(80, -1, len(CLASSES)), truth[test]))
compared = {"decodable: probe, taught with masks": decodable}
compared |= {f"aligned: {name} lens": results for name, results in found.items()}
lines, bands = curves_of(compared, "iou", scale=100)
by_probe, by_raw, by_learnt = map(np.array, lines.values())
closed = 100 * (by_learnt - by_raw) / (by_probe - by_raw)
print("of the distance from raw lens to probe, the learnt lens closes, in per cent:")
print("  " + "  ".join(f"block {b}: {closed[b - 1]:.0f}" for b in range(4, 13)))
title = "what can be decoded, and what the words find, of 72"
plot_over_blocks(lines, "mIoU over patches, per cent", intervals=bands, title=title, bottom=0)

# %%
# NBVAL_CHECK_OUTPUT
between = (by_raw < by_learnt) & (by_learnt < by_probe)
print("the learnt lens stands between raw lens and probe at every block from 4 on:", bool(between[3:].all()))
print("the probe's lead on the raw lens is widest before the last block:", int((by_probe - by_raw).argmax()) < 11)

# %% [markdown]
# The distance between the upper curve and the raw one is information that is *there* but not where the words point. It
# is widest before the last block, where a decoder on the last layer alone never looks. The learnt lens closes a part of
# it (printed above) with one linear map per block: so a part of the raw lens's failure is a matter of direction. What
# still lies above it was taught with masks. Cascade-CLIP's decoders are meant to close it, for words
# that had no mask as well. They are not linear, and not fitted to the value path, so this curve sets no limit to them.
#
# ## The modality gap
#
# Even where pictures and words match, they live in different regions of the joint space. The *gap* (Liang et al. 2022)
# is the vector between the centroids of both, all embeddings of length 1. Here is its length for the class token, read
# by the raw lens at each block.


# %%
def gap_between(image, caption):
    """From the centroid of text embeddings to that of image embeddings."""
    return F.normalize(image, dim=-1).mean(0) - F.normalize(caption, dim=-1).mean(0)


with torch.inference_mode():
    words = clip.tokenize([scene.caption for scene in scenes]).to(device)
    captions = F.normalize(clip.model.to(device).encode_text(words).float().cpu(), dim=-1)
pictures = raw_lens(class_tokens)
lengths = [gap_between(block, captions).norm().item() for block in pictures]
halves = gap_between(captions[::2], captions[1::2]).norm().item()
plot_over_blocks(
    {"class token to captions": lengths},
    "distance between centroids",
    baselines={"captions, one half to the other": halves},
    bottom=0,
)

# %% [markdown]
# The gap shrinks from block to block and is still there at the end. Would CLIP be better without it? Move all pictures
# along the gap, and see what CLIP's own loss says: the *contrastive loss*, the cross-entropy of finding each picture's
# caption among all, and each caption's picture, at a *temperature* that says how sharp the choice is.

# %%
# NBVAL_CHECK_OUTPUT
trained_with, shifts = 1 / clip.model.logit_scale.exp().item(), np.linspace(-1, 2, 25)
temperatures = {"CLIP's own temperature": trained_with, "temperature 0.05": 0.05, "temperature 0.2": 0.2}
losses, numbers = {name: [] for name in temperatures}, torch.arange(len(scenes))
for shift in shifts:
    similarity = F.normalize(pictures[-1] - shift * gap_between(pictures[-1], captions), dim=-1) @ captions.T
    for name, temperature in temperatures.items():
        both = (F.cross_entropy(logits / temperature, numbers) for logits in (similarity, similarity.T))
        losses[name].append(sum(both).item() / 2)
theirs = analysis.loss_along_gap(pictures[-1], captions, shifts, trained_with)
print("the same as the package's:", bool(np.allclose(losses["CLIP's own temperature"], theirs, atol=1e-4)))
lowest = {name: shifts[int(np.argmin(of))] for name, of in losses.items()}
print(
    "at CLIP's own temperature the loss is lowest within a quarter of the gap:",
    abs(lowest["CLIP's own temperature"]) < 0.26,
)
plot_lines(shifts, losses, "shift along the gap (0: as trained, 1: centroids meet)", "contrastive loss, nats")

# %% [markdown]
# At CLIP's own temperature the loss is lowest where training left the pictures, or very near to it; only at softer
# temperatures would it pay to close the gap. So with this CLIP, moving the pictures along the gap, after training,
# makes the match no better. (What another training would do to the gap is not tested here.)
#
# ### Exercise 02.1 · Average precision (medium, 10 minutes)
#
# Write the measure of the section on numbers. `scores` (N,) are a word's similarities, `is_class` (N,) says which
# patches are of the class. Rank them, best first; at each patch of the class, take the share of the patches down to it
# that are of the class; return the mean of these. ([Solutions](solutions/02_alignment_gaps.py), if you get stuck.)


# %%
def average_precision(scores, is_class):
    return ...  # your code here


# %%
check("02.1", average_precision)

# %% [markdown]
# ### Exercise 02.2 · What the words of the picture are worth (easy, 10 minutes)
#
# Choosing among 72 words is harder than among those that are in the picture. `similarity` (N, C) holds each patch's
# similarity to every word, `present` the numbers of the words that are there. Give each patch the nearest word among
# those, as its number in 0..C-1. Then compare both lenses at block 12 with and without this help
# (`localise(..., present_only=True)`): which can use it? ([Solutions](solutions/02_alignment_gaps.py).)


# %%
def nearest_present(similarity, present):
    return ...  # your code here


# %%
check("02.2", nearest_present)

# %% [markdown]
# ### Exercise 02.3 · Close the gap (medium, 10 minutes)
#
# Move picture embeddings (n, E) toward text embeddings (n, E), both of length 1, by a `share` of the gap: 0 leaves all
# as it is, 1 lays the centroids on each other before every embedding is brought back to length 1. Afterwards, find out
# whether pictures can still be told from captions by their nearest neighbours: is the gap only a shift?
# ([Solutions](solutions/02_alignment_gaps.py).)


# %%
def moved(image, text, share):
    return ...  # your code here


# %%
check("02.3", moved)

# %% [markdown]
# ## Recap
#
# 1. The raw lens takes CLIP's exit early; the learnt lens fits an exit per block, to a target and without labels. They
#    answer different questions; name the one you used.
# 2. Localisation needs chance levels, each measure its own, and intervals over pictures. Through the raw lens words
#    point away from their objects; a linear map per block turns much of that round. Blocks hold more than the words
#    find there, also those before the last one.
# 3. The modality gap is a distance of centroids, and moving the pictures along it after training makes the match no
#    better.
#
# **What to try next:** the mean of the learnt lens over blocks 9 to 12 (`a.resampled("iou") - b.resampled("iou")` draws
# the same pictures for both); another target than the value path; the real CLIP.
#
# Next: [03 · Build it](03_build_it.ipynb), where decoders learn from masks what the words cannot find by themselves.
