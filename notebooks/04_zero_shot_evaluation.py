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
# # 04 · How to judge a zero-shot segmenter
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cascadeclip/blob/main/notebooks/04_zero_shot_evaluation.ipynb)
#
# A score for classes that never had a mask label is easy to print and easy to misread. This notebook takes one number,
# hIoU, apart, and puts it together again.
#
# **What you will learn**
#
# 1. the protocol: what training may know in the inductive, transductive and strict settings, and how one joint
#    confusion matrix becomes mIoU(S), mIoU(U) and hIoU;
# 2. what hIoU hides: the seen offset, classes, kinds of error, boundaries;
# 3. how sure a score is: intervals over pictures and over seeds, and why differences have intervals of their own.
#
# **Time:** about two minutes on two quiet laptop CPU cores; a GPU is used if there is one. Nothing is trained.
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
from torch.utils.data import DataLoader, Subset

import cascadeclip
from cascadeclip import plots
from cascadeclip.data.transforms import normalise
from cascadeclip.evaluation import boundary_width, diagnostics, rim
from cascadeclip.exercises import check
from cascadeclip.experiments import stored_report
from cascadeclip.model import segmentation_loss
from cascadeclip.plots.evaluation import plot_maps
from cascadeclip.presets import get_preset
from cascadeclip.training import pseudo_labels, seen_only

device = cascadeclip.device()
print(f"device: {device}")

preset = get_preset("mini-frozen")
names, unseen = preset.names, preset.unseen
files = {"last layer": "mini/last-layer", "cascade": "mini/cascade"}
segmenters = {name: cascadeclip.load(file, device=device) for name, file in files.items()}
text = segmenters["cascade"].clip.class_embeddings(names, preset.templates)  # one text embedding per class
hidden = torch.tensor([names.index(name) for name in unseen])

# %% [markdown]
# Both models come with the package, trained from the same seed, on the same scenes, for as many steps: one reads block
# 12 alone, the other is the cascade of three stages.
#
# ## 1. What may training know?
#
# CLIP has read captions that name *every* class. The decoders are trained on masks of the **seen** classes only. The
# other classes are **unseen**: no pixel of theirs ever had a mask label. At test time every pixel chooses among *all*
# classes, seen and unseen together; this is called *generalised* zero-shot segmentation.

# %%
# NBVAL_CHECK_OUTPUT
seen_positions, table = seen_only(names, unseen)  # what inductive training may know
print("classes:", len(names), "| seen:", len(seen_positions), "| unseen:", len(hidden))
print("unseen:", ", ".join(unseen))
print("label of a tiger pixel in inductive training:", table[names.index("tiger")].item(), "(255 is 'ignored')")
print("label of a cat pixel is kept as seen class number", table[names.index("cat")].item())

# %% [markdown]
# Scores of different settings must never stand in one column. In the papers of this line of work there are two:
#
# - **Inductive**: training never hears the names of the unseen classes. Their pixels stay in the training pictures, but
#   labelled 255, *ignored*.
# - **Transductive**: training knows the names, and *that* a pixel belongs to some unseen class. It does not know which
#   one: the model's own best guess among the unseen classes becomes the label, a *pseudo label* (self-training).
#
# Elsewhere the words mean other things. In learning theory, transduction is the prediction of given test points; in
# zero-shot *classification*, the transductive setting has unlabelled pictures of the unseen classes, often the test
# pictures themselves. Neither setting here ever touches a test picture.

# %%
train_data = preset.train_data(0)
scenes = [train_data[index] for index in range(100)]
of_unseen = np.array([np.isin(scene.labels, hidden).mean() for scene in scenes])
shown = [scenes[index] for index in np.argsort(of_unseen)[-9::4]]  # scenes with much of the unseen classes
images, truth = preset.collate(shown)
with torch.inference_mode():
    mask_logits = segmenters["cascade"].model(normalise(images.to(device)), text).mask_logits.cpu()
inductive = torch.where(torch.isin(truth.long(), hidden), 255, truth.long())
transductive = pseudo_labels(mask_logits, truth.long(), hidden.tolist())
plot_maps(
    [scene.image for scene in shown],
    {"truth": truth.numpy(), "inductive labels": inductive.numpy(), "transductive labels": transductive.numpy()},
    names,
    unseen,
)

