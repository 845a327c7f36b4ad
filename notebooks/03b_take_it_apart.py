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
# # 03b · Take it apart: what each piece of a trained cascade does
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cascadeclip/blob/main/notebooks/03b_take_it_apart.ipynb)
#
# Notebook 03 built the cascade. Here we take a trained one, look inside while it works, and take pieces out. What
# counts is *intersection over union* (IoU), with intervals: a difference whose sign other pictures could reverse is
# reported as "cannot say".
#
# **What you will learn**
#
# 1. How to read a cascade's work: the masks of each stage, who says *no* to absent words, where queries look.
# 2. How to measure what a piece does for a *trained* model, and what such an ablation cannot tell.
# 3. Why recall misleads, and how paired intervals keep you from reading noise.
#
# **Time:** about two minutes on two laptop CPU cores. A GPU is used if there is one. Nothing is downloaded.
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
from itertools import combinations

import numpy as np
import torch
from torch.nn import functional as F

import cascadeclip
from cascadeclip.data.transforms import normalise
from cascadeclip.evaluation import bootstrap
from cascadeclip.exercises import check
from cascadeclip.explorers import WordExplorer
from cascadeclip.model import nga_weights, weighted_sum
from cascadeclip.plots import (
    attention_by_layer,
    plot_ablations,
    plot_attention,
    plot_groups,
    plot_predictions,
    plot_stage_masks,
)
from cascadeclip.presets import get_preset

preset = get_preset("mini-frozen")
device = cascadeclip.device()
segmenter = cascadeclip.load("mini/cascade", device=device)
clip, model = segmenter.clip, segmenter.model
names, text = preset.names, clip.class_embeddings(preset.names, preset.templates).to(device)  # T (C, E)
unseen = torch.tensor([name in preset.unseen for name in names])
stage_names = [f"stage {s}: {'+'.join(map(str, blocks))}" for s, blocks in enumerate(model.config.stages, start=1)]
print(f"device: {device}")
print("read from blocks:", "; ".join(stage_names))

# %% [markdown]
# ## One picture, three stages
#
# The first held-out scene with one unseen thing of some size and one seen thing, chosen by that rule and not by how
# well it goes. Every stage has mask logits for every word; the cascade adds them. The last row is a control: the word
# that is *not* in the picture and has the strongest mask of all such words.

# %%
SCENES = 200
data = preset.eval_data(preset.final_split)
scenes = [data[number] for number in range(SCENES)]
images, labels = preset.collate(scenes)
images, labels = normalise(images.to(device)), labels.long()


def shows_one_unseen_thing(scene, least=0.08):
    hidden = [thing for thing in scene.things if thing in preset.unseen]
    return len(hidden) == 1 and len(scene.things) == 2 and (scene.labels == names.index(hidden[0])).mean() >= least


chosen = [number for number, scene in enumerate(scenes) if shows_one_unseen_thing(scene)]
number, scene = chosen[0], scenes[chosen[0]]
word = next(thing for thing in scene.things if thing in preset.unseen)
with torch.inference_mode():
    output = model(images[number : number + 1], text)
present = [names[index] for index in np.unique(scene.labels)]
strengths = output.mask_logits[0].mean((1, 2)).cpu()
strongest = max((name for name in names if name not in present), key=lambda name: strengths[names.index(name)])
shown = [*present, strongest]
rows = [name + (" (unseen)" if name in preset.unseen else "") for name in shown[:-1]] + [f"{strongest}\n(not there)"]
stage_logits = torch.stack(output.stage_logits)[:, 0, [names.index(name) for name in shown]].cpu().numpy()
masks = np.stack([scene.labels == names.index(name) for name in shown])
own_logits = stage_logits[:, shown.index(word)][:, masks[shown.index(word), 4::8, 4::8]].mean(1)
told = ", ".join(f"{stage} {value:+.1f}" for stage, value in zip(stage_names, own_logits, strict=True))
plot_stage_masks(
    scene.image, stage_logits, masks, rows, stage_names, f"Mean logit of “{word}” (unseen) on its own patches: {told}"
)

# %% [markdown]
# Red is above zero (probability above one half), blue below, and all panels share one scale. Read a row from left to
# right: where do the stages agree, and where does one overrule another? A stage with a logit of 0 abstains.
#
# A segmentation gives each pixel the word of the highest probability, after 0.1 is taken off the seen words. Every
# pixel chooses among *all* 72 words, for each stage alone and for the sum (black lines: called an unseen class):

