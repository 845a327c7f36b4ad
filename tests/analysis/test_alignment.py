"""Localisation of words, intervals and the modality gap, on cases whose answers are known."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional as F

from cascadeclip.analysis.alignment import (
    chance_of_average_precision,
    curves_of,
    localise,
    loss_along_gap,
    modality_gap,
)
from cascadeclip.errors import InputError

LABELS = torch.tensor([[0, 0, 1, 1], [1, 2, 2, 2]])


def test_perfect_similarities_score_perfectly():
    found = localise(F.one_hot(LABELS, 4).float(), LABELS)
    assert found.image.tolist() == [0, 0, 1, 1]
    assert found.class_index.tolist() == [0, 1, 1, 2]
    assert found.auroc.tolist() == [1, 1, 1, 1]
    assert found.average_precision.tolist() == [1, 1, 1, 1]
    assert found.prevalence.tolist() == [0.5, 0.5, 0.25, 0.75]
    assert found.hit.all()
    assert found.mean("iou") == 1


def test_auroc_counts_pairs_in_the_right_order():
    similarity = torch.zeros(1, 4, 2)
    similarity[0, :, 0] = torch.tensor([0.9, 0.1, 0.5, 0.2])  # patches 0 and 1 are of class 0
    found = localise(similarity, torch.tensor([[0, 0, 1, 1]]))
    assert found.auroc[0] == 0.5  # 0.9 beats both others, 0.1 none
    assert found.average_precision[0] == pytest.approx((1 / 1 + 2 / 4) / 2)
    assert found.hit[0]
    assert found.auroc[1] == 0.5  # all equal


@pytest.mark.slow
@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_ranks_give_scikit_learns_scores_with_and_without_ties(levels, monkeypatch):
    monkeypatch.setattr("cascadeclip.analysis.alignment.COMPARED_AT_ONCE", 12 * 12 * 100)  # 100 of some 350 rows
    generator = torch.Generator().manual_seed(levels)
    similarity = torch.randint(0, levels, (70, 12, 6), generator=generator).float()
    labels = torch.randint(0, 6, (70, 12), generator=generator)
    found = localise(similarity, labels)
    assert len(found.image) > 300
    for row, (image, index) in enumerate(zip(found.image, found.class_index, strict=True)):
        is_class, score = labels[image] == index, similarity[image, :, index]
        assert found.auroc[row] == pytest.approx(roc_auc_score(is_class, score))
        assert found.average_precision[row] == pytest.approx(average_precision_score(is_class, score))
        assert found.prevalence[row] == pytest.approx(is_class.float().mean().item())
        assert found.hit[row] == is_class[score.argmax()]


@pytest.mark.slow
@pytest.mark.parametrize(("right", "among"), [(1, 2), (1, 12), (3, 12), (11, 12), (12, 12), (1, 1), (20, 144)])
def test_chance_of_average_precision_is_the_mean_over_random_orders(right, among):
    """The prevalence R / N, long taken for it, is below: at 1 of 12 it is 0.083, and chance 0.259."""
    generator = np.random.default_rng(right * among)
    truth = np.arange(among) < right
    simulated = [average_precision_score(truth, generator.permutation(among)) for _ in range(600)]
    chance = chance_of_average_precision(right, among)
    error = np.std(simulated) / np.sqrt(len(simulated))
    assert chance == pytest.approx(np.mean(simulated), abs=4 * error + 1e-9)
    assert chance >= right / among - 1e-12
    harmonic = sum(1 / rank for rank in range(1, among + 1)) / among
    assert among == 1 or chance == pytest.approx(harmonic + (right - 1) / (among - 1) * (1 - harmonic))


def test_localise_gives_the_chance_of_each_row_over_counted_patches():
    labels = torch.tensor([[0, 0, 1, 255, 1, 1], [2, 0, 0, 0, 255, 255]])
    found = localise(torch.rand(2, 6, 3), labels)
    expected = [chance_of_average_precision(r, n) for r, n in ((2, 5), (3, 5), (3, 4), (1, 4))]
    assert found.chance_precision == pytest.approx(expected)
    assert found.mean("chance_precision") > found.mean("prevalence")


def test_argmax_goes_to_absent_words_unless_only_present_ones_are_offered():
    similarity = F.one_hot(LABELS, 4).float()
    similarity[..., 3] = 2  # a word that is in no picture
    assert localise(similarity, LABELS).mean("iou") == 0
    assert localise(similarity, LABELS, present_only=True).mean("iou") == 1


def test_iou_is_from_one_confusion_matrix():
    similarity = torch.zeros(2, 4, 3)
    similarity[..., 1] = 1  # all patches are called class 1
    found = localise(similarity, LABELS)
    assert found.mean("iou") == pytest.approx((0 + 3 / 8 + 0) / 3)
    assert found.mean("iou", [1]) == pytest.approx(3 / 8)
    assert found.mean("iou", [1], images=np.array([0, 0])) == pytest.approx(1 / 2)


def test_means_weigh_classes_alike_and_count_drawn_images_as_often_as_drawn():
    similarity = F.one_hot(LABELS, 3).float()
    similarity[1, :, 1] = torch.tensor([0.0, 1, 1, 1])  # class 1 is missed in the second picture
    found = localise(similarity, LABELS)
    assert found.per_class("auroc").tolist() == [1, 0.5, 1]
    assert found.mean("auroc") == pytest.approx(2.5 / 3)
    assert found.mean("auroc", [1], images=np.array([0, 1, 1])) == pytest.approx(1 / 3)
    assert np.isnan(found.per_class("auroc", images=np.array([1, 1]))[0])


def test_a_class_that_fills_the_picture_is_left_out():
    labels = torch.tensor([[2, 2], [0, 1]])
    assert localise(torch.rand(2, 2, 3), labels).image.tolist() == [1, 1]


def test_localise_refuses_labels_that_do_not_fit():
    with pytest.raises(InputError, match=r"0\.\.1"):
        localise(torch.rand(1, 2, 2), torch.tensor([[0, 2]]))
    with pytest.raises(InputError, match=r"must be \(1, 2\)"):
        localise(torch.rand(1, 2, 2), torch.tensor([[0, 1, 1]]))


def test_resampled_localisation_is_the_measure_on_drawn_images():
    similarity = torch.rand(6, 12, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 4, (6, 12), generator=torch.Generator().manual_seed(1))
    found = localise(similarity, labels)
    for measure in ("auroc", "average_precision", "hit", "iou"):
        resampled = found.resampled(measure, [0, 2], repeats=7, seed=3)
        rows = np.random.default_rng(3).integers(0, 6, (7, 6))
        assert resampled.whole == pytest.approx(found.mean(measure, [0, 2]))
        assert resampled.draws == pytest.approx([found.mean(measure, [0, 2], images=row) for row in rows])
        again = localise(similarity[rows[0]], labels[rows[0]])
        assert resampled.draws[0] == pytest.approx(again.mean(measure, [0, 2]))


def test_curves_have_a_value_and_an_interval_per_block():
    similarity = torch.rand(6, 12, 4, generator=torch.Generator().manual_seed(0))
    blocks = [localise(similarity * sign, torch.arange(72).reshape(6, 12) % 4) for sign in (1, -1)]
    values, intervals = curves_of({"raw": blocks}, "auroc", scale=100, repeats=20)
    assert values["raw"] == pytest.approx([100 * block.mean("auroc") for block in blocks])
    expected = 100 * np.array([block.resampled("auroc", repeats=20).interval() for block in blocks])
    assert np.array(intervals["raw"]) == pytest.approx(expected)


def test_modality_gap_is_the_distance_of_the_centroids_whatever_the_lengths():
    image, text = torch.tensor([[3.0, 0], [0, 5]]), torch.tensor([[-1.0, 0]])
    torch.testing.assert_close(modality_gap(image, text), torch.tensor([1.5, 0.5]))


def test_loss_along_the_gap_is_the_contrastive_loss_at_no_shift():
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(6, 4, generator=generator), dim=-1) for _ in range(2))
    logits = (image @ text.T / 0.1).double()
    rows = -(logits.diag() - logits.exp().sum(1).log()).mean()
    columns = -(logits.diag() - logits.exp().sum(0).log()).mean()
    assert loss_along_gap(image, text, [0.0], 0.1)[0] == pytest.approx((rows + columns).item() / 2, rel=1e-5)


def test_closing_a_pure_offset_lowers_the_loss():
    text = F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    offset = torch.zeros(16)
    offset[0] = 2
    image = F.normalize(text + offset, dim=-1)
    none, closed = loss_along_gap(image, text, [0.0, 1.0], 0.1)
    assert closed < none
