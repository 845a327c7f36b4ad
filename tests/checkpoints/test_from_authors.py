"""Reading the authors' checkpoints: any size, any wrapping, strict, and no pickle that does more than hold tensors."""

import os
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file

from cascadeclip.checkpoints.authors import from_authors
from cascadeclip.errors import InputError

LIVE = "decode_head.cascade_decoders.0.layers.0"
LAST = "decode_head.cascade_decoders.0.layers.2"


@pytest.fixture
def weights(reference):
    """The reference checkpoint's tensors, to change at will."""
    return dict(reference.state_dict)


def load(source, **options):
    return from_authors(source, **{"heads": 2, "decoder_heads": 2, **options})


@torch.no_grad()
def assert_same_model(one, other, inputs):
    assert one.config == other.config
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    ours, theirs = one(*inputs), other(*inputs)
    assert torch.equal(ours.mask_logits, theirs.mask_logits)
    assert torch.equal(ours.image_embedding, theirs.image_embedding)


# --- other sizes ----------------------------------------------------------------------------------------------------

SIZES = {
    "as the tests' tiny model": dict(),
    "grid of 3 x 3": dict(tower=dict(image_size=24)),
    "grid of one patch": dict(tower=dict(image_size=16, patch_size=16)),
    "four heads": dict(tower=dict(heads=4), decoder_heads=8),
    "one head, plain GELU": dict(tower=dict(heads=1, quick_gelu=False), decoder_heads=1),
    "one prompt": dict(prompt_tokens=1),
    "17 prompts": dict(prompt_tokens=17),
    "decoders of one layer": dict(decoder_layers=1),
    "decoders of two layers": dict(decoder_layers=2),
    "decoders of five layers": dict(decoder_layers=5),
    "last block only": dict(stages=((4,),)),
    "every block its own stage": dict(stages=((1,), (2,), (3,), (4,))),
    "one long stage": dict(stages=((1, 2, 3), (4,))),
    "late stage": dict(stages=((3,), (4,))),
    "12 blocks, the paper's stages": dict(stages=((6, 7, 8), (9, 10, 11), (12,)), tower=dict(layers=12)),
    "six blocks, uneven stages": dict(stages=((2,), (3, 4, 5), (6,)), tower=dict(layers=6, width=48, embed_dim=24)),
    "11 stages": dict(stages=tuple((i,) for i in range(1, 12)), tower=dict(layers=11, width=16, embed_dim=4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", SIZES.values(), ids=SIZES)
def test_a_checkpoint_of_any_size_becomes_the_same_model(settings, make_model, make_inputs, to_authors, dead_tensors):
    settings = {**settings, "tower": {"quick_gelu": True, **settings.get("tower", {})}}
    model = make_model(**settings)
    theirs = to_authors(model.state_dict(), model.config) | dead_tensors(model.config)
    for number, stage in enumerate(model.config.stages[:-1], start=1):
        if len(stage) == 1:  # the authors' aggregation has a weight there too
            theirs[f"decode_head.weights_s{number}"] = torch.ones(1)
    tower = model.config.tower
    again = from_authors(
        theirs, heads=tower.heads, decoder_heads=model.config.decoder_heads, quick_gelu=tower.quick_gelu
    )
    assert not again.training
    assert_same_model(model, again, make_inputs(model))


def test_heads_and_activation_change_the_model_and_no_shape(weights, reference):
    inputs = reference.inputs["image"], reference.inputs["text"]
    with torch.no_grad():
        plain = load(weights)(*inputs).mask_logits
        for options in (dict(heads=4), dict(decoder_heads=4), dict(quick_gelu=False)):
            assert not torch.allclose(load(weights, **options)(*inputs).mask_logits, plain, atol=1e-4)


@pytest.mark.parametrize("options", [dict(heads=3), dict(decoder_heads=3), dict(heads=0)])
def test_heads_that_do_not_fit_are_named(options, weights):
    with pytest.raises(InputError, match="heads"):
        load(weights, **options)


# --- wrappings ------------------------------------------------------------------------------------------------------


def as_module(tensors):
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def with_text_tower(tensors):
    return tensors | {
        "text_encoder.token_embedding.weight": torch.zeros(3, 2),
        "text_encoder.transformer.resblocks.0.ln_1.bias": torch.zeros(2),
        "text_encoder.logit_scale": torch.zeros(()),
    }


WRAPPINGS = {
    "state_dict": lambda tensors: {"state_dict": tensors},
    "module prefix": as_module,
    "both": lambda tensors: {"meta": {"epoch": 3}, "state_dict": as_module(tensors)},
    "text tower": with_text_tower,
}


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_wrapped_tensors_are_found(wrap, weights, reference):
    inputs = reference.inputs["image"], reference.inputs["text"]
    assert_same_model(load(weights), load(wrap(weights)), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("as_text", [str, lambda path: path])
def test_a_pth_file_with_meta_is_read(zipped, as_text, weights, reference, tmp_path):
    meta = {"mmseg_version": "0.30.0", "CLASSES": ("cat",), "PALETTE": [[0, 1, 2]], "iter": 20000}
    path = tmp_path / "latest.pth"
    content = {"meta": meta, "state_dict": weights, "optimizer": {"state": {}}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same_model(load(weights), load(as_text(path)), (reference.inputs["image"], reference.inputs["text"]))


def test_a_safetensors_file_is_read(weights, reference, tmp_path):
    save_file(weights, tmp_path / "latest.safetensors")
    inputs = reference.inputs["image"], reference.inputs["text"]
    assert_same_model(load(weights), load(tmp_path / "latest.safetensors"), inputs)


def test_half_precision_weights_become_float32(weights):
    model = load({name: tensor.half() for name, tensor in weights.items()})
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


# --- strictness -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_live_tensor_is_required(weights, dead_tensors):
    model = load(weights)
    dead = dead_tensors(model.config)
    assert len(dead) == 91 and dead.keys() < weights.keys()
    one_of_each_kind = {re.sub(r"\d+", "N", name): name for name in sorted(weights.keys() - dead.keys())}
    assert len(one_of_each_kind) > 40
    for name in one_of_each_kind.values():
        with pytest.raises(InputError, match="missing"):
            load({other: tensor for other, tensor in weights.items() if other != name})


def test_dead_tensors_may_be_absent_and_change_nothing(weights, reference, dead_tensors):
    model = load(weights)
    live = {name: tensor for name, tensor in weights.items() if name not in dead_tensors(model.config)}
    assert_same_model(model, load(live), (reference.inputs["image"], reference.inputs["text"]))


UNKNOWN = ["backbone.extra", "decode_head.extra.weight", "extra", f"{LIVE}.extra.weight", f"{LIVE}.norm4.bias"]
UNKNOWN += [f"{LAST}.{name}" for name in ("extra.weight", "norm4.bias")]


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_tensors_are_refused(name, weights):
    with pytest.raises(InputError, match=rf"unknown .*{re.escape(name.rsplit('.', 2)[-1])}"):
        load(weights | {name: torch.zeros(1)})


RESIZED = [
    ("backbone.ln_pre.weight", (31,), r"other sizes: encoder\.visual\.ln_pre\.weight: \(31,\) instead of \(32,\)"),
    ("backbone.positional_embedding", (60, 32), "other sizes"),
    ("backbone.proj_layers", (7, 32, 16), "1 tapped blocks belong to no stage"),
    ("backbone.deep_prompt_embeddings", (10, 3, 32), r"other sizes: encoder\.prompts"),
    ("decode_head.weights_s1", (2,), "1 tapped blocks belong to no stage"),
    ("decode_head.q_projs.1.weight", (16, 16), r"other sizes: descriptors\.1\.linear\.weight"),
    (f"{LIVE}.linear1.weight", (32, 16), r"other sizes: decoders\.0\.layers\.0\.expand\.weight"),
    (f"{LAST}.multihead_attn.q.weight", (8, 16), r"other sizes: decoders\.0\.mask\.query\.weight"),
    ("backbone.deep_prompt_embeddings", (11, 4, 32), r"deep_prompt_embeddings \(11, 4, 32\) differ"),
    ("backbone.prompt_embeddings", (3,), "prompt_embeddings has shape"),
    ("backbone.conv1.weight", (32, 192), "conv1.weight has shape"),
    ("backbone.proj", (32,), "backbone.proj has shape"),
    ("backbone.positional_embedding", (0, 32), r"image_size=0 must be at least 1"),
    ("decode_head.cascade_decoders.0.layers.99.x_weight", (1,), r"missing decoders"),
    ("decode_head.weights_s1", (), "2 tapped blocks belong to no stage"),
]


@pytest.mark.parametrize(("name", "shape", "message"), RESIZED)
def test_a_tensor_of_another_size_is_named(name, shape, message, weights):
    with pytest.raises(InputError, match=message):
        load(weights | {name: torch.zeros(shape)})


def test_a_weight_on_a_stage_of_one_block_is_refused(make_model, to_authors):
    model = make_model(stages=((3,), (4,)), decoder_heads=2)
    theirs = to_authors(model.state_dict(), model.config)
    with pytest.raises(InputError, match=r"weights_s1 is 0\.5"):
        load(theirs | {"decode_head.weights_s1": torch.tensor([0.5])})


def test_what_is_no_checkpoint_is_named():
    for source in ({}, {"state_dict": {}}, {"weight": 3}, {"weight": torch.zeros(1)}):
        with pytest.raises(InputError, match=r"not a .*checkpoint"):
            load(source)


@pytest.mark.parametrize("content", [torch.zeros(2), [1, 2], {"state_dict": 3}, {0: torch.zeros(1)}], ids=str)
def test_a_pth_file_that_holds_something_else_is_named(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not a checkpoint"):
        load(tmp_path / "other.pth")


# --- unsafe and broken files ----------------------------------------------------------------------------------------


class Malicious:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def as_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, as_pickle])
@pytest.mark.parametrize("place", ["alone", "state_dict", "meta", "among the tensors"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_malicious_pickle_is_refused_and_nothing_is_executed(write, place, suffix, weights, tmp_path):
    trap, path = tmp_path / "executed", tmp_path / f"latest{suffix}"
    contents = {"alone": Malicious(trap), "state_dict": {"state_dict": Malicious(trap)}}
    contents["meta"] = {"meta": Malicious(trap), "state_dict": weights}
    contents["among the tensors"] = {"state_dict": weights | {"backbone.proj": Malicious(trap)}}
    write(contents[place], path)
    message = "not a whole safetensors file" if suffix == ".safetensors" else "not opened, for safety"
    with pytest.raises(InputError, match=message):
        load(path)
    assert not trap.exists()
    if write is as_pickle:  # the trap works
        pickle.loads(path.read_bytes())
        assert trap.exists()


@pytest.mark.parametrize(
    ("share", "zipped"), [(0.0, True), (0.001, True), (0.5, True), (0.999, True), (0.5, False), (0.999, False)]
)
def test_a_pth_file_cut_short_is_named(share, zipped, weights, tmp_path):
    path = tmp_path / "latest.pth"
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="is cut short or no PyTorch checkpoint"):
        load(path)


def test_sizes_that_no_tensor_fills_are_refused_before_a_model_is_built(weights, tmp_path, monkeypatch):
    """A file of some kilobytes may say any size: of blocks by a name, of a tensor by a stride of 0."""
    monkeypatch.setattr("cascadeclip.checkpoints.authors.CascadeCLIP", lambda config: pytest.fail("it was built"))
    with pytest.raises(InputError, match=r"does not fit the model: missing .*resblocks"):
        load(weights | {"backbone.transformer.resblocks.12.x": torch.zeros(1)})
    wide = {name: tensor[..., :1].expand(*tensor.shape[:-1], 2**14) for name, tensor in weights.items() if tensor.ndim}
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"wide\.pth holds a tensor of \(.*16384.*\), and fewer values than that"):
        load(tmp_path / "wide.pth")


@pytest.mark.parametrize("content", [b"hello world", b"\x80", b"\x80\x02M"], ids=repr)
def test_a_file_that_is_no_whole_pickle_is_named(content, tmp_path):
    (tmp_path / "latest.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"latest\.pth"):
        load(tmp_path / "latest.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*none\.pth"):
        load(tmp_path / "none.pth")
