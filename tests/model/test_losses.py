"""Focal and dice against plain loops, against a one-hot formula (values and gradients), and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from cascadeclip.errors import InputError
from cascadeclip.model.losses import present_pairs, segmentation_loss

IGNORE = 255


def loops(logits, labels, ignored_are_negatives=True):
    """Focal and dice, unweighted, with Python's own numbers, pixel by pixel."""
    focal = dice = masks = 0
    for picture, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        pixels = [(i, j) for i in range(len(truth)) for j in range(len(truth[0]))]
        kept = [(i, j) for i, j in pixels if ignored_are_negatives or truth[i][j] != IGNORE]
        for name, mask in enumerate(picture):
            probability = {(i, j): 1 / (1 + math.exp(-mask[i][j])) for i, j in kept}
            target = {(i, j): float(truth[i][j] == name) for i, j in kept}
            focal += sum(pixel_focal(probability[at], target[at]) for at in kept) / max(len(kept), 1)
            if not sum(target.values()):
                continue
            masks += 1
            overlap = sum(probability[at] * target[at] for at in kept)
            dice += 1 - (2 * overlap + 1) / (sum(probability.values()) + sum(target.values()) + 1)
    return focal / max(masks, 1), dice / max(masks, 1)


def pixel_focal(probability, target):
    if target:
        return -0.25 * (1 - probability) ** 2 * math.log(probability)
    return -0.75 * probability**2 * math.log(1 - probability)


def one_hot(logits, labels, ignored_are_negatives=True):
    """Focal and dice, unweighted, as tensors in float64 from one-hot targets."""
    logits = logits.double()
    target = torch.stack([labels == name for name in range(logits.shape[1])], dim=1).double()
    kept = torch.ones_like(labels) if ignored_are_negatives else labels != IGNORE
    kept = kept[:, None].double()
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    hardness = (target * (1 - p) + (1 - target) * p) ** 2 * (target * 0.25 + (1 - target) * 0.75)
    focal = (hardness * cross_entropy * kept).sum((2, 3)) / kept.sum((2, 3)).clamp(min=1)
    present = target.sum((2, 3)) > 0
    overlap, area = (p * target).sum((2, 3)), (p * kept).sum((2, 3)) + target.sum((2, 3))
    dice = (1 - (2 * overlap + 1) / (area + 1))[present].sum()
    masks = present.sum().clamp(min=1)
    return focal.sum() / masks, dice / masks


