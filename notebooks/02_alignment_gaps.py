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
# Notebook 01 found out what can be *decoded* from a block when masks teach a probe. Zero-shot segmentation has no masks
# of the classes it is asked for: it needs a block's patch tokens to lie near the *word*. Do they?
#
# **What you will learn**
#
# 1. three lenses for reading a block's patch tokens in the space of words, and what each assumes;
# 2. to measure localisation and the modality gap with chance levels and intervals;
# 3. why simply adding blocks together is not enough: the paper's motivation, measured.
#
# **Time:** about four minutes on a laptop CPU with two cores; a GPU is used if there is one.

# %%
# On Colab, install the package first: see the README.
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch.nn import functional as F

from cascadeclip.alignment import bootstrap, localise, loss_along_gap, modality_gap
from cascadeclip.analysis import fit_ridge, patch_labels
from cascadeclip.analysis_plots import plot_classes_over_blocks, plot_lines, plot_maps, plot_over_blocks
from cascadeclip.data.emojiscenes import CLASSES, SEEN, UNSEEN, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.experiment import fit, last_layer_only, open_clip_of, score, summarise
from cascadeclip.lenses import block_tokens, raw_lens, value_path_tokens
from cascadeclip.presets import MINI
from cascadeclip.segmenter import load

logging.getLogger("cascadeclip").setLevel(logging.ERROR)  # 100 pictures lack some classes; that is known here
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"device: {device}")

# %%
# NBVAL_CHECK_OUTPUT
clip = open_clip_of(MINI)
visual = clip.visual.to(device)
grid, count = visual.grid_size, len(visual.transformer.resblocks)
text = clip.class_embeddings(CLASSES)
scenes = [EmojiScenes(280, seed=12)[i] for i in range(280)]
images, labels = collate(scenes)
fitting, test = slice(0, 200), slice(200, 280)
truth = patch_labels(labels, grid)
print("pictures:", len(images), "| classes:", len(text), "| text embeddings:", tuple(text.shape))


# %%
@torch.inference_mode()
def read(lens):
    """The lens on all pictures, 40 at a time."""
    return torch.cat([lens(normalise(some).to(device)).float().cpu() for some in images.split(40)], dim=-3)


tokens = read(lambda some: torch.stack(block_tokens(visual, some)))  # (L, images, 1 + N, D)
patches = tokens[:, :, 1:]
final = read(lambda some: value_path_tokens(visual, some))  # (images, N, E)

# %% [markdown]
# ## Lens 1, *raw*: CLIP's own way out, taken early
#
# CLIP ends with a LayerNorm and a projection into the joint space. They were trained for the last block's class token,
# but nothing stops us from applying them to any patch token of any block. The maps show the similarity to one word.

# %%
with torch.inference_mode():
    raw = F.normalize(raw_lens(visual.cpu(), patches), dim=-1)  # (L, images, N, E)
visual.to(device)
shown = [200, 203, 206]
words = [scenes[i].things[0] for i in shown]


def word_maps(embedded):
    """Similarity maps of each shown picture to its word, for some blocks."""
    return {
        f"block {b}": [
            (embedded[b - 1, i] @ text[CLASSES.index(word)]).reshape(grid).numpy()
            for i, word in zip(shown, words, strict=True)
        ]
        for b in (2, 4, 6, 8, 10, 11, 12)
    }


print("words:", ", ".join(words))
plot_maps([scenes[i].image for i in shown], word_maps(raw), cmap="magma")

# %% [markdown]
# Each map has its own range of brightness. Look where they are dark: through the raw lens most words point *away* from
# their object, at the background. Real CLIPs are known for the same ("opposite" maps). The information is there, with
# the wrong sign and in the wrong direction.
#
# ## Lens 2, *learnt*: a linear map per block, fitted without labels
#
# The raw lens may be unfair: a block can hold the information in another *direction*. So we fit, per block, a ridge
# regression from its patch tokens to where CLIP itself ends up: the same patch's embedding through the value path of
# the last attention (MaskCLIP's reading, CLIP's best dense one). No label, no word is used. The held-out R² says how
# much of that final embedding the block already determines; where it is low, do not trust the lens.

