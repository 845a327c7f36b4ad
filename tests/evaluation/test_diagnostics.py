"""Diagnostics: every formula against one written another way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from sklearn.metrics import confusion_matrix, jaccard_score

from cascadeclip.data.transforms import normalise
from cascadeclip.errors import InputError
from cascadeclip.evaluation import diagnostics as d
from cascadeclip.evaluation.scores import ConfusionMatrix, evaluate, predict

NAMES, UNSEEN = list("abcde"), ["b", "e"]


def maps(seed, shape=(6, 20, 24), classes=5, ignored=0.1):
    """A random segmentation of blobs, and labels some of whose pixels are ignored."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (2, shape[0], -(-shape[1] // 4), -(-shape[2] // 4)))
    predicted, labels = coarse.repeat(4, 2).repeat(4, 3)[:, :, : shape[1], : shape[2]]
    labels = np.where(rng.random(shape) < ignored, 255, labels)
    return torch.from_numpy(predicted), torch.from_numpy(labels)


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 5, (5, 32, 32), generator=generator).to(torch.uint8)
    labels[labels == 4] = 255
    labels[:, :2] = 4
    return list(zip(images.split(2), labels.split(2), strict=True))


@pytest.fixture
def text():
    return torch.nn.functional.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


# --- one pass, any offset -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-0.3, 0.0, 0.1, 0.7])
@pytest.mark.parametrize("window", [None, 24])
def test_a_readout_gives_what_a_pass_of_its_own_would_give(offset, window, model, pictures, text):
    readout = d.read_out(model, pictures, text, NAMES, UNSEEN, window=window)
    seen = [0, 2, 3]
    again = [predict(model, normalise(images), text, seen, offset, window).argmax(1) for images, _ in pictures]
    assert torch.equal(readout.segmentation(offset), torch.cat(again))
    assert torch.equal(readout.labels, torch.cat([labels for _, labels in pictures]))
    assert len(readout) == 5


def test_scores_of_a_readout_are_those_of_evaluate(model, pictures, text):
    readout = d.read_out(model, pictures, text, NAMES, UNSEEN)
    offsets = [0.0, 0.05, 0.1, 0.4]
    for offset, scores in zip(offsets, d.sweep_offsets(readout, NAMES, UNSEEN, offsets), strict=True):
        assert scores == evaluate(model, pictures, text, NAMES, UNSEEN, seen_offset=offset)


def test_a_sweep_gives_pixels_from_seen_to_unseen_classes(model, pictures, text):
    readout = d.read_out(model, pictures, text, NAMES, UNSEEN)
    share = [torch.isin(readout.segmentation(o), torch.tensor([1, 4])).double().mean() for o in (-1.1, 0, 0.1, 1.1)]
    assert share == sorted(share) and share[0] == 0 and share[-1] == 1


def test_told_the_classes_present_a_model_chooses_among_them_alone(model, pictures, text):
    readout = d.read_out(model, pictures, text, NAMES, UNSEEN, present_only=True)
    for offset in (0.0, 0.1, 5.0):
        for found, labels in zip(readout.segmentation(offset), readout.labels, strict=True):
            assert set(found.unique().tolist()) <= set(labels.unique().tolist()) - {255}
    images, labels = pictures[0]
    scores = predict(model, normalise(images), text, [0, 2, 3])
    for picture, truth, found in zip(scores, labels, readout.segmentation(), strict=False):
        present = sorted(set(truth.unique().tolist()) - {255})
        assert torch.equal(torch.tensor(present)[picture[present].argmax(0)], found)


@pytest.mark.parametrize("training", [True, False])
def test_read_out_keeps_the_mode(training, model, pictures, text):
    model.train(training)
    d.read_out(model, pictures, text, NAMES, UNSEEN)
    assert model.training == training


