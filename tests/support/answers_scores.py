"""Answers to assignment 3, all but the settings, as in `answers.py`."""

import torch

from tests.support.answers import right, wrong


@wrong("harmonic_mean", "leans to the smaller")
def plain_mean(seen, unseen):
    return (seen + unseen) / 2


@wrong("harmonic_mean", "geometric mean")
def geometric(seen, unseen):
    return (seen * unseen) ** 0.5


@wrong("harmonic_mean", "ZeroDivisionError")
def division_by_zero(seen, unseen):
    return 2 * seen * unseen / (seen + unseen)


def scored(counts, unseen, union):
    counts = counts.double()
    iou = counts.diag() / union(counts)
    seen = [c for c in range(len(counts)) if c not in unseen]
    s, u = iou[seen].nanmean(), iou[unseen].nanmean()
    return s, u, 2 * s * u / (s + u)


def either(counts):
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    return torch.where(counts.sum(1) > 0, union, torch.nan)


@wrong("seen_unseen_scores", "that is recall")
def recall(counts, unseen):
    return scored(counts, unseen, lambda m: m.sum(1))


@wrong("seen_unseen_scores", "that is precision")
def precision(counts, unseen):
    return scored(counts, unseen, lambda m: m.sum(0))


@wrong("seen_unseen_scores", "leave them out")
def absent_classes_count(counts, unseen):
    return scored(counts, unseen, lambda m: m.sum(0) + m.sum(1) - m.diag())


@wrong("seen_unseen_scores", "swapped")
def seen_and_unseen_swapped(counts, unseen):
    s, u, h = scored(counts, unseen, either)
    return u, s, h


@wrong("seen_unseen_scores", "the harmonic one")
def plain_hiou(counts, unseen):
    s, u, _ = scored(counts, unseen, either)
    return s, u, (s + u) / 2


@wrong("training_labels", "nothing has changed")
def unchanged(labels, unseen, classes):
    return labels


@wrong("training_labels", "ignored is 255")
def unseen_as_zero(labels, unseen, classes):
    return torch.where(torch.isin(labels, torch.tensor(unseen)), 0, labels)


@wrong("training_labels", "number them 0, 1, 2")
def old_numbers(labels, unseen, classes):
    return torch.where(torch.isin(labels, torch.tensor(unseen)), 255, labels)


@wrong("training_labels", "touching unseen labels")
def unseen_renumbered(labels, unseen, classes):
    order = [c for c in range(classes) if c not in unseen] + list(unseen)
    return torch.tensor([order.index(c) for c in range(classes)] + [255] * (256 - classes))[labels]


@wrong("training_labels", "changed what it was given")
def in_place(labels, unseen, classes):
    labels[torch.isin(labels, torch.tensor(unseen))] = 255
    return labels


def swept(scores, labels, seen, offsets, sign=-1):
    best = []
    unseen = [c for c in range(scores.shape[1]) if c not in seen]
    for offset in offsets:
        moved = scores.clone()
        moved[:, seen] += sign * offset
        counts = torch.zeros(scores.shape[1], scores.shape[1])
        counts.index_put_((labels.flatten(), moved.argmax(1).flatten()), torch.ones(1), accumulate=True)
        best.append(
            [float(x) for x in scored(counts, unseen, either)] + [float((moved.argmax(1) == labels).float().mean())]
        )
    return torch.tensor(best)


@wrong("best_offset", "it is taken off")
def offset_added(scores, labels, seen, offsets):
    scores_of = swept(scores, labels, seen, offsets, sign=1)[:, 2]
    return offsets[int(scores_of.argmax())], scores_of.max()


@wrong("best_offset", "highest U")
def best_unseen(scores, labels, seen, offsets):
    scores_of = swept(scores, labels, seen, offsets)
    return offsets[int(scores_of[:, 1].argmax())], scores_of[:, 2].max()


@wrong("best_offset", "two numbers")
def offset_alone(scores, labels, seen, offsets):
    return offsets[int(swept(scores, labels, seen, offsets)[:, 2].argmax())]


@wrong("best_offset", "expected")
def usual_offset(scores, labels, seen, offsets):
    return 0.1, 0.5


@right("harmonic_mean")
def by_reciprocals(seen, unseen):
    return 0 if min(seen, unseen) <= 0 else 1 / ((1 / seen + 1 / unseen) / 2)


@right("seen_unseen_scores")
def scores_in_a_dict(counts, unseen):
    iou = {}
    for c, row in enumerate(counts.tolist()):
        if sum(row):
            iou[c] = row[c] / (sum(row) + sum(other[c] for other in counts.tolist()) - row[c])
    seen = [value for c, value in iou.items() if c not in unseen]
    hidden = [iou[c] for c in unseen if c in iou]
    s, u = sum(seen) / len(seen), sum(hidden) / len(hidden)
    return [s, u, by_reciprocals_again(s, u)]


def by_reciprocals_again(seen, unseen):
    return 2 / (1 / seen + 1 / unseen)


@right("training_labels")
def labels_by_loop(labels, unseen, classes):
    result = torch.full_like(labels, 255)
    for number, c in enumerate(sorted(set(range(classes)) - set(unseen))):
        result[labels == c] = number
    return result


@right("best_offset")
def offset_by_sweep(scores, labels, seen, offsets):
    hious = swept(scores, labels, seen, offsets)[:, 2].tolist()
    return offsets[hious.index(max(hious))], max(hious)
