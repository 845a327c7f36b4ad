"""Our checkpoints: round trips, writing in one step, and one clear error for each file or tensor that does not fit."""

import copy
import dataclasses
import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cascadeclip.checkpoints import own as checkpoint
from cascadeclip.checkpoints.own import build_model, fingerprint, read_checkpoint, save_checkpoint
from cascadeclip.errors import InputError
from cascadeclip.files import replace_file
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import build_tower
from cascadeclip.presets import MINI
from cascadeclip.tensors import load_strictly, read_safetensors

CLIP = {"name": "mini", "pretrained": None}
SEEN = ("cat", "dog", "grass")

VARIANTS = [
    dict(),
    dict(prompt_tokens=0, stages=((4,),), decoder_layers=1),
    dict(aggregation="concat", stages=((1, 2, 3, 4),), class_embedding_twice=False),
    dict(aggregation="attention", stages=((2, 4), (1,)), train_taps=True, upsample_through_training_size=False),
    dict(sigma=2.5, dropout=0.3, decoder_heads=4, decoder_layers=4, tower={"quick_gelu": True}),
]


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def saved(model, tmp_path):
    """A checkpoint of `model` on disk."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, clip=CLIP, seen=SEEN)
    return path


# --- round trips ----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_checkpoint_read_back_is_the_same_model(settings, make_model, make_inputs, tmp_path):
    model, path = make_model(**settings), tmp_path / "new folder" / "model.safetensors"
    save_checkpoint(path, model, clip=CLIP, seen=SEEN)
    info, tensors = read_checkpoint(path)
    assert (info.model, info.clip, info.seen) == (model.config, CLIP, SEEN)
    again = build_model(info, tensors, model.encoder.visual)
    inputs = make_inputs(model)
    assert torch.equal(again(*inputs).mask_logits, model(*inputs).mask_logits)
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@torch.no_grad()
def test_half_precision_halves_the_file_and_stays_close(model, saved, make_inputs, tmp_path):
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, model, clip=CLIP, seen=SEEN, half=True)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert path.stat().st_size < 0.65 * saved.stat().st_size  # names and settings stay
    again = build_model(*read_checkpoint(path), model.encoder.visual)
    assert {tensor.dtype for tensor in again.state_dict().values()} == {torch.float32}
    inputs = make_inputs(model)
    torch.testing.assert_close(again(*inputs).mask_logits, model(*inputs).mask_logits, rtol=0, atol=2e-2)


def test_the_frozen_tower_is_not_in_the_file(model, saved):
    own = {name for name in model.state_dict() if not name.startswith("encoder.visual.")}
    assert load_file(saved).keys() == own
    assert len(own) < len(model.state_dict())


def test_saving_leaves_the_model_as_it_was(model, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_checkpoint(tmp_path / "half.safetensors", model, clip=CLIP, seen=SEEN, half=True)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, before[name]), name


def test_fingerprint_depends_on_every_weight_of_the_tower_and_nothing_else(make_model):
    model = make_model()
    tower = copy.deepcopy(model.encoder.visual).requires_grad_(True)
    assert fingerprint(tower) == fingerprint(model.encoder.visual)
    seen = {fingerprint(tower)}
    for parameter in tower.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        seen.add(fingerprint(tower))
    assert len(seen) == 1 + len(list(tower.parameters()))


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("bug"), KeyboardInterrupt()], ids=repr)
def test_a_writer_that_fails_leaves_the_old_file_and_no_scratch(error, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(scratch):
        scratch.write_bytes(b"ne")
        raise error

    with pytest.raises(InputError if isinstance(error, OSError) else type(error)):
        replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_readable_while_the_new_one_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(scratch):
        scratch.write_bytes(b"new")
        assert path.read_bytes() == b"old"

    replace_file(path, write)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_a_checkpoint_goes_through_replace_file(model, saved, monkeypatch):
    def half_a_file(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", half_a_file)
    with pytest.raises(InputError, match="No space left on device"):
        save_checkpoint(saved, model, clip=CLIP, seen=())
    assert saved.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot write .*file/model\.safetensors.*choose a folder you may write to"):
        save_checkpoint(tmp_path / "file" / "model.safetensors", model, clip=CLIP, seen=SEEN)


def test_a_full_disk_under_safetensors_is_an_input_error(tmp_path):
    def full(scratch):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(InputError, match="cannot write"):
        replace_file(tmp_path / "model.safetensors", full)


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputError, match=f"no checkpoint at {path}"):
            read_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 5, 8, 200, 0.5, -1])
def test_a_file_cut_short_is_named(kept, saved):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"model\.safetensors is not a whole safetensors file"):
        read_checkpoint(saved)


@pytest.mark.parametrize("content", [b"hello, this is text", bytes(500), b"\xff" * 500])
def test_a_file_of_another_kind_is_named(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "cascadeclip-2"}])
def test_safetensors_of_another_format_are_named(metadata, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors", metadata=metadata)
    with pytest.raises(InputError, match="is no cascadeclip-1 checkpoint"):
        read_checkpoint(tmp_path / "other.safetensors")


GOOD = {"format": "cascadeclip-1", "clip": "{}", "seen": "[]", "tower_sha256": ""}


@pytest.mark.parametrize("metadata", [GOOD, GOOD | {"model": "{"}, GOOD | {"model": "[]"}], ids=["none", "cut", "list"])
def test_damaged_settings_are_named(metadata, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        read_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ("null", "seen=None must be a list"),
        ('["cat", "cat"]', "seen words given twice: cat; give each once"),
        ('["cat", null]', r"seen\[1\]=None must be text"),
        ('"cat"', "seen='cat' must be a list"),
    ],
)
def test_seen_words_that_are_none_are_named(seen, said, saved):
    save_file(load_file(saved), saved, metadata=read_safetensors(saved)[0] | {"seen": seen})
    with pytest.raises(InputError, match=rf"^the settings stored in .* do not fit: {said}$"):
        read_checkpoint(saved)


def test_a_checkpoint_may_leave_open_which_words_were_seen(saved):
    """As one does that was made of a model in the authors' layout; nothing is then lowered by the offset."""
    save_file(load_file(saved), saved, metadata=read_safetensors(saved)[0] | {"seen": "[]"})
    assert read_checkpoint(saved)[0].seen == ()