def example(seed=0, classes=4, size=(3, 5), batch=2, ignored=0.25):
    """Logits, and labels of which some are ignored; class 3 is absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, *size, generator=generator)
    labels = torch.randint(0, max(classes - 1, 1), (batch, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = IGNORE
    return logits, labels


def parts(loss):
    return loss["focal"].item() / 100, loss["dice"].item()


@pytest.mark.parametrize("ignored_are_negatives", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_focal_and_dice_equal_plain_loops(seed, ignored_are_negatives):
    logits, labels = example(seed)
    found = segmentation_loss(logits, labels, ignored_are_negatives=ignored_are_negatives)
    assert parts(found) == pytest.approx(loops(logits, labels, ignored_are_negatives), rel=1e-5)


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 6),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    batch=st.integers(1, 3),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    ignored_are_negatives=st.booleans(),
)
def test_values_and_gradients_equal_the_one_hot_formula(seed, classes, size, batch, ignored, ignored_are_negatives):
    logits, labels = example(seed, classes, size, batch, ignored)
    ours, wanted = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = segmentation_loss(ours, labels, ignored_are_negatives=ignored_are_negatives)
    focal, dice = one_hot(wanted, labels, ignored_are_negatives)
    # float32 rounds "every class negative, then corrected" near 1e-7 however small the focal loss of a sure pixel is
    assert parts(loss) == pytest.approx((focal.item(), dice.item()), rel=1e-5, abs=1e-6)
    loss["total"].backward()
    (100 * focal + dice).backward()
    torch.testing.assert_close(ours.grad.double(), wanted.grad, rtol=1e-4, atol=1e-5)


def test_the_two_formulas_of_this_file_agree():
    logits, labels = example()
    for switch in (True, False):
        assert [x.item() for x in one_hot(logits, labels, switch)] == pytest.approx(loops(logits, labels, switch))


def test_values_of_an_example_worked_out_by_hand():
    """Two pixels, two classes, every probability 1/2; the first pixel is class 0, the second is ignored."""
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, IGNORE]]])
    inside, outside = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    quirk = segmentation_loss(logits, labels)
    assert quirk["focal"].item() == pytest.approx(100 * ((inside + outside) / 2 + outside))
    assert quirk["dice"].item() == pytest.approx(1 - (2 * 0.5 + 1) / (1.0 + 1 + 1))
    left_out = segmentation_loss(logits, labels, ignored_are_negatives=False)
    assert left_out["focal"].item() == pytest.approx(100 * (inside + outside))
    assert left_out["dice"].item() == pytest.approx(1 - (2 * 0.5 + 1) / (0.5 + 1 + 1))


def test_ignored_pixels_push_every_class_down_unless_left_out():
    logits, labels = torch.zeros(1, 3, 2, 2, requires_grad=True), torch.tensor([[[0, 1], [IGNORE, IGNORE]]])
    (quirk,) = torch.autograd.grad(segmentation_loss(logits, labels)["total"], logits)
    assert (quirk[:, :, 1] > 0).all()
    (left_out,) = torch.autograd.grad(segmentation_loss(logits, labels, ignored_are_negatives=False)["total"], logits)
    assert (left_out[:, :, 1] == 0).all() and (left_out[:, :, 0] != 0).all()


def test_without_any_class_dice_is_zero_and_focal_counts_negatives():
    logits, labels = torch.randn(2, 3, 2, 2, requires_grad=True), torch.full((2, 2, 2), IGNORE)
    loss = segmentation_loss(logits, labels)
    assert loss["dice"].item() == 0
    assert loss["focal"].item() == pytest.approx(100 * loops(logits, labels)[0], rel=1e-5)
    left_out = segmentation_loss(logits, labels, ignored_are_negatives=False)
    assert left_out["total"].item() == 0
    (loss["total"] + left_out["total"]).backward()
    assert logits.grad.isfinite().all()


def test_weights_scale_the_parts_and_total_is_their_sum():
    logits, labels = example()
    plain = segmentation_loss(logits, labels, focal_weight=1, dice_weight=1)
    weighted = segmentation_loss(logits, labels, focal_weight=20, dice_weight=3)
    assert weighted["focal"].item() == pytest.approx(20 * plain["focal"].item())
    assert weighted["dice"].item() == pytest.approx(3 * plain["dice"].item())
    assert weighted["total"].item() == pytest.approx(20 * plain["focal"].item() + 3 * plain["dice"].item())
    default = segmentation_loss(logits, labels)
    assert default["total"].item() == pytest.approx(100 * plain["focal"].item() + plain["dice"].item())


@pytest.mark.parametrize("seed", range(3))
def test_renumbering_the_classes_changes_nothing(seed):
    logits, labels = example(seed)
    order = torch.tensor([2, 3, 0, 1])  # new class i is old class order[i]
    renumbered = torch.where(labels == IGNORE, IGNORE, order.argsort()[labels.clamp(max=3)])
    plain, permuted = segmentation_loss(logits, labels), segmentation_loss(logits[:, order], renumbered)
    for name in plain:
        torch.testing.assert_close(permuted[name], plain[name], rtol=1e-5, atol=0)


def test_small_masks_are_upsampled_bilinearly_to_the_labels():
    logits, labels = example(size=(8, 12))
    small = F.avg_pool2d(logits, 4)
    wanted = loops(F.interpolate(small, (8, 12), mode="bilinear", align_corners=False), labels)
    assert parts(segmentation_loss(small, labels)) == pytest.approx(wanted, rel=1e-5)


def test_another_ignore_index():
    logits, labels = example()
    moved = torch.where(labels == IGNORE, -1, labels)
    torch.testing.assert_close(
        segmentation_loss(logits, moved, ignore_index=-1)["total"], segmentation_loss(logits, labels)["total"]
    )
    with pytest.raises(InputError, match="255"):
        segmentation_loss(logits, labels, ignore_index=-1)


def test_huge_logits_stay_finite():
    logits, labels = example()
    logits = (1e4 * logits.sign()).requires_grad_()
    loss = segmentation_loss(logits, labels)["total"]
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_half_precision_masks_give_a_float32_loss():
    logits, labels = example()
    logits = logits.bfloat16()
    loss = segmentation_loss(logits, labels)
    assert {x.dtype for x in loss.values()} == {torch.float32}
    assert parts(loss) == pytest.approx(loops(logits.float(), labels), rel=1e-5)


def test_masks_are_counted_over_all_ranks(monkeypatch):
    logits, labels = example()
    present = sum(len(set(picture.unique().tolist()) - {IGNORE}) for picture in labels)
    other_rank = 3 * present
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.add_(other_rank))
    shared = segmentation_loss(logits, labels)
    monkeypatch.undo()
    alone = segmentation_loss(logits, labels)
    for name in alone:  # divided by the mean of `present` and 3 * `present`
        torch.testing.assert_close(shared[name], alone[name] / 2)


@pytest.mark.parametrize(("value", "message"), [(4, r"labels hold \[4\]; expected 0\.\.3, or 255"), (-1, r"\[-1\]")])
def test_labels_out_of_range_are_named(value, message):
    logits, labels = example()
    labels[0, 1, 2] = value
    with pytest.raises(InputError, match=message):
        segmentation_loss(logits, labels)


@pytest.mark.parametrize(
    ("logits", "labels"), [((2, 4, 3, 3), (3, 3, 3)), ((4, 3, 3), (2, 3, 3)), ((2, 4, 3, 3), (2, 1, 3, 3))]
)
def test_shapes_that_do_not_belong_together_are_named(logits, labels):
    with pytest.raises(InputError, match="do not belong together"):
        segmentation_loss(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))


def test_pairs_are_images_times_their_classes():
    labels = torch.tensor([[[0, 0], [3, 255]], [[255, 255], [255, 255]], [[7, 1], [0, 7]]])
    assert present_pairs(labels, 8).item() == 2 + 0 + 3


def test_parts_of_a_batch_add_up_when_they_divide_by_the_same_number():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, 3, 3), torch.randint(0, 5, (4, 6, 6))
    whole = segmentation_loss(logits, labels)
    pairs = present_pairs(labels, 5) / 2
    parts = [segmentation_loss(logits[half], labels[half], pairs=pairs) for half in (slice(0, 2), slice(2, 4))]
    for name in whole:
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, whole[name])