# %%
two = [(scenes[one].image, scenes[one].labels) for one in chosen[:2]]
plot_predictions(model, two, text, names, preset.unseen, preset.seen_offset)

# %% [markdown]
# No stage was trained to work alone: each only had to supply what the sum of the others lacked. And two pictures prove
# nothing.
#
# ### Exercise 03b.1 · Who overrules whom (easy, 10 minutes)
#
# Adding logits means multiplying *odds*, $p / (1 - p)$. Write `together(probabilities)`: in goes a tensor of the
# stages' probabilities, one stage per entry of its first dimension; out comes the cascade's probability, without that
# dimension. What does a stage of probability 1/2 do? What can one of 0.99 do against two of 0.2?
# ([Solutions](solutions/03b_take_it_apart.py), if you get stuck.)


# %%
def together(probabilities):
    return ...  # your code here


# %%
check("03b.1", together)

# %% [markdown]
# ## A way to measure
#
# For numbers we take 200 held-out scenes, in which every thing comes about equally often. What the tower reads is
# computed once and kept. `decode` runs the cascade's own modules on it, so that pieces can be exchanged or left out.
# `counted` keeps the counts of each scene apart: from them come IoU and recall of any set of scenes, and with them
# *bootstrap* intervals, as if other scenes had been drawn.

# %%
# NBVAL_CHECK_OUTPUT
with torch.inference_mode():
    read = [model.encoder(part) for part in images.split(50)]
features = {block: torch.cat([one.features[block] for one in read]) for block in read[0].features}
g = torch.cat([one.image_embedding for one in read])  # (200, E)


@torch.inference_mode()
def decode(weights=None, g=g, skip=()):
    """Mask logits (stage, scene, word, 12, 12): with other NGA weights, other image embeddings, or layers left out."""
    words, stages = model.centred(text), []
    for blocks, aggregate, describe, decoder in zip(
        model.config.stages, model.aggregations, model.descriptors, model.decoders, strict=True
    ):
        changed = weights is not None and len(blocks) > 1
        parts = []
        for rows in torch.arange(SCENES).split(50):
            of_stage = [features[block][rows] for block in blocks]
            z = weighted_sum(weights, of_stage) if changed else aggregate(of_stage)
            queries = describe(words, g[rows])
            for layer in (layer for number, layer in enumerate(decoder.layers, start=1) if number not in skip):
                queries = layer(queries, z)
            parts.append(decoder.mask(queries, z).unflatten(-1, (12, 12)))
        stages.append(torch.cat(parts))
    return torch.stack(stages)


def counted(logits):
    """(scene, 3, class): pixels that are right, that truly are of the class, and that were given to it."""
    found = []
    for part, truth in zip(logits.split(25), labels.split(25), strict=True):
        scores = F.interpolate(part, truth.shape[1:], mode="bilinear").sigmoid().cpu()
        given = (scores - preset.seen_offset * ~unseen[:, None, None]).argmax(1)
        right = torch.where(given == truth, truth, len(names))  # wrong pixels in a place of their own
        found += [
            torch.stack([torch.bincount(one.flatten(), minlength=len(names) + 1)[:-1] for one in three])
            for three in zip(right, truth, given, strict=True)
        ]
    return torch.stack(found).double()


def means(counts):
    """IoU of seen and of unseen classes, recall of unseen classes, per cent; counts (3, class)."""
    right, true, given = counts
    iou = torch.where(true > 0, 100 * right / (true + given - right), torch.nan)
    recall = torch.where(true > 0, 100 * right / true, torch.nan)
    return [iou[~unseen].nanmean().item(), iou[unseen].nanmean().item(), recall[unseen].nanmean().item()]


def drawn(counts):
    """`means` with what other scenes could make of them."""
    return bootstrap(lambda rows: np.array(means(counts[torch.from_numpy(rows)].sum(0))), SCENES, repeats=300)


whole = decode()
with torch.inference_mode():
    reference = model(images[:20], text).mask_logits
print("decode does what the model does:", torch.allclose(whole.sum(0)[:20], reference, rtol=1e-3, atol=1e-3))

# %% [markdown]
# ## Which stage is missed?
#
# Every set of stages, the logits of these alone added up. The intervals are those of the *difference* from the whole
# cascade, scene by scene: a scene that is hard for both cancels.


