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
# # Assignment 2 · The pieces of the cascade
#
# You write Cascade-CLIP's decoder side yourself: Neighborhood Gaussian Aggregation, the relationship descriptor, the
# text-image decoder and the cascade. At the end your pieces run with the weights of the shipped model, and segment a
# picture.
#
# **What you will learn**
#
# 1. how blocks become one set of patch tokens, and words become queries;
# 2. what a decoder layer without self-attention computes, and where mask logits come from;
# 3. how stages are added and read, and why the seen classes lose a little before the argmax.
#
# **Time:** two to three hours of your work; all cells together take under a minute on a laptop CPU, nothing is
# downloaded. **Background:** notebook 03. **Points:** 20, in eight exercises.
#
# **How it is graded.** Write your answer where it says `YOUR CODE HERE` and remove the line below it. The cell after
# each answer runs your function on random inputs, new ones every time, says what is wrong, and ends with your points.
# Grading runs the same tests on other inputs. Tests print nothing of what your function prints. Keep the functions'
# names, and do not write into what you are given. The package has all of these pieces: do not call those.
#
# Symbols: B pictures, C classes, N = h · w patches, E joint width, d blocks in a stage.

# %%
# On Colab, install the package first: see the README.
import math

import torch
from torch.nn import functional as F

import cascadeclip
from cascadeclip.data.emojiscenes import CLASSES, UNSEEN, EmojiScenes
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.plots.evaluation import plot_maps

print("device: cpu")
segmenter = cascadeclip.load("mini")
model = segmenter.model
text = segmenter.clip.class_embeddings(CLASSES)
words = model.centred(text)  # as the decoders read them
print("stages:", [list(stage) for stage in model.config.stages], "| text embeddings:", tuple(text.shape))

# %% [markdown]
# ### Exercise 1 · `nga_weights` · 2 points · easy
#
# A stage has d blocks, numbered l = 1 (shallowest) to d (deepest). Return their d initial weights
#
# $$w_l = \exp\!\Big(-\frac{(d-l)^2}{2\sigma^2}\Big)$$
#
# in the order of l. They are **not** normalised. (The paper prints $(d-l+1)^2$; take $(d-l)^2$, as its code does.)
#
# <details><summary>Hint</summary>
# d - l runs from d - 1 down to 0: <code>torch.arange(blocks - 1, -1, -1)</code>.
# </details>


# %% answer="nga_weights"
def nga_weights(blocks, sigma):
    """d and sigma -> d weights."""
    ### BEGIN SOLUTION
    distance = torch.arange(blocks - 1, -1, -1)
    return torch.exp(-(distance**2) / (2 * sigma**2))
    ### END SOLUTION


# %% test="nga_weights" seed=60407
# build.py writes the test

# %% [markdown]
# ### Exercise 2 · `aggregate` · 2 points · easy
#
# `features` is a list of d tensors (B, N, E), `weights` (d,) holds one weight per block. Return the weighted sum $Z =
# \sum_l w_l H_l$, (B, N, E). The weights need not add up to one, and you do not make them.
#
# <details><summary>Hint</summary>
# A loop is enough. Beware of <code>+=</code> on a tensor that you were given: it changes the original.
# </details>


# %% answer="aggregate"
def aggregate(features, weights):
    """d tensors (B, N, E), weights (d,) -> (B, N, E)."""
    ### BEGIN SOLUTION
    return sum(weight * tokens for weight, tokens in zip(weights, features, strict=True))
    ### END SOLUTION


# %% test="aggregate" seed=31864
# build.py writes the test

# %% [markdown]
# ### Exercise 3 · `describe` · 3 points · medium
#
# The relationship descriptor shows each word in the light of each picture. For the words' embeddings `text` (C, E) and
# the pictures' embeddings `image_embedding` (B, E), return queries (B, C, E):
#
# $$q_{b,c} = W\,[\,t_c \odot g_b,\; t_c\,] + \text{bias}$$
#
# with `weight` W (E, 2E), `bias` (E,), and ⊙ the product element by element.
#
# <details><summary>Hint</summary>
# <code>text * image_embedding[:, None]</code> has shape (B, C, E). <code>text.expand(B, -1, -1)</code> gives every
# picture the words; <code>torch.cat(..., dim=-1)</code> puts the two side by side.
# </details>


