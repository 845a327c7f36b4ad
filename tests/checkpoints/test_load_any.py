"""One door to every kind of checkpoint, and what it says of where the tensors came from."""

from importlib.resources import files
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from cascadeclip.checkpoints import own
from cascadeclip.checkpoints.authors import from_authors
from cascadeclip.checkpoints.own import load_any, save_checkpoint
from cascadeclip.errors import InputError

CLIP = {"name": "mini", "pretrained": None}
SEEN = ("cat", "dog", "grass")


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def saved(model, tmp_path):
    """A checkpoint of `model` on disk."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, clip=CLIP, seen=SEEN)
    return path


@torch.no_grad()
def test_a_checkpoint_of_ours_says_where_its_tensors_came_from(model, saved, make_inputs):
    asked = []

    def clip(info):
        asked.append(info.clip)
        return SimpleNamespace(visual=model.encoder.visual)

    loaded = load_any(saved, clip)
    assert asked == [CLIP] and loaded.clip.visual is model.encoder.visual
    assert (loaded.info.model, loaded.info.seen) == (model.config, SEEN)
    tower = len(model.encoder.visual.state_dict())
    assert loaded.lines == (
        f"tower: {tower} tensors from mini",
        f"decoders, prompts, taps: {len(model.state_dict()) - tower} tensors from model.safetensors",
    )
    inputs = make_inputs(model)
    assert torch.equal(loaded.model(*inputs).mask_logits, model(*inputs).mask_logits)


def test_the_weights_of_the_clip_are_named(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, clip={"name": "ViT-B-16", "pretrained": "openai"}, seen=SEEN)
    lines = load_any(path, lambda info: SimpleNamespace(visual=model.encoder.visual)).lines
    assert lines[0].endswith(" tensors from ViT-B-16 (openai)")


def test_sizes_are_held_against_the_settings_once_and_before_the_clip_is_there(model, saved, monkeypatch):
    happened = []
    monkeypatch.setattr(own, "check_sizes", lambda *args, **more: happened.append("sizes"))
    load_any(saved, lambda info: happened.append("clip") or SimpleNamespace(visual=model.encoder.visual))
    assert happened == ["sizes", "clip"]


def test_by_default_the_named_clip_is_loaded():
    loaded = load_any(files("cascadeclip") / "assets" / "mini" / "cascade-prompts.safetensors")
    ours, clips = loaded.model.encoder.visual, loaded.clip.visual
    assert loaded.clip.name == "mini" and ours.proj.data_ptr() == clips.proj.data_ptr()
    assert loaded.lines[0] == "tower: 152 tensors from mini"


def as_pth(tensors, folder):
    torch.save({"meta": {"iter": 3}, "state_dict": tensors}, folder / "theirs.pth")
    return folder / "theirs.pth"


def as_safetensors(tensors, folder):
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, folder / "theirs.safetensors")
    return folder / "theirs.safetensors"


@torch.no_grad()
@pytest.mark.parametrize("write", [as_pth, as_safetensors])
def test_a_checkpoint_of_the_authors_says_what_was_dropped(write, reference, tmp_path):
    def clip(info):
        raise AssertionError("the tower is in the file")

    path = write(reference.state_dict, tmp_path)
    loaded = load_any(path, clip, heads=2, decoder_heads=2)
    assert loaded.info is None and loaded.clip is None
    assert loaded.lines == (
        f"tower: 152 tensors from {path.name}",
        f"decoders, prompts, taps: {len(loaded.model.state_dict()) - 152} tensors from {path.name}",
        "dropped: 91 tensors that never reach a mask",
    )
    inputs = reference.inputs["image"], reference.inputs["text"]
    expected = from_authors(reference.state_dict, heads=2, decoder_heads=2)(*inputs).mask_logits
    assert torch.equal(loaded.model(*inputs).mask_logits, expected)
    gelu = load_any(path, heads=2, decoder_heads=2, quick_gelu=False).model(*inputs).mask_logits
    assert not torch.allclose(gelu, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_no_file_of_any_kind_is_named(name, tmp_path):
    with pytest.raises(InputError, match=f"no checkpoint at .*{name}"):
        load_any(tmp_path / name)


def test_a_file_of_neither_kind_is_named(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is no cascadeclip-1 checkpoint"):
        load_any(tmp_path / "other.safetensors")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not a checkpoint of Cascade-CLIP's or ZegCLIP's authors"):
        load_any(tmp_path / "other.pth")
