"""Writing the authors' layout, reading ZegCLIP's, and files as mmcv saves them."""

import dataclasses
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import nn

from cascadeclip import tensors as tensor_files
from cascadeclip.checkpoints.authors import from_authors, save_authors, to_authors
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import tower_config

QUICK = {"quick_gelu": True}


def load(source, model, **options):
    return from_authors(
        source,
        **{
            "heads": model.config.tower.heads,
            "decoder_heads": model.config.decoder_heads,
            "quick_gelu": model.config.tower.quick_gelu,
            **options,
        },
    )


@torch.no_grad()
def assert_same_outputs(one, other, inputs):
    ours, theirs = one(*inputs), other(*inputs)
    for field in dataclasses.fields(ours):
        pairs = (getattr(output, field.name) for output in (ours, theirs))
        torch.testing.assert_close(*pairs, rtol=0, atol=0)


# --- export ---------------------------------------------------------------------------------------------------------

EXPORTABLE = {
    "tiny": dict(),
    "the paper's stages": dict(stages=((6, 7, 8), (9, 10, 11), (12,)), tower=dict(layers=12, **QUICK)),
    "every block its own stage": dict(stages=((1,), (2,), (3,), (4,))),
    "single blocks, nothing to aggregate": dict(stages=((2,), (3,), (4,)), aggregation="sum"),
    "one decoder layer": dict(decoder_layers=1),
    "five decoder layers": dict(decoder_layers=5, prompt_tokens=1),
    "trained taps": dict(train_taps=True, sigma=3.0, dropout=0.5),
    "other heads": dict(decoder_heads=8, tower=dict(heads=4)),
}


@pytest.mark.parametrize("settings", EXPORTABLE.values(), ids=EXPORTABLE)
def test_an_exported_model_read_back_gives_the_same_outputs(settings, make_model, make_inputs, request):
    model = make_model(**settings)
    exported, rename = to_authors(model), request.getfixturevalue("to_authors")
    assert_same_outputs(model, load(exported, model), make_inputs(model))
    independent = rename(model.state_dict(), model.config)
    for number, stage in enumerate(model.config.stages[:-1], start=1):
        if len(stage) == 1:
            independent[f"decode_head.weights_s{number}"] = torch.ones(1)
    assert exported.keys() == independent.keys()
    for name, tensor in exported.items():
        assert torch.equal(tensor, independent[name]), name


def test_the_reference_comes_back_tensor_by_tensor(reference, dead_tensors):
    model = from_authors(reference.state_dict, heads=2, decoder_heads=2)
    exported = to_authors(model)
    dead = dead_tensors(model.config).keys()
    assert exported.keys() == reference.state_dict.keys() - dead
    for name, tensor in exported.items():
        assert torch.equal(tensor, reference.state_dict[name]), name


def test_what_is_exported_is_a_copy_without_gradients(make_model):
    model = make_model()
    exported = to_authors(model)
    before = {name: tensor.clone() for name, tensor in exported.items()}
    storages = {tensor.untyped_storage().data_ptr() for tensor in exported.values()}
    assert len(storages) == len(exported)  # a shared storage would be written to the file whole, twice
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    for name, tensor in exported.items():
        assert not tensor.requires_grad and torch.equal(tensor, before[name]), name


def test_a_model_in_training_is_exported_as_it_is(make_model, make_inputs):
    model = make_model(dropout=0.5).train()
    again = load(to_authors(model), model)
    assert model.training and not again.training
    assert_same_outputs(model.eval(), again, make_inputs(model))


