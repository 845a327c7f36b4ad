"""Solutions of notebook 03b, taking the cascade apart. Try the exercises first: `check` says what is wrong."""

from itertools import permutations


def together(probabilities):
    """03b.1: adding logits multiplies odds, p / (1 - p); a stage of probability 1/2 has odds of 1 and abstains."""
    odds = (probabilities / (1 - probabilities)).prod(0)
    return odds / (1 + odds)


def iou_of(recall, precision):
    """03b.2: with r right pixels the truth has r / recall and the answer r / precision; r of them stand in both."""
    return 1 / (1 / recall + 1 / precision - 1)


def shares(worth, stages):
    """03b.3: let the stages come one by one, in every order; a stage's share is the mean of what its coming adds."""
    added, orders = [0.0] * stages, list(permutations(range(stages)))
    for order in orders:
        for place, stage in enumerate(order):
            added[stage] += worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]
    return [total / len(orders) for total in added]
