"""Bilinear resizing against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from cascadeclip.model.resize import bilinear, bilinear_matrix


@pytest.mark.parametrize("small", [(1, 1), (3, 5), (12, 12)])
@pytest.mark.parametrize("large", [(1, 1), (4, 9), (12, 12), (96, 50)])
def test_it_is_pytorch_s_interpolation(small, large):
    values = torch.randn(2, 3, *small)
    expected = F.interpolate(values, large, mode="bilinear", align_corners=False)
    assert torch.allclose(bilinear(values, large), expected, atol=1e-6)


def test_a_constant_stays_one():
    assert torch.allclose(bilinear_matrix(5, 17, torch.device("cpu")).sum(1), torch.ones(17))


def test_autocast_does_not_touch_it():
    values = torch.randn(1, 2, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        found = bilinear(values, (96, 96))
    assert found.dtype == torch.float32 and torch.equal(found, bilinear(values, (96, 96)))
