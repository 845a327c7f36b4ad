"""Solutions of notebook 04b, what holds. Try the exercises first: `check` says what is wrong, in words."""

import numpy as np
from scipy import stats


def ahead_from(steps, one, other):
    """04b.1: go back from the end to the last look at which it was behind; the lead that lasts begins one later."""
    behind = (one <= other).nonzero().flatten()
    return steps[0] if len(behind) == 0 else steps[behind[-1] + 1]


def interval_over_seeds(one, other):
    """04b.2: the differences are the sample. Three of them leave two degrees of freedom, and t is 4.3 instead of 2."""
    runs = one - other
    half = stats.t.ppf(0.975, len(runs) - 1) * runs.std(ddof=1) / np.sqrt(len(runs))
    return np.array([runs.mean() - half, runs.mean() + half])
