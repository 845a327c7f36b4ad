"""Windows, confusion matrix and scores."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.errors import InputError
from cascadeclip.evaluation import bands
from cascadeclip.evaluation import scores as evaluation
from cascadeclip.evaluation.scores import ConfusionMatrix, Scores, evaluate, harmonic_mean, predict
from cascadeclip.evaluation.windows import window_starts
from cascadeclip.model.cascade import CascadeCLIP

TOWER = TowerConfig(image_size=32, patch_size=8, width=16, layers=3, heads=2, embed_dim=8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CascadeCLIP(ModelConfig(stages=((1, 2), (3,)), prompt_tokens=2, decoder_heads=2, tower=TOWER)).eval()


@pytest.fixture(scope="module")
def text():
    return torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=-1)


@given(length=st.integers(1, 300), window=st.integers(1, 120), stride=st.integers(1, 120))
def test_windows_cover_every_pixel_and_stay_inside(length, window, stride):
    stride = min(stride, window)
    starts = window_starts(length, window, stride)
    covered = {pixel for start in starts for pixel in range(start, min(start + window, length))}
    assert covered == set(range(length))
    assert starts == sorted(set(starts))
    assert all(0 <= start <= max(length - window, 0) for start in starts)


def test_sliding_is_the_average_of_windows_taken_one_by_one(model, text):
    images = torch.randn(2, 3, 50, 70)
    slid = predict(model, images, text, seen=[0, 2], window=32, stride=20)
    total, visits = torch.zeros(2, 4, 50, 70), torch.zeros(50, 70)
    for top in (0, 18):
        for left in (0, 20, 38):
            crop = images[:, :, top : top + 32, left : left + 32]
            total[:, :, top : top + 32, left : left + 32] += predict(model, crop, text, seen=[0, 2])
            visits[top : top + 32, left : left + 32] += 1
    assert torch.allclose(slid, total / visits, atol=1e-6)


def test_window_of_the_pictures_size_changes_nothing(model, text):
    images = torch.randn(1, 3, 32, 32)
    whole = predict(model, images, text, seen=[1])
    assert torch.allclose(predict(model, images, text, seen=[1], window=32), whole, atol=1e-7)


def test_offset_lowers_only_seen_classes(model, text):
    images = torch.randn(1, 3, 32, 32)
    plain = predict(model, images, text, seen=[], seen_offset=0.1)
    lowered = predict(model, images, text, seen=[0, 3], seen_offset=0.1)
    assert torch.allclose(plain[:, [1, 2]], lowered[:, [1, 2]])
    assert torch.allclose(plain[:, [0, 3]] - 0.1, lowered[:, [0, 3]], atol=1e-6)


@pytest.mark.parametrize("kwargs", [{"seen": [4]}, {"seen": [0], "window": 16, "stride": 17}])
def test_predict_refuses_what_does_not_fit(model, text, kwargs):
    with pytest.raises(InputError, match=r"seen=|stride="):
        predict(model, torch.randn(1, 3, 32, 32), text, **kwargs)


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 5, (2, 4, 30, 30))
    confusion = ConfusionMatrix(5)
    for t, g in zip(truth, guess, strict=True):
        confusion.update(torch.from_numpy(g), torch.from_numpy(t))
    names = list("abcde")
    scores = confusion.scores(names, unseen=["b", "e"])
    iou = jaccard_score(truth.ravel(), guess.ravel(), average=None)
    assert scores.iou == pytest.approx(iou)
    assert scores.pAcc == pytest.approx(accuracy_score(truth.ravel(), guess.ravel()))
    assert scores.mIoU_seen == pytest.approx(iou[[0, 2, 3]].mean())
    assert scores.mIoU_unseen == pytest.approx(iou[[1, 4]].mean())
    assert scores.hIoU == pytest.approx(2 / (1 / scores.mIoU_seen + 1 / scores.mIoU_unseen))


def test_class_without_ground_truth_is_reported_and_counts_in_no_mean():
    confusion = ConfusionMatrix(3)
    confusion.update(torch.tensor([[0, 2, 1]]), torch.tensor([[0, 0, 1]]))
    scores = confusion.scores(["a", "b", "c"], unseen=["c"])
    assert scores.without_ground_truth == ("c",)
    assert scores.iou[:2] == (0.5, 1.0)
    assert scores.mIoU_seen == 0.75
    assert math.isnan(scores.mIoU_unseen)
    assert math.isnan(scores.mean_iou(["c"]))


def test_ignored_pixels_count_nowhere():
    confusion = ConfusionMatrix(2)
    confusion.update(torch.tensor([[0, 1]]), torch.tensor([[0, 255]]))
    assert confusion.counts.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("classes", [3, 300])
def test_few_pixels_of_many_classes_are_counted_as_many_pixels_of_few(classes):
    generator = torch.Generator().manual_seed(0)
    predicted, labels = torch.randint(0, classes, (2, 1, 40, 40), generator=generator)
    labels[0, :3] = 65_535 if classes > 255 else 255
    confusion = ConfusionMatrix(classes)
    for rows in (slice(0, 20), slice(20, 40)):
        confusion.update(predicted[:, rows], labels[:, rows])
    kept = labels < classes
    wanted = confusion_matrix(labels[kept], predicted[kept], labels=range(classes))
    assert np.array_equal(confusion.counts.numpy(), wanted)
    labels[0, 9] = classes
    with pytest.raises(InputError, match="expected 0"):
        confusion.update(predicted, labels)


def test_more_classes_than_the_memory_holds_counts_of_are_refused(monkeypatch):
    monkeypatch.setattr(evaluation, "physical_memory", lambda: 24 * 2**30)
    said = r"^the confusion matrix of 65,535 classes takes 32\.0 GiB, and this machine has 24\.0: score fewer classes"
    with pytest.raises(InputError, match=said):
        ConfusionMatrix(65_535)


@pytest.mark.parametrize("labels", [[[0, 5]], [[0, -1]]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(InputError, match=r"expected 0\.\.1"):
        ConfusionMatrix(2).update(torch.tensor([[0, 1]]), torch.tensor(labels))


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(InputError, match=r"labels torch\.float32: class indices are integers"):
        ConfusionMatrix(2).update(torch.zeros(1, 2).long(), torch.full((1, 2), 0.7))


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match="differ in shape"):
        ConfusionMatrix(2).update(torch.zeros(1, 2).long(), torch.zeros(1, 3).long())


def test_words_and_embeddings_that_do_not_belong_together_are_refused(model, text):
    """A misspelt unseen word would be none, and all classes seen: other scores without a word."""
    with pytest.raises(InputError, match=r"unseen=\['D'\] are none of the 4 class names"):
        evaluate(model, [], text, list("abcd"), ["D"])
    with pytest.raises(InputError, match="4 text embeddings for 5 class names"):
        evaluate(model, [], text, list("abcde"), ["d"])
    with pytest.raises(InputError, match=r"unseen=\['c'\] are none"):
        ConfusionMatrix(2).scores(["a", "b"], ["c"])
    with pytest.raises(InputError, match=r"names=\['e'\] are none"):
        ConfusionMatrix(2).scores(["a", "b"], ["b"]).mean_iou(["b", "e"])


def test_the_mode_is_as_before_after_an_error(model, text):
    model.train()
    with pytest.raises(InputError, match="NaN"):
        list(evaluation.predict_batches(
            model, [(torch.zeros(1, 3, 32, 32), None)], text * math.nan, [], 0.0, None, None, "fp32"
        ))  # fmt: skip
    assert model.training
    model.eval()


@pytest.mark.parametrize(("seen", "unseen", "expected"), [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_harmonic_mean(seen, unseen, expected):
    assert harmonic_mean(seen, unseen) == expected


def test_evaluate_warns_when_no_seen_class_is_predicted_and_keeps_the_mode(model, text, caplog):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    model.train()
    scores = evaluate(model, [(images, labels)], text, list("abcd"), ["d"], seen_offset=2.0)
    assert model.training
    model.eval()
    assert scores.pAcc == 0
    assert "no seen class was ever predicted" in caplog.text
    assert "no ground truth" in caplog.text


@pytest.mark.parametrize("size", [(31, 47), (8, 10), (5, 7), (64, 9)])
def test_the_best_class_after_resizing_is_found_in_bands(size, monkeypatch):
    scores = torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(scores, size, mode="bilinear", align_corners=False).argmax(1)
    for values in (1, 500, 2**25):  # one row at once, some, all
        monkeypatch.setattr(bands, "BAND_VALUES", values)
        assert (bands.argmax_at(scores, size) == expected).float().mean() > 0.999  # ties of rounding


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (8, 10)])
def test_smooth_scores_constant_scores_and_single_cells_have_the_same_best_class(shape):
    generator = torch.Generator().manual_seed(1)
    for scores in (torch.rand(1, 40, *shape, generator=generator) ** 8 * 100, torch.ones(1, 3, *shape)):
        for size in ((33, 48), shape):
            whole = torch.nn.functional.interpolate(scores, size, mode="bilinear", align_corners=False)
            found = bands.argmax_at(scores, size)
            best = whole.gather(1, found.long()[:, None])[:, 0]
            torch.testing.assert_close(best, whole.amax(1), rtol=1e-5, atol=0)


def test_only_classes_that_can_be_the_best_somewhere_are_resized(monkeypatch):
    """129 classes at 640 x 480 px would take longer to resize than a small model to train on the picture."""
    scores, resized, interpolate = torch.rand(1, 129, 96, 128), [], torch.nn.functional.interpolate
    scores[:, :2] += 1  # two classes are above all others

    def watched(values, *args, **kwargs):
        resized.append(values.shape[1])
        return interpolate(values, *args, **kwargs)

    monkeypatch.setattr(bands.F, "interpolate", watched)
    assert bands.argmax_at(scores, (480, 640)).unique().tolist() == [0, 1]
    assert set(resized) == {2}


def test_labels_larger_than_the_picture_are_scored_at_their_size(model, text):
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, len(text), (1, 80, 96))
    names = [str(i) for i in range(len(text))]
    found = evaluation.evaluate(model, [(images, labels)], text, names, names[:1])
    scores = evaluation.predict(model, evaluation.normalise(images), text, list(range(1, len(text))))
    large = torch.nn.functional.interpolate(scores, (80, 96), mode="bilinear", align_corners=False).argmax(1)
    assert found.pAcc == pytest.approx((large == labels).float().mean().item(), abs=1e-3)


@pytest.mark.slow
def test_a_large_picture_with_many_classes_stays_within_two_gigabytes():
    """4000 x 3000 px and 171 classes at the benchmarks' working size, windows included."""
    script = """
import resource, torch
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.data.transforms import working_size
from cascadeclip.evaluation.scores import evaluate
tower = TowerConfig(image_size=512, patch_size=16, width=64, layers=12, heads=2, embed_dim=64)
model = CascadeCLIP(ModelConfig(tower=tower)).eval()
text = torch.nn.functional.normalize(torch.randn(171, 64), dim=-1)
size = working_size(3000, 4000, 512)
small = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 64, 64, dtype=torch.uint8)
large = torch.zeros(1, 3, *size, dtype=torch.uint8), torch.zeros(1, 3000, 4000, dtype=torch.uint8)
names = [str(i) for i in range(171)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(model, [large], text, names, names[:5], window=512, stride=426)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2


@pytest.mark.parametrize("what", ["weights", "picture", "text", "offset"])
def test_scores_that_are_no_numbers_are_refused(make_model, make_inputs, what):
    model = make_model()
    images, text = make_inputs(model)
    if what == "weights":
        with torch.no_grad():
            model.encoder.prompts[0, 0, 0] = float("nan")
    if what == "picture":
        images[0, 0, 0, 0] = float("nan")
    if what == "text":
        text[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"NaN or infinite|must be a finite number"):
        predict(model, images, text, [0], float("nan") if what == "offset" else 0.1)


def test_a_mean_does_not_depend_on_the_order_of_its_words():
    """To the last digit: the order of a set changes from process to process."""
    names = tuple(f"word {number}" for number in range(60))
    iou = tuple(np.random.default_rng(0).random(60).tolist())
    found = Scores(names, names[:10], iou, 0.5)
    orders = [np.random.default_rng(seed).permutation(names).tolist() for seed in range(20)]
    assert len({found.mean_iou(order) for order in orders}) == 1
