"""Tokens of a frozen tower kept on disk: the same training, without the forward passes of the tower."""

import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.training.loop import train
from cascadeclip.training.recall import Recall, _read, recallable, recalling
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate
from tests.training.test_loop import CONFIG

FROZEN = replace(MODEL, prompt_tokens=0, stages=((2, 3), (4,)), train_taps=True, tower=replace(MODEL.tower, layers=4))


@pytest.fixture
def passes(monkeypatch):
    """How many pictures went through a tower, in a list."""
    seen, original = [], CascadeCLIP(FROZEN).encoder.__class__.run_tower

    def counted(self, images, read):
        seen.append(len(images))
        return original(self, images, read)

    monkeypatch.setattr("cascadeclip.model.encoder.PromptedEncoder.run_tower", counted)
    return seen


def trained(folder, config=FROZEN):
    torch.manual_seed(0)
    model = CascadeCLIP(config)
    with recalling(model, folder):
        train(model, Noise(), TEXT, NAMES, UNSEEN, CONFIG, collate=collate, progress=False)
    assert model.encoder.recall is None
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def furthest(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.slow
def test_a_second_training_computes_no_token_and_ends_the_same(tmp_path, passes):
    first = trained(tmp_path)
    assert 0 < sum(passes) <= len(Noise())  # a picture that came twice was computed once
    passes.clear()
    second = trained(tmp_path)
    assert not passes and furthest(first, second) < 1e-6
    plain = trained(None)
    assert passes and 0 < furthest(first, plain) < 0.02  # float16


def test_damaged_and_missing_files_are_computed_anew(tmp_path, passes):
    first = trained(tmp_path)
    whole, cut, other = sorted(tmp_path.rglob("*.safetensors"))[:3]
    before = whole.read_bytes()
    whole.unlink()
    cut.write_bytes(cut.read_bytes()[:-5])
    other.write_bytes(b"")
    passes.clear()
    assert furthest(first, trained(tmp_path)) < 1e-3  # in batches of other sizes: rounded otherwise
    assert sum(passes) == 3 and len(whole.read_bytes()) == len(before)


def test_a_file_of_another_shape_is_computed_anew(tmp_path):
    for tokens in (torch.tensor(1.0), torch.zeros(0, 4)):
        save_file({"1": tokens}, tmp_path / "one.safetensors", metadata={"1": "0"})
        assert _read(tmp_path / "one.safetensors", (1,)) is None


def test_a_file_in_which_one_byte_has_changed_is_computed_anew(tmp_path, passes):
    first = trained(tmp_path)
    path, named = sorted(tmp_path.rglob("*.safetensors"))[:2]
    whole = path.read_bytes()
    for place in (10, whole.index(b"F16"), whole.index(b'"4":{"dtype') + 1, len(whole) - 700, len(whole) - 1):
        passes.clear()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert furthest(first, trained(tmp_path)) < 1e-3
        assert sum(passes) == 1 and _read(path, (2, 3, 4)), place
    passes.clear()
    path.write_bytes(named.read_bytes())  # of another picture
    trained(tmp_path)
    assert sum(passes) == 1 and _read(path, (2, 3, 4))


def test_towers_do_not_share_tokens(tmp_path, passes):
    torch.manual_seed(0)
    one, image = CascadeCLIP(FROZEN).eval(), torch.randn(1, 3, 16, 16)
    for change in ({}, {"class_embedding_twice": not FROZEN.class_embedding_twice}):
        torch.manual_seed(1)  # other weights
        other = CascadeCLIP(replace(FROZEN, **change)).eval()
        for model in (one, other):
            plain = model.encoder(image).image_embedding
            with recalling(model, tmp_path):
                torch.testing.assert_close(model.encoder(image).image_embedding, plain, rtol=0, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"prompt_tokens": 2}, {"spectral_blocks": (1,)}, {"stages": ((1,), (4,))}], ids=str)
def test_models_whose_tokens_change_or_are_not_kept_do_without(tmp_path, change):
    config = replace(FROZEN, **change)
    assert recallable(FROZEN) and not recallable(config)
    trained(tmp_path, config)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_pictures_of_any_size_and_precision(tmp_path):
    model = CascadeCLIP(FROZEN).eval()
    for shape in ((2, 3, 16, 16), (1, 3, 25, 35)):
        images = torch.randn(shape)
        plain = model.encoder(images)
        with recalling(model, tmp_path):
            for half in (True, False):
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    kept = model.encoder(images)
                assert kept.grid == plain.grid and not kept.image_embedding.requires_grad
                torch.testing.assert_close(
                    kept.features[4].float(), plain.features[4], rtol=0, atol=3e-2 if half else 2e-3
                )


def test_towers_of_the_same_weights_that_compute_otherwise_do_not_share_tokens(tmp_path):
    one, image = CascadeCLIP(FROZEN).eval(), torch.randn(1, 3, 16, 16)
    activation = replace(FROZEN, tower=replace(FROZEN.tower, quick_gelu=not FROZEN.tower.quick_gelu))
    heads = replace(FROZEN, tower=replace(FROZEN.tower, heads=2 * FROZEN.tower.heads))
    others = [CascadeCLIP(config).eval() for config in (activation, heads, FROZEN)]
    for norm in (part for part in others[-1].encoder.visual.modules() if isinstance(part, torch.nn.LayerNorm)):
        norm.eps = 0.1
    for model in (one, *others):
        model.load_state_dict(one.state_dict())
        plain, _ = model.encoder.run_tower(image, (4,))
        kept, _ = Recall(model, tmp_path)(image, (4,))
        torch.testing.assert_close(kept[4], plain[4], rtol=0, atol=5e-3)
    assert len(list(tmp_path.iterdir())) == 4


def test_pictures_of_the_same_bytes_in_another_shape_do_not_share_tokens(tmp_path):
    model = CascadeCLIP(FROZEN).eval()
    recall, images = Recall(model, tmp_path), torch.full((1, 3, 16, 32), 0.3)
    for shape in ((1, 3, 16, 32), (1, 3, 32, 16), (1, 3, 16, 32)):
        plain, grid = model.encoder.run_tower(images.view(shape), (4,))
        kept, its_grid = recall(images.view(shape), (4,))
        assert grid == its_grid
        torch.testing.assert_close(kept[4], plain[4], rtol=0, atol=2e-3)


@pytest.mark.parametrize("place", ["kept", b"caf\xe9"])
def test_a_batch_is_whole_even_if_its_files_vanish(tmp_path, monkeypatch, place):
    """As where somebody deletes the folder meanwhile."""
    model, images = CascadeCLIP(FROZEN).eval(), torch.randn(3, 3, 16, 16)
    recall = Recall(model, tmp_path / os.fsdecode(place))
    recall(images[:1], (4,))
    monkeypatch.setattr("cascadeclip.training.recall.replace_file", lambda path, write, sync: None)
    kept, _ = recall(images, (4,))
    plain, _ = model.encoder.run_tower(images, (4,))
    torch.testing.assert_close(kept[4], plain[4], rtol=0, atol=2e-3)


def test_a_folder_whose_name_is_not_utf8_keeps_tokens(tmp_path, passes):
    recall, images = Recall(CascadeCLIP(FROZEN).eval(), tmp_path / os.fsdecode(b"caf\xe9")), torch.randn(2, 3, 16, 16)
    for _ in range(2):
        recall(images, (4,))
    assert passes == [2]
