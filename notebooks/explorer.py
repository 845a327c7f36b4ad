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
# # Explorers: play with layers, words, weights and the scalpel
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cascadeclip/blob/main/notebooks/explorer.ipynb)
#
# Four explorers, each beside a figure drawn by the same function. In JupyterLab 4 or Notebook 7 with a running kernel
# they answer to every click and slider; where nobody shows widgets (on GitHub, or in a notebook that is only read) each
# is the picture that it starts with. All of them take pictures of your own, and the keyboard reaches everything: Tab
# goes from control to control, the arrow keys move sliders.
#
# **What you will learn**
#
# 1. to follow one patch and one word through all blocks of CLIP's image tower;
# 2. to see what each stage of the cascade adds to a mask, and what its weights and the seen offset change;
# 3. to repair CLIP's last block without training, and to tell a gain from luck.
#
# **Time:** under a minute to run on a laptop CPU with two cores, then as long as you like; a GPU is used if there is
# one.
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
import cascadeclip
from cascadeclip.analysis import Surgery, scene_pictures
from cascadeclip.analysis.surgery import CLEAR, VALUE_PATH
from cascadeclip.data.emojiscenes import CLASSES
from cascadeclip.exercises import check
from cascadeclip.explorers import CascadeExplorer, LayerScrubber, SurgeryBench, WordExplorer, compute, draw
from cascadeclip.explorers.surgery import bench_scores, lay_out

device = cascadeclip.device()
print(f"device: {device}")

# %% [markdown]
# The pictures are test scenes of the mini world. For real CLIP, change the next lines: `LayerScrubber` and
# `SurgeryBench` take any `clip.load_clip(...)`, the other two any `cascadeclip.load(...)`, and all take a list of
# `analysis.Picture`.

# %%
# NBVAL_CHECK_OUTPUT
segmenter = cascadeclip.load("mini/cascade", device=device)
clip, model = segmenter.clip, segmenter.model
pictures = scene_pictures(24)
print("pictures:", len(pictures), "| blocks:", clip.tower.layers, "| stages:", model.config.stages)

# %% [markdown]
# ## 1. Layer scrubber
#
# Pick a patch. At every block: how alike are the other patches to it (cosine similarity), what colours do three
# principal components give, how near is every patch to a word (through CLIP's own way out, the *raw lens*), and where
# does the patch look? First one still: a patch on the umbrella, at block 9.

# %%
picture = pictures[3]
colours = compute.fit_colours(clip.visual, [one.image for one in pictures[:16]])
layers = compute.read_layers(clip.visual, picture.image)
word = clip.class_embeddings(["umbrella"])[0]
maps = compute.layer_maps(layers, colours, word, row=2, column=4)
draw.draw_layers(picture.image, maps, block=9, row=2, column=4, word="umbrella")

# %% [markdown]
# From the middle blocks on the umbrella's patches are alike, so the network knows the thing as a whole. But the word's
# maps are *dark* on the umbrella in the late blocks: the tower knows where the umbrella is, and does not say so in the
# language of text.
#
# Now yours. Click a patch in any of the maps; a click below chooses the block, too.

# %%
LayerScrubber(clip, pictures)

# %% [markdown]
# Things to try: a patch of background, then one block after the other (arrow keys on *block*); a word that is not in
# the picture; a photograph of your own. Does the attention of a patch go to its own object?
#
# ## 2. Word explorer
#
# The cascade has three stages, each with masks of its own; their sum decides. Red says *here*, blue says *not here*.
# Below each column stands how many pixels the choice among these words gets right.


# %%
found = compute.word_masks(segmenter, picture, picture.words, on=(True, True, True))
draw.draw_words(picture.image, found, stages=["stage 1", "stage 2", "stage 3"])

# %%
# NBVAL_CHECK_OUTPUT
*stages, together = found.right()
print("the sum is right more often than the worst stage:", "yes" if together > min(stages) else "no")

# %% [markdown]
# The stages differ in how sure they are, and in what they get right. Switch them off in the explorer and watch the sum.
# Type other words, also words that are *not* in the picture: every pixel has to take one of them.

# %%
WordExplorer(segmenter, pictures)

# %% [markdown]
# ### Exercise explorer.1 · Is the worst stage useless? (easy, 10 minutes)
#
# In: mask logits of the stages (S, C, h, w) and the right words (h, w), 255 where nobody knows, as NumPy arrays. Find
# the stage that gets the fewest pixels right by itself. Out: the share of right pixels of the sum of all stages, less
# that of the sum without it. Then try `found.masks[:-1]` and `found.truth`, here and for `pictures[5]`: the explorer
# shows the same with a stage switched off, but for the seen offset. ([Solutions](solutions/explorer.py), if you get
# stuck.)


# %%
def worth_of_worst(logits, truth):
    return ...  # your code here


# %%
check("explorer.1", worth_of_worst)