# %% answer="describe"
def describe(text, image_embedding, weight, bias):
    """T (C, E), g (B, E), W (E, 2E), bias (E,) -> queries (B, C, E)."""
    ### BEGIN SOLUTION
    words = text.expand(len(image_embedding), -1, -1)
    return torch.cat([words * image_embedding[:, None], words], dim=-1) @ weight.T + bias
    ### END SOLUTION


# %% test="describe" seed=90210
# build.py writes the test

# %% [markdown]
# ### Exercise 4 · `attend` · 3 points · hard
#
# Multi-head cross-attention, without its linear layers. `queries` (B, C, E), `keys` and `values` (B, N, E) are cut
# along E into `heads` equal, contiguous pieces. In each head, every query scores every patch, $\text{score} = q \cdot k
# / \sqrt{E/\text{heads}}$; a softmax over the **patches** makes weights of the scores, and the values are averaged with
# these. The heads' results stand side by side: (B, C, E). (`F.scaled_dot_product_attention` would do it for you: write
# it out.)
#
# <details><summary>Hint</summary>
# <code>x.unflatten(-1, (heads, -1)).transpose(1, 2)</code> is (B, heads, ..., E / heads). At the end, transpose back
# <i>before</i> you flatten the last two axes.
# </details>


# %% answer="attend"
def attend(queries, keys, values, heads):
    """(B, C, E), (B, N, E), (B, N, E) -> (B, C, E)."""
    ### BEGIN SOLUTION
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    ### END SOLUTION


# %% test="attend" seed=77345
# build.py writes the test

# %% [markdown]
# ### Exercise 5 · `decoder_layer` · 3 points · medium
#
# One layer of the text-image decoder, on `queries` (B, C, E) and patch `tokens` (B, N, E). `layer` brings the weights:
# the linear layers `layer.query`, `layer.key`, `layer.value`, `layer.out`, `layer.expand`, `layer.contract`, the norms
# `layer.norm_attention` and `layer.norm_feed_forward`, and the number `layer.heads`.
#
# 1. attention: queries pass `query`, tokens pass `key` and `value`; what `attend` finds passes `out`;
# 2. add it to the queries, then `norm_attention`;
# 3. feed-forward: `expand`, ReLU, `contract`; add it to its input, then `norm_feed_forward`.
#
# The queries do not look at each other. There is no dropout here.
#
# <details><summary>Hint</summary>
# "Add, then norm" twice: that is post-norm. <code>layer.query(queries)</code> calls a linear layer.
# </details>


# %% answer="decoder_layer"
def decoder_layer(layer, queries, tokens):
    """queries (B, C, E), tokens (B, N, E) -> queries (B, C, E)."""
    ### BEGIN SOLUTION
    found = attend(layer.query(queries), layer.key(tokens), layer.value(tokens), layer.heads)
    queries = layer.norm_attention(queries + layer.out(found))
    return layer.norm_feed_forward(queries + layer.contract(F.relu(layer.expand(queries))))
    ### END SOLUTION


# %% test="decoder_layer" seed=15926
# build.py writes the test

# %% [markdown]
# ### Exercise 6 · `mask_logits` · 3 points · medium
#
# The decoder's last layer only computes attention scores, and these are the mask logits: scores **before** the softmax,
# $q \cdot k / \sqrt{E/\text{heads}}$ in each head, and their **mean** over the heads. `mask.query` and `mask.key` are
# linear layers. Return (B, C, N).
#
# <details><summary>Hint</summary>
# As in exercise 4 up to the scores, then <code>.mean(1)</code>. Or without any split: which factor must one product
# over the whole width have?
# </details>


# %% answer="mask_logits"
def mask_logits(mask, queries, tokens, heads):
    """queries (B, C, E), tokens (B, N, E) -> (B, C, N)."""
    ### BEGIN SOLUTION
    q, k = mask.query(queries), mask.key(tokens)
    return q @ k.transpose(1, 2) / (heads * math.sqrt(q.shape[-1] / heads))
    ### END SOLUTION