# %% [markdown]
# Black lines separate unseen classes from seen ones. The inductive column loses the unseen ones (grey); the
# transductive column keeps their place and fills it with guesses, which can be wrong: compare with the truth.
#
# "Ignored" sounds as if those pixels took no part in the loss. In the authors' code, and so by default here, an ignored
# pixel is a *negative for every seen class*. One hand-made picture of 2 x 2 pixels, its right half ignored, shows it:

# %%
# NBVAL_CHECK_OUTPUT
tiny_labels = torch.tensor([[[0, 255], [0, 255]]])  # left column: class 0; right column: ignored
for negatives in (True, False):
    tiny_logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(tiny_logits, tiny_labels, ignored_are_negatives=negatives)["total"]
    on_ignored = torch.autograd.grad(loss, tiny_logits)[0][..., 1]
    pushed = "pushed down" if (on_ignored > 0).all() else "left alone" if (on_ignored == 0).all() else "mixed"
    print(f"ignored_are_negatives={negatives!s:5}: masks at ignored pixels are {pushed}")

# %% [markdown]
# So inductive training is told *where* unseen things are, though not which they are: the seen masks learn to stay off
# them. The **strict** setting tells nothing: pictures with a pixel of an unseen class are left out
# (`get_preset("mini-frozen-strict")`, `"voc12-strict"`; for own data `own_preset(..., strict=True)`). What it costs in
# pictures:

# %%
print(f"training pictures without any unseen pixel: {np.mean(of_unseen == 0):.0%} of the first {len(scenes)}")
print(f"pixels of unseen classes in all of them: {of_unseen.mean():.0%}")

# %% [markdown]
# Compare a strict model with an inductive one that was trained on as many pictures for as many steps. Published
# inductive scores, and those below, are of the usual setting.
#
# At **test** time no pixel is ignored in this world. On real benchmarks, unlabelled pixels (255) are left out of the
# scores, and VOC leaves out its background class, too.
#
# ## 2. One confusion matrix, three numbers
#
# One pass per model leaves, for every pixel, its best seen class and its best unseen class with their probabilities.
# That is enough for any seen offset: a constant taken off all seen classes leaves the best seen class the best one.

# %%
COUNT = 300  # pictures of the balanced test set: every class comes equally often
test_data = Subset(preset.eval_data(preset.final_split), range(COUNT))


def read(model, **options):
    """One pass over the test pictures; see `diagnostics.read_out`."""
    batches = DataLoader(test_data, preset.scoring_batch, collate_fn=preset.collate)
    return diagnostics.read_out(model, batches, text, names, unseen, precision=preset.training.precision, **options)


readouts = {name: read(segmenter.model) for name, segmenter in segmenters.items()}
labels = readouts["cascade"].labels.long()
predicted = {name: readout.segmentation(preset.seen_offset) for name, readout in readouts.items()}
seen_classes = torch.tensor([index for index in range(len(names)) if index not in set(hidden.tolist())])


# %% [markdown]
# For each class, IoU is the number of right pixels over the pixels that are either truly of the class or given to it.
# All counts come from *one* confusion matrix over the whole test set, seen and unseen classes in the same one: a pixel
# that an unseen class loses to a seen one is a miss there *and* a false alarm here.
#
# $$\text{hIoU} = \frac{2\,S\,U}{S + U}, \qquad S = \text{mIoU(seen)}, \quad U = \text{mIoU(unseen)}$$


# %%
# NBVAL_CHECK_OUTPUT
def three_numbers(segmentation, truth):
    """S, U and hIoU of integer maps (n, H, W), from one joint confusion matrix; rows are true classes."""
    classes = len(names)
    confusion = torch.bincount((truth * classes + segmentation).flatten(), minlength=classes**2).view(classes, classes)
    right = confusion.diag().double()
    iou = right / (confusion.sum(1) + confusion.sum(0) - right)
    s, u = iou[seen_classes].mean().item(), iou[hidden].mean().item()
    return s, u, 2 * s * u / (s + u)


for name, segmentation in predicted.items():
    official = diagnostics.confusion_of(segmentation, labels, len(names)).scores(names, unseen)
    s, u, h = three_numbers(segmentation, labels)
    same = np.allclose([s, u, h], [official.mIoU_seen, official.mIoU_unseen, official.hIoU])
    print(f"{name:10}: the package's own evaluation gives the same three numbers: {same}")
    print(f"{'':10}  hIoU is nearer to the smaller mean: {h - min(s, u) < max(s, u) - h}")

