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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cascadeclip/blob/main/notebooks/01_layer_features.ipynb)
#
# Cascade-CLIP reads several blocks of CLIP's image tower instead of the last one alone. Before building anything, we
# look: what is in those blocks, how much do they differ, and which of them knows where an object ends? The three tools
# for that are short. You find them written out here, each checked against the package's own.
#
# **What you will learn**
#
# 1. to picture the features of every block so that colours can be compared from block to block (PCA);
# 2. to measure how alike blocks are (CKA), and why the usual estimate of it misleads;
# 3. to ask each block a question (a linear probe), with the controls that make its answer mean something.
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
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

import cascadeclip
from cascadeclip import analysis
from cascadeclip.analysis import attention_distance, attention_maps, block_tokens, boundary_patches, patch_labels
from cascadeclip.clip import load_clip
from cascadeclip.data.emojiscenes import CLASSES, THINGS, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.evaluation import bootstrap, class_iou, picture_counts
from cascadeclip.exercises import check
from cascadeclip.explorers import LayerScrubber
from cascadeclip.model import build_tower
from cascadeclip.plots import plot_lines, plot_matrices, plot_over_blocks
from cascadeclip.plots.layers import plot_maps

device = cascadeclip.device()
print(f"device: {device}")

# %% [markdown]
# ## The tower and its tokens
#
# The tower is Mini-CLIP, a ViT of 12 blocks that was trained on pictures and captions, never on masks. Change one line
# to `load_clip("ViT-B-16", "openai")` for the real one (and bring pictures of your own). A picture is cut into patches,
# every patch is a *token*, and a *class token* stands for the whole picture. One pass gives the tokens that each block
# leaves behind.


# %%
# NBVAL_CHECK_OUTPUT
@torch.inference_mode()
def all_tokens(tower):
    """(L, pictures, 1 + N, D) after every block, kept in half precision on the CPU."""
    parts = [torch.stack(block_tokens(tower, normalise(some).to(device))).half().cpu() for some in images.split(40)]
    return torch.cat(parts, dim=1)


clip = load_clip()
visual = clip.visual.to(device)
grid = visual.grid_size
scenes = [EmojiScenes(320, seed=11)[i] for i in range(320)]
images, labels = collate(scenes)
train, test = slice(0, 240), slice(240, 320)
tokens = all_tokens(visual)
class_tokens, patches = tokens[:, :, 0].float(), tokens[:, :, 1:].float()
print("blocks, pictures, 1 + patches, width:", tuple(tokens.shape), "|", round(tokens.nbytes / 1e6), "MB")

# %% [markdown]
# ## 1. Features as colours
#
# A patch token has 192 numbers. *Principal component analysis* (PCA) finds the directions in which tokens vary most;
# the three main ones, drawn as red, green and blue, show which patches a block treats alike. Three things must be fixed
# *once*, on a reference set, or the colours mean nothing: mean and directions (not per picture), the range of values
# (not per picture), and signs and axes from block to block, which PCA leaves free. Here each block's axes are turned
# onto those of the block before (*orthogonal Procrustes*: of all rotations $R$, the one with the smallest $\|SR -
# S_\text{before}\|$ is $UV^\top$, where $U \Sigma V^\top$ is the singular value decomposition of $S^\top
# S_\text{before}$).


# %%
def fit_colours(reference):
    """Per block: mean, directions (D, 3), lowest and highest score, and the share of the variance that they show."""
    fitted, before = [], None
    for samples in reference:
        mean = samples.mean(0)
        _, size, axes = torch.linalg.svd(samples - mean, full_matrices=False)
        directions = axes[:3].T
        directions = directions / ((samples - mean) @ directions).std(0)  # each component varies by 1
        scores = (samples - mean) @ directions
        if before is not None:
            u, _, v = torch.linalg.svd(scores.T @ before)
            directions, scores = directions @ u @ v, scores @ u @ v
        low, high = scores.quantile(torch.tensor([0.01, 0.99]), dim=0)
        fitted.append((mean, directions, low, high, ((size[:3] ** 2).sum() / (size**2).sum()).item()))
        before = scores
    return fitted


def colours_of(fit, tokens):
    """Tokens (..., D) -> red, green, blue (..., 3) in 0..1."""
    mean, directions, low, high, _ = fit
    return (((tokens - mean) @ directions - low) / (high - low)).clamp(0, 1)