# %%
def compare(variants, full):
    """Print each variant's means and its difference from the whole; returns the differences for a figure."""
    print(f"{'':28}{'IoU seen':>9}{'IoU unseen':>12}{'recall unseen':>15}   difference of IoU unseen (95 %)")
    values = means(full.sum(0))
    print(f"{'the whole cascade':28}{values[0]:9.1f}{values[1]:12.1f}{values[2]:15.1f}")
    base, report = drawn(full), {}
    for name, counts in variants.items():
        values, change = means(counts.sum(0)), drawn(counts) - base
        low, high = change.interval()
        report[name] = {group: (change.whole[row], low[row], high[row]) for row, group in enumerate(("seen", "unseen"))}
        verdict = "worse" if high[1] < 0 else "better" if low[1] > 0 else "cannot say"
        print(f"{name:28}{values[0]:9.1f}{values[1]:12.1f}{values[2]:15.1f}"
              f"{change.whole[1]:10.1f} ({low[1]:.1f} to {high[1]:.1f}): {verdict}")  # fmt: skip
    return report


def headline(differences):
    """What a figure of them says of unseen classes."""
    lost = {name: row["unseen"][0] for name, row in differences.items() if row["unseen"][2] < 0}
    most = min(lost, key=lost.get, default=None)
    told = f", most by “{most}” ({lost[most]:+.1f})" if lost else ""
    return f"Unseen classes surely lose by {len(lost)} of these {len(differences)} changes{told}"


full = counted(whole.sum(0))
sets = [one for size in (2, 1) for one in combinations(range(3), size)]
names_of = {
    one: f"stages {one[0] + 1} and {one[-1] + 1}" if len(one) > 1 else f"stage {one[0] + 1} alone" for one in sets
}
of_sets = {names_of[one]: counted(whole[list(one)].sum(0)) for one in sets}
differences = compare(of_sets, full)
plot_ablations(differences, "IoU less that of the whole cascade, points (lines: 95 % interval)", headline(differences))

# %% [markdown]
# Left of the dotted line, something is missed. An interval that ends just short of it is no sure thing: notebook 04b,
# section 4, scores the pairs of stages on 100 more scenes, and two such lines then reach zero. Look at both
# colours: a stage may matter for seen words, whose masks it was taught, and less for unseen ones, or the other way
# round.
#
# Now compare the columns *IoU unseen* and *recall unseen*. Recall is the share of a class's pixels that are found. It
# does not mind when too much is called by that name. The next cell asks whether it would have led us astray.

# %%
by_iou, by_recall = ({name: means(counts.sum(0))[column] for name, counts in of_sets.items()} for column in (1, 2))
orders = [" > ".join(sorted(values, key=values.get, reverse=True)) for values in (by_iou, by_recall)]
print("unseen classes, by IoU:   ", orders[0])
print("unseen classes, by recall:", orders[1])
print("the two agree" if orders[0] == orders[1] else "the two do not agree")
highest = max(by_recall, key=by_recall.get)
right, true, given = of_sets[highest].sum(0)[:, unseen].sum(1)
print(f"{highest}: unseen words are given to {given / true:.1f} times as many pixels as they have")

# %% [markdown]
# Whoever gives unseen words to many pixels finds many of theirs. That is why this notebook judges by IoU.
#
# ### Exercise 03b.2 · IoU from recall and precision (easy, 10 minutes)
#
# Of a class, `recall` is the share of its true pixels that are found, `precision` the share of the pixels given to it
# that are right. Write `iou_of(recall, precision)`. Which IoU goes with a recall of 0.9 and a precision of 0.3?
# ([Solutions](solutions/03b_take_it_apart.py), if you get stuck.)


# %%
def iou_of(recall, precision):
    return ...  # your code here


# %%
check("03b.2", iou_of)

# %% [markdown]
# ## Who says no?
#
# Most words are absent from a picture, and most of what a cascade has to say is *no*. The mean logit of each stage,
# in three situations: for a word on its own patches, for a word of the picture on the *other* patches, and for a word
# that is not in the picture at all.