# %% [markdown]
# The harmonic mean is nearer to the *smaller* of the two, so that a model cannot buy it with seen classes alone. That
# is all it does: models with the same hIoU can be very different. Behind each mean stand its classes:

# %%
for name, segmentation in predicted.items():
    s, u, h = (100 * value for value in three_numbers(segmentation, labels))
    print(f"{name:10}: S {s:.1f}   U {u:.1f}   hIoU {h:.1f}")
scores = diagnostics.confusion_of(predicted["cascade"], labels, len(names)).scores(names, unseen)
of_unseen_classes = sorted((100 * scores.iou[names.index(name)], name) for name in unseen)
figure = plots.plot_class_iou(scores)
(low, lowest), (high, highest) = of_unseen_classes[0], of_unseen_classes[-1]
figure.suptitle(f"Unseen classes range from {lowest} ({low:.0f}) to {highest} ({high:.0f})", fontsize=10)
figure

# %% [markdown]
# The figure is the cascade's. Classes of either group spread widely, so a mean over unseen classes is no property of
# "unseen classes" in general: it depends on *which* someone chose to hide. And each thing is met in some ten pictures
# only: never rank single classes by such a figure.
#
# ### Exercise 04.1 · What hIoU leaves open (easy, 5 minutes)
#
# A table gives hIoU and S only, as fractions. Write a function that gives U. Then try it: for an hIoU of 0.6 and a U of
# at most 1, how far apart can S and U be? ([Solutions](solutions/04_zero_shot_evaluation.py), if you get stuck.)


# %%
def unseen_behind(hiou, seen):
    return ...  # your code here


# %%
check("04.1", unseen_behind)

# %% [markdown]
# ## 3. The seen offset
#
# Training only ever rewarded seen classes, so their probabilities should be too high. The inductive protocol therefore
# takes 0.1 off every seen class's probability before the argmax. Does that suit every model? Sweep it:

# %%
offsets = np.linspace(-0.2, 0.5, 29).round(3) + 0.0  # so that zero is not printed as -0
sweeps = {}
for name, readout in readouts.items():
    sweeps[name] = diagnostics.sweep_offsets(readout, names, unseen, offsets)
    for key in ("mIoU_seen", "mIoU_unseen", "hIoU"):
        values = [100 * getattr(entry, key) for entry in sweeps[name]]
        at = list(offsets).index(preset.seen_offset)
        best = int(np.argmax(values))
        print(f"{name:10} {key:12} {values[at]:.1f} at 0.1; highest, {values[best]:.1f}, at {offsets[best]:g}")
suits = {name: offsets[np.argmax([entry.hIoU for entry in sweep])] for name, sweep in sweeps.items()}
paths = {name: (offsets.tolist(), sweep) for name, sweep in sweeps.items()}
figure = plots.plot_trades(paths, dict.fromkeys(sweeps, 0.1))
told = ", ".join(f"{name} at {offset:g}" for name, offset in suits.items())
figure.suptitle(f"The highest hIoU: {told} (numbers: ends of the sweep)", fontsize=9)
figure

# %% [markdown]
# Along each path the model is the same; only how its scores are read changes. Grey curves join points of equal hIoU.
#
# - One expects a trade: the greater the offset, the more U for less S. The cascade's path runs the other way for a
#   stretch: up to an offset of 0.1, S rises and U falls. A pixel given to the wrong group hurts twice, as a miss of its
#   own class and as a false alarm of the other; and of the pixels that the seen classes let go, many go to the wrong
#   unseen class (section 5 counts them).
# - The best offset need not be the same for two models. Whoever tunes it on test pictures gets a better hIoU for
#   nothing; a fixed 0.1 for everybody is what makes numbers comparable, even where it is nobody's best value.
# - Does the offset alone decide between these two models? Compare their highest hIoU: the gap stays.
#
# The ends of the path are useful checks of an evaluation:

# %%
# NBVAL_CHECK_OUTPUT
lowest, highest = diagnostics.sweep_offsets(readouts["cascade"], names, unseen, [-1.01, 1.01])
print("offset -1.01: S > 0:", lowest.mIoU_seen > 0, "| U:", lowest.mIoU_unseen, "| hIoU:", lowest.hIoU)
print("offset +1.01: U > 0:", highest.mIoU_unseen > 0, "| S:", highest.mIoU_seen, "| hIoU:", highest.hIoU)

