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
# # 00 · Quickstart: a picture and some words in, a segmentation out
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cascadeclip/blob/main/notebooks/00_quickstart.ipynb)
#
# **What you will learn**
#
# 1. How to segment a picture with words of your choice, in three lines.
# 2. What *seen* and *unseen* classes are, and that a class without a single mask label can still be segmented.
# 3. How the answer depends on the words you give.
#
# **Time:** about half a minute on two laptop CPU cores. A GPU is used if there is one. Nothing is downloaded.
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

import cascadeclip
from cascadeclip.colours import class_colours
from cascadeclip.data.emojiscenes import CLASSES, SEEN, STUFF, THINGS, UNSEEN, draw_scene
from cascadeclip.exercises import check
from cascadeclip.plots import in_colours, plot_panels

device = cascadeclip.device()
print(f"device: {device}")

# %% [markdown]
# ## A picture
#
# The package brings a small world, *EmojiScenes*: scenes of *things* (a tiger, a bus) on *stuff* (grass, brick), drawn
# when you ask for them. Every pixel's class is known. Here is one with a tiger. A picture is an ordinary array of RGB
# bytes, here 96 × 96 pixels; a path to a PNG or JPEG would do as well.

# %%
scene = draw_scene(seed=0, index=0, things=("tiger",), stuff=("grass", "brick"), objects=(1, 1))
number = {name: index for index, name in enumerate(CLASSES)}  # label maps hold numbers
plot_panels({f"{scene.things[0]} on {' and '.join(scene.stuff)}": scene.image})

# %% [markdown]
# ## Three lines

# %%
words = ["tiger", "grass", "brick"]
result = cascadeclip.load("mini").segment(scene.image, words)
result.plot()

# %% [markdown]
# Every pixel got one of the words. The legend says that *tiger* is **unseen**: in training, no picture had a mask label
# for a tiger. Still it is found. What came back:

# %%
# NBVAL_CHECK_OUTPUT
print("labels:", result.labels.shape, result.labels.dtype, "- for each pixel the position of its word in", result.names)
print("scores:", result.scores.shape, result.scores.dtype, "- a score for every word at every pixel")
print("labels are the best scores:", bool((result.labels == result.scores.argmax(0)).all()))
print("had mask labels in training:", result.seen)

# %% [markdown]
# The labels are the argmax of the scores, nothing more. Here are the scores; the true outline of each word is green.

# %%
titles = {word: word if word in result.seen else f"{word} (unseen)" for word in words}
outlines = {titles[word]: scene.labels == number[word] for word in words}
panels = {titles[word]: scores for word, scores in zip(words, result.scores, strict=True)}
plot_panels(panels, outlines=outlines, label="score of the word", title="Where each word scores high")

# %% [markdown]
# Only the comparison at each pixel counts. (A little is subtracted from the scores of seen words before, because
# training favoured them: the *seen offset*, notebook 04.)
#
# We know the truth, so we can measure. The *intersection over union* (IoU) of a word is the number of pixels that are
# that class **and** were called so, divided by the number for which at least one of the two holds. 1 is perfect. The
# baseline is to call every pixel by that word.


# %%
def iou_of(result, scene, word):
    """Intersection over union of one word's pixels with the truth."""
    truth = scene.labels == number[word]
    found = result.labels == result.names.index(word)
    return (truth & found).sum() / (truth | found).sum()


for word in words:
    share = (scene.labels == number[word]).mean()
    print(f"{word:6} IoU {iou_of(result, scene, word):.2f}   (calling every pixel {word!r} would give {share:.2f})")

# %% [markdown]
# ## Seen and unseen
#
# How can a class that never had a mask be found? There are two steps of training, with two kinds of teaching:
#
# - **CLIP** learnt from pictures and *captions* with all classes. It knows which words go with a picture. Nobody told
#   it where.
# - **The decoders** on top of CLIP learnt *where* from masks, of the **seen** classes only. They have no list of
#   classes inside. CLIP turns a word into a vector, its *embedding*, and every *patch* (a square of 8 × 8 pixels) into
#   vectors too. A decoder makes a *query* out of the word's embedding, the question "where is this?", and compares it
#   with all patches. So any word that CLIP knows can be asked for.
#
# On our scene: what is true, and what training would show of it to the decoders.

# %%
# NBVAL_CHECK_OUTPUT
print("classes:", len(CLASSES), "=", len(THINGS), "things +", len(STUFF), "stuff")
print("seen (masks in training):", len(SEEN))
print("unseen (no masks in training):", len(UNSEEN), "-", ", ".join(UNSEEN))
print("both at once:", len(set(SEEN) & set(UNSEEN)))

# %%
colours = dict(zip(CLASSES, class_colours(CLASSES), strict=True))  # a word has one colour in all figures
truth = in_colours(scene.labels, CLASSES, colours)
shown = in_colours(
    np.where(np.isin(scene.labels, [number[name] for name in UNSEEN]), 255, scene.labels), CLASSES, colours
)
panels = {"picture": scene.image, "truth": truth, "masks that training shows\n(black: no label)": shown}
plot_panels(panels, legend={word: colours[word] for word in words})

# %% [markdown]
# The tiger is a hole in the label map. The decoders are told that it is none of the seen classes, and no more.
#
# One picture proves little. Here are six unseen things, one scene each, none of them picked by hand, segmented with
# the words that are in it.

# %%
segmenter = cascadeclip.load("mini", device=device)
unseen_things = [name for name in UNSEEN if name in THINGS]
pictures, masks, legend = {}, {}, {}
for position, thing in enumerate(unseen_things[1::2]):
    drawn = draw_scene(seed=1, index=position, things=(thing,), objects=(1, 1))
    found = segmenter.segment(drawn.image, [thing, *drawn.stuff])
    pictures[thing] = drawn.image
    masks[f"{thing}: IoU {iou_of(found, drawn, thing):.2f}"] = class_colours(found.names)[found.labels]
    legend |= {word: colours[word] for word in found.names}
