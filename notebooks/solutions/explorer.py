"""Solutions of the explorers' notebook. Try the exercises first: `check` says what is wrong, in words."""


def worth_of_worst(logits, truth):
    """explorer.1: what the stage that is worst alone adds to the sum of all.

    A stage that is wrong where it is unsure, and right where the others are not, helps: it is no useless vote.
    """

    def right(scores):
        return (scores.argmax(0) == truth)[truth != 255].mean()

    alone = [right(stage) for stage in logits]
    worst = alone.index(min(alone))
    return right(logits.sum(0)) - right(logits.sum(0) - logits[worst])


def lost_without(scores):
    """explorer.2: take back one of MaskCLIP's three cuts at a time."""
    whole = scores["itself", False, False]
    one_back = scores["query-key", False, False], scores["itself", True, False], scores["itself", False, True]
    return [whole - score for score in one_back]