# %% [markdown]
# If somebody's *trained* model shows S = 0, suspect that its weights were not loaded: the logits then carry nothing,
# and the offset alone decides. Near-zero scores also come from labels that were shifted by one class twice.
#
# ## 4. How sure?
#
# **Over pictures.** Draw as many test pictures again, with replacement, and score the draws: the *bootstrap*. The unit
# is the picture, not the pixel, because neighbouring pixels fail together. To compare two models, intervals side by
# side (the figure's) are not enough; take that of their *difference* (printed), both scored on the same draws: as far
# as a hard picture is hard for both, that cancels.

# %%
counts = {name: diagnostics.picture_counts(maps, labels, len(names)) for name, maps in predicted.items()}
drawn = np.random.default_rng(0).integers(0, COUNT, (500, COUNT))  # 500 sets, the same for both models


def means(tables):
    """Counts (3, n, C): right, true and given pixels -> S, U."""
    right, true, given = tables.sum(1)
    iou = torch.where(true > 0, right / (true + given - right), torch.nan)  # a class that is missing has no IoU
    return torch.stack([iou[seen_classes].nanmean(), iou[hidden].nanmean()])


def interval(whole, draws):
    """The basic bootstrap interval: how far draws lie from the set says how far the set may lie from the world."""
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return np.stack([whole, 2 * whole - high, 2 * whole - low])


whole = {name: means(tables).numpy() for name, tables in counts.items()}
draws = {name: np.stack([means(tables[:, rows]) for rows in drawn]) for name, tables in counts.items()}
alone = {name: interval(whole[name], draws[name]) for name in counts}
paired = interval(whole["cascade"] - whole["last layer"], draws["cascade"] - draws["last layer"])
for k, group in enumerate(("seen", "unseen")):
    widths = ", ".join(f"{name} {100 * np.ptp(alone[name][1:, k]):.1f}" for name in counts)
    middle, low, high = 100 * paired[:, k]
    print(f"{group:6}: cascade minus last layer {middle:+.1f} points ({low:+.1f} to {high:+.1f});", end=" ")
    unpaired = 100 * np.hypot(*(np.ptp(alone[name][1:, k]) for name in counts))
    print(f"widths: {widths}, of the difference {high - low:.1f}; not paired, it would be {unpaired:.1f}")
bars = {name: {"mIoU_seen": triple[:, 0], "mIoU_unseen": triple[:, 1]} for name, triple in alone.items()}
seen_lead, unseen_lead = 100 * paired[0]
title = f"cascade minus last layer: seen {seen_lead:+.1f}, unseen {unseen_lead:+.1f} points"
plots.plot_bars(bars, "mean IoU, per cent", title=title)

# %% [markdown]
# The interval of the unseen mean is the wider one: it rests on few classes (on VOC, on five). A draw misses some rare
# classes and averages the rest, so its mean tends to be too high. The basic interval, from $2m - q_{97.5}$ to
# $2m - q_{2.5}$ (m the score, q quantiles of the draws), takes this off again. It needs some 200 pictures.
#
# **Over seeds.** All this says nothing of another *training*. The stored trainings of three seeds do:

# %%
report = stored_report("fusion")
print(report["here"])
for row in report["rows"]:
    if row["name"] not in ("last layer", "cascade"):
        continue
    for key in ("mIoU_seen", "mIoU_unseen"):
        runs = 100 * np.array(row["runs"][key])
        print(f"{row['name']:10} {key:12} seeds: {', '.join(f'{run:.1f}' for run in runs)}", end="")
        print(f"; standard deviation {runs.std(ddof=1):.1f}")
row = next(row for row in report["rows"] if row["name"] == "cascade")
for key in ("mIoU_seen", "mIoU_unseen"):
    if row["not_compared"]:
        print(f"cascade minus last layer, {key:12}: not compared ({row['not_compared']})")
        continue
    found = row["difference"][key]
    middle, low, high = (100 * found[part] for part in ("difference", "low", "high"))
    print(f"cascade minus last layer, {key:12}: {middle:+.1f} points ({low:+.1f} to {high:+.1f}), seeds and pictures")

