"""Wrong answers to notebooks 04 to 06 and the explorers', as in `notebook_answers.py`."""

import numpy as np
import torch
from scipy import stats

from tests.support.notebook_answers import wrong

# --- 04 -------------------------------------------------------------------------------------------------------------


@wrong("04.1", "plain mean")
def arithmetic(hiou, seen):
    return 2 * hiou - seen


@wrong("04.1", "the root of S U")
def geometric(hiou, seen):
    return hiou**2 / seen


@wrong("04.1", "solve h = 2 S U / (S + U) for U")
def harmonic_again(hiou, seen):
    return 2 * hiou * seen / (hiou + seen)


def mean_iou(counts):
    right, true, given = counts.sum(1)
    return (right / (true + given - right))[true > 0].mean()


@wrong("04.2", "`other` minus `one`")
def the_other_way_round(one, other, drawn):
    return torch.stack([mean_iou(other[:, rows]) - mean_iou(one[:, rows]) for rows in drawn])


@wrong("04.2", "the mean of the pictures' scores")
def scores_of_pictures(one, other, drawn):
    def mean(counts):
        return torch.stack([mean_iou(counts[:, [picture]]) for picture in range(counts.shape[1])]).mean()

    return torch.stack([mean(one[:, rows]) - mean(other[:, rows]) for rows in drawn])


@wrong("04.2", "scored on the same sets")
def not_paired(one, other, drawn):
    return torch.stack([mean_iou(one[:, rows]) - mean_iou(other) for rows in drawn])


@wrong("04.2", "it is no 0")
def missing_counts_as_zero(one, other, drawn):
    def mean(counts):
        right, true, given = counts.sum(1)
        return (right / (true + given - right)).where(true > 0, torch.zeros(())).mean()

    return torch.stack([mean(one[:, rows]) - mean(other[:, rows]) for rows in drawn])


# --- 04b ------------------------------------------------------------------------------------------------------------


@wrong("04b.1", "it falls behind again later")
def ahead_once(steps, one, other):
    return steps[(one > other).nonzero()[0, 0]]


@wrong("04b.1", "the number of a look")
def number_of_the_look(steps, one, other):
    return (one <= other).nonzero()[-1, 0] + 1


@wrong("04b.1", "the *last* step at which it is behind")
def last_behind(steps, one, other):
    return steps[(one <= other).nonzero()[-1, 0]]


@wrong("04b.2", "Student's t")
def normal_quantile(one, other):
    runs = one - other
    half = 1.959964 * runs.std(ddof=1) / len(runs) ** 0.5
    return np.array([runs.mean() - half, runs.mean() + half])


@wrong("04b.2", "`other` minus `one`")
def seeds_the_other_way_round(one, other):
    runs = other - one
    half = stats.t.ppf(0.975, len(runs) - 1) * runs.std(ddof=1) / len(runs) ** 0.5
    return np.array([runs.mean() - half, runs.mean() + half])


@wrong("04b.2", "deviation of the *differences*")
def seeds_not_paired(one, other):
    half = stats.t.ppf(0.975, len(one) - 1) * ((one.var(ddof=1) + other.var(ddof=1)) / len(one)) ** 0.5
    return np.array([one.mean() - other.mean() - half, one.mean() - other.mean() + half])


@wrong("04b.2", "ddof=1")
def population_deviation(one, other):
    runs = one - other
    half = stats.t.ppf(0.975, len(runs) - 1) * runs.std() / len(runs) ** 0.5
    return np.array([runs.mean() - half, runs.mean() + half])


# --- 05 -------------------------------------------------------------------------------------------------------------


def _share_of(tokens, text, word):
    return ((tokens @ text.T).argmax(-1) == word).double().mean()


def _likely_first(scores):
    return scores.argsort(descending=True)


@wrong("05.1", "all words are on offer")
def every_word_offered(embedding, tokens, text):
    return _share_of(tokens, text, (text @ embedding).argmin())


@wrong("05.1", "goes to the *likeliest* word")
def share_of_present(embedding, tokens, text):
    return _share_of(tokens, text[_likely_first(text @ embedding)[[0, -1]]], 0)


@wrong("05.1", "the two likeliest words")
def two_likeliest(embedding, tokens, text):
    return _share_of(tokens, text[_likely_first(text @ embedding)[:2]], 1)


@wrong("05.1", "by the mean over the patches")
def chosen_by_patches(embedding, tokens, text):
    return _share_of(tokens, text[_likely_first((tokens @ text.T).mean((0, 1)))[[0, -1]]], 1)


def _of_another_shape(given, needed):
    return {name for name in given.keys() & needed.keys() if given[name].shape != needed[name].shape}


@wrong("05.2", "missing and unexpected are swapped")
def names_swapped(given, needed):
    return given.keys() - needed.keys(), needed.keys() - given.keys(), _of_another_shape(given, needed)


@wrong("05.2", "you compared names only")
def names_only(given, needed):
    return needed.keys() - given.keys(), given.keys() - needed.keys(), set()


@wrong("05.2", "how many numbers a tensor holds")
def numbers_counted(given, needed):
    common = given.keys() & needed.keys()
    reshaped = [name for name in common if given[name].numel() != needed[name].numel()]
    return needed.keys() - given.keys(), given.keys() - needed.keys(), reshaped


@wrong("05.2", "the numbers are free to differ")
def numbers_compared(given, needed):
    common = given.keys() & needed.keys()
    other = {name for name in common if not torch.equal(given[name], needed[name])}
    return needed.keys() - given.keys(), given.keys() - needed.keys(), other


@wrong("05.2", "stopped with KeyError")
def taken_for_granted(given, needed):
    return set(), set(), {name for name in needed if given[name].shape != needed[name].shape}


