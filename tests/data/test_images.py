"""Brightness in every number format: nothing becomes black, or white, without a word."""

import numpy as np
import pytest
from PIL import Image

from cascadeclip.data.images import read_image
from cascadeclip.errors import InputError


def test_floats_from_0_to_1_are_scaled_and_told_of(tmp_path, caplog):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "f.tif")
    assert read_image(tmp_path / "f.tif")[0, :, 0].tolist() == [0, 128, 255]
    assert "f.tif holds floats from 0 to 1: 1 is taken for white" in caplog.text


def test_floats_from_0_to_255_are_taken_as_they_are(caplog):
    assert read_image(Image.fromarray(np.array([[0, 100, 255]], np.float32)))[0, :, 1].tolist() == [0, 100, 255]
    assert not caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 70_000])
def test_numbers_that_are_no_brightness_are_refused(value):
    with pytest.raises(InputError, match="holds greys from"):
        read_image(Image.fromarray(np.array([[0, value]], np.float32)))


def test_greys_of_32_bits(caplog):
    assert read_image(Image.fromarray(np.array([[0, 255]], np.int32)))[0, :, 0].tolist() == [0, 255]
    assert read_image(Image.fromarray(np.array([[0, 65_535]], np.int32)))[0, :, 0].tolist() == [0, 255]
    with pytest.raises(InputError, match="from -5 to 9"):
        read_image(Image.fromarray(np.array([[-5, 9]], np.int32)))
