"""Measurements on layers, each against an independent formula or a case whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from cascadeclip.analysis.layers import (
    CKA,
    FeatureColours,
    attention_distance,
    boundary_patches,
    fit_ridge,
    patch_labels,
    probe,
)
from cascadeclip.analysis.lenses import attention_maps, block_tokens, last_layer_tokens, raw_lens, value_path_tokens
from cascadeclip.clip.load import load_clip
from cascadeclip.errors import InputError


@pytest.fixture(scope="module")
def visual():
    return load_clip().visual


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- lenses ---


@torch.inference_mode()
def test_block_tokens_end_with_what_open_clip_computes(visual, images):
    tokens = block_tokens(visual, images)
    assert len(tokens) == 12
    expected = visual.transformer(visual._embeds(images))
    torch.testing.assert_close(tokens[-1], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last_layer_tokens(visual, images), raw_lens(visual, expected[:, 1:]), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_attention_maps_are_those_of_multihead_attention(visual, images):
    maps = attention_maps(visual, images)
    assert maps.shape == (12, 2, 3, 145, 145)
    block = visual.transformer.resblocks[4]
    inside = block.ln_1(block_tokens(visual, images)[3])
    expected = block.attn(inside, inside, inside, need_weights=True, average_attn_weights=False)[1]
    torch.testing.assert_close(maps[4], expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_value_path_is_attention_of_each_patch_to_itself_alone(visual, images):
    block = visual.transformer.resblocks[-1]
    inside = block.ln_1(block_tokens(visual, images)[-2])
    alone = torch.full((145, 145), -torch.inf).fill_diagonal_(0)
    mixed = block.attn(inside, inside, inside, attn_mask=alone)[0][:, 1:]
    torch.testing.assert_close(value_path_tokens(visual, images), raw_lens(visual, mixed), atol=1e-5, rtol=0)


# --- CKA ---


def unbiased_hsic_by_loops(k, m):
    """The U-statistic itself: mean over quadruples of distinct samples."""
    n, total, count = len(k), 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += (k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])).item()
                        count += 1
    return total / count


def test_debiased_hsic_is_the_u_statistic():
    x, y = noise(7, 3), noise(7, 5, seed=1)
    cka = CKA()
    cka.update([x, y])
    expected = [[unbiased_hsic_by_loops(a @ a.T, b @ b.T) for b in (x, y)] for a in (x, y)]
    torch.testing.assert_close(cka.hsic, torch.tensor(expected, dtype=torch.float64))


def test_naive_cka_is_the_centred_formula():
    x, y = noise(20, 3), noise(20, 5, seed=1)
    cka = CKA(debiased=False)
    cka.update([x, y])
    x, y = x - x.mean(0), y - y.mean(0)
    expected = (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert cka.result()[0, 1].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("width", [64, 768])
def test_independent_noise_scores_zero_debiased_and_p_over_n_plus_p_naive(width):
    debiased, naive = CKA(), CKA(debiased=False)
    for batch in range(20):
        layers = [noise(64, width, seed=2 * batch), noise(64, width, seed=2 * batch + 1)]
        debiased.update(layers)
        naive.update(layers)
    assert abs(debiased.result()[0, 1]) < 0.03
    assert naive.result()[0, 1].item() == pytest.approx(width / (64 + width), abs=0.02)


def test_cka_ignores_rotation_scale_and_shift():
    x = noise(30, 8)
    rotation = torch.linalg.qr(noise(8, 8, seed=1)).Q
    cka = CKA()
    cka.update([x, 3 * x @ rotation + 5])
    torch.testing.assert_close(cka.result(), torch.ones(2, 2, dtype=torch.float64))


def test_cka_divides_sums_and_does_not_average_ratios():
    cka, parts = CKA(), []
    for scale, seed in ((1.0, 0), (10.0, 3)):
        layers = [scale * noise(10, 4, seed=seed), noise(10, 4, seed=seed + 1)]
        cka.update(layers)
        alone = CKA()
        alone.update(layers)
        parts.append(alone)
    sums = parts[0].hsic + parts[1].hsic
    assert cka.result()[0, 1] == pytest.approx((sums[0, 1] / (sums[0, 0] * sums[1, 1]).sqrt()).item())


def test_cka_says_what_it_needs():
    with pytest.raises(InputError, match="4 or more samples"):
        CKA().update([noise(3, 2), noise(3, 2)])
    with pytest.raises(InputError, match="same"):
        CKA().update([noise(5, 2), noise(6, 2)])
    with pytest.raises(InputError, match="update first"):
        CKA().result()


# --- colours ---


def test_colours_do_not_jump_between_layers_that_differ_by_a_rotation():
    tokens = (noise(500, 6) * torch.tensor([9.0, 5, 3, 1, 0.5, 0.2])).numpy()
    turned = -tokens @ torch.linalg.qr(noise(6, 6, seed=1)).Q.numpy()
    colours = FeatureColours([tokens, turned])
    np.testing.assert_allclose(colours(0, tokens), colours(1, turned), atol=1e-6)
    assert colours.explained[0] == pytest.approx(colours.explained[1])


def test_colours_of_a_token_do_not_depend_on_its_picture():
    tokens = noise(200, 6).numpy()
    colours = FeatureColours([tokens])
    np.testing.assert_array_equal(colours(0, tokens[:10].reshape(2, 5, 6)).reshape(10, 3), colours(0, tokens)[:10])


def test_explained_variance_is_the_share_of_the_covariance():
    tokens = noise(300, 5).numpy() * [4, 3, 2, 1, 1]
    values = np.sort(np.linalg.eigvalsh(np.cov(tokens.T)))[::-1]
    assert FeatureColours([tokens]).explained[0] == pytest.approx(values[:3].sum() / values.sum())


# --- attention ---


def test_attention_to_oneself_has_no_distance_and_to_the_neighbour_one_patch():
    own = torch.eye(1 + 4)[None, None, None]
    assert attention_distance(own, (2, 2), 8).item() == 0
    neighbour = torch.zeros(5, 5)
    neighbour[[1, 2, 3, 4], [2, 1, 4, 3]] = 0.5
    neighbour[:, 0] = 0.5  # the class token's share is left out
    assert attention_distance(neighbour[None, None, None], (2, 2), 8).item() == pytest.approx(8)


# --- labels of patches ---


def test_patch_labels_and_borders():
    labels = torch.zeros(1, 4, 6, dtype=torch.uint8)
    labels[0, 0, 0] = 3  # one pixel of four
    labels[0, 2:, 4:] = 7
    assert patch_labels(labels, (2, 3)).tolist() == [[0, 0, 0, 0, 0, 7]]
    assert boundary_patches(labels, (2, 3)).tolist() == [[True, False, False, False, False, False]]


# --- probes ---


def test_ridge_is_the_normal_equations_and_chooses_on_held_out_images():
    weights = nn.Linear(4, 2, dtype=torch.float64).weight.detach()
    tokens = noise(40, 6, 4)
    targets = tokens @ weights.T
    model, strength, r2 = fit_ridge(tokens.numpy(), targets.numpy(), strengths=(1e-3, 1e4))
    assert strength == 1e-3
    assert r2 > 0.999
    np.testing.assert_allclose(model.predict(tokens[0].numpy()), targets[0].numpy(), atol=1e-3)


def test_held_out_r2_of_noise_is_not_above_zero():
    _, _, r2 = fit_ridge(noise(40, 6, 30).numpy(), noise(40, 6, 1, seed=1).numpy(), strengths=(1.0,))
    assert r2 < 0.05


def test_ridge_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="by patch"):
        fit_ridge(np.zeros((5, 4, 3)), np.zeros((5, 3, 1)))


def test_probe_reads_what_is_there_and_not_what_is_not():
    labels = torch.randint(0, 3, (40, 2, 2), generator=torch.Generator().manual_seed(0))
    pixels = labels.repeat_interleave(1, 1)
    tokens = torch.nn.functional.one_hot(labels.flatten(1), 3).double().numpy() + 0.01 * noise(40, 4, 3).numpy()
    truth = labels.flatten(1).numpy()
    good = probe(tokens[:30], truth[:30], tokens[30:], pixels[30:], 3, (2, 2))
    assert (good.mIoU, good.accuracy) == (1.0, 1.0)
    assert good.counts.shape == (3, 10, 3) and torch.equal(good.counts[0], good.counts[1])
    bad = probe(noise(40, 4, 3).numpy()[:30], truth[:30], noise(40, 4, 3).numpy()[30:], pixels[30:], 3, (2, 2))
    assert bad.accuracy < 0.7
    assert bad.accuracy == (bad.counts[0].sum() / bad.counts[1].sum()).item()
