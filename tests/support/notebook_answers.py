"""Wrong answers to the notebooks' exercises, as students give them, each with a part of what they must be told."""

from itertools import permutations

import numpy as np
import torch
from torch.nn import functional as F

NOTEBOOK_WRONG: list[tuple[str, str, object]] = []  # exercise, part of the message, answer


def wrong(exercise, message):
    """Lists the function below as a wrong answer."""
    return lambda function: NOTEBOOK_WRONG.append((exercise, message, function))


# --- 00 -------------------------------------------------------------------------------------------------------------


@wrong("00.1", "these are counts")
def counts(found, truth, word, words):
    return np.bincount(found[truth == word], minlength=words)


@wrong("00.1", "by all pixels of the picture")
def of_the_picture(found, truth, word, words):
    return np.bincount(found[truth == word], minlength=words) / truth.size


@wrong("00.1", "truth and answer are swapped")
def swapped(found, truth, word, words):
    return np.bincount(truth[found == word], minlength=words) / (found == word).sum()


@wrong("00.1", "one number for every word")
def last_word_forgotten(found, truth, word, words):
    return np.bincount(found[truth == word]) / (truth == word).sum()


@wrong("00.2", "all words were on offer")
def every_word(scores, truth, count):
    return (scores.argmax(0) == truth).mean()


@wrong("00.2", "let them choose again")
def pixels_dropped(scores, truth, count):
    found = scores.argmax(0)
    return (found == truth)[found < count].mean()


@wrong("00.2", "this is a count")
def count_right(scores, truth, count):
    return (scores[:count].argmax(0) == truth).sum()


# --- 01 -------------------------------------------------------------------------------------------------------------


@wrong("01.1", "upside down")
def inverse(similarity, samples):
    return samples * (1 - similarity) / similarity


@wrong("01.1", "p is below the fraction")
def no_denominator(similarity, samples):
    return similarity * samples


@wrong("01.1", "take n off")
def sum_of_both(similarity, samples):
    return samples / (1 - similarity)


def pixels_by_patch(labels, grid):
    height, width = labels.shape[1] // grid[0], labels.shape[2] // grid[1]
    return labels.unfold(1, height, height).unfold(2, width, width).flatten(3)


@wrong("01.2", "a border needs two")
def one_class(labels, grid):
    pixels = pixels_by_patch(labels, grid)
    return (pixels.amax(3) == pixels.amin(3)).flatten(1)


@wrong("01.2", "column by column")
def by_columns(labels, grid):
    pixels = pixels_by_patch(labels, grid)
    return (pixels.amax(3) != pixels.amin(3)).transpose(1, 2).flatten(1)


@wrong("01.2", "still a grid")
def as_grid(labels, grid):
    pixels = pixels_by_patch(labels, grid)
    return pixels.amax(3) != pixels.amin(3)


@wrong("01.2", "`boundary_patches`, which does this exercise's work")
def from_the_package(labels, grid):
    from cascadeclip.analysis import boundary_patches

    return boundary_patches(labels, grid)


def places(grid, side):
    return side * torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()


@wrong("01.3", "divide each row by its sum")
def rows_not_scaled(weights, grid, patch_size):
    far = torch.cdist(places(grid, patch_size), places(grid, patch_size))
    return (weights[1:, 1:] * far).sum(1).mean()


@wrong("01.3", "which are the *first* ones")
def last_token_dropped(weights, grid, patch_size):
    among = weights[:-1, :-1] / weights[:-1, :-1].sum(1, keepdim=True)
    far = torch.cdist(places(grid, patch_size), places(grid, patch_size))
    return (among * far).sum(1).mean()


@wrong("01.3", "multiply by the patch's side")
def in_patches(weights, grid, patch_size):
    among = weights[1:, 1:] / weights[1:, 1:].sum(1, keepdim=True)
    return (among * torch.cdist(places(grid, 1), places(grid, 1))).sum(1).mean()


# --- 02 -------------------------------------------------------------------------------------------------------------


@wrong("02.1", "the *highest* score comes first")
def ascending(scores, is_class):
    among = is_class[scores.argsort()].double()
    return (among.cumsum(0) / torch.arange(1, len(among) + 1))[among.bool()].mean()


@wrong("02.1", "the class's patches only")
def over_all_ranks(scores, is_class):
    among = is_class[scores.argsort(descending=True)].double()
    return (among.cumsum(0) / torch.arange(1, len(among) + 1)).mean()


@wrong("02.1", "this is AUROC")
def auroc(scores, is_class):
    return (scores[is_class][:, None] > scores[~is_class]).double().mean()