# %% [markdown]
# Where the last two lines give intervals, they are over *both*: where the difference would lie with other seeds and
# other pictures. Set them beside those of one pair of models above. Where they refuse, a training was not over by the
# rule of notebook 04b, and no interval makes up for that. A single run with an interval over pictures
# is a statement about that run's weights, not about the method; tables without seeds cannot say more.
#
# ### Exercise 04.2 · A paired bootstrap (medium, 15 minutes)
#
# Write it for one mean over all classes. In: counts (3, n, C) of two models (right, true, given pixels per picture and
# class), and `drawn` (R, n), R sets of picture numbers. Out: mean IoU of `one` minus that of `other` on each set, (R,).
# A class without true pixels in a set is left out of its mean.
# ([Solutions](solutions/04_zero_shot_evaluation.py).)


# %%
def paired_differences(one, other, drawn):
    return ...  # your code here


# %%
check("04.2", paired_differences)

# %% [markdown]
# ## 5. Which mistakes?
#
# A row of the confusion matrix says where the pixels of one true class went. Here are the cascade's rows of the unseen
# classes.

# %%
for name, readout in readouts.items():
    named = diagnostics.right_unseen_names(readout, hidden)
    print(f"{name:10}: with unseen words alone on offer, {100 * named:.0f} % of unseen pixels get the right one")
confusion = diagnostics.confusion_of(predicted["cascade"], labels, len(names))
confused = diagnostics.top_confusions(confusion, names, among=unseen, count=6)
for true, given, share in confused:
    group = "unseen" if given in unseen else "seen"
    print(f"{100 * share:4.0f} % of {true:9} pixels are called {given} ({group})")
figure = plots.plot_confusion(confusion, names, unseen)
true, given, share = confused[0]
figure.suptitle(f"The cascade calls {100 * share:.0f} % of {true} {given}", fontsize=10)
figure

# %% [markdown]
# On the diagonal at the left is what is right. Read a row to its right end: what spreads over "all the rest" is a class
# that the model does not know well, one dark cell is a pair that it mixes up. A row is recall alone; false alarms stand
# in a class's column, seen rows too, and a class that takes many pixels of others has a low IoU, whatever its own row
# says. The first lines printed leave the seen classes out (of all pixels, most are of large grounds): what is wrong
# then, no offset can mend, and self-training starts from it. hIoU cannot tell these apart, nor the four kinds of error:

# %%
pixels = labels.numel()
kinds = {
    f"{name}, offset {offset:g}": diagnostics.error_kinds(readout.segmentation(offset), labels, names, unseen).sum(0)
    for name, readout in readouts.items()
    for offset in (0.0, preset.seen_offset)
}
figure = plots.plot_error_kinds({label: (wrong, pixels) for label, wrong in kinds.items()})
mixed = {name: 100 * kinds[f"{name}, offset {preset.seen_offset:g}"][3].item() / pixels for name in readouts}
told = ", ".join(f"{name} {share:.1f} %" for name, share in mixed.items())
figure.suptitle(f"Unseen as another unseen, of all pixels, at offset 0.1: {told}", fontsize=10)
figure

# %% [markdown]
# The offset lowers one kind, "unseen as seen" (the classic zero-shot failure). What it costs is its mirror, "seen as
# unseen", and "unseen as another unseen": a pixel that the seen classes let go may get the wrong one of the others. The
# shares look kinder than mIoU does: most pixels belong to large textures, and mIoU gives every class the same weight.
# Now the worst picture of each kind, and a middling one:

