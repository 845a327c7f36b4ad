"""The methods on any tower, any size and any batch; what has no reference values, against its formula written out."""

import pytest
import torch
from torch.nn import functional as F

from cascadeclip.analysis.dense import METHODS, Surgery, Trunk, dense_features, from_trunk, many_features
from cascadeclip.analysis.dense.outliers import fill_from_neighbours, local_outliers
from cascadeclip.analysis.dense.trunk import gaussian_window
from cascadeclip.analysis.lenses import block_inputs, block_tokens, raw_lens, value_path_tokens
from cascadeclip.config import TowerConfig
from cascadeclip.errors import InputError
from cascadeclip.model.tower import build_tower


def tower(layers=4, patch=8, heads=2, quick_gelu=False):
    torch.manual_seed(0)
    sizes = dict(image_size=32, patch_size=patch, width=32, layers=layers, heads=heads, embed_dim=16)
    visual = build_tower(TowerConfig(**sizes, quick_gelu=quick_gelu)).eval().requires_grad_(False)
    for parameter in visual.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return visual


def pictures(batch=3, height=32, width=48):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layers", [2, 4, 14])
def test_each_picture_of_a_batch_gives_the_same_as_alone(method, layers):
    visual, images = tower(layers), pictures()
    together = dense_features(visual, images, method)
    assert together.shape == (3, 24, 16)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3, 24))
    alone = torch.cat([dense_features(visual, one[None], method) for one in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (19, 100), (64, 40)])
