"""Exercises of notebook 01, layers: what is tested, and which mistakes are known.

Every expected value is computed here from its definition. Symbols: B pictures, N = h * w patches, n samples, p width.
"""

import torch
from torch import Tensor

from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, expect, integer, uniform

# --- width_for ------------------------------------------------------------------------------------------------------


def _width_test(even: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            samples = 10 * integer(random, 3, 20)
            similarity = 0.5 if even else uniform(random, 0.6, 0.95)
            mistakes = {
                "upside down: wide features look more alike, so the width must grow with the similarity": (
                    samples * (1 - similarity) / similarity
                ),
                "this is the similarity p / (n + p), not the width p that gives it": similarity / (1 + similarity),
                "p is below the fraction, too: solve s = p / (n + p) for p, not s = p / n": similarity * samples,
                "this is n + p; take n off": samples / (1 - similarity),
            }
            right = similarity * samples / (1 - similarity)
            expect(ask(similarity, samples), right, mistakes, "the width")

    return test


# --- has_border -----------------------------------------------------------------------------------------------------


def _borders(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H, W) -> (B, N) bool: more than one class among a patch's pixels."""
    height, width = labels.shape[1] // grid[0], labels.shape[2] // grid[1]
    patches = labels.unfold(1, height, height).unfold(2, width, width).flatten(3).flatten(1, 2)
    return patches.amax(2) != patches.amin(2)


def _border_test(square: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            side = integer(random, 3, 4)
            grid = (5, 5) if square else (integer(random, 3, 4), integer(random, 5, 7))
            coarse = torch.randint(0, 3, (2, *grid), generator=random)
            labels = coarse.repeat_interleave(side, 1).repeat_interleave(side, 2)
            for picture in range(2):  # a spot inside a few patches, which are else of one class
                for _ in range(4):
                    row, column = integer(random, 0, grid[0] - 1) * side, integer(random, 0, grid[1] - 1) * side
                    labels[picture, row + side // 2, column + side // 2] = integer(random, 3, 5)
            right = _borders(labels, grid)
            turned = right.view(2, *grid).transpose(1, 2).flatten(1)
            mistakes = {
                "yours is True where a patch holds *one* class; a border needs two": ~right,
                "patches come row by row; yours come column by column": turned,
                "one row of patches a picture is asked for, (B, N); yours is still a grid": right.view(2, *grid),
                "a patch counts as a border in yours if its *neighbour* is of another class; look at the pixels inside "
                "each patch only": _differs_from_neighbours(labels, grid),
                "yours looks at the corner pixels of a patch only; a spot in its middle is a border, too": (
                    torch.zeros_like(right)
                ),
                "these are the numbers of classes; True or False is asked for": _classes_held(labels, grid).double(),
            }
            expect(ask(labels, grid), right, mistakes, "the mask of borders")

    return test


def _classes_held(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = labels.shape[1] // grid[0], labels.shape[2] // grid[1]
    patches = labels.unfold(1, height, height).unfold(2, width, width).flatten(3).flatten(1, 2)
    return torch.tensor([[len(patch.unique()) for patch in picture] for picture in patches])


def _differs_from_neighbours(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = labels.shape[1] // grid[0], labels.shape[2] // grid[1]
    coarse = labels.unfold(1, height, height).unfold(2, width, width).flatten(3).mode(3).values
    down, right = coarse[:, 1:] != coarse[:, :-1], coarse[:, :, 1:] != coarse[:, :, :-1]
    found = torch.zeros_like(coarse, dtype=torch.bool)
    found[:, 1:] |= down
    found[:, :-1] |= down
    found[:, :, 1:] |= right
    found[:, :, :-1] |= right
    return found.flatten(1)


# --- look_distance --------------------------------------------------------------------------------------------------


def _distance(weights: Tensor, grid: tuple[int, int], patch: int, *, class_token: bool = False, scale: bool = True,
              square: bool = False) -> float:  # fmt: skip
    """Mean distance in px of what patches attend to, weights (1 + N, 1 + N); the keywords make mistakes."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = patch * torch.stack([rows.flatten(), columns.flatten()], 1).double()
    among = weights.double()[:-1, :-1] if class_token else weights.double()[1:, 1:]
    among = among / among.sum(1, keepdim=True) if scale else among
    far = torch.cdist(places, places)
    return (among * (far**2 if square else far)).sum(1).mean().item()


def _distance_test(class_token: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            grid, patch = (integer(random, 2, 4), integer(random, 5, 7)), 2 * integer(random, 2, 8)
            logits = torch.randn(1 + grid[0] * grid[1], 1 + grid[0] * grid[1], generator=random)
            logits[:, 0] += 3.0 if class_token else -100.0  # how much of the attention the class token gets
            weights = logits.softmax(1)
            right = _distance(weights, grid, patch)
            mistakes = {
                "the class token has no place in the picture: drop its row and column, which are the *first* ones": (
                    _distance(weights, grid, patch, class_token=True)
                ),
                "without the class token a row adds up to less than 1: divide each row by its sum": _distance(
                    weights, grid, patch, scale=False
                ),
                "this is in patches; multiply by the patch's side to get px": right / patch,
                "these are squared distances: take the root": _distance(weights, grid, patch, square=True),
                "rows and columns of the grid are mixed up: patches come row by row": _distance(
                    weights, (grid[1], grid[0]), patch
                ),
                "attention makes no difference in yours: weight each distance by it": _distance(
                    torch.ones_like(weights), grid, patch
                ),
                "this is the sum over patches; take their mean": right * grid[0] * grid[1],
            }
            expect(ask(weights, grid, patch), right, mistakes, "the distance")

    return test


EXERCISES = {
    "01.1": Exercise(
        "width_for(similarity, samples)",
        (
            Part("one half at p = n", 1, _width_test(even=True)),
            Part("any similarity", 1, _width_test(even=False)),
        ),
    ),
    "01.2": Exercise(
        "has_border(labels, grid)",
        (
            Part("for a square grid", 1, _border_test(square=True)),
            Part("for any grid", 1, _border_test(square=False)),
        ),
        frozenset({"boundary_patches"}),
    ),
    "01.3": Exercise(
        "look_distance(weights, grid, patch_size)",
        (
            Part("where nothing goes to the class token", 1, _distance_test(class_token=False)),
            Part("where much goes to the class token", 1, _distance_test(class_token=True)),
        ),
        frozenset({"attention_distance"}),
    ),
}
