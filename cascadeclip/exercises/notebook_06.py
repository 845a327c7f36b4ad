"""Exercises of notebook 06, the map of methods: what is tested, and which mistakes are known.

Every expected value is computed here from its definition. Symbols: N = rows * columns patches, H x W pixels.
"""

import math

import torch
from torch import Tensor

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer, uniform

# --- window ---------------------------------------------------------------------------------------------------------


def _squared_distances(rows: int, columns: int, *, by_column: bool = False) -> Tensor:
    """(N, N), patches numbered row by row, or column by column."""
    places = [(row, column) for row in range(rows) for column in range(columns)]
    if by_column:
        places.sort(key=lambda place: place[::-1])
    return torch.tensor([[math.dist(one, other) ** 2 for other in places] for one in places])


def _window_test(square: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            rows = integer(random, 3, 4)
            columns, std = rows if square else integer(random, 5, 6), uniform(random, 1.5, 4.0)
            squared, turned = _squared_distances(rows, columns), _squared_distances(rows, columns, by_column=True)
            right = (-squared / (2 * std**2)).exp()
            numbers = torch.arange(rows * columns, dtype=squared.dtype)
            mistakes = {
                "the 2 below the fraction is missing: exp(-distance² / (2 std²))": (-squared / std**2).exp(),
                "the distance has to be squared": (-squared.sqrt() / (2 * std**2)).exp(),
                "std has to be squared": (-squared / (2 * std)).exp(),
                "the minus is missing: near patches must get more than far ones": (squared / (2 * std**2)).exp(),
                "rows sum to 1 in yours; the window is added to logits as it is, 1 at the patch itself": (
                    right / right.sum(1, keepdim=True)
                ),
                "patches are numbered row by row; yours are numbered column by column": (
                    (-turned / (2 * std**2)).exp()
                ),
                "you take the difference of the patches' numbers for their distance; the last patch of a row and the "
                "first of the next are neighbours in number only": (
                    (-((numbers[:, None] - numbers) ** 2) / (2 * std**2)).exp()
                ),
                "this is the exponent; take exp of it": -squared / (2 * std**2),
            }
            expect(ask(rows, columns, std), right, mistakes, "the window")

    return test


# --- ceiling --------------------------------------------------------------------------------------------------------


def _patches(labels: Tensor, patch: int) -> list[Tensor]:
    height, width = labels.shape
    return [
        labels[top : top + patch, left : left + patch]
        for top in range(0, height, patch)
        for left in range(0, width, patch)
    ]


def _frequent(pixels: Tensor) -> int:
    return int(torch.bincount(pixels.flatten()).max())


def _ceiling_test(square: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            patch, rows = integer(random, 3, 5), integer(random, 3, 4)
            columns = rows if square else integer(random, 5, 6)
            coarse = torch.randint(0, 4, (rows, columns), generator=random)
            labels = coarse.repeat_interleave(patch, 0).repeat_interleave(patch, 1)
            noise = torch.rand(labels.shape, generator=random) < 0.35
            labels = torch.where(noise, torch.randint(0, 4, labels.shape, generator=random), labels)
            patches, pixels = _patches(labels, patch), labels.numel()
            right = sum(map(_frequent, patches)) / pixels
            mistakes = {
                "this is the share of patches of one class alone; count the right pixels of the mixed ones as well": (
                    sum(len(one.unique()) == 1 for one in patches) / len(patches)
                ),
                "you give a patch the label of its first pixel; its most frequent label is asked for": (
                    sum(int((one == one[0, 0]).sum()) for one in patches) / pixels
                ),
                "you give a patch the label of its middle pixel; its most frequent label is asked for": (
                    sum(int((one == one[patch // 2, patch // 2]).sum()) for one in patches) / pixels
                ),
                "the whole picture gets one label in yours; every patch has its own": _frequent(labels) / pixels,
                "these are the wrong pixels; the share of right ones is asked for": 1 - right,
                "this is a count; divide by the number of pixels": right * pixels,
                "this is per cent; a fraction is asked for": 100 * right,
            }
            expect(ask(labels, patch), right, mistakes, "the share")

    return test


EXERCISES = {
    "06.1": Exercise(
        "window(rows, columns, std)",
        (
            Part("a Gaussian of the distance, on a square grid", 1, _window_test(square=True)),
            Part("patches row by row, on a grid that is not square", 1, _window_test(square=False)),
        ),
    ),
    "06.2": Exercise(
        "ceiling(labels, patch)",
        (
            Part("the share of right pixels, in square pictures", 1, _ceiling_test(square=True)),
            Part("in pictures that are wider than high", 1, _ceiling_test(square=False)),
        ),
    ),
}