def test_any_size_of_picture(method, size):
    found = dense_features(tower(), pictures(1, *size), method)
    assert found.shape == (1, (size[0] // 8) * (size[1] // 8), 16) and found.isfinite().all()


def test_no_method_changes_the_tower_and_none_keeps_a_gradient():
    visual, images = tower().requires_grad_(True), pictures(1)
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    assert not any(found.requires_grad for found in many_features(visual, images).values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in visual.state_dict().items())


@torch.inference_mode()
def test_blocks_are_read_as_if_the_tower_ended_there():
    visual, images = tower(layers=6), pictures(2)
    shorter = tower(layers=6)
    shorter.transformer.resblocks = shorter.transformer.resblocks[:4]
    for method in METHODS:
        found = dense_features(visual, images, method, blocks=(4,))
        torch.testing.assert_close(found, dense_features(shorter, images, method), atol=1e-6, rtol=0)
    one, two = (dense_features(visual, images, "clip", blocks=(b,)) for b in (3, 6))
    torch.testing.assert_close(one, raw_lens(visual, block_tokens(visual, images)[2][:, 1:]), atol=1e-5, rtol=0)
    both = dense_features(visual, images, "clip", blocks=(6, 3))
    torch.testing.assert_close(both, F.normalize(one + two, dim=-1), atol=1e-6, rtol=0)


def test_the_value_path_is_that_of_the_lenses():
    visual, images = tower(), pictures(2)
    torch.testing.assert_close(
        dense_features(visual, images, "maskclip"), value_path_tokens(visual, images), atol=1e-6, rtol=0
    )


def gem_slowly(visual, images, depth, iterations, temperature=None):
    """One picture, one head, one projection after the other."""
    original, result = block_inputs(visual, images), []
    for picture in range(len(images)):
        path = original[len(original) - depth][picture].clone()
        for number in range(len(original) - depth, len(original)):
            block = visual.transformer.resblocks[number]
            x = block.ln_1(original[number][picture])
            parts = F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
            heads = block.attn.num_heads
            scale = temperature or x.norm(dim=1).mean() / (x.shape[1] // heads) ** 0.5
            outputs = []
            for head in range(heads):
                values = parts[2].chunk(heads, dim=1)[head]
                mixed = torch.zeros_like(values)
                for part in parts:
                    p = F.normalize(part.chunk(heads, dim=1)[head], dim=1)
                    for _ in range(iterations):
                        p = F.normalize((scale * p @ p.T).softmax(1) @ p, dim=1)
                    mixed += (scale * p @ p.T).softmax(1) @ values / 3
                outputs.append(mixed)
            path = path + block.attn.out_proj(torch.cat(outputs, dim=1))
        result.append(raw_lens(visual, path[1:]))
    return torch.stack(result)


@pytest.mark.parametrize(
    ("layers", "settings"), [(8, {}), (4, {}), (5, dict(depth=2, iterations=3)), (4, dict(temperature=7.5))]
)
@torch.inference_mode()
def test_gem_is_its_formula(layers, settings):
    visual, images = tower(layers), pictures(2)
    expected = gem_slowly(visual, images, **(dict(depth=min(6, layers), iterations=1) | settings))
    torch.testing.assert_close(dense_features(visual, images, "gem", **settings), expected, atol=1e-5, rtol=0)


def test_the_window_is_a_gaussian_of_the_distance_between_patches():
    window = gaussian_window((3, 4), 2.0, torch.device("cpu"))
    for i in range(12):
        for j in range(12):
            squared = (i // 4 - j // 4) ** 2 + (i % 4 - j % 4) ** 2
            assert window[i, j].item() == pytest.approx(2.718281828 ** (-squared / 8), abs=1e-6)


def test_lonely_patches_are_outliers_and_are_filled():
    patches = torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(3)) * 0.1
    patches[0, [7, 40]] += 30 * torch.randn(2, 8, generator=torch.Generator().manual_seed(4))
    found = local_outliers(patches, neighbours=10, share=0.02)
    assert found[0].nonzero().flatten().tolist() == [7, 40]
    assert found.sum(1).tolist() == [2, 2]
    filled = fill_from_neighbours(patches, found, (10, 10))
    around = [r * 10 + c for r in (0, 1) for c in (6, 7, 8) if (r, c) != (0, 7)]
    torch.testing.assert_close(filled[0, 7], patches[0, around].mean(0))
    assert torch.equal(filled[~found], patches[~found])


def test_one_patch_alone_is_no_outlier():
    assert not local_outliers(torch.randn(2, 1, 8)).any()


@torch.inference_mode()
def test_shared_blocks_run_once(monkeypatch):
    from cascadeclip.analysis.dense import trunk as module

    ran, run_block = [], module.run_block
    monkeypatch.setattr(module, "run_block", lambda block, tokens: ran.append(block) or run_block(block, tokens))
    visual = tower(layers=6)
    many_features(visual, pictures(1))
    assert len(ran) == 6 and {id(block) for block in ran} == {id(block) for block in visual.transformer.resblocks}
    ran.clear()
    many_features(visual, pictures(1), ["naclip", "sclip"], blocks=(3,))
    assert len(ran) == 2, "blocks above the ones read need not run"


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("naclp", {}, "did you mean naclip"),
        ("SC-CLIP", {}, "did you mean sc_clip"),
        ("deeplab", {}, "unknown method 'deeplab': There are clip, maskclip"),
        ("naclip", dict(sigma=3), "has no setting sigma; it has std"),
        ("clip", dict(std=3.0), "it has none"),
        ("naclip", dict(std=0.0), "must be positive"),
        ("clip", dict(blocks=()), "name one or more of the tower's blocks 1..4"),
        ("clip", dict(blocks=(0, 3)), r"blocks=\(0, 3\): name one or more of the tower's blocks 1..4"),
        ("clip", dict(blocks=(5,)), "1..4"),
        ("clip", dict(blocks=(3, 3)), "each once"),
        ("clip_surgery", dict(depth=5), "depth=5: up to block 4 there are 4 blocks"),
        ("gem", dict(blocks=(2,), depth=3), "give 1..2"),
        ("gem", dict(iterations=-1), "iterations=-1"),
        ("gem", dict(temperature=0.0), "temperature=0.0 must be positive"),
        ("sc_clip", dict(blocks=(1,)), "below block 1 there is none"),
        ("sc_clip", dict(middle=9), "name blocks 1..3, those below block 4"),
        ("sc_clip", dict(outliers=1.5), "outliers=1.5"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(method, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        dense_features(tower(), pictures(1), method, **settings)
    assert "\n" not in str(caught.value)


def test_a_surgery_takes_no_settings_beside_its_own():
    with pytest.raises(InputError, match="holds all its settings"):
        dense_features(tower(), pictures(1), Surgery(), std=3.0)
    with torch.inference_mode():
        trunk = Trunk(tower(), pictures(1))
    window = Surgery("key-key", residual=False, feed_forward=False, window=5.0)
    assert torch.equal(from_trunk(trunk, window), from_trunk(trunk, "naclip"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_the_same(method):
    visual, images = tower(layers=12), pictures(2)
    expected = dense_features(visual, images, method)
    found = dense_features(visual.cuda(), images.cuda(), method)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
