"""Assignment 1: the tests of `debiased_cka` and `modality_gap`.

Symbols: n samples, E joint width. Everything is computed here from its definition.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.exercises.checking import CASES, Ask, Test, Wrong, expect, integer, numbers, shaped

# --- debiased_cka --------------------------------------------------------------------------------------------------


def _hsic(one: Tensor, other: Tensor, *, zeroed: bool = True, last: float = 2.0) -> Tensor:
    """HSIC_1 of two Gram matrices (n, n); the keywords make mistakes."""
    n = len(one)
    if zeroed:
        one, other = (gram - gram.diag().diag() for gram in (one, other))
    second = one.sum() * other.sum() / ((n - 1) * (n - 2))
    return ((one * other).sum() + second - last / (n - 2) * one.sum(0) @ other.sum(0)) / (n * (n - 3))


def _naive(one: Tensor, other: Tensor) -> Tensor:
    centre = torch.eye(len(one), dtype=one.dtype) - 1 / len(one)
    return (centre @ one @ centre * other).sum()


def _cka(x: Tensor, y: Tensor, hsic: Callable[[Tensor, Tensor], Tensor], power: float = 0.5) -> Tensor:
    one, other = x.double() @ x.double().T, y.double() @ y.double().T
    return hsic(one, other) / (hsic(one, one) * hsic(other, other)).abs() ** power


def _cka_mistakes(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {
        "this is the naive estimate, which calls unrelated wide features similar: set the diagonals of both Gram "
        "matrices to zero and use the three terms": _cka(x, y, _naive),
        "your Gram matrices keep their diagonals: set both to zero before anything else": _cka(
            x, y, partial(_hsic, zeroed=False)
        ),
        "the square root is missing: divide by sqrt(HSIC(X, X) HSIC(Y, Y))": _cka(x, y, _hsic, 1.0),
        "this is HSIC itself; CKA divides it by sqrt(HSIC(X, X) HSIC(Y, Y))": _cka(x, y, _hsic, 0.0),
        "the last of the three terms has the wrong sign: it is subtracted": _cka(x, y, partial(_hsic, last=-2.0)),
        "the last of the three terms is missing": _cka(x, y, partial(_hsic, last=0.0)),
        "you compared features; compare the similarities between samples: Gram matrices X X', of n times n": _cka(
            x.T, y.T, _hsic
        ),
    }


def cka_bounds(ask: Ask, random: torch.Generator) -> None:
    n, width = integer(random, 30, 40), integer(random, 4, 6)
    x = torch.randn(n, width, generator=random)
    turned = 3 * x @ torch.linalg.qr(torch.randn(width, width, generator=random))[0]
    same = numbers(ask(x, turned), "the CKA").flatten()
    if same.numel() != 1 or not torch.isclose(same, torch.ones(1).double(), atol=1e-3):
        shown = f"{same[0].item():.3f}" if same.numel() == 1 else f"of shape {tuple(same.shape)}"
        raise Wrong(f"a layer and the same layer rotated and scaled are alike: CKA must be 1, yours is {shown}")
    other = torch.randn(n, width, generator=random)
    unlike = shaped(ask(x, other), (), "the CKA").item()
    if not abs(unlike) < 0.6:
        raise Wrong(f"{n} samples of two unrelated layers of width {width}: yours calls them similar, {unlike:.2f}")


def cka_noise(ask: Ask, random: torch.Generator) -> None:
    n, width = integer(random, 20, 24), integer(random, 350, 450)
    x, y = torch.randn(n, width, generator=random), torch.randn(n, width, generator=random)
    answer = shaped(ask(x, y), (), "the CKA").item()
    if not abs(answer) < 0.4:
        for message, mistake in _cka_mistakes(x, y).items():
            if abs(answer - mistake) < 1e-3:
                raise Wrong(message)
        raise Wrong(
            f"two unrelated layers of width {width}, {n} samples: yours is {answer:.2f}, a debiased estimate is near 0"
        )
    itself = shaped(ask(x, x + 0.1 * y), (), "the CKA").item()
    if not itself > 0.8:
        raise Wrong(f"a layer and the same layer with a tenth of noise: CKA should be near 1, yours is {itself:.2f}")


def cka_value(ask: Ask, random: torch.Generator) -> None:
    for _ in range(CASES):
        n, width = integer(random, 12, 20), integer(random, 5, 9)
        x = torch.randn(n, width, generator=random) + 0.5
        y = x @ torch.randn(width, width, generator=random) + 2 * torch.randn(n, width, generator=random)
        expect(ask(x, y), _cka(x, y, _hsic), _cka_mistakes(x, y), "the CKA")


# --- modality_gap --------------------------------------------------------------------------------------------------


def gap_test(lengths: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            width, count = integer(random, 4, 8), integer(random, 6, 12)
            image = torch.randn(count, width, generator=random) + torch.randn(width, generator=random)
            text = torch.randn(count + 3, width, generator=random) + torch.randn(width, generator=random)
            near_image, near_text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
            if not lengths:
                image, text = near_image, near_text
            one, other = near_image.mean(0), near_text.mean(0)
            mistakes = {
                "normalise every embedding to length 1 before the centroids: a long one must not pull harder": (
                    image.mean(0) - text.mean(0)
                ).norm(),
                "you normalised the centroids; normalise the embeddings, and leave the centroids as they come": (
                    F.normalize(one, dim=0) - F.normalize(other, dim=0)
                ).norm(),
                "this is the mean distance between single embeddings; the gap is the distance of the two centroids": (
                    torch.cdist(near_image, near_text).mean()
                ),
                "this is the squared distance: take the root": (one - other).norm() ** 2,
                "this is the cosine of the two centroids; the gap is their distance": F.cosine_similarity(
                    one, other, 0
                ),
                "this is the vector between the centroids; the gap is its length, one number": one - other,
            }
            expect(ask(image, text), (one - other).norm(), mistakes, "the gap")

    return test