@pytest.mark.parametrize(
    ("names", "unseen", "message"),
    [
        (NAMES, [], "5 seen and 0 unseen classes"),
        (NAMES, NAMES, "0 seen and 5 unseen classes"),
        (NAMES, ["b", "tiger"], r"unseen=\['tiger'\] are none of the 5 class names"),
    ],
)
def test_read_out_needs_both_groups(names, unseen, message, model, pictures, text):
    with pytest.raises(InputError, match=message):
        d.read_out(model, pictures, text, names, unseen)


def test_read_out_needs_pictures_of_one_size(model, pictures, text):
    other = (torch.zeros(1, 3, 40, 32, dtype=torch.uint8), torch.zeros(1, 40, 32, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"sizes \[\(32, 32\), \(40, 32\)\]"):
        d.read_out(model, [*pictures, other], text, NAMES, UNSEEN)
    with pytest.raises(InputError, match=r"sizes \[\]"):
        d.read_out(model, [], text, NAMES, UNSEEN)


def test_a_sweep_needs_offsets(model, pictures, text):
    with pytest.raises(InputError, match="offsets is empty"):
        d.sweep_offsets(d.read_out(model, pictures, text, NAMES, UNSEEN), NAMES, UNSEEN, [])


# --- counts and bootstrap -------------------------------------------------------------------------------------------


def test_counts_give_scikit_learns_iou():
    predicted, labels = maps(0)
    counts = d.picture_counts(predicted, labels, 5)
    kept = labels != 255
    assert d.class_iou(counts).tolist() == pytest.approx(jaccard_score(labels[kept], predicted[kept], average=None))
    for picture in range(len(labels)):
        matrix = confusion_matrix(labels[picture][kept[picture]], predicted[picture][kept[picture]], labels=range(5))
        assert counts[0, picture].tolist() == matrix.diagonal().tolist()
        assert counts[1, picture].tolist() == matrix.sum(1).tolist()
        assert counts[2, picture].tolist() == matrix.sum(0).tolist()


def test_mean_scores_are_those_of_the_confusion_matrix():
    predicted, labels = maps(1)
    labels[labels == 2] = 255  # a class without ground truth
    expected = d.confusion_of(predicted, labels, 5).scores(NAMES, UNSEEN)
    found = d.mean_scores(d.picture_counts(predicted, labels, 5), NAMES, UNSEEN)
    assert found == pytest.approx({key: getattr(expected, key) for key in ("mIoU_seen", "mIoU_unseen", "hIoU")})


def test_bootstrap_scores_are_those_of_test_sets_with_repeated_pictures():
    predicted, labels = maps(2, shape=(9, 12, 12))
    counts = d.picture_counts(predicted, labels, 5)
    samples = d.bootstrap_scores(counts, NAMES, UNSEEN, repeats=20, seed=7)
    assert {key: one.whole for key, one in samples.items()} == pytest.approx(d.mean_scores(counts, NAMES, UNSEEN))
    for row, pictures in enumerate(np.random.default_rng(7).integers(0, 9, (20, 9))):
        confusion = ConfusionMatrix(5)
        confusion.update(predicted[pictures], labels[pictures])
        scores = confusion.scores(NAMES, UNSEEN)
        for key, one in samples.items():
            assert one.draws[row] == pytest.approx(getattr(scores, key))


def test_bootstrap_leaves_out_a_class_that_a_drawn_set_does_not_hold():
    counts = torch.tensor([[[4.0, 0, 2], [4, 1, 0]], [[4, 0, 4], [4, 2, 0]], [[4, 0, 4], [4, 2, 0]]])  # C = 3, n = 2
    values = d.bootstrap_scores(counts.double(), list("abc"), ["b", "c"], repeats=200)["mIoU_unseen"]
    assert values.draws == pytest.approx(1 / 3)  # 2 / (4 + 4 - 2), or 1 / (2 + 2 - 1), or their mean


def test_bootstrap_of_one_picture_has_no_spread():
    predicted, labels = maps(3)
    one = d.bootstrap_scores(d.picture_counts(predicted[:1], labels[:1], 5), NAMES, UNSEEN, repeats=50)
    assert all(values.draws.std() < 1e-12 for values in one.values())


def test_bootstrap_spread_is_that_of_the_mean():
    """Pictures each wholly right or wholly wrong: the spread of a share is known, sqrt(p (1 - p) / n)."""
    right = (torch.arange(400) % 4 > 0).double()
    counts = torch.stack([torch.stack([right, right], 1), torch.ones(400, 2), torch.stack([right, right], 1)]).double()
    samples = d.bootstrap_scores(counts, ["a", "b"], ["b"], repeats=2000)["mIoU_seen"]
    assert samples.draws.mean() == pytest.approx(0.75, abs=0.003)
    assert samples.draws.std() == pytest.approx(math.sqrt(0.75 * 0.25 / 400), rel=0.08)
    low, high = samples.interval()
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.75 * 0.25 / 400), rel=0.1)