INEXPRESSIBLE = [
    (dict(aggregation="sum"), r"aggregation='sum', theirs is always 'nga'"),
    (dict(aggregation="attention"), r"aggregation='attention'"),
    (dict(prompt_tokens=0), r"prompt_tokens=0"),
    (dict(class_embedding_twice=False), r"class_embedding_twice=False"),
    (dict(stages=((1, 2), (3, 4))), r"the last stage is \(3, 4\).*last block alone, \(4,\)"),
    (dict(stages=((1, 2), (3,))), r"the last stage is \(3,\)"),
    (dict(stages=((4,), (3,))), r"the last stage is \(3,\)"),
    (dict(stages=((1, 2), (4,))), r"not consecutive blocks that end with block 3"),
    (dict(stages=((1, 3), (4,))), r"not consecutive"),
    (dict(stages=((3, 2), (4,))), r"not consecutive"),
    (dict(stages=((3,), (1, 2), (4,))), r"not consecutive"),
    (dict(stages=((2, 3), (3,), (4,))), r"not consecutive"),
    (dict(prompt_tokens=0, stages=((1,),)), r"the last stage is \(1,\).*; prompt_tokens=0"),
]


@pytest.mark.parametrize(("settings", "message"), INEXPRESSIBLE, ids=str)
def test_what_their_layout_cannot_hold_is_refused_with_the_reason(settings, message, make_model, tmp_path):
    model = make_model(**settings)
    with pytest.raises(InputError, match=rf"the authors' layout cannot hold this model: .*{message}"):
        to_authors(model)
    with pytest.raises(InputError, match=message):
        save_authors(tmp_path / "model.pth", model)
    assert not list(tmp_path.iterdir())


TOWERS = [
    (dict(ls_init_value=0.1), r"transformer\.resblocks\.0\.ls_1"),
    (dict(no_ln_pre=True), r"ln_pre$"),
    (dict(mlp_ratio=2.0), r"resblocks\.0\.mlp\.c_fc"),
    (dict(norm_layer=lambda width: nn.LayerNorm(width, eps=1e-3)), r"ln_post"),
    (dict(act_layer=lambda: nn.GELU("tanh")), r"mlp\.gelu"),
]


@pytest.mark.parametrize(("other", "message"), TOWERS, ids=[str(list(other)) for other, _ in TOWERS])
def test_a_tower_that_theirs_cannot_be_is_refused(other, message, make_model):
    sizes = dict(image_size=32, patch_size=8, width=32, layers=4, heads=2, mlp_ratio=4.0, output_dim=16)
    visual = VisionTransformer(**{**sizes, **other})
    config = dataclasses.replace(make_model().config, tower=tower_config(visual))
    with pytest.raises(InputError, match=rf"not their plain ViT but differs in .*{message}"):
        to_authors(CascadeCLIP(config, visual))


def test_a_saved_file_is_what_mmcv_reads_and_what_we_read(make_model, make_inputs, tmp_path):
    model, path = make_model(tower=QUICK), tmp_path / "new folder" / "model.pth"
    save_authors(path, model)
    content = torch.load(path, weights_only=True)
    assert content["meta"] == {"heads": 2, "decoder_heads": 2, "quick_gelu": True, "stages": [[1, 2], [3], [4]]}
    assert content["state_dict"].keys() == to_authors(model).keys()
    assert_same_outputs(model, load(path, model), make_inputs(model))
    assert [file.name for file in path.parent.iterdir()] == ["model.pth"]
    size = sum(tensor.nbytes for tensor in content["state_dict"].values())
    assert path.stat().st_size < 1.2 * size + 100_000


def test_weights_that_are_no_numbers_are_not_saved(make_model, tmp_path):
    model = make_model(tower=QUICK)
    with torch.no_grad():
        model.encoder.prompts[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"model\.pth was not written, .* NaN or infinite numbers in encoder\.prompts"):
        save_authors(tmp_path / "model.pth", model)


