"""SPT-SEG's spectral prompt, against its definition written out, and its place in the tower."""

import numpy as np
import pytest
import torch

from cascadeclip.model.spectral import SpectralPrompt


@pytest.fixture
def prompt():
    torch.manual_seed(0)
    return SpectralPrompt(3, (6, 8))


def test_it_adds_the_filtered_product_of_patches_and_class_token(prompt):
    tokens = torch.randn(2, 1 + 48, 3)
    out = prompt(tokens, (6, 8)).detach().numpy()
    class_token, patches = tokens[:, :1].numpy(), tokens[:, 1:].numpy()
    filtered = np.fft.rfft2((patches * class_token).reshape(2, 6, 8, 3), axes=(1, 2), norm="ortho")
    filtered *= torch.view_as_complex(prompt.filter).detach().numpy()
    expected = patches + np.fft.irfft2(filtered, s=(6, 8), axes=(1, 2), norm="ortho").reshape(2, 48, 3)
    np.testing.assert_allclose(out[:, 1:], expected, atol=1e-5)
    assert np.array_equal(out[:, :1], class_token)


@pytest.mark.parametrize("grid", [(6, 8), (12, 16), (5, 7), (9, 4)])
def test_a_smooth_filter_means_the_same_on_every_grid(prompt, grid):
    """A filter linear in frequency is read at the frequencies of any grid, as far as the stored ones reach."""
    rows, columns = np.fft.fftfreq(6)[:, None], np.fft.rfftfreq(8)[None]
    with torch.no_grad():
        prompt.filter[:] = torch.tensor(2 * rows + 3 * columns)[..., None, None]
    found = prompt.filter_for(grid).real.detach().numpy()[..., 0]
    rows, columns = np.fft.fftfreq(grid[0])[:, None], np.fft.rfftfreq(grid[1])[None]
    expected = 2 * rows.clip(-1 / 2, np.fft.fftfreq(6).max()) + 3 * columns
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_it_stands_before_its_blocks_and_learns(make_model, make_inputs):
    plain, spectral = make_model(), make_model(spectral_blocks=(1, 2))
    spectral.load_state_dict(plain.state_dict(), strict=False)
    images, text = make_inputs(plain)
    with torch.no_grad():
        spectral.encoder.spectral.filter.zero_()
    torch.testing.assert_close(spectral(images, text).mask_logits, plain(images, text).mask_logits)
    spectral(images, text).mask_logits.square().sum().backward()
    assert spectral.encoder.spectral.filter.grad.abs().sum() > 0
    with torch.no_grad():
        spectral.encoder.spectral.filter.fill_(0.3)
    changed = spectral(images, text)
    assert (changed.mask_logits - plain(images, text).mask_logits).abs().max() > 1e-3


def test_the_class_token_of_the_picture_matters(prompt):
    tokens = torch.randn(1, 49, 3)
    other = tokens.clone()
    other[:, 0] *= 2
    added = prompt(tokens, (6, 8))[:, 1:] - tokens[:, 1:]
    torch.testing.assert_close(prompt(other, (6, 8))[:, 1:] - tokens[:, 1:], 2 * added)