def test_bootstrap_refuses_what_does_not_fit():
    counts = torch.ones(3, 4, 5).double()
    with pytest.raises(InputError, match=r"counts \(3, 4, 5\): expected \(3, pictures, 2 classes\)"):
        d.bootstrap_scores(counts, ["a", "b"], ["b"])
    with pytest.raises(InputError, match="none of the 5 class names"):
        d.mean_scores(counts, NAMES, ["x"])


def test_one_stage_reads_as_that_stage_alone(model, pictures, text):
    alone = d.OneStage(model, 1).eval()
    images = normalise(pictures[0][0])
    with torch.inference_mode():
        expected = model.eval()(images, text).stage_logits[1]
        assert torch.equal(alone(images, text).mask_logits, expected)
    assert len(d.read_out(alone, pictures, text, NAMES, UNSEEN)) == 5


def test_right_unseen_names_look_at_unseen_pixels_alone():
    labels = torch.tensor([[[1, 1, 4, 0, 255]]])
    guess = torch.tensor([[[1, 4, 4, 4, 1]]]).short()
    scores = torch.zeros(1, 1, 5)
    assert d.right_unseen_names(d.Readout(labels, guess, guess, scores, scores), [1, 4]) == pytest.approx(2 / 3)


def test_masks_and_rims_are_both_scored():
    predicted, labels = maps(12)
    found = d.masks_and_rims(predicted, labels, NAMES, UNSEEN)
    for part, count in (("IoU", d.picture_counts), ("Boundary IoU", d.boundary_counts)):
        expected = d.mean_scores(count(predicted, labels, 5), NAMES, UNSEEN)
        assert {key: one.whole for key, one in found[part].items()} == pytest.approx(expected)


@pytest.mark.parametrize("count", [d.picture_counts, d.boundary_counts])
def test_counts_refuse_maps_that_do_not_fit(count):
    zeros = torch.zeros(1, 4, 4).long()
    with pytest.raises(InputError, match="expected two tensors of one shape"):
        count(zeros, torch.zeros(1, 4, 5).long(), 2)
    with pytest.raises(InputError, match="expected two tensors of one shape"):
        count(zeros[0], zeros[0], 2)
    with pytest.raises(InputError, match=r"labels hold 0\.\.7; expected 0\.\.1"):
        count(zeros, torch.tensor([0, 7, 0, 0]).expand(1, 4, 4), 2)
    with pytest.raises(InputError, match=r"predicted hold 2\.\.2; expected 0\.\.1"):
        count(zeros + 2, zeros, 2)


# --- boundaries -----------------------------------------------------------------------------------------------------


def eroded(mask, width):
    """What `width` erosions by 3 x 3 px leave of a mask, with nothing beyond the picture."""
    return ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)


@given(
    picture=arrays(
        np.int64, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 1, 2, 255])
    ),
    width=st.integers(1, 4),
)
def test_the_rim_of_all_masks_at_once_is_that_of_each_mask_by_erosion(picture, width):
    expected = np.zeros(picture.shape, bool)
    for index in np.unique(picture):
        mask = picture == index
        expected |= mask & ~eroded(mask, width)
    assert np.array_equal(d.rim(torch.from_numpy(picture)[None], width)[0].numpy(), expected)


