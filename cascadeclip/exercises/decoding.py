"""Assignment 2: the tests of `attend`, `decoder_layer`, `mask_logits`, `cascade` and `segment`.

Every expected value is computed here from its formula, apart from the package's own modules.
Symbols: B images, C classes, N = h * w patches, E joint width.
"""

import math
from collections.abc import Callable
from functools import reduce
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascadeclip.exercises.checking import CASES, Ask, Test, expect, integer, uniform

# --- attend --------------------------------------------------------------------------------------------------------


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(B, T, E) -> (B, heads, T, E / heads)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, dim: int = -1) -> Tensor:
    weights = (_split(q, heads) @ _split(k, heads).transpose(2, 3) * scale).softmax(dim)
    return (weights @ _split(v, heads)).transpose(1, 2).flatten(2)


def attend_test(one_head: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            heads = 1 if one_head else integer(random, 2, 4)
            images, classes, patches, size = (integer(random, *ends) for ends in ((2, 3), (3, 5), (6, 9), (4, 6)))
            width = heads * size
            q = 1.5 * torch.randn(images, classes, width, generator=random)
            k, v = (torch.randn(images, patches, width, generator=random) for _ in range(2))
            per_head = size**-0.5
            scores = _split(q, heads) @ _split(k, heads).transpose(2, 3) * per_head
            unmerged = scores.softmax(-1) @ _split(v, heads)
            mistakes = {
                "the scores are not scaled: divide them by sqrt(E / heads)": _attention(q, k, v, heads, 1.0),
                "you scaled by sqrt(E); with several heads each has only E / heads numbers": _attention(
                    q, k, v, heads, width**-0.5
                ),
                "you scaled by E / heads; its square root is meant": _attention(q, k, v, heads, 1 / size),
                "your softmax runs over the classes: each query spreads its attention over the patches": _attention(
                    q, k, v, heads, per_head, dim=-2
                ),
                "there is no softmax in yours": (scores @ _split(v, heads)).transpose(1, 2).flatten(2),
                "one head does all the work in yours: split E into heads before the scores": _attention(
                    q, k, v, 1, width**-0.5
                ),
                "heads and rows got mixed up: bring (B, heads, C, E / heads) back to (B, C, heads, E / heads) before "
                "you flatten": unmerged.reshape(images, classes, width),
                "you averaged the heads; put their results side by side": unmerged.mean(1),
                "keys and values are swapped": _attention(q, v, k, heads, per_head),
            }
            expect(ask(q, k, v, heads), _attention(q, k, v, heads, per_head), mistakes, "what the queries collected")

    return test


# --- decoder_layer -------------------------------------------------------------------------------------------------


def _linear(rows: int, columns: int, random: torch.Generator) -> nn.Linear:
    layer = nn.Linear(columns, rows)
    layer.weight.data = torch.randn(rows, columns, generator=random) * 1.5 / math.sqrt(columns)
    layer.bias.data = 0.3 * torch.randn(rows, generator=random)
    return layer


def _norm(width: int, random: torch.Generator) -> nn.LayerNorm:
    norm = nn.LayerNorm(width)
    norm.weight.data = 0.5 + torch.rand(width, generator=random)
    norm.bias.data = 0.3 * torch.randn(width, generator=random)
    return norm


def random_layer(width: int, heads: int, random: torch.Generator) -> SimpleNamespace:
    """The weights of a decoder layer, named as in `cascade.DecoderLayer`, but without its `forward`."""
    square = {name: _linear(width, width, random) for name in ("query", "key", "value", "out")}
    norms = {name: _norm(width, random) for name in ("norm_attention", "norm_feed_forward")}
    expand, contract = _linear(4 * width, width, random), _linear(width, 4 * width, random)
    return SimpleNamespace(heads=heads, expand=expand, contract=contract, **square, **norms)


def _layer(layer: SimpleNamespace, queries: Tensor, tokens: Tensor, mistake: str = "") -> Tensor:
    """The decoder layer, right or with one mistake."""
    q, k, v = layer.query(queries), layer.key(tokens), layer.value(tokens)
    mixed = _attention(q, k, v, layer.heads, (q.shape[-1] / layer.heads) ** -0.5)
    mixed = mixed if mistake == "out" else layer.out(mixed)
    attended = mixed if mistake == "residual" else queries + mixed
    attended = attended if mistake == "norm" else layer.norm_attention(attended)
    activations: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "linear": lambda x: x}
    activation = activations.get(mistake, F.relu)
    hidden = layer.contract(activation(layer.expand(attended)))
    if mistake == "pre":
        attended = queries + mixed
        hidden = layer.contract(F.relu(layer.expand(layer.norm_feed_forward(attended))))
        return attended + hidden
    return layer.norm_feed_forward(hidden if mistake == "second residual" else attended + hidden)


