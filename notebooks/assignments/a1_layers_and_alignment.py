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
# # Assignment 1 · Layers and alignment
#
# Cascade-CLIP reads several blocks of CLIP's image tower. To know why, you measure the blocks: what lies near a word,
# how alike are two blocks, how far apart are pictures and words? You write the measures yourself, from definitions.
#
# **What you will learn**
#
# 1. to read a block's patch tokens as a map of a word, and to score the map;
# 2. to compare layers, and groups of embeddings, with measures that do not flatter;
# 3. to keep classes and pictures apart when you average and when you split.
#
# **Time:** 90 to 120 minutes of your work; all cells together take under a minute on a laptop CPU, nothing is
# downloaded. **Background:** notebooks 01 and 02. **Points:** 20, in seven exercises.
#
# **How it is graded.** Write your answer where it says `YOUR CODE HERE` and remove the line below it. The cell after
# each answer runs your function on random inputs, new ones every time, says what is wrong, and ends with your points.
# Grading runs the same tests on other inputs; nothing else is tested. It runs the notebook from its first cell to its
# last (do so yourself: *Restart and run all*); a cell of yours may work for 30 seconds there, and one call of a
# function in a test for 20. Tests print nothing of what your function prints. Keep the functions' names. scikit-learn
# and the package have some of these measures: do not call those.

# %%
# On Colab, install the package first: see the README.
import torch

from cascadeclip.analysis import block_tokens, patch_labels, raw_lens
from cascadeclip.clip import load_clip
from cascadeclip.data.emojiscenes import CLASSES, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.plots import plot_matrices, plot_over_blocks
from cascadeclip.plots.layers import plot_maps

print("device: cpu")
clip = load_clip()
visual, grid = clip.visual, clip.visual.grid_size
text = clip.class_embeddings(CLASSES)  # (C, E), one embedding per word
scenes = [EmojiScenes(60, seed=31)[i] for i in range(60)]
images, labels = collate(scenes)
with torch.inference_mode():
    tokens = torch.stack(block_tokens(visual, normalise(images)))  # (L, images, 1 + N, D), class token first
    embedded = raw_lens(visual, tokens)  # (L, images, 1 + N, E), in the space of words
print("blocks, pictures, tokens, width:", tuple(embedded.shape), "| words:", len(text))

# %% [markdown]
# ### Exercise 1 · `word_map` · 2 points · easy · 10 minutes
#
# `tokens` (1 + N, E) holds the tokens of one picture, the class token first, then the patches row by row. `word` is one
# text embedding (E,), `grid` is (h, w) with N = h · w. Return the map (h, w) of the **cosine** between word and patch.
# Tokens and words may have any length.
#
# <details><summary>Hint</summary>
# Drop the first row. <code>torch.nn.functional.normalize(x, dim=-1)</code> divides by the length. A flat list of N
# numbers becomes a map with <code>.view(h, w)</code>.
# </details>


# %% answer="word_map"
def word_map(tokens, word, grid):
    """tokens (1 + N, E), word (E,), grid (h, w) -> cosines (h, w)."""
    ### BEGIN SOLUTION
    patches = torch.nn.functional.normalize(tokens[1:], dim=-1)
    return (patches @ torch.nn.functional.normalize(word, dim=-1)).view(grid)
    ### END SOLUTION


# %% test="word_map" seed=24681
# build.py writes the test

# %%
shown = [0, 3, 5]
words = [scenes[i].things[0] for i in shown]
maps = {
    f"block {b}": [
        word_map(embedded[b - 1, i], text[CLASSES.index(word)], grid).numpy()
        for i, word in zip(shown, words, strict=True)
    ]
    for b in (4, 8, 11, 12)
}
print("words:", ", ".join(words))
plot_maps([scenes[i].image for i in shown], maps, "cosine with the word")

# %% [markdown]
# Read like this, things are mostly dark: a word is *less* similar to them than to the ground, its own object included.
# The next measure puts a number to it.
#
# ### Exercise 2 · `auroc` · 3 points · medium · 15 minutes
#
# `scores` (N,) are the similarities of N patches to a word, `is_class` (N,) says with True and False which patches are
# of that class. Take every pair of a patch of the class and another patch: **AUROC** is the share of the pairs in which
# the patch of the class has the higher score. A **tie** counts one half.
#
# <details><summary>Hint</summary>
# Boolean masks pick the two groups: <code>scores[is_class]</code> and <code>scores[~is_class]</code>. With
# <code>[:, None]</code> behind one of them, a comparison gives a table of all pairs.
# </details>