@given(
    picture=arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 255])),
    width=st.integers(1, 4),
)
def test_without_the_frame_the_rim_is_what_another_class_is_near_to(picture, width):
    expected = np.zeros(picture.shape, bool)
    for row, column in np.ndindex(*picture.shape):
        around = picture[max(row - width, 0) : row + width + 1, max(column - width, 0) : column + width + 1]
        expected[row, column] = (around != picture[row, column]).any()
    assert np.array_equal(d.rim(torch.from_numpy(picture)[None], width, frame=False)[0].numpy(), expected)


def test_boundary_iou_without_the_frame_gives_nothing_for_the_pictures_edge():
    """Two halves, the line between them drawn two px off: with the frame the edges alone are worth a good score."""
    labels, predicted = torch.zeros(2, 1, 20, 20).long()
    labels[0, :, 10:], predicted[0, :, 12:] = 1, 1
    with_frame = d.class_iou(d.boundary_counts(predicted, labels, 2, width=1))
    without = d.class_iou(d.boundary_counts(predicted, labels, 2, width=1, frame=False))
    assert without.tolist() == [0, 0]
    assert with_frame.min() > 0.4
    found = d.masks_and_rims(predicted, labels, ["a", "b"], ["b"], frame=False)
    assert found["Boundary IoU"]["mIoU_seen"].whole == 0 < found["IoU"]["mIoU_seen"].whole


def boundary_iou(guess, truth, width):
    """Cheng et al. 2021, equation 2, for one mask: |G_d and P_d| / |G_d or P_d|."""
    truth, guess = truth & ~eroded(truth, width), guess & ~eroded(guess, width)
    return (truth & guess).sum() / (truth | guess).sum()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_boundary_iou_of_one_picture_follows_the_papers_equation(width):
    predicted, labels = maps(4, shape=(1, 24, 24), ignored=0)
    iou = d.class_iou(d.boundary_counts(predicted, labels, 5, width))
    for index in range(5):
        expected = boundary_iou(predicted[0].numpy() == index, labels[0].numpy() == index, width)
        assert iou[index].item() == pytest.approx(expected)


def test_boundary_iou_of_a_shifted_square_by_hand():
    """A 6 x 6 square moved by one px: rims of 20 px each, which share 5 px of either long side."""
    labels, predicted = torch.zeros(2, 1, 10, 10).long()
    labels[0, 2:8, 2:8], predicted[0, 2:8, 3:9] = 1, 1
    counts = d.boundary_counts(predicted, labels, 2, width=1)
    assert counts[:, 0, 1].tolist() == [10, 20, 20]
    assert d.class_iou(counts)[1].item() == pytest.approx(10 / 30)
    assert d.class_iou(d.picture_counts(predicted, labels, 2))[1].item() == pytest.approx(30 / 42)


def test_boundary_counts_of_wide_rims_are_those_of_whole_masks():
    predicted, labels = maps(5)
    assert torch.equal(d.boundary_counts(predicted, labels, 5, width=24), d.picture_counts(predicted, labels, 5))


def test_ignored_pixels_count_in_no_rim():
    predicted, labels = maps(6, ignored=0.5)
    counts = d.boundary_counts(predicted, labels, 5, 1)
    at_rim = d.rim(predicted, 1) & (labels != 255)
    assert counts[2].sum() == at_rim.sum() and counts[1].sum() == (d.rim(labels, 1) & (labels != 255)).sum()


def test_boundary_width_is_two_per_cent_of_the_diagonal():
    assert d.boundary_width(96, 96) == 3  # 2.7
    assert d.boundary_width(512, 683) == 17  # 17.07
    assert d.boundary_width(8, 8) == 1
    predicted, labels = maps(7, shape=(2, 96, 96))
    assert torch.equal(d.boundary_counts(predicted, labels, 5), d.boundary_counts(predicted, labels, 5, 3))


