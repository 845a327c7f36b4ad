"""Answers to assignment 2, as in `answers.py`."""

import math

import torch
from torch.nn import functional as F

import cascadeclip.model.cascade
from tests.support.answers import RIGHT, right, wrong


@wrong("nga_weights", "grow with distance; NGA's shrink")
def nga_reversed(blocks, sigma):
    return torch.exp(-(torch.arange(blocks) ** 2) / (2 * sigma**2))


@wrong("nga_weights", "minus in the exponent")
def nga_without_minus(blocks, sigma):
    return torch.exp(torch.arange(blocks - 1, -1, -1) ** 2 / (2 * sigma**2))


@wrong("nga_weights", "add up to one")
def nga_normalised(blocks, sigma):
    return (-(torch.arange(blocks - 1, -1, -1) ** 2) / (2 * sigma**2)).softmax(0)


@wrong("nga_weights", "what the paper prints")
def nga_as_printed(blocks, sigma):
    return [math.exp(-((blocks - block + 1) ** 2) / (2 * sigma**2)) for block in range(1, blocks + 1)]


@wrong("nga_weights", "the 2 below the fraction")
def nga_without_two(blocks, sigma):
    return [math.exp(-((blocks - block) ** 2) / sigma**2) for block in range(1, blocks + 1)]


@wrong("nga_weights", "distance is not squared")
def nga_plain_distance(blocks, sigma):
    return [math.exp(-(blocks - block) / (2 * sigma**2)) for block in range(1, blocks + 1)]


@wrong("nga_weights", "makes no difference")
def nga_any_sigma(blocks, sigma):
    return [math.exp(-((blocks - block) ** 2) / 2) for block in range(1, blocks + 1)]


@wrong("nga_weights", "expected shape")
def nga_constants(blocks, sigma):
    return [0.0111, 0.1353, 0.6065, 1.0] + [1.0] * 9


@wrong("nga_weights", "uses `Aggregation`")
def nga_of_package(blocks, sigma):
    return cascadeclip.model.cascade.Aggregation(blocks, 4, sigma=sigma).weights


@wrong("nga_weights", "a `return` missing")
def nga_forgets_return(blocks, sigma):
    torch.exp(-(torch.arange(blocks - 1, -1, -1) ** 2) / (2 * sigma**2))


@wrong("aggregate", "first weight belongs to the first block")
def weights_turned(features, weights):
    return sum(w * f for w, f in zip(weights.flip(0), features, strict=True))


@wrong("aggregate", "this is the mean")
def plain_mean(features, weights):
    return torch.stack(features).mean(0)


@wrong("aggregate", "divided by the sum of the weights")
def weighted_mean(features, weights):
    return sum(w * f for w, f in zip(weights, features, strict=True)) / weights.sum()


@wrong("aggregate", "changed what it was given")
def adds_in_place(features, weights):
    total = features[0]
    total *= weights[0]
    for weight, feature in zip(weights[1:], features[1:], strict=True):
        total += weight * feature
    return total


@wrong("describe", "two halves are swapped")
def words_first(text, g, weight, bias):
    words = text.expand(len(g), -1, -1)
    return F.linear(torch.cat([words, words * g[:, None]], -1), weight, bias)


@wrong("describe", "bias is missing")
def no_bias(text, g, weight, bias):
    words = text.expand(len(g), -1, -1)
    return F.linear(torch.cat([words * g[:, None], words], -1), weight)


@wrong("describe", "g of its own|embedding g of its own")
def first_picture_only(text, g, weight, bias):
    return F.linear(torch.cat([text * g[0], text], -1), weight, bias).expand(len(g), -1, -1)


@wrong("describe", "element by element")
def uses_the_cosine(text, g, weight, bias):
    words = text.expand(len(g), -1, -1)
    cosine = (words * g[:, None]).sum(-1, keepdim=True)
    return F.linear(torch.cat([words * cosine, words], -1), weight, bias)


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


@wrong("attend", "sqrt\\(E\\)")
def scaled_by_whole_width(q, k, v, heads):
    weights = (heads_of(q, heads) @ heads_of(k, heads).mT / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ heads_of(v, heads)).transpose(1, 2).flatten(2)


@wrong("attend", "over the classes")
def softmax_over_queries(q, k, v, heads):
    weights = (heads_of(q, heads) @ heads_of(k, heads).mT / math.sqrt(q.shape[-1] / heads)).softmax(-2)
    return (weights @ heads_of(v, heads)).transpose(1, 2).flatten(2)


@wrong("attend", "one head does all the work")
def forgets_heads(q, k, v, heads):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


@wrong("attend", "heads and rows got mixed up")
def merges_wrongly(q, k, v, heads):
    weights = (heads_of(q, heads) @ heads_of(k, heads).mT / math.sqrt(q.shape[-1] / heads)).softmax(-1)
    return (weights @ heads_of(v, heads)).reshape(len(q), q.shape[1], -1)


