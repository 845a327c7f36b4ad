"""Checkpoints of other versions, and settings that no version would have written."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascadeclip._version import __version__
from cascadeclip.checkpoints.own import (
    build_model,
    clip_of,
    fingerprint,
    load_any,
    read_checkpoint,
    save_checkpoint,
)
from cascadeclip.config import AS_BEFORE, ModelConfig, TrainConfig
from cascadeclip.errors import InputError
from cascadeclip.model.tower import build_tower
from cascadeclip.tensors import read_safetensors

FIRST = Path(__file__).parents[1] / "fixtures" / "checkpoint_format_1.safetensors"
CLIP = {"name": "mini", "pretrained": None}


@pytest.fixture
def saved(make_model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, make_model(), clip=CLIP, seen=("cat",), templates=("a {}",))
    return path


def rewrite(path, **metadata):
    """Metadata changed: values of JSON, or None to leave one out."""
    old, tensors = read_safetensors(path)
    new = old | {name: json.dumps(value) for name, value in metadata.items()}
    save_file(tensors, path, metadata={name: value for name, value in new.items() if value != "null"})


def test_a_checkpoint_of_the_first_format_is_read_by_every_later_version():
    info, tensors = read_checkpoint(FIRST)
    assert (info.seen_offset, info.templates, len(info.seen)) == (0.1, None, 58)
    assert (info.model.centre_text, info.model.aligned_start, info.model.dropout) == (True, "none", 0.0)
    tower = build_tower(info.model.tower)
    model = build_model(replace(info, tower_sha256=fingerprint(tower)), tensors, tower)
    assert model.config == info.model


def test_every_setting_that_the_first_format_lacks_has_a_row():
    """Whoever adds a setting to `ModelConfig` finds out here that older checkpoints have to be read."""
    settings = json.loads(read_safetensors(FIRST)[0]["model"])
    assert {field.name for field in fields(ModelConfig)} - settings.keys() <= AS_BEFORE.keys()
    assert AS_BEFORE.keys() <= {field.name for kind in (ModelConfig, TrainConfig) for field in fields(kind)}


def test_a_missing_setting_means_as_it_was_before_it_existed(saved):
    settings = json.loads(read_safetensors(saved)[0]["model"])
    before = {name for name in AS_BEFORE if name in settings}
    rewrite(saved, model={name: value for name, value in settings.items() if name not in before})
    assert read_checkpoint(saved)[0].model == ModelConfig.from_dict(settings)
    assert len(before) > 4


def test_checkpoints_say_who_wrote_them(saved):
    metadata, _ = read_safetensors(saved)
    assert (metadata["format"], metadata["version"]) == ("cascadeclip-1", __version__)


def test_what_a_newer_version_wrote_is_named_as_such(saved):
    settings = json.loads(read_safetensors(saved)[0]["model"])
    rewrite(saved, model=settings | {"colour": 1})
    with pytest.raises(InputError, match=r"unknown settings \['colour'\], written by a newer cascadeclip.*upgrade"):
        read_checkpoint(saved)
    save_file(load_file(saved), saved, metadata={"format": "cascadeclip-2"})
    with pytest.raises(InputError, match="written by a newer cascadeclip"):
        read_checkpoint(saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_tokens": 3.0},
        {"prompt_tokens": "3"},
        {"prompt_tokens": True},
        {"prompt_tokens": 10**12},
        {"decoder_layers": 10**9},
        {"sigma": 10**400},
        {"sigma": 10**12},
        {"sigma": 1e-200},
        {"dropout": None},
        {"train_taps": 1},
        {"stages": "12"},
        {"stages": [[1]] * 10**5},
        {"stages": [["1"]]},
        {"stages": 7},
        {"aggregation": 3},
        {"aggregation": "a" * 10**5},
        {"tower": []},
        {"tower": {"width": 10**12}},
        {"tower": {"image_size": 2**14}},
        {"spectral_blocks": 3},
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_of_another_kind_or_absurd_size_are_refused_before_anything_is_built(saved, settings):
    whole = json.loads(read_safetensors(saved)[0]["model"])
    if isinstance(settings.get("tower"), dict):
        settings = {"tower": whole["tower"] | settings["tower"]}
    rewrite(saved, model=whole | settings)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        read_checkpoint(saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    "metadata",
    [
        {"seen": "cat"},
        {"seen": [1]},
        {"seen": {}},
        {"templates": "a {}"},
        {"templates": ["a"]},
        {"templates": ["{.__class__} {}"]},
        {"templates": ["a {}"] * 10**5},
        {"templates": []},
        {"seen_offset": "0.1"},
        {"seen_offset": 1e308},
        {"seen_offset": [0.1]},
        {"clip": {}},
        {"clip": {"pretrained": None}},
        {"clip": {"name": 3}},
        {"clip": {"name": "mini", "cache_dir": "/"}},
        {"clip": []},
        {"model": None},
    ],
    ids=lambda value: str(value)[:40],
)
def test_metadata_of_another_kind_are_refused(saved, metadata):
    rewrite(saved, **metadata)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        read_checkpoint(saved)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[" * 100_000, "{", "1e999"])
def test_metadata_that_are_no_json_of_finite_numbers_are_refused(saved, text):
    metadata, tensors = read_safetensors(saved)
    save_file(tensors, saved, metadata=metadata | {"seen_offset": text})
    with pytest.raises(InputError, match=r"model\.safetensors"):
        read_checkpoint(saved)


def test_sizes_are_held_against_the_tensors_before_memory_is_reserved(saved, make_model, monkeypatch):
    info, tensors = read_checkpoint(saved)
    large = replace(info, model=replace(info.model, prompt_tokens=9999, decoder_layers=100))
    reserved = []
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *args, **kwargs: reserved.append(args))
    with pytest.raises(InputError, match="does not fit the model: missing decoders"):
        build_model(large, tensors, make_model().encoder.visual)
    assert not reserved


@pytest.mark.parametrize(
    ("stages", "name", "said"),
    [
        ([[4]] * 1000, "mini", r"\d+ tensors are too few for 1000 projections and 100000 decoder layers"),
        ([[1, 2], [3], [4]], "mini", "does not fit the model: missing decoders: "),
        (None, "ViT-bigG-14", r"trained on other weights of CLIP .*'ViT-bigG-14'"),
        (None, "mini", "trained on other weights of CLIP .*'mini'"),
    ],
)
def test_what_does_not_fit_is_told_of_before_a_clip_is_built(saved, monkeypatch, stages, name, said):
    """A file of some kilobytes would have gigabytes of random weights made, or modules for minutes."""
    monkeypatch.setattr("cascadeclip.checkpoints.own.load_clip", lambda *args, **kwargs: pytest.fail("it was built"))
    settings = json.loads(read_safetensors(saved)[0]["model"])
    many = {} if stages is None else {"stages": stages, "decoder_layers": 100}
    rewrite(saved, model=settings | many, clip={"name": name, "pretrained": None})
    with pytest.raises(InputError, match=said):
        load_any(saved)


def test_formats_that_nobody_computes_in_are_refused(saved):
    metadata, tensors = read_safetensors(saved)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}  # the file they lie in is written over
    for kind in (torch.float8_e4m3fn, torch.float8_e8m0fnu):
        save_file({name: tensor.to(kind) for name, tensor in tensors.items()}, saved, metadata=metadata)
        with pytest.raises(InputError, match=r"other kinds: .*float8.* instead of torch\.float32"):
            load_any(saved)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "focal_weight", "clip_norm", "power"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), "1"])
def test_options_that_are_no_finite_numbers_are_refused(name, value):
    with pytest.raises(InputError, match=rf"{name}=.* must be a finite number"):
        TrainConfig(**{name: value})


def test_another_clip_than_the_checkpoints_is_refused_and_its_weights_may_lie_elsewhere(saved, monkeypatch):
    info, asked = read_checkpoint(saved)[0], []
    with pytest.raises(InputError, match="was trained on CLIP 'mini', not on 'nope'"):
        clip_of(info, "nope")
    monkeypatch.setattr("cascadeclip.checkpoints.own.load_clip", lambda *args, **kwargs: asked.append(args))
    monkeypatch.setattr("cascadeclip.checkpoints.own.fits_sizes", lambda *args: True)
    published = replace(info, clip={"name": "ViT-B-16", "pretrained": "openai"})
    untrained = replace(info, clip={"name": "ViT-B-16", "pretrained": None})
    clip_of(info)
    clip_of(replace(info, clip={"name": "mini", "pretrained": "openai"}))  # as older versions wrote
    clip_of(published, "ViT-B-16", "here.pt")
    clip_of(untrained, weights="random")
    clip_of(replace(info, clip={"name": "ViT-B-16", "pretrained": "random"}), weights="random")
    assert asked == [("mini", None), ("mini", None), ("ViT-B-16", "here.pt"), *[("ViT-B-16", "random")] * 2]
    for one, weights, said in (
        (info, "here.pt", "with its own weights, not on 'here.pt'"),
        (info, "random", "with its own weights, not on 'random'"),
        (published, "random", "with the weights 'openai', not on 'random'"),
    ):
        with pytest.raises(InputError, match=f"{said}: leave --clip-weights out"):
            clip_of(one, weights=weights)