reference = patches[:, train].flatten(1, 2)[:, ::7]
fitted = fit_colours(reference)
shown, blocks = [240, 243, 247, 251], [1, 3, 5, 7, 9, 11, 12]
maps = {
    f"block {b}": [colours_of(fitted[b - 1], patches[b - 1, i]).view(*grid, 3).numpy() for i in shown] for b in blocks
}
plot_maps([scenes[i].image for i in shown], maps)

# %% [markdown]
# Follow one object from left to right. Early blocks separate textures and colours; in the middle, objects stand out as
# wholes; in the last blocks the backgrounds become alike, and some objects remain only faintly.
#
# The package has the same tool, `FeatureColours`. Signs of block 1 are free, so a colour channel may be inverted. And
# how much of the variation can three colours show at all?

# %%
# NBVAL_CHECK_OUTPUT
theirs = analysis.FeatureColours(reference.numpy())
ours = np.stack([colours_of(fit, patches[b, 240]).numpy() for b, fit in enumerate(fitted)])
package = np.stack([theirs(b, patches[b, 240].numpy()) for b in range(len(fitted))])
either = np.minimum(abs(ours - package).max((0, 1)), abs(1 - ours - package).max((0, 1)))
print("the package's colours are the same, up to signs:", bool(either.max() < 1e-3))
variance = [100 * share for *_, share in fitted]
plot_over_blocks(
    {"three components": variance}, "variance shown, per cent", title="what three colours can show", bottom=0
)

# %% [markdown]
# Where the curve is low, two patches of one colour may still differ much.
#
# Now follow single patches. Click one in any of the maps below, or move the sliders: at every block you see which
# patches are like it (cosine similarity), its colour among the others, how near all patches are to a word, and where it
# looks (attention). Does a patch of background know its own kind at block 1? At which block does an object become one
# whole? (Without a running kernel you see how the explorer starts.)

# %%
LayerScrubber(clip)

# %% [markdown]
# ## 2. How alike are blocks? CKA
#
# *Centred kernel alignment* compares two sets of features of the same samples through the similarities between samples
# that each implies, its Gram matrices $K = XX^\top$ and $L = YY^\top$:
#
# $$\mathrm{CKA}(X, Y) = \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K)\,\mathrm{HSIC}(L, L)}}$$
#
# It is 0 for unrelated features and 1 for the same ones up to rotation and scale. HSIC must be estimated from $n$
# samples. The usual, *naive* estimate is $\mathrm{tr}(KHLH)/(n-1)^2$ with the centring matrix $H$. The *debiased* one
# (Song et al. 2012) leaves out each sample's similarity with itself. Over several batches, the three terms are added up
# first and divided once (Nguyen et al. 2021).


# %%
# NBVAL_CHECK_OUTPUT
def hsic(one, other, debiased):
    """HSIC of two Gram matrices (n, n)."""
    n = len(one)
    if not debiased:
        centre = torch.eye(n, dtype=one.dtype) - 1 / n
        return (centre @ one @ centre * other).sum() / (n - 1) ** 2
    one, other = (gram - gram.diag().diag() for gram in (one, other))
    totals, rows = one.sum() * other.sum() / ((n - 1) * (n - 2)), one.sum(0) @ other.sum(0) * 2 / (n - 2)
    return ((one * other).sum() + totals - rows) / (n * (n - 3))


def cka(layers, debiased=True, batch=80):
    """(L, samples, D) -> (L, L)."""
    added = torch.zeros(len(layers), len(layers), dtype=torch.float64)
    for some in layers.double().split(batch, dim=1):
        grams = some @ some.transpose(1, 2)
        added += torch.stack([torch.stack([hsic(one, other, debiased) for other in grams]) for one in grams])
    return added / (added.diag()[:, None] * added.diag()).sqrt()


for debiased in (True, False):
    theirs = analysis.CKA(debiased=debiased)
    for some in class_tokens.split(80, dim=1):
        theirs.update(list(some))
    same = torch.allclose(cka(class_tokens, debiased), theirs.result())
    print("debiased" if debiased else "naive", "- the same as the package's:", same)

# %% [markdown]
# Which estimate is taken matters. Below, *independent* random numbers, 64 samples of several widths. Both estimates
# should be 0.

# %%
# NBVAL_CHECK_OUTPUT
generator, widths, n = torch.Generator().manual_seed(0), (4, 16, 48, 96, 192, 384, 768), 64
noise = {"naive": [], "debiased": []}
for p in widths:
    pure = torch.randn(2, 20 * n, p, generator=generator)  # 20 batches
    for name, found in noise.items():
        found.append(cka(pure, debiased=name == "debiased", batch=n)[0, 1].item())
