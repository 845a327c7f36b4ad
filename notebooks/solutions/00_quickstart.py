"""Solutions of notebook 00, quickstart. Try the exercises first: `check` says what is wrong, in words."""

import numpy as np


def called(found, truth, word, words):
    """00.1: of the pixels that are truly `word`, the share called each of the words."""
    counts = np.bincount(found[truth == word], minlength=words)  # minlength: also those that no pixel was called
    return counts / counts.sum()


def share_right(scores, truth, count):
    """00.2: the share of pixels that are right with the first `count` words on offer.

    Words do not see each other: a new word leaves the scores of the others as they are. It can only take pixels away.
    If it is not in the picture, those that it takes are wrong: an absent word never raises this share.
    """
    return (scores[:count].argmax(0) == truth).mean()
