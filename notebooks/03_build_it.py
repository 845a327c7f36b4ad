# ---
# jupyter:
#   accelerator: GPU
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
# # 03 · Build it: from a frozen CLIP to a trained cascade
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cascadeclip/blob/main/notebooks/03_build_it.ipynb)
#
# Here is Cascade-CLIP in plain PyTorch, from CLIP's image tower to the training loop. Empty a class, write it from the
# formula above it, and the cell says whether it equals the package's. The package supplies what is not the point here:
# pictures, the tower, the embeddings of words, plots. Notebook 03b then takes a trained cascade apart.
#
# **What you will learn**
#
# 1. How patch tokens of several blocks of a frozen tower become masks of words: six modules and one sum.
# 2. How the model is trained: the loss with its two parts, and a loop of a dozen lines.
# 3. That masks of classes appear which *no mask label* was ever given for, and how to make sure that the words do it.
#
# **Time:** between two and three minutes on two laptop CPU cores. A GPU is used if there is one.
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
import copy
import math
from functools import partial
from time import perf_counter

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

import cascadeclip
from cascadeclip.clip import load_clip
from cascadeclip.data.transforms import normalise
from cascadeclip.evaluation import score, summarise, table
from cascadeclip.exercises import check
from cascadeclip.model import CascadeCLIP, PromptedEncoder, segmentation_loss
from cascadeclip.plots import plot_architecture, plot_predictions
from cascadeclip.presets import get_preset

preset = get_preset("mini-frozen")  # names of the classes, their split, the pictures
device = cascadeclip.device()
torch.backends.cudnn.allow_tf32 = False  # else a GPU rounds convolutions, and no piece is the same to five digits
print(f"device: {device}")

# %% [markdown]
# ## The plan
#
# Everything below builds this diagram. The tower runs down on the left, frozen. Each *stage* is a row: it reads a few
# neighbouring blocks and ends in mask logits. The last column is their sum.

# %%
plot_architecture(preset.model)

# %% [markdown]
# Letters: B pictures, C words, N = 144 patches, D = 192 the width of the tower's tokens, E = 128 the width of the joint
# image-text space. $T$ are the words' text embeddings (a word is put into caption templates, the embeddings are brought
# to length one, averaged, and brought to length one again), $g$ is the picture's image embedding (block 12's class
# token through CLIP's exit, of length one), $X_l$ are the tower's tokens after block $l$, $H_l$ the patch tokens read
# there, $Z_s$ those of stage $s$, $q$ the queries, $M_s$ the mask logits of a stage.
#
# ## The tower
#
# A ViT cuts the picture into patches of 8 × 8 pixels, makes a token of each, puts the *class token* in front, adds
# position embeddings, and sends all of them through 12 blocks. We run open_clip's own modules one by one, because we
# need the tokens after blocks 6 to 12, not only the last result.

# %%
# NBVAL_CHECK_OUTPUT
clip = load_clip(**preset.clip)  # Mini-CLIP, a small open_clip model
visual = copy.deepcopy(clip.visual).to(device).requires_grad_(False)
names, seen = preset.names, [preset.names.index(name) for name in preset.seen]
text = clip.class_embeddings(names, preset.templates).to(device)  # T: one row per word, of length one
few = preset.collate([preset.train_data(0)[number] for number in range(4)])[0]
few = normalise(few).to(device)  # four pictures to try things on