# %%
# NBVAL_CHECK_OUTPUT
patches = labels[:, 4::8, 4::8]  # class at the centre of each patch, (200, 12, 12)
own = patches[:, None] == torch.arange(len(names))[:, None, None]  # (scene, word, 12, 12)
in_picture = own.flatten(2).any(-1)[..., None, None].expand_as(own)
situations = {"on its patches": own, "elsewhere in\nits picture": in_picture & ~own, "not in the\npicture": ~in_picture}
logits = torch.cat([whole, whole.sum(0, keepdim=True)]).cpu()
answers, firmest = {}, []
for title, group in (("seen words", ~unseen), ("unseen words", unseen)):
    answers[title] = {
        situation: {
            stage: one[:, group][where[:, group]].mean().item()
            for stage, one in zip((*stage_names, "sum"), logits, strict=True)
        }
        for situation, where in situations.items()
    }
    absent = answers[title]["not in the\npicture"]
    sternest, mildest = (choose(stage_names, key=absent.get) for choose in (min, max))
    print(f"{title}: the firmest no to absent ones comes from {sternest}, the weakest from {mildest}")
    firmest.append(f"to absent {title} from {sternest}")
plot_groups(answers, "mean logit", title=f"The firmest no comes {', '.join(firmest)}")

# %% [markdown]
# The distance between the first group of bars and the last is how well a stage tells a word's patches from the rest. A
# stage whose bars are all alike says, on average, the same everywhere. It hardly changes the order of the words, yet it
# lowers all probabilities, so that an offset of 0.1 weighs more: read without the offset, the cascade hardly misses it
# (notebook 04b, section 4). Compare the panels: unseen words were asked for in no training step, neither for a *yes*
# nor for a *no*, so whatever they say carries over from seen words.
#
# ## What training did to NGA
#
# Each stage of several blocks has one weight per block. They started on a Gaussian.

# %%
# NBVAL_CHECK_OUTPUT
starts = nga_weights(3, model.config.sigma).tolist()
moved, farthest = {}, {}
for stage, blocks, aggregate in zip(stage_names, model.config.stages, model.aggregations, strict=True):
    if len(blocks) > 1:
        ends = aggregate.weights.tolist()
        moved[stage] = {f"block {b}": {"start": w, "trained": v} for b, w, v in zip(blocks, starts, ends, strict=True)}
        farthest[stage] = max(abs(v - w) for w, v in zip(starts, ends, strict=True))
        order = "still" if ends == sorted(ends) else "no longer"
        print(f"{stage}: moved by {farthest[stage]:.2f} at most; deeper blocks {order} weigh more than earlier ones")
plot_groups(moved, "weight", title=f"Training moved no weight by more than {max(farthest.values()):.2f}")

# %% [markdown]
# A weight alone does not say how much a block matters: decoders can scale what they read. So we take pieces out.
#
# ## Taking pieces out
#
# - **NGA:** the deepest block of each stage alone; the same weight for all three blocks, with the trained total.
# - **Descriptor:** the image embedding $g$ of *another* picture; the mean one of all pictures.
# - **Decoder:** without the first, the second, or both layers, so that fewer looks at the picture precede the mask
#   layer.

# %%
total = sum(sum(part["trained"] for part in panel.values()) for panel in moved.values()) / len(moved)
variants = {
    "NGA: deepest block alone": {"weights": torch.tensor([0.0, 0.0, 1.0], device=device)},
    "NGA: equal weights": {"weights": torch.full((3,), total / 3, device=device)},
    "g of another picture": {"g": g.roll(1, dims=0)},
    "mean g of all pictures": {"g": F.normalize(g.mean(0, keepdim=True), dim=-1).expand_as(g)},
    "decoders without layer 1": {"skip": (1,)},
    "decoders without layer 2": {"skip": (2,)},
    "decoders: mask layer alone": {"skip": (1, 2)},
}
differences = compare({name: counted(decode(**options).sum(0)) for name, options in variants.items()}, full)
plot_ablations(differences, "IoU less that of the whole cascade, points (lines: 95 % interval)", headline(differences))

# %% [markdown]
# Read this with care. The decoders were trained with every piece in its place. So the figure says what *this* model
# relies on, not what a model trained without the piece would reach: that one could learn to do without. For the latter,
# one must train without it, several times (`cascadeclip experiments`, as in notebook 04b). Intervals here cover other
# pictures, not other trainings.
#
# ### Exercise 03b.3 · Fair shares (hard, 20 minutes)
#
# What does a stage add? It depends on who is there already. *Shapley's* answer: let the stages come one by one, in
# every possible order, and take the mean of what a stage's coming adds. Write `shares(worth, stages)`: `worth` maps
# every `frozenset` of stage numbers (from 0; the empty set, too) to its IoU; return a list with one share per stage.
# They add up to the worth of all. Then try it on the numbers above.
# ([Solutions](solutions/03b_take_it_apart.py), if you get stuck.)