def test_a_disk_that_fills_up_leaves_the_old_file(make_model, tmp_path, monkeypatch):
    def full(content, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")

    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    monkeypatch.setattr(tensor_files.torch, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*model\.pth.*unexpected pos"):
        save_authors(path, make_model())
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


# --- ZegCLIP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def zegclip(make_model, to_authors, dead_tensors):
    """A model of one stage, and the same as ZegCLIP's code saves it, written apart from the package's own tables."""
    model = make_model(stages=((4,),), tower=QUICK, prompt_tokens=5)
    cascade = to_authors(model.state_dict(), model.config) | dead_tensors(model.config)
    del cascade["backbone.proj_layers"]
    tensors = {}
    for name, tensor in cascade.items():
        name = re.sub(r"^decode_head\.cascade_decoders\.0\.layers", "decode_head.decoder_1.layers", name)
        tensors[re.sub(r"^decode_head\.q_projs\.0\.", "decode_head.q_proj.", name)] = tensor
    return model, tensors


def test_zegclips_names_are_those_of_its_code(zegclip):
    names = zegclip[1].keys()
    heads = {re.sub(r"\d+", "N", ".".join(name.split(".")[:3])) for name in names if name.startswith("decode_head")}
    assert heads == {
        *("decode_head.decoder_N.layers", "decode_head.q_proj.weight", "decode_head.q_proj.bias"),
        "decode_head.loss_decode.criterion",
    }
    assert "decode_head.decoder_1.layers.2.multihead_attn.q.weight" in names
    assert not [name for name in names if "ln_layers" in name or "proj_layers" in name]


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("text", [False, True])
def test_a_checkpoint_of_zegclip_becomes_a_model_of_one_stage(prefix, text, zegclip, make_inputs, tmp_path):
    model, tensors = zegclip
    if text:
        tensors = tensors | {"text_encoder.token_embedding.weight": torch.zeros(3, 2)}
    torch.save({"meta": {"iter": 20000}, "state_dict": {prefix + k: v for k, v in tensors.items()}}, tmp_path / "z.pth")
    again = load(tmp_path / "z.pth", model)
    assert again.config == model.config and again.config.stages == ((4,),)
    assert_same_outputs(model, again, make_inputs(model))


def test_a_model_of_one_stage_is_exported_under_zegclips_names(zegclip, dead_tensors, make_inputs):
    model, tensors = zegclip
    exported = to_authors(model)
    live = {name for name in tensors if not torch.is_tensor(tensors[name]) or name in exported}
    assert exported.keys() == live and len(tensors) - len(live) == len(dead_tensors(model.config))
    for name, tensor in exported.items():
        assert torch.equal(tensor, tensors[name]), name
    assert_same_outputs(model, load(exported, model), make_inputs(model))


@pytest.mark.parametrize("kinds", [("input_proj_1",), ("proj_norm_1",), ("input_proj_1", "proj_norm_1")])
def test_zegclip_with_a_projection_before_its_decoder_is_refused_with_the_reason(kinds, zegclip):
    model, tensors = zegclip
    more = {f"decode_head.{kind}.{part}": torch.zeros(16) for kind in kinds for part in ("weight", "bias")}
    with pytest.raises(InputError, match=rf"use_proj=True.*decode_head\.{kinds[0]}\.bias.*no such layer"):
        load(tensors | more, model)


def test_every_live_tensor_of_zegclip_is_required(zegclip):
    model, tensors = zegclip
    one_of_each_kind = {re.sub(r"\d+", "N", name): name for name in to_authors(model)}
    assert len(one_of_each_kind) > 30
    for name in one_of_each_kind.values():
        with pytest.raises(InputError, match="missing"):
            load({other: tensor for other, tensor in tensors.items() if other != name}, model)


def test_zegclip_with_fewer_deep_prompts_is_refused(zegclip):
    model, tensors = zegclip
    shallow = {name: tensor for name, tensor in tensors.items() if "deep_prompt" not in name}
    with pytest.raises(InputError, match=r"ZegCLIP's authors: tensor 'backbone\.deep_prompt_embeddings' is missing"):
        load(shallow, model)
    with pytest.raises(InputError, match=r"other sizes: encoder\.prompts"):
        load(tensors | {"backbone.deep_prompt_embeddings": torch.zeros(2, 5, 32)}, model)


@pytest.mark.parametrize("name", ["decode_head.decoder_2.layers.0.norm2.weight", "decode_head.extra"])
def test_what_zegclip_does_not_have_is_refused(name, zegclip):
    model, tensors = zegclip
    with pytest.raises(InputError, match=rf"unknown {re.escape(name)}"):
        load(tensors | {name: torch.zeros(16)}, model)


def test_a_mixture_of_both_is_refused(reference):
    mixed = reference.state_dict | {"decode_head.q_proj.weight": torch.zeros(16, 32)}
    with pytest.raises(InputError, match=r"unknown decode_head\.q_proj\.weight"):
        from_authors(mixed, heads=2, decoder_heads=2)


# --- files as mmcv saves them ---------------------------------------------------------------------------------------

META = {
    "env_info": "Python: 3.8", "mmseg_version": "0.29.1", "config": "model = dict(type='CascadeCLIP')\n" * 50,
    "epoch": 8, "iter": 20000, "seed": None, "CLASSES": ("aeroplane", "bicycle"), "PALETTE": [[128, 0, 0], [0, 128, 0]],
    "hook_msgs": {"best_score": np.float64(0.93), "best_ckpt": "best.pth"},
}  # fmt: skip
NUMPY = [np.float64(0.93), np.float32(1), np.int64(7), np.bool_(True), np.arange(3), np.dtype("f4"), [np.float64(1)]]


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("value", NUMPY, ids=repr)
def test_numbers_of_numpy_in_meta_do_no_harm(value, zipped, reference, tmp_path):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2))]).state_dict()
    content = {"meta": META | {"value": value}, "state_dict": reference.state_dict, "optimizer": optimizer}
    torch.save(content, tmp_path / "latest.pth", _use_new_zipfile_serialization=zipped)
    model = from_authors(tmp_path / "latest.pth", heads=2, decoder_heads=2)
    assert torch.equal(model.encoder.visual.proj, reference.state_dict["backbone.proj"])