def test_settings_of_another_version_are_named(model, saved):
    settings = model.config.to_dict() | {"colour": 1}
    tensors = load_file(saved)
    save_file(tensors, saved, metadata=GOOD | {"model": json.dumps(settings)})
    with pytest.raises(InputError, match=r"unknown settings \['colour'\]"):
        read_checkpoint(saved)


# --- tensors that do not fit ----------------------------------------------------------------------------------------


def drop(tensors):
    del tensors["encoder.prompts"]


def add(tensors):
    tensors["encoder.extra"] = torch.zeros(1)


def add_tower(tensors):
    tensors["encoder.visual.proj"] = torch.zeros(32, 16)


def shrink(tensors):
    tensors["encoder.prompts"] = torch.zeros(4, 2, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"does not fit the model: missing encoder\.prompts$"),
        (add, r"does not fit the model: unknown encoder\.extra$"),
        (add_tower, r"does not fit the model: unknown encoder\.visual\.proj$"),
        (shrink, r"other sizes: encoder\.prompts: \(4, 2, 32\) instead of \(4, 3, 32\)$"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, message, saved, model):
    info, tensors = read_checkpoint(saved)
    change(tensors)
    with pytest.raises(InputError, match=message):
        build_model(info, tensors, model.encoder.visual)


def test_settings_of_other_sizes_than_the_tensors_are_named(saved, model):
    info, tensors = read_checkpoint(saved)
    other = dataclasses.replace(info, model=dataclasses.replace(info.model, decoder_layers=2, prompt_tokens=5))
    with pytest.raises(InputError, match=r"unknown decoders\.0.* and \d+ more; other sizes: encoder\.prompts"):
        build_model(other, tensors, model.encoder.visual)


def test_another_tower_is_refused_and_the_right_one_named(saved, make_model):
    info, tensors = read_checkpoint(saved)
    with pytest.raises(InputError, match=r"trained on other weights of CLIP .*'mini'"):
        build_model(info, tensors, make_model(seed=7).encoder.visual)
    with pytest.raises(InputError, match="trained on other weights of CLIP"):
        build_model(info, tensors, build_tower(make_model(tower={"width": 64}).config.tower))


def test_a_model_that_refuses_tensors_is_left_as_it_was(make_model):
    model, other = make_model(), make_model(seed=3, prompt_tokens=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match="other sizes"):
        load_strictly(model, other.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_load_strictly_takes_what_fits(make_model, make_inputs):
    model, other = make_model(), make_model(seed=3)
    load_strictly(model, other.state_dict())
    inputs = make_inputs(model)
    assert isinstance(model, CascadeCLIP) and torch.equal(model(*inputs).mask_logits, other(*inputs).mask_logits)


# --- numbers that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_neither_saved_nor_loaded(value, saved, model, tmp_path):
    tensors, metadata = load_file(saved), read_safetensors(saved)[0]
    tensors["encoder.prompts"][0, 0, 0] = value
    save_file(tensors, saved, metadata=metadata)
    with pytest.raises(InputError, match=r"NaN or infinite numbers in encoder\.prompts"):
        build_model(*read_checkpoint(saved), model.encoder.visual)
    with torch.no_grad():
        model.encoder.prompts[0, 0, 0] = value
    with pytest.raises(InputError, match=r"new\.safetensors was not written, .* NaN or infinite numbers"):
        save_checkpoint(tmp_path / "new.safetensors", model, clip=CLIP, seen=SEEN)
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seen_offset": float("nan")}, "seen_offset=nan must be a finite number"),
        ({"seen_offset": 2.0}, r"seen_offset=2\.0 must be at most 1"),
        ({"seen": "cat"}, "seen='cat' must be a list"),
        ({"seen": None}, "seen=None must be a list"),
        ({"seen": ("cat", "Cat")}, "seen words given twice: cat; give each once"),
        ({"seen": ("cat", "")}, "seen words must be text that is not empty, not ''"),
        ({"seen": ("cat", None)}, r"seen\[1\]=None must be text"),
        ({"templates": "a {}"}, "templates='a {}' must be a list"),
        ({"templates": ("a",)}, "template 'a'"),
        ({"clip": {}}, "must give the name of a CLIP"),
    ],
    ids=str,
)
def test_settings_that_could_not_be_read_again_are_not_saved(settings, said, model, tmp_path):
    with pytest.raises(InputError, match=said):
        save_checkpoint(tmp_path / "new.safetensors", model, **{"clip": CLIP, "seen": SEEN} | settings)
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("offset", [float("nan"), 2.0])
def test_an_offset_that_could_not_be_saved_is_told_of_before_a_training(offset):
    with pytest.raises(InputError, match=r"seen_offset=.* must be"):
        dataclasses.replace(MINI, seen_offset=offset)


def test_whole_numbers_in_place_of_weights_are_named(saved, model):
    info, tensors = read_checkpoint(saved)
    tensors["encoder.prompts"] = tensors["encoder.prompts"].long()
    with pytest.raises(InputError, match=r"other kinds: encoder\.prompts: torch\.int64 instead of torch\.float32"):
        build_model(info, tensors, model.encoder.visual)