# %% test="mask_logits" seed=53589
# build.py writes the test

# %% [markdown]
# ### Exercise 7 · `cascade` · 2 points · easy
#
# `stage_logits` is a list of mask logits (B, C, h, w), one per stage. **Add** them, enlarge the sum bilinearly to
# `size` (H, W), and take the sigmoid: probabilities (B, C, H, W).
#
# <details><summary>Hint</summary>
# <code>F.interpolate(x, size, mode="bilinear", align_corners=False)</code>. The order matters: sum, enlarge, sigmoid.
# </details>


# %% answer="cascade"
def cascade(stage_logits, size):
    """A list of (B, C, h, w), and (H, W) -> probabilities (B, C, H, W)."""
    ### BEGIN SOLUTION
    return F.interpolate(sum(stage_logits), size, mode="bilinear", align_corners=False).sigmoid()
    ### END SOLUTION


# %% test="cascade" seed=79323
# build.py writes the test

# %% [markdown]
# ### Exercise 8 · `segment` · 2 points · easy
#
# Training showed the decoders masks of the seen classes only, which gives these an advantage. Take `offset` off the
# probabilities of the classes `seen` (a list of class numbers), then give every pixel the class with the highest value:
# (B, C, H, W) → (B, H, W). Leave `probabilities` as they are.
#
# <details><summary>Hint</summary>
# <code>probabilities.clone()</code> first; a list works as an index: <code>x[:, seen]</code>.
# </details>


# %% answer="segment"
def segment(probabilities, seen, offset):
    """(B, C, H, W), class numbers, a number -> class numbers (B, H, W)."""
    ### BEGIN SOLUTION
    lowered = probabilities.clone()
    lowered[:, seen] -= offset
    return lowered.argmax(1)
    ### END SOLUTION


# %% test="segment" seed=84626
# build.py writes the test

# %% [markdown]
# ## Your pieces at work
#
# The shipped weights in your functions: the encoder gives patch tokens of blocks 6 to 12 and the image embedding; the
# rest is yours.

# %%
scenes = [EmojiScenes.split("val")[i] for i in (1, 4, 6)]
images = normalise(torch.stack([to_tensor(scene.image) for scene in scenes]))
seen = [c for c, name in enumerate(CLASSES) if name not in UNSEEN]
with torch.inference_mode():
    encoded, stage_logits = model.encoder(images), []
    for s, blocks in enumerate(model.config.stages):
        features, linear, decoder = (
            [encoded.features[b] for b in blocks],
            model.descriptors[s].linear,
            model.decoders[s],
        )
        weights = model.aggregations[s].weights if len(blocks) > 1 else torch.ones(1)
        patches = aggregate(features, weights)
        queries = describe(words, encoded.image_embedding, linear.weight, linear.bias)
        for layer in decoder.layers:
            queries = decoder_layer(layer, queries, patches)
        found = mask_logits(decoder.mask, queries, patches, model.config.decoder_heads)
        stage_logits.append(found.unflatten(-1, encoded.grid))
    mine = segment(cascade(stage_logits, (96, 96)), seen, 0.1)
    theirs = segment(F.interpolate(model(images, text).mask_logits, (96, 96), mode="bilinear").sigmoid(), seen, 0.1)
print(f"pixels on which your model and the package's agree: {100 * (mine == theirs).float().mean():.1f} %")

# %%
truth = torch.stack([torch.from_numpy(scene.labels).long() for scene in scenes])
plot_maps([scene.image for scene in scenes], {"truth": truth.numpy(), "yours": mine.numpy()}, CLASSES, UNSEEN)

# %% [markdown]
# If they agree on all pixels, you have built the decoder side of Cascade-CLIP.
#
# ## Recap
#
# 1. **Tokens and queries.** NGA adds a stage's blocks with weights that fall from the deepest; the descriptor shows
#    each word in the light of a picture.
# 2. **Decoder.** Queries look at patches, never at each other; the last scores before the softmax are the masks.
# 3. **Cascade.** Logits are added, not probabilities; a small offset takes the seen classes' advantage away.