@wrong("05.2", "changed what it was given")
def taken_away(given, needed):
    missing, reshaped = set(), set()
    for name in needed:
        found = given.pop(name, None)
        if found is None:
            missing.add(name)
        elif found.shape != needed[name].shape:
            reshaped.add(name)
    return missing, set(given), reshaped


@wrong("05.2", "three sets of names are asked for")
def one_list(given, needed):
    return sorted(given.keys() ^ needed.keys())


@wrong("05.2", "is unexpected, and your answer does not say so")
def wrong_name(given, needed):
    return needed.keys() - given.keys(), ["head"], _of_another_shape(given, needed)


def _shares_named(handed, named, things):
    """Share of the labelled things that are named, for labels moved by -3 to 3."""
    pairs = [(set(np.unique(labels).tolist()), told) for labels, told in zip(handed, named, strict=True)]
    return [
        np.mean([label + move in told for labels, told in pairs for label in labels if 0 <= label + move < things])
        for move in range(-3, 4)
    ]


@wrong("05.3", "to move them *back*")
def way_back(handed, named, things):
    return np.argmax(_shares_named(handed, named, things)) - 3


@wrong("05.3", "a place in your list")
def place_in_the_list(handed, named, things):
    return np.argmax(_shares_named(handed, named, things))


@wrong("05.3", "the smallest label")
def smallest_label(handed, named, things):
    return handed.min()


@wrong("05.3", "with its own caption")
def all_pictures_together(handed, named, things):
    return 3 - np.argmax(_shares_named(handed[None], [set.union(*named)], things))


# --- 06 -------------------------------------------------------------------------------------------------------------


def _apart(rows, columns):
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    return torch.cdist(places, places)


@wrong("06.1", "the 2 below the fraction is missing")
def window_without_two(rows, columns, std):
    return (-(_apart(rows, columns) ** 2) / std**2).exp()


@wrong("06.1", "the distance has to be squared")
def not_squared(rows, columns, std):
    return (-_apart(rows, columns) / (2 * std**2)).exp()


@wrong("06.1", "rows sum to 1 in yours")
def softmax_window(rows, columns, std):
    return (-(_apart(rows, columns) ** 2) / (2 * std**2)).softmax(1)


@wrong("06.1", "numbered column by column")
def columns_first(rows, columns, std):
    places = torch.cartesian_prod(torch.arange(columns), torch.arange(rows)).float()
    return (-(torch.cdist(places, places) ** 2) / (2 * std**2)).exp()


@wrong("06.1", "the difference of the patches' numbers")
def numbers_apart(rows, columns, std):
    numbers = torch.arange(rows * columns).float()
    return (-((numbers[:, None] - numbers) ** 2) / (2 * std**2)).exp()


def _squares(labels, patch):
    return labels.unfold(0, patch, patch).unfold(1, patch, patch).flatten(2).flatten(0, 1)


@wrong("06.2", "the share of patches of one class alone")
def pure_patches(labels, patch):
    squares = _squares(labels, patch)
    return (squares == squares[:, :1]).all(1).double().mean().item()


@wrong("06.2", "the label of its first pixel")
def first_pixel(labels, patch):
    squares = _squares(labels, patch)
    return (squares == squares[:, :1]).double().mean().item()


@wrong("06.2", "the share of right ones is asked for")
def lost(labels, patch):
    return 1 - sum(torch.bincount(square).max().item() for square in _squares(labels, patch)) / labels.numel()


@wrong("06.2", "every patch has its own")
def one_label(labels, patch):
    return torch.bincount(labels.flatten()).max().item() / labels.numel()


# --- explorer -------------------------------------------------------------------------------------------------------


def _right_share(scores, truth):
    return (scores.argmax(0) == truth)[truth != 255].mean()


def _added_by(stage, logits, truth):
    return _right_share(logits.sum(0), truth) - _right_share(logits.sum(0) - logits[stage], truth)


@wrong("explorer.1", "you left out the *best* stage")
def best_left_out(logits, truth):
    return _added_by(np.argmax([_right_share(stage, truth) for stage in logits]), logits, truth)


@wrong("explorer.1", "the one that is worst *alone*")
def least_added(logits, truth):
    return min(_added_by(stage, logits, truth) for stage in range(len(logits)))


@wrong("explorer.1", "the other way round")
def lost_by_the_worst(logits, truth):
    return -_added_by(np.argmin([_right_share(stage, truth) for stage in logits]), logits, truth)


@wrong("explorer.1", "you added probabilities")
def probabilities_added(logits, truth):
    worst = np.argmin([_right_share(stage, truth) for stage in logits])
    return _added_by(worst, 1 / (1 + np.exp(-logits)), truth)


@wrong("explorer.1", "labelled 255 count as wrong")
def unknown_pixels_wrong(logits, truth):
    worst = np.argmin([_right_share(stage, truth) for stage in logits])
    whole, without = logits.sum(0).argmax(0), np.delete(logits, worst, axis=0).sum(0).argmax(0)
    return (whole == truth).mean() - (without == truth).mean()


@wrong("explorer.2", "what each cut gains *alone*")
def one_cut_made(scores):
    bare = scores["query-key", True, True]
    made = scores["itself", True, True], scores["query-key", False, True], scores["query-key", True, False]
    return [score - bare for score in made]


@wrong("explorer.2", "you took two cuts back")
def two_cuts_back(scores):
    whole = scores["itself", False, False]
    made = scores["itself", True, True], scores["query-key", False, True], scores["query-key", True, False]
    return [whole - score for score in made]


@wrong("explorer.2", "residual and feed-forward have changed places")
def kept_for_cut(scores):
    whole = scores["itself", False, False]
    back = scores["query-key", False, False], scores["itself", False, True], scores["itself", True, False]
    return [whole - score for score in back]