@wrong("02.2", "positions in the list of words present")
def positions(similarity, present):
    return similarity[:, present].argmax(1)


@wrong("02.2", "0 wins then")
def masked_with_zero(similarity, present):
    masked = torch.zeros_like(similarity)
    masked[:, present] = similarity[:, present]
    return masked.argmax(1)


@wrong("02.2", "all words were on offer")
def among_all(similarity, present):
    return similarity.argmax(1)


@wrong("02.3", "move *away*")
def away(image, text, share):
    return F.normalize(image + share * (image.mean(0) - text.mean(0)), dim=-1)


@wrong("02.3", "back to length 1")
def length_lost(image, text, share):
    return image - share * (image.mean(0) - text.mean(0))


@wrong("02.3", "toward its own caption")
def pair_by_pair(image, text, share):
    return F.normalize(image - share * (image - text), dim=-1)


# --- 03 -------------------------------------------------------------------------------------------------------------


def sigma_where(blocks, factor):
    """The largest sigma of a fine grid for which `factor` times the deepest weight is more than all the others."""
    sigmas = np.geomspace(0.05, 500, 40_000)
    weights = np.exp(-(np.arange(blocks)[:, None] ** 2) / (2 * sigmas**2))
    return sigmas[factor * weights[0] > weights[1:].sum(0)][-1]


@wrong("03.1", "must equal the sum of all others")
def twice_as_much(blocks):
    return sigma_where(blocks, 2)


@wrong("03.1", "take the root")
def sigma_squared(blocks):
    return sigma_where(blocks, 1) ** 2


@wrong("03.1", "the 2 below the fraction is missing")
def no_two(blocks):
    return sigma_where(blocks, 1) * 2**0.5


def focal_costs(logits, labels, alpha=0.25):
    target = labels[:, None] == torch.arange(logits.shape[1])[:, None, None]
    signed = torch.where(target, logits, -logits)
    cost = -torch.where(target, alpha, 1 - alpha) * (-signed).sigmoid() ** 2 * F.logsigmoid(signed)
    return cost, target.flatten(2).any(-1).sum()


@wrong("03.2", "still count as negatives")
def as_the_authors(logits, labels):
    cost, pairs = focal_costs(logits, labels)
    return cost.mean((2, 3)).sum() / pairs


@wrong("03.2", "divide by the labelled pixels")
def mean_over_all(logits, labels):
    cost, pairs = focal_costs(logits, labels)
    return (cost * (labels != 255)[:, None]).mean((2, 3)).sum() / pairs


@wrong("03.2", "swapped")
def alpha_swapped(logits, labels):
    cost, pairs = focal_costs(logits, labels, alpha=0.75)
    counted = (labels != 255)[:, None]
    return ((cost * counted).sum((2, 3)) / counted.sum((2, 3))).sum() / pairs


@wrong("03.3", "the *blocks* compete")
def over_patches(features, query):
    blocks = torch.stack(features)
    return ((blocks @ query).softmax(-1)[..., None] * blocks).sum(0)


@wrong("03.3", "the softmax is missing")
def scores_as_weights(features, query):
    blocks = torch.stack(features)
    return ((blocks @ query)[..., None] * blocks).sum(0)


@wrong("03.3", "the query makes no difference")
def mean_of_blocks(features, query):
    return torch.stack(features).mean(0)


# --- 03b ------------------------------------------------------------------------------------------------------------


@wrong("03b.1", "mean of the probabilities")
def mean_probability(probabilities):
    return probabilities.mean(0)


@wrong("03b.1", "must be multiplied as well")
def product(probabilities):
    return probabilities.prod(0)


@wrong("03b.1", "undo the sigmoid")
def sigmoid_of_sum(probabilities):
    return probabilities.sum(0).sigmoid()


@wrong("03b.2", "harmonic mean")
def f1(recall, precision):
    return 2 * recall * precision / (recall + precision)


@wrong("03b.2", "their product")
def product_of_both(recall, precision):
    return recall * precision


@wrong("03b.2", "count them once")
def counted_twice(recall, precision):
    return 1 / (1 / recall + 1 / precision)


@wrong("03b.3", "alone")
def alone(worth, stages):
    return [worth[frozenset({stage})] for stage in range(stages)]


@wrong("03b.3", "lost without each stage")
def missed(worth, stages):
    whole = frozenset(range(stages))
    return [worth[whole] - worth[whole - {stage}] for stage in range(stages)]


@wrong("03b.3", "divide by their number")
def not_divided(worth, stages):
    added = [0.0] * stages
    for order in permutations(range(stages)):
        for place, stage in enumerate(order):
            added[stage] += worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]
    return added