plot_panels(pictures | masks, columns=len(pictures), legend=legend, title="Unseen things, segmented")

# %% [markdown]
# Now the number, over scenes with one unseen thing and with two:

# %%
# NBVAL_CHECK_OUTPUT
measured, baseline = {1: [], 2: []}, []  # things in the scene -> IoU of each
for position, thing in enumerate(unseen_things):
    others = (thing, unseen_things[position - 1])
    for index in range(8):
        for count in measured:
            drawn = draw_scene(seed=2, index=index, things=others[:count], objects=(count, count))
            found = segmenter.segment(drawn.image, [*drawn.things, *drawn.stuff])
            measured[count] += [iou_of(found, drawn, name) for name in drawn.things]
            baseline += [(drawn.labels == number[name]).mean() for name in drawn.things]
print("measured:", {count: len(values) for count, values in measured.items()})
print("one thing, IoU above 0.5:", bool(np.mean(measured[1]) > 0.5))
print("far above the baseline:", bool(np.mean(measured[2]) > 2 * np.mean(baseline)))

# %%
for count, values in measured.items():
    print(f"{count} unseen thing(s) in the scene: mean IoU {np.mean(values):.2f}")
print(f"calling every pixel that thing: {np.mean(baseline):.2f}")

# %% [markdown]
# Unseen things are segmented far better than by the baseline. Do not read too much into the difference between the two
# rows: two words can be mixed up, but two things are also drawn smaller than one, and the scenes repeat only eight
# layouts, so the numbers are rougher than their count suggests. (Exercise 00.1 looks at where the pixels go.)
#
# ## Change the words
#
# The segmenter chooses among the words it is given, at every pixel. So the words are half of the question. We ask four
# questions about a scene with two things; the tiger is outlined:

# %%
pair = draw_scene(seed=0, index=0, things=("tiger", "house"), stuff=("grass",), objects=(2, 2))
questions = {
    "what is there": ["tiger", "house", "grass"],
    "no tiger on offer": ["house", "grass"],
    "lion instead of tiger": ["lion", "house", "grass"],
    f"all {len(CLASSES)} words": list(CLASSES),
}
answers = {title: segmenter.segment(pair.image, asked) for title, asked in questions.items()}
tiger = pair.labels == number["tiger"]
panels, used = {"picture": pair.image}, {}
for title, answer in answers.items():
    panels[title] = in_colours(answer.labels, answer.names, colours)
    used |= {answer.names[position]: colours[answer.names[position]] for position in np.unique(answer.labels)}
    counts = np.bincount(answer.labels[tiger], minlength=len(answer.names))
    best = [position for position in counts.argsort()[::-1][:3] if counts[position]]
    shares = ", ".join(f"{answer.names[position]} {100 * counts[position] / tiger.sum():.0f} %" for position in best)
    print(f"{title:22} the tiger's pixels are called: {shares}")
plot_panels(panels, outlines=dict.fromkeys(questions, tiger), legend=used)

# %% [markdown]
# Without *tiger* on offer its pixels have to go to other words, and they may be words that are in the picture; a
# similar animal need not get them. For CLIP also knows which words fit the *whole* picture, and a decoder's query is
# made of both. A word outside Mini-CLIP's small vocabulary is an error that helps you on. A real CLIP takes any word.

# %%
try:
    segmenter.segment(scene.image, ["tigr", "grass"])
except cascadeclip.InputError as error:
    print(str(error)[:120], "...")

# %% [markdown]
# ### Exercise 00.1 · Where do the pixels go? (easy, 10 minutes)
#
# `found` and `truth` (H, W) hold, for every pixel, the position of a word among `words` words: as it was called, and as
# it is. Of the pixels that are truly `word`, give the share that was called each of the words, `words` numbers that add
# up to 1. Then draw a scene with two unseen things and find out what takes the pixels of the worse one: the other
# thing, or the ground? ([Solutions](solutions/00_quickstart.py), if you get stuck.)


# %%
def called(found, truth, word, words):
    return ...  # your code here


# %%
check("00.1", called)

# %% [markdown]
# ### Exercise 00.2 · Words that are not there (medium, 15 minutes)
#
# `scores` (C, H, W) are a segmenter's scores for C words, `truth` (H, W) the positions of the right ones. Give the
# share of pixels that are right if only the first `count` words are on offer. Then take `draw_scene(seed=0, index=2,
# objects=(2, 2))`, put the words that are in it first and all other classes after them: does the share fall as words
# are added? Can an absent word ever raise it? Answer before you run it. ([Solutions](solutions/00_quickstart.py).)


# %%
def share_right(scores, truth, count):
    return ...  # your code here


# %%
check("00.2", share_right)

# %% [markdown]
# ## Recap
#
# 1. `cascadeclip.load("mini").segment(picture, words)` gives every pixel the word that scores best there; `.plot()`
#    draws it.
# 2. *Seen* classes had masks in training, *unseen* ones only captions in CLIP's own training. Unseen things are found
#    because the decoders compare patches with CLIP's embedding of a word instead of learning classes by number.
# 3. The words are part of the question: leave one out and its pixels go to other words. A word that is not in the
#    picture can only take pixels away.
#
# **What to try next:** pictures and words of your own in the [explorers](explorer.ipynb).
#
# Next: what each layer of CLIP knows ([01](01_layer_features.ipynb), [02](02_alignment_gaps.ipynb)), how the decoders
# are built and trained ([03](03_build_it.ipynb)), and how well it all does on the benchmark's terms
# ([04](04_zero_shot_evaluation.ipynb)).
