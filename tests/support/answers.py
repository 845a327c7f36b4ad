"""Answers as students give them: wrong ones, with what they must be told, and right ones written in another way."""

import math

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from cascadeclip.analysis.alignment import localise
from cascadeclip.analysis.layers import patch_labels
from cascadeclip.analysis.lenses import block_tokens, raw_lens

WRONG: list[tuple[str, str, object]] = []  # exercise, part of the message, answer
RIGHT: list[tuple[str, object]] = []


def wrong(exercise, message):
    """Lists the function below as a wrong answer."""
    return lambda function: WRONG.append((exercise, message, function))


def right(exercise):
    """Lists the function below as a right answer."""
    return lambda function: RIGHT.append((exercise, function))


# --- assignment 1 --------------------------------------------------------------------------------------------------


@wrong("word_map", "plain dot product")
def dot_product(tokens, word, grid):
    return (tokens[1:] @ word).reshape(grid)


@wrong("word_map", "the word does not")
def only_tokens_normalised(tokens, word, grid):
    return (F.normalize(tokens[1:], dim=-1) @ word).reshape(grid)


@wrong("word_map", "class token")
def keeps_class_token(tokens, word, grid):
    return F.cosine_similarity(tokens[:-1], word[None]).reshape(grid)


@wrong("word_map", "rows and columns are mixed up")
def column_by_column(tokens, word, grid):
    return F.cosine_similarity(tokens[1:], word[None]).reshape(grid[1], grid[0]).T


@wrong("word_map", "flat list")
def flat_map(tokens, word, grid):
    return F.cosine_similarity(tokens[1:], word[None])


@wrong("auroc", "upside down")
def lower_wins(scores, is_class):
    return (scores[is_class][:, None] < scores[~is_class]).float().mean()


@wrong("auroc", "tie is a coin toss")
def ties_won(scores, is_class):
    return (scores[is_class][:, None] >= scores[~is_class]).float().mean()


@wrong("auroc", "tie is a coin toss")
def ties_lost(scores, is_class):
    return (scores[is_class][:, None] > scores[~is_class]).float().mean()


@wrong("auroc", "accuracy at one threshold")
def accuracy(scores, is_class):
    return ((scores > scores.mean()) == is_class).float().mean()


@wrong("auroc", "`roc_auc_score`")
def from_scikit_learn(scores, is_class):
    return roc_auc_score(is_class.numpy(), scores.numpy())


@wrong("auroc", "expected")
def always_half(scores, is_class):
    return 0.5


@wrong("mean_over_classes", "over the rows")
def mean_of_rows(values, class_index, classes):
    return values.mean()


@wrong("mean_over_classes", "leave them out")
def absent_as_zero(values, class_index, classes):
    total = 0.0
    for c in range(classes):
        if (class_index == c).any():
            total += values[class_index == c].mean()
    return total / classes


@wrong("mean_over_classes", "divided by zero")
def nan_of_absent(values, class_index, classes):
    return torch.stack([values[class_index == c].mean() for c in range(classes)]).mean()


def grams(x, y):
    return x.double() @ x.double().T, y.double() @ y.double().T


@wrong("debiased_cka", "naive estimate")
def naive_cka(x, y):
    k, m = grams(x - x.mean(0), y - y.mean(0))
    return (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()


def hsic(k, m):
    n = len(k)
    k, m = k.clone().fill_diagonal_(0), m.clone().fill_diagonal_(0)
    one = torch.ones(n, dtype=k.dtype)
    sums = (one @ k @ one) * (one @ m @ one) / (n - 1) / (n - 2)
    return (torch.trace(k @ m) + sums - 2 * one @ k @ m @ one / (n - 2)) / n / (n - 3)


@wrong("debiased_cka", "square root is missing")
def no_root(x, y):
    k, m = grams(x, y)
    return hsic(k, m) / (hsic(k, k) * hsic(m, m))


@wrong("debiased_cka", "CKA must be 1")
def hsic_alone(x, y):
    return hsic(*grams(x, y))


@wrong("debiased_cka", "calls them similar")
def always_one(x, y):
    return 1.0


@wrong("held_out", "draw *pictures*, not patches")
def split_by_patch(picture_of, share, seed):
    return torch.rand(len(picture_of), generator=torch.Generator().manual_seed(seed)) < share


@wrong("held_out", "other seeds give the same")
def always_the_first(picture_of, share, seed):
    pictures = picture_of.unique()
    return torch.isin(picture_of, pictures[: round(share * len(pictures))])


@wrong("held_out", "the share asked for")
def fixed_share(picture_of, share, seed):
    pictures = picture_of.unique()
    return torch.isin(picture_of, pictures[torch.randperm(len(pictures))[: len(pictures) - 2]])


@wrong("held_out", "True and False")
def indices_instead_of_mask(picture_of, share, seed):
    return (picture_of % 2).long()


@wrong("modality_gap", "length 1 before the centroids")
def raw_centroids(image, text):
    return (image.mean(0) - text.mean(0)).norm()


@wrong("modality_gap", "single embeddings")
def mean_of_distances(image, text):
    return torch.cdist(F.normalize(image, dim=-1), F.normalize(text, dim=-1)).mean()


@wrong("modality_gap", "one number")
def gap_vector(image, text):
    return F.normalize(image, dim=-1).mean(0) - F.normalize(text, dim=-1).mean(0)


@wrong("auroc_by_block", "reverse order")
def blocks_reversed(visual, images, labels, text):
    return by_block(visual, images, labels, text)[::-1]


@wrong("auroc_by_block", "last block alone")
def last_block(visual, images, labels, text):
    return by_block(visual, images, labels, text)[-1]


@wrong("auroc_by_block", "stopped with InputError")
def with_class_token(visual, images, labels, text):
    classes = patch_labels(labels, visual.grid_size)
    return [localise(raw_lens(visual, one) @ text.T, classes).mean("auroc") for one in block_tokens(visual, images)]


def by_block(visual, images, labels, text):
    classes = patch_labels(labels, visual.grid_size)
    lenses = [raw_lens(visual, one[:, 1:]) for one in block_tokens(visual, images)]
    return [localise(one @ text.T, classes).mean("auroc") for one in lenses]


@right("word_map")
def word_map_by_loops(tokens, word, grid):
    rows = tokens[1:].numpy().reshape(*grid, -1)
    return [[float(p @ word.numpy() / np.linalg.norm(p) / word.norm()) for p in row] for row in rows]


@right("auroc")
def auroc_by_ranks(scores, is_class):
    ranks = torch.stack([((scores < s).sum() + (scores <= s).sum() + 1) / 2 for s in scores])
    inside = int(is_class.sum())
    return (ranks[is_class].sum() - inside * (inside + 1) / 2) / (inside * (len(scores) - inside))


@right("mean_over_classes")
def means_in_a_dict(values, class_index, classes):
    rows = {}
    for value, c in zip(values.tolist(), class_index.tolist(), strict=True):
        rows.setdefault(c, []).append(value)
    return float(np.mean([np.mean(row) for row in rows.values()]))


@right("debiased_cka")
def cka_with_matrices(x, y):
    k, m = grams(x, y)
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@right("held_out")
def held_out_with_numpy(picture_of, share, seed):
    pictures = np.unique(picture_of.numpy())
    count = math.floor(share * len(pictures) + 0.5)
    return np.isin(picture_of.numpy(), np.random.default_rng(seed).choice(pictures, count, replace=False))


@right("modality_gap")
def gap_with_numpy(image, text):
    one, other = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (image, text))
    return np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))


RIGHT.append(("auroc_by_block", by_block))
