"""Solutions of notebook 04, protocol. Try the exercises first: `check` says what is wrong, in words."""

import torch


def unseen_behind(hiou, seen):
    """04.1: h (S + U) = 2 S U, so U (2 S - h) = h S. For h = 0.6, S may be 0.45 and U 0.9, or the other way round."""
    return hiou * seen / (2 * seen - hiou)


def paired_differences(one, other, drawn):
    """04.2: both models on the same pictures, again and again; counts are added up before anything is divided."""

    def mean_iou(counts):
        right, true, given = counts.double().sum(1)
        return (right / (true + given - right))[true > 0].mean()

    return torch.stack([mean_iou(one[:, rows]) - mean_iou(other[:, rows]) for rows in drawn])