expected = [p / (n + p) for p in widths]
print("naive, at a width of 768, above 0.9:", noise["naive"][-1] > 0.9)
print("naive within 0.03 of p / (n + p):", max(abs(np.subtract(noise["naive"], expected))) < 0.03)
print("debiased within 0.03 of 0:", max(np.abs(noise["debiased"])) < 0.03)
plot_lines(
    widths,
    {**noise, "p / (n + p)": expected},
    "width p of the features",
    "CKA of pure noise, 64 samples",
    lowest_marked=False,
)

# %% [markdown]
# Naive CKA calls pure noise similar as soon as features outnumber samples; its curve lies hidden under $p/(n+p)$.
#
# Now the blocks. CKA needs independent samples, and patches of one picture are not independent. So we take the class
# token, one per picture; and, as the decoders of this method read *patch* tokens, one patch of each picture at a random
# place.

# %%
place = torch.randint(1, tokens.shape[2], (len(scenes),), generator=generator)
one_patch = tokens[:, torch.arange(len(scenes)), place].float()
by_class, by_patch = cka(class_tokens).numpy(), cka(one_patch).numpy()
naive = cka(class_tokens, debiased=False).numpy()
plot_matrices({"class tokens": by_class, "one patch of each picture": by_patch}, "CKA, debiased")

# %%
# NBVAL_CHECK_OUTPUT
print("class tokens: block 1 is the one least like the last:", int(by_class[-1].argmin()) == 0)
print("class tokens: neighbours from block 6 on have more than 0.7:", bool(np.diag(by_class, 1)[5:].min() > 0.7))
print("patches change less from block to block:", bool((np.diag(by_patch, 1) > np.diag(by_class, 1)).mean() > 0.5))
print("the naive estimate is higher for every pair:", bool((naive >= by_class - 1e-9).all()))
plot_matrices({"naive minus debiased": naive - by_class}, "difference of CKA", vmax=float((naive - by_class).max()))

# %% [markdown]
# First the two matrices: from block 6 on, neighbours are much alike; similarity falls with distance, and block 1 stands
# apart. Patch tokens change more slowly and drift as well. So distant blocks arrange the same pictures differently.
# That is another *geometry*; it does not say that one block holds information which the other lacks.
#
# Then their flattery: the naive estimate is higher everywhere, and most where blocks differ most, so it would have
# hidden what we looked for. How much higher depends on $n$, and $n$ is the *batch*, here 80 pictures: batches are
# compared one by one, and more of them do not help.
#
# ## 3. Linear probes, with controls
#
# What can be *read* from a block? A linear probe is a linear map from a patch token to 72 numbers, one per class; the
# largest wins. It is fitted with masks, by *ridge* regression: least squares with a penalty $\lambda$ that keeps
# weights small, $W = (Z^\top Z + \lambda I)^{-1} Z^\top Y$ with standardised tokens $Z$ and one-hot classes $Y$. It
# learns from 240 pictures and is scored on 80 others. Pictures are split, never patches: two patches of one picture are
# nearly the same. A part of the 240 chooses $\lambda$.


# %%
# NBVAL_CHECK_OUTPUT
def fit_ridge(x, y, *strengths):
    """Tokens (n, D), targets (n, K) -> for each strength, a function from tokens to K numbers."""
    mean, spread, middle = x.mean(0), x.std(0, correction=0), y.mean(0)
    z = (x - mean) / spread
    gram, cross, one = z.T @ z, z.T @ (y - middle), torch.eye(x.shape[1], dtype=x.dtype)
    weights = [torch.linalg.solve(gram + strength * one, cross) for strength in strengths]
    return [lambda some, weight=weight: (some - mean) / spread @ weight + middle for weight in weights]


def probe(x, y, strengths=(1.0, 100.0, 10_000.0), rest=slice(0, 180), held=slice(180, 240)):
    """Scores (80, N, K) of the test pictures, from tokens (320, N, D) and targets (320, N, K)."""
    y = y.float()
    fits = fit_ridge(x[rest].flatten(0, 1), y[rest].flatten(0, 1), *strengths)
    errors = [((fit(x[held]) - y[held]) ** 2).mean().item() for fit in fits]
    (fit,) = fit_ridge(x[train].flatten(0, 1), y[train].flatten(0, 1), strengths[np.argmin(errors)])
    return fit(x[test])


