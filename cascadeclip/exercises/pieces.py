"""Assignment 2, the pieces of the cascade: prompt tokens and attention; the assignment's other checkers: `learning`.

Every expected value is computed here from its formula, apart from the package's own modules.
Symbols: B pictures, C classes, N patches, P prompt tokens of a block, D width of the tower, E joint width.
"""

import math

import torch
from torch import Tensor, nn

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer
from cascadeclip.exercises.learning import clipping_test, decay_test, loss_test, steps_test, warmup_test

FUSED_ATTENTION = (  # all of attention in one call: PyTorch's functions, and the operations below them
    "scaled_dot_product_attention", "multi_head_attention_forward", "_native_multi_head_attention",
    "_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
    "_safe_softmax",  # a step of attention alone: PyTorch goes by steps where no kernel fits what it is given
)  # fmt: skip

# --- run_prompted --------------------------------------------------------------------------------------------------


def _blocks(count: int, width: int, random: torch.Generator) -> list[nn.TransformerEncoderLayer]:
    """Transformer blocks with weights that make a difference; modules that the student's process gets as they are."""
    blocks = []
    for _ in range(count):
        block = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True).eval()
        for parameter in block.parameters():
            parameter.data = torch.randn(parameter.shape, generator=random) / math.sqrt(width)
        blocks.append(block.requires_grad_(False))
    return blocks


def _prompted(blocks: list[nn.TransformerEncoderLayer], tokens: Tensor, prompts: Tensor, mistake: str = "") -> Tensor:
    """Tokens after every block (L, B, 1 + N, D), right or with one mistake."""
    found, given, length = [], tokens, tokens.shape[1]
    for number, block in enumerate(blocks):
        own = prompts[0 if mistake == "first" else number].expand(len(tokens), -1, -1)
        if mistake == "kept" and number:
            tokens = block(tokens)
            found.append(tokens[:, own.shape[1] :])
            continue
        out = block(tokens if mistake == "none" else torch.cat([own, tokens], dim=1))
        kept = out[:, :length] if mistake == "end" else out[:, -length:]
        tokens = {"kept": out, "start": given}.get(mistake, kept)
        found.append(out if mistake == "whole" else kept)
    return torch.stack(found)


def _prompts_test(several: bool) -> Test:
    mistakes = {
        "the prompt tokens make no difference in yours: put them beside the tokens before each block": "none",
        "you cut off the wrong end: what you return has prompt tokens in it, and some patches are gone": "end",
        "the prompt tokens are still in what you return: throw them away behind each block": "whole",
    }
    if several:
        mistakes |= {
            "all your blocks get the prompt tokens of the first one: each has a set of its own, prompts[l]": "first",
            "the first block's prompt tokens go on through all blocks in yours: behind each block they are thrown "
            "away, and the next one gets its own": "kept",
            "all your blocks read the tokens from the start; each reads what the block before it made": "start",
        }

    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            count, width = (integer(random, 2, 3) if several else 1), 2 * integer(random, 3, 4)
            blocks = _blocks(count, width, random)
            tokens = torch.randn(2, 1 + integer(random, 5, 7), width, generator=random)
            prompts = torch.randn(count, integer(random, 2, 3), width, generator=random)
            with torch.no_grad():
                right = _prompted(blocks, tokens, prompts)
                told = {message: _prompted(blocks, tokens, prompts, kind) for message, kind in mistakes.items()}
            told["these are the tokens of the last block alone: return those of every block, as a list"] = right[-1]
            answer = ask(blocks, tokens, prompts)
            if isinstance(answer, list | tuple) and answer and isinstance(answer[0], Tensor):
                same = {part.shape for part in answer if isinstance(part, Tensor)}
                answer = torch.stack(list(answer)) if len(same) == 1 else answer
            expect(answer, right, told, "the list of tokens")

    return test


# --- attend --------------------------------------------------------------------------------------------------------


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(B, T, E) -> (B, heads, T, E / heads)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, real: Tensor, dim: int = -1) -> Tensor:
    scores = _split(q, heads) @ _split(k, heads).transpose(2, 3) * scale
    weights = scores.masked_fill(~real[:, None, None], -math.inf).softmax(dim).nan_to_num(0)
    return (weights @ _split(v, heads)).transpose(1, 2).flatten(2)