# %%
learnt, r2 = [], []
for block in patches:
    model, _, held_out = fit_ridge(block[fitting].numpy(), final[fitting].numpy(), strengths=(10.0, 1000.0))
    predicted = model.predict(block.flatten(0, 1).numpy()).reshape(final.shape)
    learnt.append(F.normalize(torch.from_numpy(predicted).float(), dim=-1))
    r2.append(held_out)
learnt = torch.stack(learnt)
plot_over_blocks({"learnt lens": r2}, "R² on held-out pictures", baselines={"predicting the mean": 0.0})

# %%
plot_maps([scenes[i].image for i in shown], word_maps(learnt), cmap="magma")

# %% [markdown]
# The same pictures and words as above. Through a fitted lens the object stands out, and it does so early.
#
# ## The numbers
#
# For every picture and every class in it: **AUROC**, the chance that a patch of the class is nearer to its word than
# another patch (guessing: 0.5); **average precision** (guessing: the share of such patches, the prevalence); **hit**,
# whether the very nearest patch is right (guessing: the prevalence). And over all pictures, from one confusion matrix,
# the **mIoU** of giving each patch the nearest of all 72 words. Intervals are 95 %, by drawing *pictures* again and
# again. Everything is measured on patches of 80 pictures that no lens was fitted on.

# %%
found = {
    name: [localise(block[test] @ text.T, truth[test]) for block in lens]
    for name, lens in (("raw", raw), ("learnt", learnt))
}


def interval(result, measure):
    if measure == "mIoU":
        return bootstrap(lambda drawn: result.mean_iou(images=drawn), 80, draws=100)
    return bootstrap(lambda drawn: result.mean(measure, images=drawn), 80, draws=100)


plot_over_blocks(
    {name: [r.mean("auroc") for r in results] for name, results in found.items()},
    "AUROC, mean over classes",
    baselines={"guessing": 0.5},
    intervals={name: [interval(r, "auroc") for r in results] for name, results in found.items()},
    title="do words find their patches within a picture?",
)

# %%
last = found["raw"][-1]
lines = {
    f"{measure.replace('_', ' ')}, {name}": [r.mean(measure) for r in results]
    for name, results in found.items()
    for measure in ("average_precision", "hit")
}
plot_over_blocks(lines, "mean over classes", baselines={"prevalence (guessing)": last.mean("prevalence")})

# %%
# NBVAL_CHECK_OUTPUT
auroc = {name: np.array([r.mean("auroc") for r in results]) for name, results in found.items()}
print("learnt above raw at blocks 6 to 10:", bool((auroc["learnt"] > auroc["raw"])[5:10].all()))
print("raw below guessing from block 3 to 9:", bool((auroc["raw"][2:9] < 0.5).all()))

# %% [markdown]
# Worse than guessing is not nothing: it is information turned round. Through the learnt lens the same tokens find the
# words' patches from the first blocks on. The lens never saw a label; it only learnt where CLIP takes a patch at last.
#
# A mean over classes hides the classes. Here is each of them: every row is a class, every column a block.

# %%
by_class = {name: np.array([r.per_class("auroc") for r in results]).T for name, results in found.items()}
plot_classes_over_blocks(by_class, CLASSES, UNSEEN, "AUROC (0.5: guessing)")

# %% [markdown]
# Unseen classes (in red) are spread among the seen ones: Mini-CLIP met all of them in captions, and no mask has been
# used so far. Through the raw lens things are red and some stuff is green: words point at the background.
#
# ## Lens 3, *decoder*: after training on the masks of seen classes
#
# The third lens is what this package trains: a decoder per stage of blocks. The shipped cascade has three: blocks 6 to
# 8, 9 to 11, and 12. Its mask logits take the place of the similarity.

# %%
model = load("mini").model.to(device)
with torch.inference_mode():
    outputs = [model(normalise(some).to(device), text.to(device)) for some in images[test].split(20)]