def embed(images):
    """Pictures (B, 3, 96, 96) -> tokens (B, 1 + 144, D) before the first block."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    return visual.ln_pre(torch.cat([class_token, patches], dim=1) + visual.positional_embedding)


def run_tower(images, prompts=None):
    """Tokens (B, 1 + 144, D) after blocks 6 to 12, by block number."""
    tokens, found = embed(images), {}
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        tokens = block(tokens) if prompts is None else prompts(block, number, tokens)
        if number >= 6:
            found[number] = tokens
    return found


def same(mine, theirs):
    """Whether two tensors agree to about five digits."""
    return torch.allclose(mine, theirs, rtol=1e-5, atol=1e-5)


with torch.no_grad():
    tokens = run_tower(few)
    mine = visual.ln_post(tokens[12][:, 0]) @ visual.proj
    print("tokens after block 12:", tuple(tokens[12].shape))
    print("class token through CLIP's exit = open_clip's image embedding:", same(mine, visual(few)))

# %% [markdown]
# ## Prompt tokens
#
# CLIP's weights stay as they are, but what the tower *does* can be adapted. A few learnable vectors, the *prompt
# tokens* $P_l$, are put in front of the tokens before block $l$. Patches attend to them, so they steer what a frozen
# block computes. Then they are thrown away, and the next block gets a set of its own. One linear layer, the same for
# all blocks, is applied to every set first. (They are no text prompts such as "a photo of a cat".)
#
# $$[\,\cdot\,, X_{l}] = \mathrm{Block}_l([W P_l + b,\; X_{l-1}])$$


# %%
# NBVAL_CHECK_OUTPUT
class Prompts(nn.Module):
    """Sets of P prompt tokens, one for every block."""

    def __init__(self, blocks, count, width):
        super().__init__()
        self.prompts = nn.Parameter(0.1 * torch.randn(blocks, count, width))
        self.prompt_proj = nn.Linear(width, width)

    def forward(self, block, number, tokens):
        own = self.prompt_proj(self.prompts[number - 1]).expand(len(tokens), -1, -1)
        return block(torch.cat([own, tokens], dim=1))[:, own.shape[1] :]


torch.manual_seed(0)
prompts = Prompts(blocks=12, count=10, width=192).to(device)
theirs = PromptedEncoder(visual, taps=(), prompt_tokens=10, dropout=0.0, class_embedding_twice=False).to(device)
theirs.load_state_dict(prompts.state_dict(), strict=False)
with torch.no_grad():
    steered, reference = run_tower(few, prompts)[12], theirs.run_tower(few, (12,))[0][12]
    # brought to length one, as they are read later: a token of length 100 has five digits, too, but fewer decimals
    steered, reference, plain = (F.normalize(one, dim=-1) for one in (steered, reference, tokens[12]))
print("same as the package:", same(steered, reference))
print("same as without prompts:", same(steered, plain))

# %% [markdown]
# Random prompts change the tokens; trained ones would do so usefully. For the rest of this notebook we leave them out,
# as the package's preset `mini-frozen` does: a picture's tokens then never change and need to be computed only once,
# which makes training within minutes possible.
#
# ## Taps
#
# Block 12 has a way into the joint space: CLIP's last LayerNorm and its projection. Earlier blocks have none, so each
# gets a LayerNorm (with gain and shift) and a random matrix $W_l$ (deviation $1/\sqrt D$): the *tap*. The class token
# is dropped, patch tokens are brought to length one. (In the authors' code the projections keep their random values.
# Here they are trained.)
#
# $$H_l = \mathrm{norm}\big(\mathrm{LN}_l(X_l)\,W_l\big) \quad (l = 6 \dots 11), \qquad
# H_{12} = \mathrm{norm}\big(\mathrm{LN}_{\mathrm{CLIP}}(X_{12})\,W_{\mathrm{CLIP}}\big)$$


# %%
# NBVAL_CHECK_OUTPUT
class Taps(nn.Module):
    """Tokens of the tower -> patch tokens H_l (B, 144, E) by block number, and the image embedding g (B, E)."""

    def __init__(self, blocks=(6, 7, 8, 9, 10, 11), width=192, joint=128):
        super().__init__()
        self.blocks = blocks
        self.tap_norms = nn.ModuleList(nn.LayerNorm(width) for _ in blocks)
        self.tap_projections = nn.Parameter(torch.randn(len(blocks), width, joint) / math.sqrt(width))

    def forward(self, tokens):
        features = {}
        for block, norm, projection in zip(self.blocks, self.tap_norms, self.tap_projections, strict=True):
            features[block] = norm(tokens[block][:, 1:]) @ projection  # without the class token
        exit_ = visual.ln_post(tokens[12]) @ visual.proj
        features[12] = exit_[:, 1:]
        return {block: F.normalize(h, dim=-1) for block, h in features.items()}, F.normalize(exit_[:, 0], dim=-1)


taps = Taps().to(device)
theirs = PromptedEncoder(visual, taps=taps.blocks, prompt_tokens=0, class_embedding_twice=False).to(device)
theirs.load_state_dict(taps.state_dict(), strict=False)
with torch.no_grad():
    (features, g), reference = taps(tokens), theirs(few)
print("H_6:", tuple(features[6].shape), " g:", tuple(g.shape))
print("same as the package:", all(same(features[b], reference.features[b]) for b in features))

# %% [markdown]
# ## Neighborhood Gaussian Aggregation
#
# Neighbouring blocks are alike, but each has something that the others lack. NGA makes one set of patch tokens of the
# $d$ blocks $l_1 < \dots < l_d$ of a stage. The deepest starts with weight 1, shallower ones with less, along a
# Gaussian. The weights are not normalised, and they are trained. (In these letters the paper prints $(d-i+1)^2$; its
# code has $(d-i)^2$, and so have we.)
#
# $$Z_s = \sum_{i=1}^{d} w_i H_{l_i}, \qquad w_i = \exp\!\Big(\!-\frac{(d-i)^2}{2\sigma^2}\Big)\ \text{at first},\quad
# \sigma = 1$$


# %%
# NBVAL_CHECK_OUTPUT
class NGA(nn.Module):
    """d tensors (B, N, E) -> (B, N, E); a stage of one block is that block."""

    def __init__(self, blocks, sigma=1.0):
        super().__init__()
        away = torch.arange(blocks).flip(0).float()  # d - i
        self.weights = nn.Parameter(torch.exp(-(away**2) / (2 * sigma**2))) if blocks > 1 else None

    def forward(self, features):
        if self.weights is None:
            return features[0]
        return sum(w * h for w, h in zip(self.weights, features, strict=True))


# One package model, with random weights, is what the next pieces are compared with.
package = CascadeCLIP(preset.model, visual).to(device)
nga = NGA(3).to(device)
first_stage = [features[block] for block in (6, 7, 8)]
with torch.no_grad():
    z = nga(first_stage)
    print("weights at first:", [round(w, 3) for w in nga.weights.tolist()])
    print("same as the package:", same(z, package.aggregations[0](first_stage)))

# %% [markdown]
# ## The relationship descriptor
#
# A decoder needs a *query* for every word, a vector that asks each patch "is it you?". The text embedding $t_c$ alone
# is the same for all pictures. The descriptor conditions it on the picture: it multiplies it with $g$, element by
# element, and one linear layer mixes both. (For words as CLIP gives them, which ours will not be, the elements of $t_c
# \odot g$ add up to the cosine of word and picture, the number that CLIP itself decides with.)
#
# $$q_c = W\,[\,t_c \odot g,\; t_c\,] + b$$


# %%
# NBVAL_CHECK_OUTPUT
class Descriptor(nn.Module):
    """Words T (C, E) and pictures g (B, E) -> queries (B, C, E)."""

    def __init__(self, width=128):
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, text, g):
        text = text.expand(len(g), -1, -1)
        return self.linear(torch.cat([text * g[:, None], text], dim=-1))


descriptor = Descriptor().to(device)
descriptor.load_state_dict(package.descriptors[0].state_dict())
with torch.no_grad():
    queries = descriptor(text, g)
    print("queries:", tuple(queries.shape))
    print("same as the package:", same(queries, package.descriptors[0](text, g)))

# %% [markdown]
# ## A decoder layer
#
# Queries look at the patch tokens (cross-attention), add what they found, and pass a small feed-forward network. They
# do not look at each other, so a word's mask does not depend on which other words are asked for: words can be added
# after training. With $Q = W_Q\,q + b_Q$, $K = W_K Z_s + b_K$, $V = W_V Z_s + b_V$, cut into 8 heads of width E / 8;
# FFN widens E to 4 E, takes the ReLU, and comes back:
#
# $$A = \mathrm{softmax}\!\Big(\frac{Q K^\top}{\sqrt{E/\text{heads}}}\Big)V, \qquad
# q' = \mathrm{LN}(q + W_o A + b_o), \qquad q'' = \mathrm{LN}(q' + \mathrm{FFN}(q'))$$


# %%
# NBVAL_CHECK_OUTPUT
class DecoderLayer(nn.Module):
    """Queries (B, C, E) look at patch tokens (B, N, E) -> queries (B, C, E)."""

    def __init__(self, width=128, heads=8):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, queries, tokens):
        parts = (x.chunk(self.heads, dim=-1) for x in (self.query(queries), self.key(tokens), self.value(tokens)))
        found = []
        for q, k, v in zip(*parts, strict=True):  # head by head
            attention = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(dim=-1)  # (B, C, N)
            found.append(attention @ v)
        queries = self.norm_attention(queries + self.out(torch.cat(found, dim=-1)))
        return self.norm_feed_forward(queries + self.contract(self.expand(queries).relu()))


layer = DecoderLayer().to(device)
layer.load_state_dict(package.decoders[0].layers[0].state_dict())
with torch.no_grad():
    looked = layer(queries, z)
    print("same as the package:", same(looked, package.decoders[0].layers[0](queries, z)))
    print("the first word by itself:", same(layer(queries[:, :1], z), looked[:, :1]))

# %% [markdown]
# ## The mask layer
#
# The last layer only computes attention scores. Before the softmax, averaged over the heads, they *are* the mask
# logits: one number per word and patch.
#
# $$M = \frac{1}{\text{heads}} \sum_h \frac{q_h^\top k_h}{\sqrt{E/\text{heads}}}$$
#
# With random $W_Q$ and $W_K$ (its own, with biases) a mask says nothing at first about how similar query and patch
# token are; training has to find that. The formula is $q^\top k / \sqrt{E \cdot \text{heads}}$, so we add the identity
# to $W_Q$, and $\sqrt{\text{heads}}$ times it to $W_K$: masks *start* near $q^\top z / \sqrt{E}$, q being what the
# second layer gave. (This *aligned start* is ours, not the paper's, and so are the *centred words* of the next piece.)


# %%
# NBVAL_CHECK_OUTPUT
class MaskLayer(nn.Module):
    """Queries (B, C, E), patch tokens (B, N, E) -> mask logits (B, C, N)."""

    def __init__(self, width=128, heads=8):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        with torch.no_grad():
            self.query.weight += torch.eye(width)
            self.key.weight += math.sqrt(heads) * torch.eye(width)

    def forward(self, queries, tokens):
        parts = (x.chunk(self.heads, dim=-1) for x in (self.query(queries), self.key(tokens)))
        scores = [q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) for q, k in zip(*parts, strict=True)]
        return torch.stack(scores).mean(0)


class Decoder(nn.Module):
    """Two decoder layers and the mask layer."""

    def __init__(self, layers=3):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(layers - 1))
        self.mask = MaskLayer()

    def forward(self, queries, tokens):
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.mask(queries, tokens)


decoder = Decoder().to(device)
decoder.load_state_dict(package.decoders[0].state_dict())
with torch.no_grad():
    logits = decoder(queries, z)
    print("mask logits of one stage:", tuple(logits.shape))
    print("same as the package:", same(logits, package.decoders[0](queries, z)))

# %% [markdown]
# ## The cascade
#
# Three stages, blocks 6-8, 9-11 and 12, each with its own descriptor and decoder, and NGA where there are three blocks;
# their mask logits are added: $M = \sum_s M_s$. Before that, the words are *centred*: CLIP's text embeddings share a
# large common part, and a mask needs what they differ in. So the mean of the seen words is taken off every word: $t_c
# \leftarrow \mathrm{norm}(t_c - \bar t_{\text{seen}})$.
#
# All attributes above are named as in the package, so that the whole model can be compared: it gets our weights.


# %%
# NBVAL_CHECK_OUTPUT
class Cascade(nn.Module):
    """Tokens of the tower and words (C, E) -> mask logits (B, C, 12, 12)."""

    def __init__(self, seen_text, stages=((6, 7, 8), (9, 10, 11), (12,))):
        super().__init__()
        self.stages = stages
        self.register_buffer("text_mean", seen_text.mean(0))
        self.encoder = Taps()
        self.aggregations = nn.ModuleList(NGA(len(stage)) for stage in stages)
        self.descriptors = nn.ModuleList(Descriptor() for _ in stages)
        self.decoders = nn.ModuleList(Decoder() for _ in stages)

    def forward(self, tokens, text):
        text = F.normalize(text - self.text_mean, dim=-1)
        features, g = self.encoder(tokens)
        parts = zip(self.stages, self.aggregations, self.descriptors, self.decoders, strict=True)
        total = 0
        for stage, aggregate, describe, decode in parts:
            total = total + decode(describe(text, g), aggregate([features[block] for block in stage]))
        return total.unflatten(-1, (12, 12))


torch.manual_seed(0)
cascade = Cascade(text[seen]).to(device)
missing, unknown = package.load_state_dict(cascade.state_dict(), strict=False)
with torch.no_grad():
    print("same as the package:", same(cascade(tokens, text), package(few, text).mask_logits))
print("weights the package has and we do not, besides its own copy of the frozen tower:",
      [name for name in missing if not name.startswith("encoder.visual.")], unknown)  # fmt: skip
for part, module in cascade.named_children():
    print(f"  {part:13} {sum(p.numel() for p in module.parameters()):9,} parameters")

# %% [markdown]
# That is the whole model. NGA is six numbers; most of what learns sits in the decoders.
#
# ### Exercise 03.1 · How much the deepest block says (easy, 10 minutes)
#
# Write `half_sigma(blocks)`: the σ for which the deepest of so many blocks starts with exactly half of all the weight.
# Bisection will do. (Three blocks or more: of two, the deepest always has more than half.)
# ([Solutions](solutions/03_build_it.py), if you get stuck.)


# %%
def half_sigma(blocks):
    return ...  # your code here


# %%
check("03.1", half_sigma)

# %% [markdown]
# ## The loss
#
# $M$ is enlarged bilinearly to the labels' size. Every word has a mask: target $y = 1$ where the label is that word,
# else 0. With $p = \mathrm{sigmoid}(M)$, two parts:
#
# - **focal**: a pixel inside the mask costs $-\tfrac14 (1-p)^2 \ln p$, one outside $-\tfrac34\, p^2 \ln(1-p)$. Pixels
#   that are confidently right cost next to nothing, so the many easy ones do not drown the few hard ones.
# - **dice**: $1 - \frac{2\sum p y + 1}{\sum p + \sum y + 1}$ for the words in the picture. It looks at the overlap of
#   the mask as a whole, however small the mask is.
#
# Focal is a mean over pixels, summed over pictures and *all* words, and weighs 50; dice is summed over the words that
# are present. Both are divided by the number n of (picture, word) pairs present: the loss is $(50\,\text{focal} +
# \text{dice}) / n$.
#
# What about pixels of *unseen* classes? Their label is 255. As in the authors' code, they are **negatives of every
# word**: nobody says what is there, but the model learns what is not.


# %%
# NBVAL_CHECK_OUTPUT
def loss_of(logits, labels, focal_weight=50.0):
    """Mask logits (B, C, h, w) and labels (B, H, W) among 0..C-1, or 255 -> focal and dice, weighted and added."""
    x = F.interpolate(logits, labels.shape[1:], mode="bilinear")
    target = labels[:, None] == torch.arange(x.shape[1], device=x.device)[:, None, None]  # (B, C, H, W)
    present = target.flatten(2).any(-1)  # (B, C)
    signed = torch.where(target, x, -x)  # -log(sigmoid(signed)) is -log p inside, -log(1 - p) outside
    focal = -torch.where(target, 0.25, 0.75) * (-signed).sigmoid() ** 2 * F.logsigmoid(signed)
    p = x.sigmoid()
    overlap, areas = (p * target).sum((2, 3)), (p + target.float()).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (areas + 1)
    return (focal_weight * focal.mean((2, 3)).sum() + dice[present].sum()) / present.sum()


torch.manual_seed(0)
guess, truth = torch.randn(2, 58, 12, 12, device=device), torch.randint(0, 58, (2, 96, 96), device=device)
truth[:, :20] = 255
package_loss = partial(segmentation_loss, focal_weight=50.0)  # gives both parts and their `total`
found = {}
for name, loss in {"naive": loss_of, "package": lambda *given: package_loss(*given)["total"]}.items():
    loss(guess, truth)  # once unmeasured
    x, start = guess.clone().requires_grad_(), perf_counter()
    value = loss(x, truth)
    value.backward()
    found[name] = value.detach(), x.grad, perf_counter() - start
print("same as the package:", same(found["naive"][0], found["package"][0]))
print("same gradient:", same(found["naive"][1], found["package"][1]))

# %% [markdown]
# ### Exercise 03.2 · Really ignored pixels (medium, 15 minutes)
#
# Write `focal_of_labelled(logits, labels)`: focal loss (without the weight of 50) of logits that have the labels' size
# already, with pixels of label 255 *left out*. Divide each mask's sum by the number of *its picture's* labelled pixels,
# sum over all words and pictures, divide by n. Would you expect unseen classes to gain from it or to lose?
# ([Solutions](solutions/03_build_it.py).)


# %%
def focal_of_labelled(logits, labels):
    return ...  # your code here


# %%
check("03.2", focal_of_labelled)

# %% [markdown]
# ## Train it
#
# First the data. The tower is frozen, so every picture goes through it once, and its tokens are kept. The labels of
# the unseen classes become 255: 14 of the 72 classes have no mask in training. Labels are read at every fourth pixel.


# %%
def prepare(data, count):
    """The first pictures of a data set: tokens by block, and labels (count, 96, 96)."""
    images, labels = preset.collate([data[number] for number in range(count)])
    with torch.no_grad():
        parts = [run_tower(normalise(part).to(device)) for part in images.split(50)]
        return {block: torch.cat([part[block].half() for part in parts]) for block in range(6, 13)}, labels.long()


def batch_of(tokens, rows):
    return {block: kept[rows].float() for block, kept in tokens.items()}


SCENES, HELD_OUT = 400, 200
train_tokens, labels = prepare(preset.train_data(0), SCENES)
as_seen = torch.full((256,), 255)
as_seen[seen] = torch.arange(len(seen))  # seen classes are numbered anew, all else is 255
train_labels = as_seen[labels[:, 2::4, 2::4]].to(device)
held_out = preset.eval_data(preset.final_split)
test_tokens, test_labels = prepare(held_out, HELD_OUT)
print(f"{SCENES} scenes to train on: {(train_labels == 255).float().mean():.0%} of their pixels are of unseen classes")

# %% [markdown]
# Now the loop: draw eight scenes, compute the loss of the seen words' masks, backpropagate, clip the gradient to length
# 1, take a step of AdamW (weight decay 0.01), 200 times. The learning rate rises from a 25th of it to 0.003 over the
# first tenth of the steps, then falls linearly to zero.


# %%
def train(model, steps, batch=8, peak=3e-3):
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak, steps, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    losses = []
    for step in range(steps):
        rows = torch.randint(SCENES, (batch,))
        loss = loss_of(model(batch_of(train_tokens, rows), text[seen]), train_labels[rows])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"step {step + 1:4}: loss {sum(losses[-50:]) / 50:.2f}")
    return losses


untrained = copy.deepcopy(cascade)
losses = train(cascade, steps=200)

figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
axis.plot(range(1, len(losses) + 1), losses, color="#4878a8", linewidth=0.8)
axis.set(xlabel="step", ylabel="loss of one step's eight scenes", yscale="log")
axis.set_title(
    f"The loss falls from {losses[0]:.0f} to {sum(losses[-50:]) / 50:.2f}, the mean of the last 50 steps", fontsize=10
)
plt.show()

# %% [markdown]
# Is it more than a falling loss? We score it on scenes that it never saw, with *all* 72 words. Every pixel takes the
# word of the highest probability, after 0.1 is taken off the seen words, which alone were ever taught to say yes. The
# score is *intersection over union* (IoU), counted over all scenes together and averaged over the classes of a group.
# (Unseen stuff is two classes, sand and snow: a mean to be read with care.)
#
# Two controls: the cascade before training, and the trained one with **swapped words**, where every unseen thing gets
# the text embedding of another unseen thing. A mask depends on the picture and its own word alone, so the swap only
# gives masks other names: scores of seen classes and stuff cannot change, and those of things would not if the mask of
# any thing served for any other.


# %%
def mean_iou(model, words):
    """Mean IoU in per cent of groups of classes on the held-out scenes."""
    counts = torch.zeros(len(names) ** 2, dtype=torch.long)
    offset = torch.zeros(len(names), 1, 1, device=device)
    offset[seen] = preset.seen_offset
    for rows in torch.arange(HELD_OUT).split(25):
        with torch.no_grad():
            logits = model(batch_of(test_tokens, rows), words)
        scores = F.interpolate(logits, (96, 96), mode="bilinear").sigmoid() - offset
        pairs = test_labels[rows] * len(names) + scores.argmax(1).cpu()  # (true class, class given)
        counts += torch.bincount(pairs.flatten(), minlength=len(counts))
    counts = counts.view(len(names), -1).double()
    right, true, given = counts.diag(), counts.sum(1), counts.sum(0)
    iou = torch.where(true > 0, 100 * right / (true + given - right), torch.nan)
    return [iou[group].nanmean().item() for group in (seen, things, stuff)]


things, stuff = ([names.index(name) for name in preset.unseen_groups[kind]] for kind in ("things", "stuff"))
swapped = text.clone()
swapped[things] = text[things].roll(1, dims=0)
runs = {"before training": (untrained, text), "trained": (cascade, text), "trained, words swapped": (cascade, swapped)}
results = {name: mean_iou(*run) for name, run in runs.items()}
print(f"{'mean IoU, per cent':24}{'seen':>8}{'unseen things':>16}{'unseen stuff':>16}")
for name, values in results.items():
    print(f"{name:24}" + "".join(f"{value:{width}.1f}" for value, width in zip(values, (8, 16, 16), strict=True)))
control = max(results["before training"][1], results["trained, words swapped"][1])
verdict = "well above" if results["trained"][1] > 3 * control + 5 else "NOT well above"
print(f"unseen things are {verdict} both controls")

# %% [markdown]
# No mask of these things was ever shown, and no query of theirs entered the loss. What they share with the seen ones is
# the space in which CLIP put words and pictures. That *unseen things* fall with the swap shows that a mask belongs to
# its own word, and is not just "some object".
#
# Look at it. Our weights go into the package's model, which has the figures; black lines surround what was called an
# unseen class.

# %%
package.load_state_dict(cascade.state_dict(), strict=False)
package.eval()
shown = [scene for scene in (held_out[number] for number in range(HELD_OUT)) if set(scene.things) & set(preset.unseen)]
two = [(scene.image, scene.labels) for scene in shown if len(scene.things) > 1][:2]
plot_predictions(package, two, text, names, preset.unseen, preset.seen_offset)

# %% [markdown]
# ### Exercise 03.3 · An aggregation of your own (medium, 15 minutes)
#
# Instead of NGA's fixed sum, let every patch choose its block. Write `attentive(features, query)`: `features` are d
# tensors (B, N, E), `query` is a vector (E,). At each patch, a block's score is the dot product of its token with the
# query; a softmax over the *blocks* makes weights of the d scores; the weighted tokens are added up, (B, N, E).
# ([Solutions](solutions/03_build_it.py).)


# %%
def attentive(features, query):
    return ...  # your code here


# %%
check("03.3", attentive)

# %% [markdown]
# ## The package's version of the same
#
# What you wrote is the package's model. The package adds prompts, dropout, the other variants of its comparisons, and
# speed: its loss, for one, never builds masks at the labels' size. And it ships a cascade that was trained longer, on
# many more scenes. Both on the same held-out scenes:

# %%
for name, (_, _, seconds) in found.items():
    print(f"loss and gradient, {name:8} {1000 * seconds:7.1f} ms")
shipped = cascadeclip.load("mini/cascade", device=device)
models = {"yours": package, "shipped": shipped.model}
print(table({name: summarise(preset, score(preset, clip, model, limit=HELD_OUT)) for name, model in models.items()}))

# %% [markdown]
# (S: seen, U: unseen; `hIoU` is the harmonic mean of both. Notebook 04 takes it apart.) Compare seen with unseen: the
# loss knows seen words only; longer training that helps them need not help unseen ones. One training of each cannot
# tell whether the order of the two models would repeat.
#
# ## Recap
#
# 1. **The model.** Taps bring tokens of several blocks into the space of words, NGA merges neighbouring blocks, a
#    descriptor makes queries of words and picture, decoder layers let queries look at patches, and the last attention
#    scores are mask logits. The cascade adds those of its stages.
# 2. **The training.** Focal and dice loss on the seen words' masks; pixels of unseen classes say *no* to all of them.
# 3. **Unseen classes.** Their masks came although nothing showed them, and went when the words were swapped: it is the
#    words that carry them.
#
# **What to try next:** train without clipping, without the aligned start (two lines of `MaskLayer`) or without centred
# words; read only block 12 (`stages=((12,),)`).
#
# Next: [03b · Take it apart](03b_take_it_apart.ipynb): what each stage does, where queries look, and which pieces are
# missed when they are taken out.