# %% answer="auroc"
def auroc(scores, is_class):
    """scores (N,) float, is_class (N,) bool -> a number from 0 to 1."""
    ### BEGIN SOLUTION
    inside, outside = scores[is_class][:, None], scores[~is_class]
    won, tied = (inside > outside).double(), (inside == outside).double()
    return (won + 0.5 * tied).mean().item()
    ### END SOLUTION


# %% test="auroc" seed=97531
# build.py writes the test

# %% [markdown]
# ### Exercise 3 · `mean_over_classes` · 2 points · medium · 10 minutes
#
# Every (picture, class in it) gives one row: a value, and the class's number from 0 to `classes` - 1. Some classes are
# in many pictures, some in none. Return the mean over the **classes**: first the mean within each class that has a row,
# then the mean of these.
#
# <details><summary>Hint</summary>
# <code>class_index.unique()</code> lists the classes that have a row; <code>values[class_index == c]</code> are the
# rows of one.
# </details>


# %% answer="mean_over_classes"
def mean_over_classes(values, class_index, classes):
    """values (R,) float, class_index (R,) int below `classes` -> one number."""
    ### BEGIN SOLUTION
    return torch.stack([values[class_index == c].mean() for c in class_index.unique()]).mean()
    ### END SOLUTION


# %% test="mean_over_classes" seed=11213
# build.py writes the test

# %% [markdown]
# ### Exercise 4 · `debiased_cka` · 5 points · hard · 30 minutes
#
# CKA compares two layers through the similarities between samples. `x` (n, p) and `y` (n, q) hold the same n samples as
# two layers see them. Their Gram matrices are $K = XX^\top$ and $M = YY^\top$, both n × n. Set **both diagonals to
# zero**; then
#
# $$\mathrm{HSIC}(K, M) = \frac{1}{n(n-3)}\Big[\sum_{ij} K_{ij} M_{ij} + \frac{(\sum_{ij} K_{ij})(\sum_{ij} M_{ij})}
# {(n-1)(n-2)} - \frac{2}{n-2} \sum_i k_i m_i\Big], \qquad \mathrm{CKA} = \frac{\mathrm{HSIC}(K,
# M)}{\sqrt{\mathrm{HSIC}(K, K)\,\mathrm{HSIC}(M, M)}}$$
#
# where $k_i$ and $m_i$ are the sums of row $i$. Do not centre as well. The naive estimate calls unrelated wide layers
# similar; this one must not.
#
# <details><summary>Hint</summary>
# <code>K - torch.diag(K.diag())</code> sets the diagonal to zero. Write HSIC as a function of two Gram matrices and
# call it three times. Double precision (<code>x.double()</code>) is safer.
# </details>


# %% answer="debiased_cka"
def debiased_cka(x, y):
    """x (n, p), y (n, q) float, the same n samples -> one number."""

    ### BEGIN SOLUTION
    def gram(features):
        product = features.double() @ features.double().T
        return product - torch.diag(product.diag())

    def hsic(k, m):
        n = len(k)
        sums = k.sum() * m.sum() / ((n - 1) * (n - 2))
        return ((k * m).sum() + sums - 2 / (n - 2) * k.sum(1) @ m.sum(1)) / (n * (n - 3))

    k, m = gram(x), gram(y)
    return (hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()).item()
    ### END SOLUTION


# %% test="debiased_cka" seed=80817
# build.py writes the test

# %%
class_tokens = tokens[:, :, 0]
alike = [[float(debiased_cka(a, b)) for b in class_tokens] for a in class_tokens]
plot_matrices({"class tokens of 60 pictures": torch.tensor(alike).numpy()}, "debiased CKA")

# %% [markdown]
# Neighbouring blocks are alike, distant ones much less: they arrange the same pictures differently. (That is geometry;
# it does not say that one holds information which the other lacks.)
#
# ### Exercise 5 · `held_out` · 2 points · medium · 15 minutes
#
# A linear probe is fitted on some patches and tested on others. `picture_of` (M,) says from which picture each patch
# comes (any whole numbers). Return a mask (M,) of True and False: True for patches that are held out for the test.
# Patches of one picture are nearly the same, so a picture must be **entirely** on one side. Hold out the `share` of the
# pictures (rounded), drawn at random; the same `seed` gives the same pictures, another seed others.
#
# <details><summary>Hint</summary>
# Shuffle the list of pictures, <code>picture_of.unique()</code>, with <code>torch.randperm(count,
# generator=torch.Generator().manual_seed(seed))</code>. <code>torch.isin</code> asks for each patch whether its picture
# is among the chosen ones.
# </details>