# %% [markdown]
# ## 3. NGA and the seen offset
#
# A stage is a weighted sum of its blocks. The weights start on a Gaussian of width sigma (the deepest block counts
# most) and are trained. The *offset* is taken off the probability of every seen class at the end, for those had masks
# in training and are favoured. Here is what training made of the weights.

# %%
# NBVAL_CHECK_OUTPUT
for stage, weights in compute.trained_weights(model).items():
    print(f"stage {stage + 1}: deepest block weighs most:", "yes" if max(weights) == weights[-1] else "no")

# %% [markdown]
# The curves below the masks are measured on eight scenes, every second pixel: enough to see a trend, far too few for a
# table (notebook 04 does that). Dotted: with the weights as they were trained. It starts without the offset; *as
# trained* brings that back.

# %%
cascade = CascadeExplorer(segmenter, pictures)
cascade.offset.value = 0.0
cascade

# %% [markdown]
# Things to try: offset 0.1, then 0.5, with an eye on the unseen classes (outlined in black); sigma 4, which makes all
# blocks count alike; a single block at 0. The decoders were trained with *their* weights, so that any change is a
# disturbance; small ones are forgiven.
#
# ## 4. Surgery bench
#
# Back to CLIP as it is, without decoder. Its last block was trained for the class token and, in Mini-CLIP, for the mean
# of the patches, never for a single one, and it spoils them. Cuts that need no training: other attention, no residual,
# no feed-forward, outliers repaired. A score means little by itself; beside it stand the same cuts with wrong words,
# with the patches shuffled, and on a tower that was never trained.

# %%
bench = lay_out(clip.visual, pictures[:12], clip.class_embeddings(CLASSES))
cuts = {
    "as CLIP is": Surgery(),
    "no feed-forward": Surgery(feed_forward=False),
    "key-key attention": Surgery("key-key"),
    "ClearCLIP's cuts": CLEAR,
    "MaskCLIP's cuts": VALUE_PATH,
}
scores = {name: bench_scores(bench, cut) for name, cut in cuts.items()}
for name, values in scores.items():
    print(f"{name:>18}:", " | ".join(f"{label} {100 * value:4.1f}" for label, value in values.items()))

# %%
# NBVAL_CHECK_OUTPUT
for name in ("as CLIP is", "MaskCLIP's cuts"):
    best = max(scores[name], key=scores[name].get)
    print(f"{name}: the right words win:", "yes" if best == "right words" else "no")

# %% [markdown]
# As CLIP is, its own words do no better than the baselines: the maps say nothing, or the opposite. With the right cuts
# they win clearly, and nothing was trained. To leave out the feed-forward alone changes hardly anything, other
# attention alone gains some, and the cuts together do most.

# %%
surgeon = SurgeryBench(clip, pictures)
surgeon.attention.value, surgeon.residual.value, surgeon.feed_forward.value = "itself", False, False  # MaskCLIP's cuts
surgeon

# %% [markdown]
# Things to try: one cut at a time taken back; `query-query` with residual and feed-forward off (ClearCLIP); then put
# the residual back. Repair helps little here: it looks for tokens that are far *longer* than the others, and Mini-CLIP
# has none (its longest are about 1.4 times the median; in large CLIPs they are many times as long). Attention is
# another matter: also in Mini-CLIP it can gather on a few patches, many times an even look, as the scrubber above
# shows.

# %%
# Each of MaskCLIP's three cuts made or not: attention, and whether residual and feed-forward stay.
scores_of = {
    (attention, residual, feed_forward): bench_scores(bench, Surgery(attention, residual, feed_forward))["right words"]
    for attention in ("query-key", "itself")
    for residual in (True, False)
    for feed_forward in (True, False)
}
for cut, score in scores_of.items():
    print(f"{cut!s:>26}: {100 * score:4.1f}")

# %% [markdown]
# ### Exercise explorer.2 · Which cut matters? (easy, 10 minutes)
#
# MaskCLIP makes three cuts at once: attention `itself`, no residual, no feed-forward. Take back one at a time. In: the
# scores of all eight ways, laid out like `scores_of`. Out: the three losses, in that order. Then try `scores_of`: which
# cut can you least do without, and is it the one that gains most alone? ([Solutions](solutions/explorer.py).)


# %%
def lost_without(scores):
    return ...  # your code here


# %%
check("explorer.2", lost_without)

# %% [markdown]
# ## Recap
#
# 1. A patch and a word can be followed through all blocks: things become wholes in the middle, and the raw lens does
#    not read the late blocks as text.
# 2. Stages differ in what they add, and their sum decides; the weights of the blocks are forgiving, the seen offset
#    trades seen against unseen classes.
# 3. The last block, not the knowledge, stands between CLIP and its patches: cuts without training bring it out, and
#    wrong words, shuffled patches and a random tower show that the gain is real.
