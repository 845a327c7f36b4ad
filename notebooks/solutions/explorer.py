"""Solutions of the explorers' notebook. Try the exercises first: `check` says what is wrong, in words."""


def worth_of_worst(logits, truth):
    """explorer.1: what the stage that is worst alone adds to the sum of all.

    In pictures 3 and 5 that is stage 3, and it moves the sum by less than half a point, up in the one and down in the
    other. Look at the logits: it is far less sure than the others, so that its vote is hardly heard.
    """

    def right(scores):
        return (scores.argmax(0) == truth)[truth != 255].mean()

    alone = [right(stage) for stage in logits]
    worst = alone.index(min(alone))
    return right(logits.sum(0)) - right(logits.sum(0) - logits[worst])


def lost_without(scores):
    """explorer.2: take back one of MaskCLIP's three cuts at a time.

    Attention matters most, alone and beside the others. To drop the residual alone makes things worse, and beside the
    others it is worth more than 20 points: what a cut is worth depends on what else is cut.
    """
    whole = scores["itself", False, False]
    one_back = scores["query-key", False, False], scores["itself", True, False], scores["itself", False, True]
    return [whole - score for score in one_back]
