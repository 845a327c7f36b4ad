"""Refinement along edges, against its formula."""

import pytest
import torch

from cascadeclip.errors import InputError
from cascadeclip.evaluation import refine
from cascadeclip.evaluation.refine import pamr


def slowly(image, masks, iterations, dilations):
    """One pixel after the other: image (3, H, W), masks (C, H, W)."""
    _, height, width = image.shape

    def inside(row, column):
        return min(max(row, 0), height - 1), min(max(column, 0), width - 1)

    steps = [(r * d, c * d) for d in dilations for r in (-1, 0, 1) for c in (-1, 0, 1)]
    weights, places = {}, {}
    for row in range(height):
        for column in range(width):
            here = image[:, row, column]
            around = torch.stack([image[:, *inside(row + r, column + c)] for r, c in steps])
            places[row, column] = [inside(row + r, column + c) for r, c in steps if (r, c) != (0, 0)]
            others = torch.stack([image[:, *place] for place in places[row, column]])
            logits = -((here - others).abs() / (0.1 * around.std(0) + 1e-8)).mean(1)
            weights[row, column] = logits.softmax(0)
    for _ in range(iterations):
        new = torch.empty_like(masks)
        for (row, column), weight in weights.items():
            new[:, row, column] = sum(w * masks[:, *q] for w, q in zip(weight, places[row, column], strict=True))
        masks = new
    return masks


@pytest.mark.parametrize("dilations", [(1,), (2, 4)])
def test_refinement_is_its_formula_pixel_by_pixel(dilations):
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.randn(2, 3, 9, 7, generator=generator), torch.rand(2, 3, 9, 7, generator=generator)
    found = pamr(images, masks, 3, dilations)
    expected = torch.stack([slowly(*pair, 3, dilations) for pair in zip(images, masks, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_classes_are_refined_a_few_at_a_time_without_a_difference(monkeypatch):
    images, masks = torch.randn(1, 3, 16, 16), torch.rand(1, 5, 16, 16)
    whole, kept = pamr(images, masks), masks.clone()
    monkeypatch.setattr(refine, "AT_ONCE", 300)
    assert torch.equal(pamr(images, masks), whole)
    assert torch.equal(masks, kept), "the caller's masks are left alone"


def test_flat_pictures_average_and_keep_the_sum():
    flat = torch.full((1, 3, 12, 12), 1.7)
    masks = torch.rand(1, 2, 12, 12)
    masks = masks / masks.sum(1, keepdim=True)
    found = pamr(flat, masks, 4, (1, 2))
    torch.testing.assert_close(found.sum(1), torch.ones(1, 12, 12))
    assert found.std() < masks.std() / 3


def test_masks_of_another_size_are_brought_to_the_pictures():
    assert pamr(torch.randn(1, 3, 20, 30), torch.rand(1, 2, 5, 6)).shape == (1, 2, 20, 30)


@pytest.mark.parametrize(
    "wrong", [dict(iterations=0), dict(iterations=10**12), dict(dilations=()), dict(dilations=(0,))]
)
def test_refinement_needs_iterations_and_distances(wrong):
    with pytest.raises(InputError, match="at least 1"):
        pamr(torch.randn(1, 3, 8, 8), torch.rand(1, 1, 8, 8), **wrong)