@wrong("attend", "`scaled_dot_product_attention`")
def ready_made(q, k, v, heads):
    return F.scaled_dot_product_attention(*(heads_of(x, heads) for x in (q, k, v))).transpose(1, 2).flatten(2)


def attention(q, k, v, heads):
    found = []
    for i in range(heads):
        part = slice(i * q.shape[-1] // heads, (i + 1) * q.shape[-1] // heads)
        scores = torch.einsum("bce,bne->bcn", q[..., part], k[..., part]) * (q.shape[-1] // heads) ** -0.5
        found.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(found, -1)


def attended(layer, queries, tokens):
    return layer.out(attention(layer.query(queries), layer.key(tokens), layer.value(tokens), layer.heads))


@wrong("decoder_layer", "first residual is missing")
def no_residual(layer, queries, tokens):
    x = layer.norm_attention(attended(layer, queries, tokens))
    return layer.norm_feed_forward(x + layer.contract(layer.expand(x).relu()))


@wrong("decoder_layer", "this is a GELU")
def with_gelu(layer, queries, tokens):
    x = layer.norm_attention(queries + attended(layer, queries, tokens))
    return layer.norm_feed_forward(x + layer.contract(F.gelu(layer.expand(x))))


@wrong("decoder_layer", "no self-attention")
def with_self_attention(layer, queries, tokens):
    return layer_in_full(layer, layer_in_full(layer, queries, queries), tokens)


def layer_in_full(layer, queries, tokens):
    x = layer.norm_attention(queries + attended(layer, queries, tokens))
    return layer.norm_feed_forward(x + layer.contract(torch.clamp(layer.expand(x), min=0)))


def head_scores(mask, queries, tokens, heads):
    q, k = mask.query(queries), mask.key(tokens)
    return heads_of(q, heads) @ heads_of(k, heads).mT / math.sqrt(q.shape[-1] / heads)


@wrong("mask_logits", "the scores \\*before\\* it")
def after_softmax(mask, queries, tokens, heads):
    return head_scores(mask, queries, tokens, heads).softmax(-1).mean(1)


@wrong("mask_logits", "their mean")
def sum_of_heads(mask, queries, tokens, heads):
    return head_scores(mask, queries, tokens, heads).sum(1)


@wrong("mask_logits", "sum over the heads, scaled by sqrt\\(E\\)|sqrt\\(E / heads\\)")
def one_wide_score(mask, queries, tokens, heads):
    q, k = mask.query(queries), mask.key(tokens)
    return q @ k.mT / math.sqrt(q.shape[-1])


@wrong("mask_logits", "transposed")
def patches_first(mask, queries, tokens, heads):
    return head_scores(mask, queries, tokens, heads).mean(1).mT


def enlarged(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@wrong("cascade", "mean of the stages")
def mean_of_stages(stage_logits, size):
    return enlarged(torch.stack(stage_logits).mean(0), size).sigmoid()


@wrong("cascade", "added the stages' probabilities")
def sum_of_probabilities(stage_logits, size):
    return sum(enlarged(x, size).sigmoid() for x in stage_logits)


@wrong("cascade", "softmax over the classes")
def softmax_of_classes(stage_logits, size):
    return enlarged(sum(stage_logits), size).softmax(1)


@wrong("segment", "added the offset")
def adds_offset(probabilities, seen, offset):
    moved = probabilities.clone()
    moved[:, seen] += offset
    return moved.argmax(1)


@wrong("segment", "makes no difference")
def ignores_offset(probabilities, seen, offset):
    return probabilities.argmax(1)


@wrong("segment", "still raises NotImplementedError")
def not_answered(probabilities, seen, offset):
    raise NotImplementedError


@right("nga_weights")
def nga_as_list(blocks, sigma):
    return [math.e ** (-0.5 * ((blocks - block) / sigma) ** 2) for block in range(1, blocks + 1)]


@right("aggregate")
def aggregate_by_loop(features, weights):
    total = torch.zeros_like(features[0])
    for weight, feature in zip(weights.tolist(), features, strict=True):
        total = total + weight * feature
    return total


@right("describe")
def describe_by_loops(text, g, weight, bias):
    width = text.shape[1]
    for_product, for_word = weight[:, :width], weight[:, width:]
    return torch.stack([torch.stack([for_product @ (t * one) + for_word @ t + bias for t in text]) for one in g])


RIGHT.append(("attend", attention))
RIGHT.append(("decoder_layer", layer_in_full))


@right("mask_logits")
def mask_in_one_product(mask, queries, tokens, heads):
    q, k = mask.query(queries), mask.key(tokens)
    return q @ k.mT / (heads * math.sqrt(q.shape[-1] / heads))


@right("cascade")
def cascade_enlarged_first(stage_logits, size):
    return sum(enlarged(x, size) for x in stage_logits).sigmoid()


@right("segment")
def segment_with_mask(probabilities, seen, offset):
    favoured = torch.tensor([c in seen for c in range(probabilities.shape[1])])
    return torch.where(favoured[:, None, None], probabilities - offset, probabilities).max(1).indices