def _padding_mistakes(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, real: Tensor) -> dict[str, Tensor]:
    scores, values = _split(q, heads) @ _split(k, heads).transpose(2, 3) * scale, _split(v, heads)
    there = real[:, None, None]

    def merged(weights: Tensor) -> Tensor:
        return (weights @ values).transpose(1, 2).flatten(2)

    return {
        "padding takes part in yours: where `is_patch` is False, a score must not count": merged(scores.softmax(-1)),
        "you set the scores of padding to 0, and exp(0) is 1: only minus infinity gets no weight": merged(
            (scores * there).softmax(-1)
        ),
        "you took padding's weights away behind the softmax, and what is left no longer adds up to 1: mask the scores "
        "before it": merged(scores.softmax(-1) * there),
        "yours looks at padding alone: `is_patch` is True where there is a patch": merged(
            scores.masked_fill(there, -math.inf).softmax(-1).nan_to_num(0)
        ),
    }


def _attend_test(one_head: bool = False, padded: bool = False) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            heads = 1 if one_head else integer(random, 2, 4)
            images, classes, patches, size = (integer(random, *ends) for ends in ((2, 3), (3, 5), (6, 9), (4, 6)))
            width = heads * size
            q = 1.5 * torch.randn(images, classes, width, generator=random)
            k, v = (torch.randn(images, patches, width, generator=random) for _ in range(2))
            real = torch.ones(images, patches, dtype=torch.bool)
            if padded:
                real[0, -2:], real[1, :1] = False, False
            scale = size**-0.5
            unmerged = (_split(q, heads) @ _split(k, heads).transpose(2, 3) * scale).masked_fill(
                ~real[:, None, None], -math.inf
            ).softmax(-1) @ _split(v, heads)
            mistakes = {
                "the scores are not scaled: divide them by sqrt(E / heads)": _attention(q, k, v, heads, 1.0, real),
                "you scaled by sqrt(E); with several heads each has only E / heads numbers": _attention(
                    q, k, v, heads, width**-0.5, real
                ),
                "you scaled by E / heads; its square root is meant": _attention(q, k, v, heads, 1 / size, real),
                "your softmax runs over the classes: each query spreads its attention over the patches": _attention(
                    q, k, v, heads, scale, real, dim=-2
                ),
                "one head does all the work in yours: split E into heads before the scores": _attention(
                    q, k, v, 1, width**-0.5, real
                ),
                "heads and rows got mixed up: bring (B, heads, C, E / heads) back to (B, C, heads, E / heads) before "
                "you flatten": unmerged.reshape(images, classes, width),
                "you averaged the heads; put their results side by side": unmerged.mean(1),
                "keys and values are swapped": _attention(q, v, k, heads, scale, real),
            }
            if padded:
                mistakes |= _padding_mistakes(q, k, v, heads, scale, real)
            right = _attention(q, k, v, heads, scale, real)
            expect(ask(q, k, v, heads, real), right, mistakes, "what the queries collected")

    return test


EXERCISES = (
    Exercise(
        "run_prompted(blocks, tokens, prompts)",
        (
            Part("one block", 1, _prompts_test(several=False)),
            Part("several blocks, each with prompt tokens of its own", 2, _prompts_test(several=True)),
        ),
        frozenset({"PromptedEncoder"}),
    ),
    Exercise(
        "attend(queries, keys, values, heads, is_patch)",
        (
            Part("one head", 1, _attend_test(one_head=True)),
            Part("several heads", 2, _attend_test()),
            Part("with padding", 1, _attend_test(padded=True)),
        ),
        frozenset({"DecoderLayer", "MultiheadAttention", *FUSED_ATTENTION}),
    ),
    Exercise(
        "learning_rate(step, steps, peak, warmup)",
        (Part("the decay", 1, decay_test), Part("the warm-up", 2, warmup_test)),
        frozenset({"learning_rate_at"}),
    ),
    Exercise(
        "mask_loss(logits, labels)",
        (
            Part("focal loss", 2, loss_test(which=0)),
            Part("dice loss", 2, loss_test(which=1)),
            Part("both, where some pixels are ignored", 1, loss_test(which=None)),
        ),
        frozenset({"segmentation_loss"}),
    ),
    Exercise(
        "train_steps(model, batches, loss_of, optimiser_of, rates, clip)",
        (
            Part("steps down the gradient", 2, steps_test(rates_change=False)),
            Part("each with its learning rate", 1, steps_test(rates_change=True)),
            Part("gradients of a bounded norm", 2, clipping_test),
        ),
        trains=True,
    ),
)