# %%
def shares(worth, stages):
    return ...  # your code here


# %%
check("03b.3", shares)

# %% [markdown]
# ## Where queries look
#
# In layers 1 and 2 of a decoder, a query spreads its attention over the patches and takes in what it finds. Only the
# third layer's scores are the mask. Here is the unseen word of the picture from above, in all three decoders:

# %%
column = names.index(word)
maps = []
for decoder, queries, tokens in zip(model.decoders, output.stage_queries, output.stage_tokens, strict=True):
    by_layer = attention_by_layer(decoder, queries[:, [column]], tokens)
    maps.append([layer[0, 0].unflatten(0, (12, 12)).cpu().numpy() for layer in by_layer])
plot_attention(scene.image, maps, stage_names, scene.labels == column, word)

# %% [markdown]
# Orange patches get more attention than an even look would give them, purple ones less. Does a query look at its own
# object? One picture cannot say. Over all scenes with things of both kinds, for each layer: the mean attention of a
# thing's query on its own patches, on other things, and on the ground, where 1 is an even look.

# %%
thing = torch.tensor([name in {thing for scene in scenes for thing in scene.things} for name in names])
ground, looks = ~thing[patches], {"queries of seen things": {}, "queries of unseen things": {}}
own_first = {}
with torch.inference_mode():
    for number, (blocks, decoder) in enumerate(zip(model.config.stages, model.decoders, strict=True)):
        z = model.aggregations[number]([features[block] for block in blocks])
        by_layer = attention_by_layer(decoder, model.descriptors[number](model.centred(text), g), z)
        for depth, attention in enumerate(by_layer[:-1], start=1):
            attention = attention.unflatten(-1, (12, 12)).cpu()
            for title, group in zip(looks, (thing & ~unseen, thing & unseen), strict=True):
                asked = in_picture & group[:, None, None]  # queries of things that are in the picture
                where = {"own patches": own, "other things": ~own & ~ground[:, None], "ground": ground[:, None]}
                looks[title][f"stage {number + 1}\nlayer {depth}"] = {
                    place: attention[asked & mask].mean().item() for place, mask in where.items()
                }
for title, panel in looks.items():
    others = {layer: max(values["other things"], values["ground"]) for layer, values in panel.items()}
    there = [layer for layer, values in panel.items() if values["own patches"] > 1.05 * others[layer]]
    own_first[title], told = len(there), "; ".join(layer.replace("\n", ", ") for layer in there)
    print(f"{title} clearly look most at their own patches in: {told or 'no layer'}")
told = ", ".join(f"{title} in {count} of {len(panel)} layers" for title, count in own_first.items())
plot_groups(looks, "attention (1 = an even look)", reference=1.0, bottom=1.0, title=f"Most at their own: {told}")

# %% [markdown]
# Where a bar is above 1, patches get more attention than an even look would give them. ("Clearly" is a lead of 5 % over
# the next bar.) A query need not look at its own object to draw its mask: the mask layer
# compares it with every patch in any case. The layers before it can gather what else is in the picture.
#
# ## Try it
#
# Switch stages off, for other pictures and words or a picture of your own. Every pixel takes one of the words given, so
# name the ground as well. (Without a running kernel you see how the explorer starts.)

# %%
WordExplorer(segmenter)

# %% [markdown]
# ## Recap
#
# 1. **Reading a cascade.** Stages have masks of their own, and the sum multiplies their odds. Most of the work is
#    saying *no*. Attention before the mask layer shows what a query takes in, not what it marks.
# 2. **Ablations.** Exchange a piece, score again, compare scene by scene. The result is about *this* trained model:
#    what it relies on, not what another could learn.
# 3. **Measures.** Recall rewards whoever gives a word to many pixels; IoU does not. A difference counts when its paired
#    interval leaves out zero, and even then only for this training.
#
# **What to try next:** is a stage missed for things as much as for stuff? Which words gain most from stage 1? What
# becomes of the table when the seen offset is 0?
#
# Next: [04 · How to judge a zero-shot segmenter](04_zero_shot_evaluation.ipynb).
