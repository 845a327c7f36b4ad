"""Intervals: on cases whose answers are known, and how often they hold the truth in simulations."""

import numpy as np
import pytest

from cascadeclip.errors import InputError
from cascadeclip.evaluation.resampling import OverRuns, Resampled, bootstrap


def test_bootstrap_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap(lambda drawn: values[drawn].mean(), 400, repeats=2000).interval()
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)


def test_basic_interval_lies_as_far_from_the_set_as_the_set_from_its_draws():
    found = Resampled(np.array(5.0), np.array([5.0, 6.0, 8.0]), (1, 3, 0))
    assert found.interval(0.999999) == pytest.approx((2.0, 5.0), abs=1e-4)
    assert found.interval(0.5) == pytest.approx((2 * 5 - 7.0, 2 * 5 - 5.5))


def test_bootstrap_of_several_values_is_that_of_each():
    values = np.random.default_rng(2).random((30, 2))
    both = bootstrap(lambda drawn: values[drawn].mean(0), 30, repeats=50).interval()
    for k in range(2):
        one = bootstrap(lambda drawn, k=k: values[drawn, k].mean(), 30, repeats=50).interval()
        assert (both[0][k], both[1][k]) == pytest.approx(one)


def test_bootstrap_leaves_out_draws_without_a_value():
    found = bootstrap(lambda drawn: [np.nan if 0 in drawn else 1.0, np.nan], 4, repeats=100)
    assert np.isnan(found.draws[:, 0]).any() and not np.isnan(found.draws[:, 0]).all()
    low, high = Resampled(np.array([1.0, np.nan]), found.draws, found.drawn_as).interval()
    assert (low[0], high[0]) == (1, 1) and np.isnan(low[1])


def test_a_paired_difference_knows_what_both_have_in_common():
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 5, 200)  # how hard a picture is, for both
    values = hard + rng.normal(1, 0.5, 200), hard + rng.normal(0, 0.5, 200)
    one, other = (bootstrap(lambda drawn, v=v: v[drawn].mean(), 200) for v in values)
    low, high = (one - other).interval()
    assert low > 0.5 and high < 1.5, "the difference is seen"
    assert one.interval()[0] < other.interval()[1], "though the models' own intervals overlap"
    assert (one - other).whole == pytest.approx((values[0] - values[1]).mean())


def test_bootstrap_refuses_what_does_not_fit():
    one = bootstrap(lambda drawn: drawn.mean(), 5, repeats=3)
    with pytest.raises(InputError, match=r"drawn as \(5, 3, 0\) and \(5, 3, 1\)"):
        one - bootstrap(lambda drawn: drawn.mean(), 5, repeats=3, seed=1)
    with pytest.raises(InputError, match="level=1 must lie between 0 and 1"):
        one.interval(1)
    for pictures, repeats in ((0, 3), (5, 0)):
        with pytest.raises(InputError, match=f"pictures={pictures} and repeats={repeats} must be at least 1"):
            bootstrap(lambda drawn: 0.0, pictures, repeats=repeats)


def make_world(rng, pictures, classes=60):
    """Counts (3, n, C) of pictures with three of many classes: each found in part, the rest given to another class."""
    skill, rows = np.linspace(0.2, 0.9, classes), np.arange(pictures)[:, None]
    held = rng.random((pictures, classes)).argpartition(3, axis=1)[:, :3]
    size = rng.gamma(4, 25, held.shape)
    found = size * rng.beta(3 * skill[held] + 0.2, 3 * (1 - skill[held]) + 0.2)
    counts = np.zeros((3, pictures, classes))
    counts[0, rows, held], counts[1, rows, held], counts[2, rows, held] = found, size, found
    counts[2, rows[:, 0], rng.integers(0, classes, pictures)] += (size - found).sum(1)
    return counts


def mean_iou(counts):
    right, true, given = counts.sum(1)
    held = true > 0
    return (right[held] / (true + given - right)[held]).mean()


TRUTH = mean_iou(make_world(np.random.default_rng(1), 100_000))


def shares_that_hold(pictures, trials):
    """How often the basic interval and the middle of the draws hold the truth, and the mean of the measured values."""
    rng = np.random.default_rng(5)
    sets = [make_world(rng, pictures) for _ in range(trials)]
    found = [bootstrap(lambda drawn, c=c: mean_iou(c[:, drawn]), pictures, repeats=200) for c in sets]
    basic = np.mean([low <= TRUTH <= high for low, high in (one.interval() for one in found)])
    ends = [np.quantile(one.draws, (0.025, 0.975)) for one in found]
    return basic, np.mean([low <= TRUTH <= high for low, high in ends]), np.mean([one.whole for one in found])


def test_few_pictures_flatter_a_mean_over_classes_and_the_interval_takes_it_off():
    """The reason for the basic form, which holds the truth far more often here than the middle of the draws does."""
    basic, middle, whole = shares_that_hold(40, 150)
    assert whole > TRUTH + 0.03, "flattered"
    assert 0.75 < basic < 0.9 and middle < 0.5, "as the docstring says: forty pictures are too few"


@pytest.mark.slow
def test_an_interval_of_two_hundred_pictures_holds_the_truth_as_often_as_it_says():
    basic, _, _ = shares_that_hold(200, 200)
    assert 0.9 <= basic <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("seeds_apart, scenes_apart", [(1, 1), (1, 10), (0.2, 10), (0.05, 10), (1, 30)])
def test_an_interval_over_seeds_and_pictures_holds_the_truth_whichever_of_them_decides(seeds_apart, scenes_apart):
    """Three trainings of a difference that is truly 0; what is hard about a picture is partly the same for all."""
    rng, held, trials, pictures = np.random.default_rng(7), [], 600, 100
    for _ in range(trials):
        of_seed = rng.normal(0, seeds_apart, (3, 1))
        of_picture = rng.normal(0, scenes_apart, pictures) + rng.normal(0, scenes_apart, (3, pictures))
        values = of_seed + of_picture
        one = bootstrap(lambda drawn, v=values: v[:, drawn].mean(), pictures, repeats=60)
        low, high = OverRuns(values.mean(1), one).interval()
        held.append(low <= 0 <= high)
    assert 0.925 <= np.mean(held) <= 0.99


def test_an_interval_over_seeds_alone_is_student_s():
    runs = np.array([1.0, 2.0, 4.0])
    still = Resampled(np.array(runs.mean()), np.full(9, runs.mean()), (50, 9, 0))
    low, high = OverRuns(runs, still).interval()
    half = 4.3027 * runs.std(ddof=1) / np.sqrt(3)  # 97.5 % of t with two degrees of freedom
    assert (low, high) == pytest.approx((runs.mean() - half, runs.mean() + half), rel=1e-4)


def test_one_training_says_nothing_of_another_and_unequal_numbers_are_no_pair():
    still = Resampled(np.array(1.0), np.ones(9), (50, 9, 0))
    assert np.isnan(OverRuns(np.array([1.0]), still).interval()).all()
    two = OverRuns(np.array([1.0, 3.0]), still)
    with pytest.raises(InputError, match="2 and 1 trainings"):
        two - OverRuns(np.array([1.0]), still)
    with pytest.raises(InputError, match="level=1 must lie between 0 and 1"):
        two.interval(1)
    assert (two - two).interval() == (0, 0)