def layer_test(feed_forward: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            heads, size = integer(random, 2, 3), integer(random, 3, 5)
            layer = random_layer(heads * size, heads, random)
            if not feed_forward:
                nn.init.zeros_(layer.contract.weight), nn.init.zeros_(layer.contract.bias)
            queries = torch.randn(2, integer(random, 3, 5), heads * size, generator=random)
            tokens = torch.randn(2, integer(random, 6, 9), heads * size, generator=random)
            mistakes = {
                "the attention's own output layer, `layer.out`, is missing": "out",
                "the first residual is missing: what was found is *added* to the query": "residual",
                "the first LayerNorm, `layer.norm_attention`, is missing: it stands behind the first sum": "norm",
                "this is a GELU; the decoder's feed-forward has a ReLU": "gelu",
                "there is no ReLU between `layer.expand` and `layer.contract`": "linear",
                "the second residual is missing: the feed-forward's result is added to its input": "second residual",
                "your norms stand before the parts (pre-norm); here each stands behind its sum (post-norm)": "pre",
            }
            told = {message: _layer(layer, queries, tokens, kind) for message, kind in mistakes.items()}
            mixed = _layer(layer, _layer(layer, queries, queries), tokens)
            told["you let the queries look at each other first; this decoder has no self-attention"] = mixed
            expect(ask(layer, queries, tokens), _layer(layer, queries, tokens), told, "the layer's queries")

    return test


# --- mask_logits ---------------------------------------------------------------------------------------------------


def mask_test(one_head: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            heads, size = (1 if one_head else integer(random, 2, 4)), integer(random, 4, 6)
            width = heads * size
            mask = SimpleNamespace(query=_linear(width, width, random), key=_linear(width, width, random))
            queries = torch.randn(2, integer(random, 3, 5), width, generator=random)
            tokens = torch.randn(2, integer(random, 6, 9), width, generator=random)
            by_head = _split(mask.query(queries), heads) @ _split(mask.key(tokens), heads).transpose(2, 3) * size**-0.5
            right = by_head.mean(1)
            mistakes = {
                "you took the softmax: mask logits are the scores *before* it, for a sigmoid follows": by_head.softmax(
                    -1
                ).mean(1),
                "you took a sigmoid: mask logits are the scores before it": right.sigmoid(),
                "you added the heads up; the mask logits are their mean": by_head.sum(1),
                "the scores are not scaled: divide them by sqrt(E / heads)": right * size**0.5,
                "you scaled by sqrt(E); with several heads each has only E / heads numbers": right
                * size**0.5
                / width**0.5,
                "one score over the whole width is the sum over the heads, scaled by sqrt(E): split into heads, scale "
                "by sqrt(E / heads), take the mean": by_head.sum(1) / heads**0.5,
                "the heads are still apart: take their mean": by_head,
                "your logits are transposed: expected (B, C, N)": right.transpose(1, 2),
                "queries and tokens must pass `mask.query` and `mask.key` first": (
                    (_split(queries, heads) @ _split(tokens, heads).transpose(2, 3)) * size**-0.5
                ).mean(1),
                "you took the largest head; take their mean": by_head.amax(1),
            }
            expect(ask(mask, queries, tokens, heads), right, mistakes, "the mask logits")

    return test


# --- cascade, segment ----------------------------------------------------------------------------------------------


def cascade_test(one_stage: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            stages, side = (1 if one_stage else integer(random, 2, 4)), integer(random, 3, 5)
            shape, size = (2, integer(random, 3, 5), side, side + 1), (4 * side, 3 * side + 3)
            logits = [1.5 * torch.randn(shape, generator=random) for _ in range(stages)]

            def enlarged(
                maps: Tensor, size: tuple[int, int] = size, mode: str = "bilinear", corners: bool | None = False
            ) -> Tensor:
                return F.interpolate(maps, size, mode=mode, align_corners=corners)

            total = reduce(torch.add, logits)
            large = enlarged(total)
            mistakes = {
                "you took the mean of the stages; the cascade *adds* their logits": enlarged(total / stages).sigmoid(),
                "you added the stages' probabilities; add the logits, and take the sigmoid of the sum": sum(
                    enlarged(part).sigmoid() for part in logits
                ),
                "you took the mean of the stages' probabilities; add the logits, and take the sigmoid of the sum": sum(
                    enlarged(part).sigmoid() for part in logits
                )
                / stages,
                "only the last stage is left: all of them are added": enlarged(logits[-1]).sigmoid(),
                "you took a softmax over the classes; every mask has a sigmoid of its own": large.softmax(1),
                "the sigmoid is missing: probabilities are asked for": large,
                "you enlarged with nearest neighbours; mask logits are resized bilinearly": enlarged(
                    total, mode="nearest", corners=None
                ).sigmoid(),
                "you took the sigmoid before enlarging; resize the logits": enlarged(total.sigmoid()),
                "`align_corners=True` moves every pixel a little: leave it False": enlarged(
                    total, corners=True
                ).sigmoid(),
                "the masks are as small as the grid of patches: enlarge them to `size`": total.sigmoid(),
            }
            expect(ask(logits, size), large.sigmoid(), mistakes, "the probabilities")

    return test


def segment_test(offset_given: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            classes, offset = integer(random, 5, 8), (uniform(random, 0.2, 0.4) if offset_given else 0.0)
            seen = sorted(torch.randperm(classes, generator=random)[: classes // 2].tolist())
            probabilities = torch.rand(2, classes, 9, 11, generator=random)
            lowered = torch.zeros(classes)
            lowered[seen] = offset
            lowered = lowered.view(-1, 1, 1)
            right = (probabilities - lowered).argmax(1)
            mistakes = {
                "you added the offset to the seen classes; it is taken off": (probabilities + lowered).argmax(1),
                "you took the offset off the unseen classes; training favoured the *seen* ones": (
                    probabilities - (offset - lowered)
                ).argmax(1),
                "your offset makes no difference: take it off the seen classes before the argmax": probabilities.argmax(
                    1
                ),
                "you took it off all classes alike, which changes nothing": (probabilities - offset).argmax(1),
                "the seen classes cannot win in yours: the offset is small, they stay in the race": (
                    probabilities - 10 * (lowered > 0)
                ).argmax(1),
                "you took the largest probability; its *class* is asked for": (probabilities - lowered).amax(1),
                "you searched along the wrong axis: classes are axis 1": probabilities.argmax(-1),
            }
            expect(ask(probabilities, seen, offset), right, mistakes, "the segmentation")

    return test