# %%
wrong = diagnostics.error_kinds(predicted["cascade"], labels, names, unseen)
worst = [int(wrong[:, kind].argmax()) for kind in range(4)]
right = (predicted["cascade"] == labels).flatten(1).double().mean(1)
holds_unseen = (torch.isin(labels, hidden).flatten(1).double().mean(1) > 0.1).nonzero()[:, 0]
worst.append(int(holds_unseen[right[holds_unseen].argsort()[len(holds_unseen) // 2]]))
errors = torch.where(predicted["cascade"] == labels, 255, predicted["cascade"])
plot_maps(
    [test_data[index].image for index in worst],
    {"truth": labels[worst].numpy(), "cascade": predicted["cascade"][worst].numpy(), "wrong": errors[worst].numpy()},
    names,
    unseen,
    rows=[*(kind.replace(" as ", "\nas ") for kind in diagnostics.ERROR_KINDS), "middling"],
    grey="right",
)

# %% [markdown]
# The last column leaves only the wrong pixels. The first four rows are extremes, picked because they are the worst.
# Judge by the last row: of the pictures with much of an unseen class, half are segmented better than this one, half
# worse.
#
# ## 6. Boundaries
#
# mIoU hardly sees boundaries, because large masks have few boundary pixels. **Boundary IoU** (Cheng et al., CVPR 2021)
# looks only at the *rim* of each mask, its pixels within d of its contour: |G_d and P_d| / |G_d or P_d|, d being 2 % of
# the picture's diagonal. In their code the picture's frame counts as contour: a mask that is cut off there has a rim
# along the cut, which costs nothing to find. With `frame=False` only what lies between two masks counts.


# %%
# NBVAL_CHECK_OUTPUT
def rims(maps, d):
    """(n, H, W) integer -> bool: the square of side 2 d + 1 around the pixel holds another class."""
    values, side = maps[:, None].float(), 2 * d + 1
    return (F.max_pool2d(values, side, 1, d) != -F.max_pool2d(-values, side, 1, d))[:, 0]  # padding never wins


width = boundary_width(96, 96)
print("d:", width, "px | the package's rims are the same:", torch.equal(rims(labels, width), rim(labels, width, False)))
with_frame = rim(labels, width)
print("with the frame, rims are larger:", bool(with_frame.sum() > rims(labels, width).sum()))

# %%
rows = [4, 11, 17]
columns = {"rims, with frame": torch.where(with_frame[rows], labels[rows], 255)}
for title, maps in {"rims": labels, "rims of the cascade": predicted["cascade"]}.items():
    columns[title] = torch.where(rims(maps[rows], width), maps[rows], 255)
plot_maps(
    [test_data[index].image for index in rows],
    {title: maps.numpy() for title, maps in columns.items()},
    names,
    unseen,
    grey="inside",
)

# %% [markdown]
# The coloured bands are what Boundary IoU compares; everything grey does not count. A wrong name costs the rim as well,
# so names and outlines are mixed up in it. To judge outlines, tell the model which classes each picture holds
# (`present_only`). The dotted line is the truth itself, averaged over the 12 x 12 grid of patches and brought back: a
# good guess of what one number per patch can hold, but no bound.

# %%
told = {name: read(segmenter.model, present_only=True) for name, segmenter in segmenters.items()}


def judged(maps):
    """Bootstrapped scores of whole masks and of their rims, without the frame."""
    return diagnostics.masks_and_rims(maps, labels, names, unseen, frame=False)


by_model = {name: judged(readout.segmentation(preset.seen_offset)) for name, readout in told.items()}
through_grid = judged(diagnostics.through_grid(labels, len(names), side=12))
leads = {}
for part in through_grid:
    for key in ("mIoU_seen", "mIoU_unseen"):
        difference = by_model["cascade"][part][key] - by_model["last layer"][part][key]
        low, high = difference.interval()
        print(f"{part:12} {key:12} cascade minus last layer: {100 * difference.whole:+5.1f}", end=" points ")
        print(f"({100 * low:+.1f} to {100 * high:+.1f})")
    leads[part] = f"{part} {100 * difference.whole:+.1f}"  # of the last key, the unseen classes
figure = plots.plot_masks_and_rims(by_model, {part: found["mIoU_seen"].whole for part, found in through_grid.items()})
figure.head(f"Told the classes, the cascade beside the last layer on unseen ones, points: {', '.join(leads.values())}")
figure

# %% [markdown]
# Told the classes, the question is no longer *what* but *where*. If rims only follow the whole masks (the same order),
# they are no evidence that a model knows *boundaries* specially. Beware of comparing points between the panels: rims
# have the lower dotted line, so a point is a larger share of it there. These are intervals over pictures, of one pair
# of trainings.
#
# ## Recap
#
# 1. Inductive, transductive, strict: ask what training knew, and whether ignored pixels were negatives, before you
#    compare. All classes stand in one confusion matrix; hIoU is near the smaller of S and U.
# 2. The same hIoU can be two different models. Ask for S and U, for the offset and where it was chosen, for kinds of
#    error, and for rims without the frame.
# 3. Intervals over pictures judge one set of weights; a method needs seeds, too. Differences are paired.
#
# **What to try next.** Choose the offset on *validation* pictures (`preset.eval_data("val")`) and report the test hIoU
# under it: is the gain outside its interval? Train `mini-frozen-strict` and see what the negatives were worth. Move the
# offset by hand in the [explorer](explorer.ipynb).
#
# Next: [04b, what holds](04b_what_holds.ipynb): these tools, turned on the paper's claims.