def test_a_boundary_of_no_width_is_refused():
    with pytest.raises(InputError, match="width=0 px must be at least 1"):
        d.boundary_counts(*maps(8), 5, width=0)


def test_through_a_grid_as_fine_as_the_picture_nothing_is_lost():
    _, labels = maps(9, shape=(3, 24, 24), ignored=0)
    assert torch.equal(d.through_grid(labels, 5, 24), labels)
    _, labels = maps(9, shape=(3, 24, 24), ignored=0.2)
    assert torch.equal(d.through_grid(labels, 5, 24)[labels != 255], labels[labels != 255])


def test_through_a_grid_as_a_model_with_perfect_logits_would_say_it():
    _, labels = maps(10, shape=(2, 24, 24), ignored=0)
    masks = torch.nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).float()
    coarse = torch.nn.functional.avg_pool2d(masks, 8)
    fine = torch.nn.functional.interpolate(coarse, (24, 24), mode="bilinear", align_corners=False)
    found = d.through_grid(labels, 5, 3)
    best = fine.gather(1, found[:, None])[:, 0]
    assert torch.allclose(best, fine.max(1).values)


def test_a_picture_without_labels_goes_through_the_grid_too():
    assert d.through_grid(torch.full((1, 8, 8), 255), 5, 2).eq(0).all()


# --- kinds of error -------------------------------------------------------------------------------------------------


def test_error_kinds_by_hand():
    labels = torch.tensor([[[0, 0, 0, 1, 1, 1, 255]], [[0, 2, 3, 4, 1, 4, 255]]])
    guess = torch.tensor([[[0, 2, 1, 1, 0, 4, 1]], [[0, 2, 3, 4, 1, 1, 0]]])
    assert d.error_kinds(guess, labels, NAMES, UNSEEN).tolist() == [[1, 1, 1, 1], [0, 0, 0, 1]]


def test_error_kinds_add_up_to_the_wrong_pixels():
    predicted, labels = maps(11)
    wrong = (predicted != labels) & (labels != 255)
    kinds = d.error_kinds(predicted, labels, NAMES, UNSEEN)
    assert torch.equal(kinds.sum(1), wrong.flatten(1).sum(1))
    counts = d.confusion_of(predicted, labels, 5).counts
    hidden = torch.tensor([False, True, False, False, True])
    assert kinds[:, 2].sum() == counts[hidden][:, ~hidden].sum()
    assert kinds[:, 1].sum() == counts[~hidden][:, hidden].sum()


def test_the_top_confusions_of_very_many_classes_are_found():
    confusion = ConfusionMatrix(3000)
    confusion.update(torch.tensor([[7, 7, 2999, 5]]), torch.tensor([[7, 9, 5, 5]]))
    names = [f"word {number}" for number in range(3000)]
    assert d.top_confusions(confusion, names, count=2) == [("word 9", "word 7", 1.0), ("word 5", "word 2999", 0.5)]
    assert d.top_confusions(confusion, names, ["word 5"], 1) == [("word 5", "word 2999", 0.5)]


def test_top_confusions_are_the_largest_shares_off_the_diagonal():
    confusion = ConfusionMatrix(3)
    confusion.counts = torch.tensor([[8, 2, 0], [5, 0, 15], [0, 0, 0]])
    assert d.top_confusions(confusion, list("abc"), count=2) == [("b", "c", 0.75), ("b", "a", 0.25)]
    assert d.top_confusions(confusion, list("abc"), among=["a"], count=1) == [("a", "b", pytest.approx(0.2))]
    with pytest.raises(InputError, match="none of the 3 class names"):
        d.top_confusions(confusion, list("abc"), among=["z"])
    for names in ("ab", "abcd"):  # a word for another class
        with pytest.raises(InputError, match=f"{len(names)} class words for the counts of 3 classes"):
            d.top_confusions(confusion, list(names), among=["a"], count=1)