stages = {
    f"stage {s + 1}": torch.cat([o.stage_logits[s].flatten(2).transpose(1, 2).float().cpu() for o in outputs])
    for s in range(3)
}
stages["sum"] = sum(stages.values())
decoded = {name: localise(scores, truth[test]) for name, scores in stages.items()}
columns = {"raw, block 12": found["raw"][-1], "learnt, block 12": found["learnt"][-1], **decoded}
unseen = [CLASSES.index(name) for name in UNSEEN]
seen = [CLASSES.index(name) for name in SEEN]
print(f"{'lens':18}{'AUROC':>8}{'mIoU, seen':>12}{'mIoU, unseen':>14}")
for name, result in columns.items():
    print(
        f"{name:18}{result.mean('auroc'):8.2f}{100 * result.mean_iou(seen):12.1f}{100 * result.mean_iou(unseen):14.1f}"
    )

# %% [markdown]
# Trained decoders lift the seen classes most, and the unseen ones with them. No stage does it alone: the sum is far
# better than any of the three. (mIoU here is per patch, on 80 pictures; notebook 04 scores pixels on the test set.)
#
# ## Decodable is not aligned
#
# Now the figure that motivates the paper. For every block: what a probe taught with masks can decode, and what the
# words find by themselves, scored alike.

# %%
one_hot = np.eye(len(CLASSES), dtype=np.float32)[truth[fitting].numpy()]
decodable = []
for block in patches:
    probe, *_ = fit_ridge(block[fitting].numpy(), one_hot)
    scores = torch.from_numpy(probe.predict(block[test].flatten(0, 1).numpy()).astype(np.float32))
    decodable.append(localise(scores.view(80, -1, len(CLASSES)), truth[test]))
lines = {"decodable: probe, taught with masks": decodable, **{f"aligned: {n} lens": r for n, r in found.items()}}
plot_over_blocks(
    {name: [100 * r.mean_iou() for r in results] for name, results in lines.items()},
    "mIoU over all 72 words, per cent of patches",
    intervals={n: [tuple(100 * np.array(interval(r, "mIoU"))) for r in rs] for n, rs in lines.items()},
    title="what can be decoded, and what the words find",
)

# %%
# NBVAL_CHECK_OUTPUT
gap = np.array([d.mean_iou() - r.mean_iou() for d, r in zip(decodable, found["raw"], strict=True)])
print("decodable above text-aligned (raw) at every block from 4 on:", bool((gap > 0)[3:].all()))

# %% [markdown]
# The distance between the upper curve and the raw one is information that is *there* but not where the words point. It
# is widest in the middle, at blocks that the last layer's decoder never sees. Cascade-CLIP's decoders are meant to
# close it there.
#
# ## The modality gap
#
# Even where pictures and words match, they live in different regions. The gap is the distance between the centroids of
# both, all embeddings of length 1. Here is its length for the class token read by the raw lens at each block.

# %%
captions = clip.tokenize([scene.caption for scene in scenes])
with torch.inference_mode():
    caption_embeddings = F.normalize(clip.model.to(device).encode_text(captions.to(device)).float().cpu(), dim=-1)
    class_tokens = raw_lens(visual.cpu(), tokens[:, :, 0])
visual.to(device)
lengths = [modality_gap(block, caption_embeddings).norm().item() for block in class_tokens]
plot_over_blocks(
    {"class token to captions": lengths},
    "distance between centroids",
    baselines={
        "captions, one half to the other": modality_gap(caption_embeddings[::2], caption_embeddings[1::2]).norm()
    },
)

# %%
shifts = np.linspace(-1, 2, 25)
curves = {
    f"temperature {t}": loss_along_gap(class_tokens[-1], caption_embeddings, shifts, t) for t in (0.01, 0.05, 0.2)
}
plot_lines(shifts, curves, "shift along the gap (0: as trained, 1: centroids meet)", "contrastive loss, nats")

# %% [markdown]
# The gap shrinks from block to block and is still there at the end. At a temperature of 0.01, near the one training
# ended with, the loss is lowest close to where training left the pictures; only at a softer temperature would it pay to
# close the gap. Closing it by force is not what is missing; a map of its own for each block is.
#
# ## Naive fusion: the paper's Table 1 in small
#
# If several blocks help, why not add them up and train one decoder? Four models with the same budget of 100 steps,
# from the same seed, on the seen classes: the last layer alone, blocks 6 to 12 summed, the same concatenated, and a
# cascade.

