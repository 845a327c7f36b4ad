"""Assignment 2, the pieces of the cascade: what is tested, and which mistakes are known.

Every expected value is computed here from its formula, apart from the package's own modules.
Symbols: B images, C classes, N = h * w patches, E joint width, d blocks in a stage.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer, uniform
from cascadeclip.exercises.decoding import attend_test, cascade_test, layer_test, mask_test, segment_test

# --- nga_weights ---------------------------------------------------------------------------------------------------


def _nga(any_sigma: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            blocks = integer(random, 3, 6)
            sigma = uniform(random, 1.3, 3.0) if any_sigma else 1.0
            away = torch.arange(blocks - 1, -1, -1).double()  # d - l
            right = torch.exp(-(away**2) / (2 * sigma**2))
            mistakes = {
                "your weights grow with distance; NGA's shrink: the deepest block, l = d, has weight 1": right.flip(0),
                "your weights grow with distance, for the minus in the exponent is missing": 1 / right,
                "yours add up to one. NGA's weights are not normalised: the deepest one is 1": right / right.sum(),
                "(d - l + 1)^2 is what the paper prints; its code, and this exercise, take (d - l)^2, so that the "
                "deepest block has weight 1": torch.exp(-((away + 1) ** 2) / (2 * sigma**2)),
                "the 2 below the fraction is missing: it is 2 sigma^2": torch.exp(-(away**2) / sigma**2),
                "the distance is not squared in yours": torch.exp(-away / (2 * sigma**2)),
                "sigma is not squared in yours": torch.exp(-(away**2) / (2 * sigma)),
                "your sigma makes no difference: a large one should bring all weights near 1": torch.exp(
                    -(away**2) / 2
                ),
                "all of yours are one: that is the plain sum, without the Gaussian": torch.ones(blocks),
                "this is the Gaussian's density, with its factor in front; NGA goes without": right
                / (sigma * math.sqrt(2 * math.pi)),
            }
            expect(ask(blocks, sigma), right, mistakes, "the list of weights")

    return test


# --- aggregate -----------------------------------------------------------------------------------------------------


def _aggregate(sum_to_one: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            blocks, shape = integer(random, 2, 4), [integer(random, 2, 5) for _ in range(3)]
            features = [torch.randn(shape, generator=random) for _ in range(blocks)]
            weights = 0.3 + torch.rand(blocks, generator=random)
            if sum_to_one:
                weights = weights / weights.sum()
            stacked = torch.stack(features)
            right = torch.einsum("l,lbne->bne", weights, stacked)
            mistakes = {
                "the weights are turned round: the first weight belongs to the first block": torch.einsum(
                    "l,lbne->bne", weights.flip(0), stacked
                ),
                "your weights make no difference: this is the plain sum": stacked.sum(0),
                "your weights make no difference: this is the mean": stacked.mean(0),
                "you divided by the number of blocks; NGA is a sum": right / blocks,
                "you divided by the sum of the weights; NGA's are not normalised": right / weights.sum(),
                "the weighted blocks are still apart: add them up": stacked * weights[:, None, None, None],
                "only the deepest block is left: the shallower ones count, too": stacked[-1] * weights[-1],
            }
            expect(ask(features, weights), right, mistakes, "the aggregated tokens")

    return test


# --- describe ------------------------------------------------------------------------------------------------------


def _describe(batch: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            images, classes, width = (
                (integer(random, 2, 3) if batch else 1),
                integer(random, 4, 6),
                integer(random, 5, 8),
            )
            text = F.normalize(torch.randn(classes, width, generator=random), dim=-1)
            g = F.normalize(torch.randn(images, width, generator=random), dim=-1)
            weight = torch.randn(width, 2 * width, generator=random)
            bias = torch.randn(width, generator=random)
            product, words = text * g[:, None], text.expand(images, -1, -1)

            def queries(first: Tensor, second: Tensor, weight: Tensor = weight, bias: Tensor | float = bias) -> Tensor:
                return torch.cat([first, second], dim=-1) @ weight.T + bias

            mistakes = {
                "the two halves are swapped: the product [T * g] stands first, T second": queries(words, product),
                "the bias is missing": queries(product, words, bias=0),
                "you added g to the words; the descriptor multiplies them, element by element": queries(
                    words + g[:, None], words
                ),
                "you put g itself beside the words; the descriptor takes the product T * g": queries(
                    g[:, None].expand(-1, classes, -1), words
                ),
                "you multiplied by the cosine of word and picture, one number; the descriptor multiplies element by "
                "element": queries(words * (words @ g[..., None]), words),
                "all pictures get the queries of the first one: each has an embedding g of its own": queries(
                    product[:1].expand(images, -1, -1), words
                ),
                "this is for one picture only: the result has a row of queries for each of the B pictures": queries(
                    product, words
                )[0],
                "the batch comes first: expected (B, C, E), yours is (C, B, E)": queries(product, words).transpose(
                    0, 1
                ),
            }
            expect(ask(text, g, weight, bias), queries(product, words), mistakes, "the queries")

    return test


EXERCISES = (
    Exercise(
        "nga_weights(blocks, sigma)",
        (Part("sigma = 1", 1, _nga(any_sigma=False)), Part("any sigma", 1, _nga(any_sigma=True))),
        frozenset({"nga_weights", "Aggregation"}),
    ),
    Exercise(
        "aggregate(features, weights)",
        (
            Part("weights that add up to one", 1, _aggregate(sum_to_one=True)),
            Part("any weights", 1, _aggregate(sum_to_one=False)),
        ),
        frozenset({"Aggregation"}),
    ),
    Exercise(
        "describe(text, image_embedding, weight, bias)",
        (Part("one picture", 1, _describe(batch=False)), Part("several pictures", 2, _describe(batch=True))),
        frozenset({"RelationshipDescriptor"}),
    ),
    Exercise(
        "attend(queries, keys, values, heads)",
        (Part("one head", 1, attend_test(one_head=True)), Part("several heads", 2, attend_test(one_head=False))),
        frozenset(
            {"DecoderLayer", "scaled_dot_product_attention", "multi_head_attention_forward", "MultiheadAttention"}
        ),
    ),
    Exercise(
        "decoder_layer(layer, queries, tokens)",
        (
            Part("attention, residual and norm", 1, layer_test(feed_forward=False)),
            Part("with the feed-forward", 2, layer_test(feed_forward=True)),
        ),
        frozenset({"DecoderLayer"}),
    ),
    Exercise(
        "mask_logits(mask, queries, tokens, heads)",
        (Part("one head", 1, mask_test(one_head=True)), Part("several heads", 2, mask_test(one_head=False))),
        frozenset({"MaskLayer"}),
    ),
    Exercise(
        "cascade(stage_logits, size)",
        (Part("one stage", 1, cascade_test(one_stage=True)), Part("several stages", 1, cascade_test(one_stage=False))),
        frozenset({"CascadeCLIP"}),
    ),
    Exercise(
        "segment(probabilities, seen, offset)",
        (
            Part("without an offset", 1, segment_test(offset_given=False)),
            Part("with an offset", 1, segment_test(offset_given=True)),
        ),
        frozenset({"predict"}),
    ),
)