# %% answer="held_out"
def held_out(picture_of, share, seed):
    """picture_of (M,) int, share of the pictures, seed -> (M,) bool, True where held out."""
    ### BEGIN SOLUTION
    pictures = picture_of.unique()
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    return torch.isin(picture_of, pictures[order[: round(share * len(pictures))]])
    ### END SOLUTION


# %% test="held_out" seed=36925
# build.py writes the test

# %% [markdown]
# ### Exercise 6 · `modality_gap` · 2 points · easy · 5 minutes
#
# Pictures and words live in different regions of one space. Bring every embedding of `image` (n, E) and `text` (m, E)
# to length 1, take the centroid (the mean) of each group, and return the **distance** of the two centroids, one number.
#
# <details><summary>Hint</summary>
# <code>.mean(0)</code> is the centroid, <code>.norm()</code> the length of a vector. The centroids are not brought to
# length 1.
# </details>


# %% answer="modality_gap"
def modality_gap(image, text):
    """image (n, E), text (m, E) float -> one number."""
    ### BEGIN SOLUTION
    one, other = (torch.nn.functional.normalize(group, dim=-1).mean(0) for group in (image, text))
    return (one - other).norm().item()
    ### END SOLUTION


# %% test="modality_gap" seed=55021
# build.py writes the test

# %%
gaps = [float(modality_gap(block[:, 0], text)) for block in embedded]
plot_over_blocks({"class token": gaps}, "distance of the centroids", title="modality gap, raw lens", bottom=0)

# %% [markdown]
# From block to block the gap shrinks, up to block 9; then it stays. Even at the end, pictures and words do not meet.
#
# ### Exercise 7 · `auroc_by_block` · 4 points · hard · 20 minutes
#
# Put it together. Given a tower, normalised `images` (B, 3, H, W), pixel `labels` (B, H, W) and the words' embeddings
# `text` (C, E), return a list of L numbers: for every block the AUROC of the words, read through the **raw lens**, as
# a mean over classes. The tower may have any number of blocks and any grid. You may use the package here:
#
# - `block_tokens(visual, images)`: L tensors (B, 1 + N, D); `raw_lens(visual, tokens)` brings tokens into text space;
# - `patch_labels(labels, visual.grid_size)`: the class of every patch, (B, N);
# - `cascadeclip.analysis.localise(similarity, patch_classes)` with similarities (B, N, C); its result has
#   `.mean("auroc")`, which is what you wrote in exercises 2 and 3.
#
# <details><summary>Hint</summary>
# Similarities of a block: patch tokens through the raw lens, times <code>text.T</code>. Leave out the class token.
# </details>


# %% answer="auroc_by_block"
def auroc_by_block(visual, images, labels, text):
    """A tower, (B, 3, H, W), (B, H, W), (C, E) -> L numbers, block 1 first."""
    ### BEGIN SOLUTION
    from cascadeclip.analysis import localise

    classes = patch_labels(labels, visual.grid_size)
    with torch.inference_mode():
        similarity = [raw_lens(visual, one[:, 1:]) @ text.T for one in block_tokens(visual, images)]
    return [localise(one, classes).mean("auroc") for one in similarity]
    ### END SOLUTION


# %% test="auroc_by_block" seed=40407
# build.py writes the test

# %%
curve = [float(value) for value in auroc_by_block(visual, normalise(images), labels, text)]
plot_over_blocks({"raw lens": curve}, "AUROC, mean over classes", baselines={"guessing": 0.5}, title="60 pictures")

# %% [markdown]
# Every block lies below guessing: words point *away* from their objects. That is no lack of information (turn the
# sign round and it is better than guessing), it is a lack of alignment. Decoders that are trained for a block can mend
# that, and this is why Cascade-CLIP gives blocks at different depths decoders of their own.
#
# ## Recap
#
# 1. **Maps and their score.** A word's map is a cosine per patch; AUROC asks whether its order is right, and 0.5 is
#    guessing.
# 2. **Measures that do not flatter.** Debiased CKA gives 0 to unrelated layers; the modality gap is a distance between
#    groups of unit vectors.
# 3. **Keep apart.** Average within a class before you average over classes; put whole pictures on one side of a split.