truth = patch_labels(labels, grid)
y = F.one_hot(truth, len(CLASSES))
x = patches[6, train].double()
theirs, *_ = analysis.fit_ridge(x.numpy(), y[train].double().numpy(), strengths=(100.0,))
(ours,) = fit_ridge(x.flatten(0, 1), y[train].double().flatten(0, 1), 100.0)
print("the package's ridge gives the same:", bool(np.allclose(theirs.predict(x[0].numpy()), ours(x[0]), atol=1e-6)))

# %% [markdown]
# Three controls say what a score is worth: the same tower with *random weights*, *shuffled labels*, and *position
# only*. The score is the mIoU over pixels. Bands are 95 % intervals by the **bootstrap**: the 80 pictures are drawn
# with replacement, again and again. The curve lies near the *top* of its band, and that is right: a rare class is left
# out of the mean where its only picture is not drawn, so drawn sets look better than the world, and so do our 80
# pictures; the interval corrects for it.


# %%
def counts_of(scores):
    """(3, 80, C): pixels that are right, truly of the class, and given to it, of scores (80, N, C) per patch."""
    maps = scores.float().transpose(1, 2).unflatten(2, grid)
    found = [F.interpolate(some, images.shape[-2:], mode="bilinear").argmax(1) for some in maps.split(20)]
    return picture_counts(torch.cat(found), labels[test], len(CLASSES))


def moved(counts):
    """mIoU in per cent on the 80 pictures, and on sets drawn from them."""
    return bootstrap(lambda drawn: 100 * class_iou(counts[:, drawn]).nanmean().item(), 80, repeats=200)


torch.manual_seed(0)
untrained = all_tokens(build_tower(clip.tower).eval().to(device))[:, :, 1:].float()
counts = {
    name: [counts_of(probe(b, y)) for b in of]
    for name, of in {"Mini-CLIP": patches, "random weights": untrained}.items()
}
curves = {name: [moved(of_block) for of_block in of] for name, of in counts.items()}
trained, random = (np.array([sets.whole for sets in curve]) for curve in curves.values())
best = int(trained.argmax())
shuffled = y.flatten(0, 1)[torch.randperm(truth.numel(), generator=generator)].view_as(y)
position = torch.eye(truth.shape[1])[:, :-1].expand(len(scenes), -1, -1)
controls = {"shuffled labels": probe(patches[best], shuffled), "position only": probe(position, y)}
controls = {name: float(moved(counts_of(scores)).whole) for name, scores in controls.items()}
plot_over_blocks(
    {name: [sets.whole for sets in curve] for name, curve in curves.items()},
    "mIoU on 80 other pictures, per cent",
    baselines=controls,
    intervals={name: [sets.interval() for sets in curve] for name, curve in curves.items()},
    title=f"linear probe, {len(CLASSES)} classes",
    bottom=0,
)

# %%
# NBVAL_CHECK_OUTPUT
low, _ = (curves["Mini-CLIP"][best] - curves["Mini-CLIP"][-1]).interval()
print("trained beats random weights at every block after the second:", bool((trained > random)[2:].all()))
print("the best block beats shuffled labels ten times over:", bool(trained[best] > 10 * controls["shuffled labels"]))
print("the best block is the last one:", best == len(trained) - 1)
print("its lead on the last block keeps away from zero:", low > 0)

# %%
lead = curves["Mini-CLIP"][best] - curves["Mini-CLIP"][-1]
print(
    f"best block, {best + 1}: {trained[best]:.1f}; last block: {trained[-1]:.1f}; difference {lead.whole:.1f}", end=" "
)
print("({:.1f} to {:.1f} points, 95 %)".format(*lead.interval()))
for name, of in {
    "Mini-CLIP": counts["Mini-CLIP"][best],
    "random weights": counts["random weights"][random.argmax()],
}.items():
    iou = 100 * class_iou(of).numpy()
    stuff = ", ".join(f"{CLASSES[i]} {iou[i]:.0f}" for i in range(len(THINGS), len(CLASSES)))
    print(f"{name:15} mean of things {np.nanmean(iou[: len(THINGS)]):4.1f} | {stuff}")

