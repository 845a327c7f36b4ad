"""Boundary F against a loop over pixels."""

import math

import pytest
import torch

from cascadeclip.errors import InputError
from cascadeclip.evaluation.contours import contour_counts, contour_f


def slowly(predicted, labels, width):
    """Counts of one picture, pixel by pixel."""
    height, wide = labels.shape

    def contour(maps):
        return {
            (r, c)
            for r in range(height)
            for c in range(wide)
            if (r + 1 < height and maps[r, c] != maps[r + 1, c]) or (c + 1 < wide and maps[r, c] != maps[r, c + 1])
        }

    def near(place, places):
        return any(abs(place[0] - r) <= width and abs(place[1] - c) <= width for r, c in places)

    ignored = {(r, c) for r in range(height) for c in range(wide) if labels[r, c] == 255}
    found, true = ({p for p in contour(maps) if not near(p, ignored)} for maps in (predicted, labels))
    return [sum(near(p, true) for p in found), len(found), sum(near(p, found) for p in true), len(true)]


@pytest.mark.parametrize("width", [1, 2])
def test_counts_are_those_of_a_loop(width):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (3, 4, 5), generator=generator).repeat_interleave(3, 1).repeat_interleave(3, 2)
    predicted = labels.roll(1, 2)
    predicted[:, 3:6, 4:9] = 2
    labels[1, :2, :2] = 255
    expected = torch.tensor([slowly(*pair, width) for pair in zip(predicted, labels, strict=True)]).double().T
    assert torch.equal(contour_counts(predicted, labels, 3, width), expected)


def test_the_truth_itself_scores_one_and_one_mask_for_all_scores_zero():
    labels = torch.zeros(1, 10, 10, dtype=torch.long)
    labels[:, 3:7, 3:7] = 1
    assert contour_f(contour_counts(labels, labels, 2)) == 1
    assert contour_f(contour_counts(torch.zeros_like(labels), labels, 2)) == 0
    assert math.isnan(contour_f(contour_counts(labels, torch.zeros_like(labels), 2)))
    moved = contour_counts(labels.roll(2, 1), labels, 2, 1)
    assert 0 < contour_f(moved) < 1 and contour_f(contour_counts(labels.roll(2, 1), labels, 2, 2)) == 1


def test_shapes_and_widths_that_do_not_fit_are_refused():
    maps = torch.zeros(1, 4, 4, dtype=torch.long)
    with pytest.raises(InputError, match="expected one"):
        contour_counts(maps, maps[0], 1)
    with pytest.raises(InputError, match="width=0"):
        contour_counts(maps, maps, 1, 0)