# %%
several = tuple(range(6, 13))
settings = {
    "last layer": last_layer_only(MINI.model),
    "sum of 6-12": replace(MINI.model, stages=(several,), aggregation="sum"),
    "concat of 6-12": replace(MINI.model, stages=(several,), aggregation="concat"),
    "cascade": MINI.model,
}
training = replace(MINI.training, steps=100)
table = {}
with tempfile.TemporaryDirectory() as folder:
    for name, model_settings in settings.items():
        trained, _ = fit(MINI, clip, model_settings, training, Path(folder) / name, progress=False)
        table[name] = summarise(MINI, score(MINI, clip, trained, "val", limit=100))
print(f"{'model':16}{'seen':>8}{'unseen':>8}{'hIoU':>8}   (mIoU per cent, 100 validation scenes)")
for name, row in table.items():
    print(f"{name:16}{100 * row['mIoU_seen']:8.1f}{100 * row['mIoU_unseen']:8.1f}{100 * row['hIoU']:8.1f}")

# %%
# NBVAL_CHECK_OUTPUT
alone = table["last layer"]["hIoU"]
print("every model of several blocks beats the last layer:", all(r["hIoU"] > alone for r in list(table.values())[1:]))

# %% [markdown]
# Read this with care. In 100 steps all four have learnt textures and hardly a thing; what differs is how fast, and the
# last layer alone is slowest. The paper (published, Table 1) reports that with full training on real CLIP adding blocks
# up naively *hurts* the unseen classes, and that the cascade does not. At this budget any use of earlier blocks helps:
# the harm, if there is any here, would come with longer training. With `steps=400` (minutes per model) the cascade
# breaks through to things, as `cascadeclip demo` shows beside the last layer alone.
#
# ### Exercise 1: which blocks would you join?
# Take the mean of the learnt-lens embeddings of blocks 9 to 12. Does it beat the best single block in mIoU?

# %%
# your code here

# %% jupyter={"source_hidden": true} tags=["solution"] cellView="form"
# @title Solution
joined = localise(F.normalize(learnt[8:].mean(0), dim=-1)[test] @ text.T, truth[test]).mean_iou()
single = max(result.mean_iou() for result in found["learnt"])
assert joined > found["raw"][-1].mean_iou(), "four learnt lenses should beat the raw one"
print(f"mean of four blocks: {100 * joined:.1f}; best single block: {100 * single:.1f}")

# %% [markdown]
# ### Exercise 2: the argmax among the words of the picture
# The mIoU above lets each patch choose among all 72 words. How much does it rise when only the classes present in the
# picture are offered? Use `present_only=True` on the raw lens of block 12.

# %%
# your code here

# %% jupyter={"source_hidden": true} tags=["solution"] cellView="form"
# @title Solution
offered = localise(raw[-1][test] @ text.T, truth[test], present_only=True)
assert offered.mean_iou() > found["raw"][-1].mean_iou(), "fewer wrong words to choose from must not make it worse"
print(f"all words {100 * found['raw'][-1].mean_iou():.1f}, words of the picture {100 * offered.mean_iou():.1f}")

# %% [markdown]
# ### Exercise 3: is the gap one direction?
# After the centroids are laid on each other, can a line still tell pictures from captions? Fit a logistic regression.

# %%
# your code here

# %% jupyter={"source_hidden": true} tags=["solution"] cellView="form"
# @title Solution
moved = class_tokens[-1] - modality_gap(class_tokens[-1], caption_embeddings)
both = torch.cat([moved, caption_embeddings]).numpy()
is_picture = np.repeat([1, 0], len(moved))
accuracy = cross_val_score(LogisticRegression(max_iter=1000), both, is_picture, cv=5).mean()
assert accuracy < 0.7, "with the centroids on each other a line should find little left"
print(f"pictures told from captions after the shift: {accuracy:.0%} (guessing: 50%)")

# %% [markdown]
# ## Recap
#
# 1. The raw lens takes CLIP's exit early, the learnt lens fits an exit per block without labels, the decoder lens is
#    trained on masks. They answer different questions; name the one you used.
# 2. Localisation needs chance levels (0.5, prevalence) and intervals over pictures; the modality gap is a distance of
#    centroids, and moving along it is no cure.
# 3. Blocks hold more than the words find there, most of all in the middle. Adding blocks up uses them without aligning
#    them; the paper's answer is a decoder of its own for each stage.
#
# Next: **03 · Cascade decoders**, where that is built.