@pytest.mark.parametrize("core", [b"core", b"_core"], ids=["numpy 1", "numpy 2"])
def test_numbers_as_either_numpy_wrote_them_do_no_harm(core, reference, tmp_path):
    path = tmp_path / "latest.pth"
    torch.save({"meta": META, "state_dict": reference.state_dict}, path, _use_new_zipfile_serialization=False)
    content, changed = re.subn(rb"numpy\._?core\.multiarray", b"numpy." + core + b".multiarray", path.read_bytes())
    assert changed
    path.write_bytes(content)
    assert from_authors(path, heads=2, decoder_heads=2).config.prompt_tokens == 3


def test_numbers_of_numpy_are_never_made(tmp_path):
    """A pickle names what is to be called; for numpy's names nothing of numpy is."""
    allowed = torch.serialization.get_safe_globals()
    torch.save({"meta": {"a": np.float64(1), "b": np.arange(2)}}, tmp_path / "meta.pth")
    meta = tensor_files.read_pth(tmp_path / "meta.pth")["meta"]
    assert {type(value).__module__ for value in meta.values()} == {"cascadeclip.tensors"}
    assert set(torch.serialization.get_safe_globals()) == set(allowed)  # nothing stays allowed


def test_an_array_among_the_tensors_is_refused(reference, tmp_path):
    tensors = reference.state_dict | {"backbone.proj": reference.state_dict["backbone.proj"].numpy()}
    torch.save({"state_dict": tensors}, tmp_path / "latest.pth")
    with pytest.raises(InputError, match=r"entries that are no tensors by name: backbone\.proj"):
        from_authors(tmp_path / "latest.pth", heads=2, decoder_heads=2)


@pytest.mark.parametrize(
    "value", [Path("/etc"), re.compile("x"), np.random.default_rng(0)], ids=lambda value: type(value).__name__
)
def test_other_things_in_meta_are_still_refused(value, reference, tmp_path):
    torch.save({"meta": {"value": value}, "state_dict": reference.state_dict}, tmp_path / "latest.pth")
    with pytest.raises(InputError, match="not opened, for safety"):
        from_authors(tmp_path / "latest.pth", heads=2, decoder_heads=2)
    assert pickle.dumps(value)


def test_the_same_tensors_as_safetensors(make_model, make_inputs, tmp_path):
    model = make_model()
    save_file(to_authors(model), tmp_path / "theirs.safetensors")
    assert_same_outputs(model, load(tmp_path / "theirs.safetensors", model), make_inputs(model))