# %% [markdown]
# What can be read rises up to the *middle* of the tower and hardly after; the last block has a little less than those
# before it. (The best block was chosen after looking at these same 80 pictures, which makes its lead a little too
# large.) So the blocks before the last one hold at least as much as the last one does. What is readable comes from
# training: random weights tell some textures apart and hardly a thing; shuffled labels and position alone reach
# next to nothing. A probe was *taught* the classes with masks, though. That a class can be decoded does not mean that
# its *word* points there: that is the question of notebook 02.
#
# ## 4. Where an object ends, and how far blocks look
#
# The same probe with another question: does this patch hold a border between two classes? The score is AUROC, the
# chance that a patch with a border is ranked above one without; guessing gives 0.5.

# %%
border = boundary_patches(labels, grid)
known = border[test].numpy()


def border_auroc(block, repeats=100):
    """AUROC on the test pictures, and on sets drawn from them."""
    scores = probe(block, border[..., None])[..., 0].numpy()
    return bootstrap(lambda drawn: roc_auc_score(known[drawn].ravel(), scores[drawn].ravel()), 80, repeats=repeats)


borders = {"Mini-CLIP": [border_auroc(block) for block in patches]}
borders["random weights"] = [border_auroc(block, repeats=1) for block in untrained]
curve, control = ([float(sets.whole) for sets in of] for of in borders.values())
knows = int(np.argmax(curve))
low, high = (borders["Mini-CLIP"][knows] - borders["Mini-CLIP"][-1]).interval()
print(f"block {knows + 1} knows borders best: {curve[knows]:.3f}; the last has {curve[-1]:.3f}", end="; ")
print(f"difference {low:.3f} to {high:.3f} (95 %, paired; the best block was chosen after looking)")
plot_over_blocks(
    {"Mini-CLIP": curve, "random weights": control},
    "AUROC",
    baselines={"guessing": 0.5},
    intervals={"Mini-CLIP": [sets.interval() for sets in borders["Mini-CLIP"]]},
    title="does the patch hold a border?",
)

# %% [markdown]
# Every trained block knows the borders; the curve is nearly flat, and in this small world they are easy to see. What
# the last block loses is mostly *what* is where, hardly where something ends.
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
    bottom=0,
)

# %% [markdown]
# The dashed level is what a head that spreads its attention evenly would have. Heads below it prefer what is near;
# above it, the far side of the picture. In this small tower there is no trend over the blocks, and all heads look far.
# (In large ViTs some early heads are local.)
#
# ### Exercise 01.1 · The naive estimate, predicted (easy, 5 minutes)
#
# Naive CKA of independent noise is near $p/(n+p)$. Write a function that gives the width $p$ at which it comes out at
# `similarity` for `samples` samples. Then try it: `cka(torch.randn(2, 20 * 64, p), debiased=False, batch=64)`.
# ([Solutions](solutions/01_layer_features.py), if you get stuck.)


# %%
def width_for(similarity, samples):
    return ...  # your code here


# %%
check("01.1", width_for)

# %% [markdown]
# ### Exercise 01.2 · Which patches hold a border? (medium, 10 minutes)
#
# Section 4 took `boundary_patches` from the package. Write it: label maps (B, H, W) and the grid (h, w) of patches in,
# (B, h * w) True and False out, patches row by row. True where a patch's pixels have more than one class.
# ([Solutions](solutions/01_layer_features.py).)


# %%
def has_border(labels, grid):
    return ...  # your code here


# %%
check("01.2", has_border)

# %% [markdown]
# ### Exercise 01.3 · How far does a head look? (hard, 20 minutes)
#
# One head's attention is a matrix (1 + N, 1 + N), the class token first; each row adds up to 1. Give the mean distance
# in px between a patch and what it looks at: leave out the class token, scale each row to add up to 1 again, weight
# the distances between patch centres, and take the mean over the patches.
# ([Solutions](solutions/01_layer_features.py).)


# %%
def look_distance(weights, grid, patch_size):
    return ...  # your code here


# %%
check("01.3", look_distance)

# %% [markdown]
# ## Recap
#
# 1. Colours of features can be compared only if mean, axes, signs and range are fixed once for all pictures.
# 2. CKA compares how two blocks arrange the same pictures. Neighbours are alike, distant blocks are not; the naive
#    estimate flatters, most of all where blocks differ, and the more the smaller the batch.
# 3. Probes need controls. Blocks from the middle of this tower on say as much about classes and borders as the last
#    one, or a little more; so there is something to read before the end.
#
# **What to try next:** other blocks and scenes in the figures; your own photographs in the explorer; the real CLIP.
#
# Next: [02 · Alignment gaps](02_alignment_gaps.ipynb), where the words come in.
