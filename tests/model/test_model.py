"""`CascadeCLIP` as a whole: what is trained, which sizes work, and what bad input is told."""

import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from cascadeclip.config import AGGREGATIONS, ModelConfig, TowerConfig
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP

VIT_B16 = TowerConfig(image_size=512, patch_size=16, width=768, layers=12, heads=12, embed_dim=512, quick_gelu=True)


# --- what is trained ------------------------------------------------------------------------------------------------


def test_vit_b16_with_ten_prompts_trains_22_7_million_parameters():
    with torch.device("meta"):
        model = CascadeCLIP(ModelConfig(prompt_tokens=10, tower=VIT_B16))
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trainable == 22_748_934
    assert 22.6e6 < trainable < 22.8e6


STAGES = [((4,),), ((1, 2), (3,), (4,)), ((2, 3),), ((1, 3, 4), (3, 2))]
SETTINGS = [
    pytest.param(
        dict(stages=stages, aggregation=kind, prompt_tokens=prompts, train_taps=taps),
        id=f"{kind}-{stages}-{prompts}-{taps}",
    )
    for stages, kind, prompts, taps in itertools.product(STAGES, AGGREGATIONS, (0, 3), (False, True))
    if not (taps and stages == ((4,),))  # see test_a_model_without_taps_has_no_taps_to_train
]


def gradients(model, inputs) -> dict[str, torch.Tensor | None]:
    """Gradient of every parameter for a loss that no symmetry cancels, in float64 so that 0 is told from rounding."""
    images, text = (x.double() for x in inputs)
    logits = model.double()(images, text).mask_logits
    (logits * torch.randn_like(logits)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def is_softmax_invariant(name: str) -> bool:
    """A key bias shifts all scores of a query alike, which the softmax does not see: its true gradient is 0."""
    return name.startswith("decoders.") and ".layers." in name and name.endswith("key.bias")


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
def test_every_trainable_tensor_gets_a_gradient_and_no_frozen_one_does(settings, make_model, make_inputs):
    model = make_model(**settings)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    taps = () if settings["train_taps"] else ("encoder.tap_",)
    frozen = {name for name, _ in model.named_parameters() if name.startswith(("encoder.visual.", *taps))}
    assert trainable == {name for name, _ in model.named_parameters()} - frozen
    for name, gradient in gradients(model, make_inputs(model)).items():
        if name in frozen:
            assert gradient is None, name
        elif not is_softmax_invariant(name):
            assert gradient is not None and gradient.abs().max() > 1e-9, name


def test_a_model_without_taps_has_no_taps_to_train(make_model, make_inputs):
    model = make_model(stages=((4,),), train_taps=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = gradients(model, make_inputs(model))
    assert not [name for name in trained if found[name] is None]


def test_prompts_alone_learn_through_the_image_embedding_too(make_model, make_inputs):
    """With no stage on the last block, its prompts act through the class token alone."""
    model = make_model(stages=((1,),))
    assert gradients(model, make_inputs(model))["encoder.prompts"].abs().amax((1, 2)).min() > 1e-9


# --- which sizes work -----------------------------------------------------------------------------------------------


@st.composite
def models(draw):
    layers, heads, patch = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([4, 7, 8]))
    tower = TowerConfig(
        image_size=patch * draw(st.integers(1, 4)),
        patch_size=patch,
        width=8 * heads,
        layers=layers,
        heads=heads,
        embed_dim=draw(st.sampled_from([4, 8, 12])),
        quick_gelu=draw(st.booleans()),
    )
    stage = st.lists(st.integers(1, layers), min_size=1, max_size=3, unique=True)
    return ModelConfig(
        stages=draw(st.lists(stage, min_size=1, max_size=3)),
        aggregation=draw(st.sampled_from(AGGREGATIONS)),
        prompt_tokens=draw(st.integers(0, 3)),
        decoder_layers=draw(st.integers(1, 3)),
        decoder_heads=draw(st.sampled_from([1, 2, 4])),
        tower=tower,
    )


@torch.no_grad()
@given(config=models(), batch=st.integers(1, 2), classes=st.integers(1, 7), data=st.data())
def test_any_size_gives_finite_outputs_of_the_documented_shapes(config, batch, classes, data):
    patch, width = config.tower.patch_size, config.tower.embed_dim
    height, breadth = (data.draw(st.integers(patch, 5 * patch), label=side) for side in ("height", "width"))
    h, w = height // patch, breadth // patch
    text = F.normalize(torch.randn(classes, width), dim=-1)
    output = CascadeCLIP(config).eval()(torch.randn(batch, 3, height, breadth), text)
    stages, taps = len(config.stages), len({b for s in config.stages for b in s} - {config.tower.layers})
    assert output.mask_logits.shape == (batch, classes, h, w)
    assert [tuple(x.shape) for x in output.stage_logits] == [(batch, classes, h, w)] * stages
    assert [tuple(x.shape) for x in output.stage_queries] == [(batch, classes, width)] * stages
    assert [tuple(x.shape) for x in output.stage_tokens] == [(batch, h * w, width)] * stages
    assert [tuple(x.shape) for x in output.layer_features] == [(batch, width, h, w)] * (taps + 1)
    assert output.image_embedding.shape == (batch, width)
    for features in (*output.layer_features, output.image_embedding):
        torch.testing.assert_close(features.norm(dim=1), torch.ones_like(features[:, 0]), rtol=1e-4, atol=1e-4)
    assert all(x.isfinite().all() for x in (output.mask_logits, *output.stage_logits, *output.stage_tokens))


@given(config=models())
def test_settings_survive_a_round_trip_through_json_types(config):
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 17), (5, 8), (16,), (1, 5, 16), (0, 16)])
def test_text_of_another_shape_is_named(shape, make_model):
    with pytest.raises(InputError, match=r"text has shape .*; expected \(classes, 16\)"):
        make_model()(torch.randn(1, 3, 32, 32), torch.randn(*shape))


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32), (1, 3, 7, 32), (1, 3, 32, 7), (1, 32, 32, 3)]
)
def test_images_of_another_shape_are_named(shape, make_model):
    with pytest.raises(InputError, match=r"images have shape .*; expected \(B, 3, H, W\) with H >= 8 and W >= 8 px"):
        make_model()(torch.randn(*shape), torch.randn(5, 16))


def test_a_tower_of_other_sizes_than_the_configuration_says_is_refused():
    small = TowerConfig(image_size=32, patch_size=8, width=32, layers=4, heads=2, embed_dim=16)
    visual = CascadeCLIP(ModelConfig(stages=((4,),), tower=small, decoder_heads=2)).encoder.visual
    with pytest.raises(InputError, match=r"width=32.*the configuration says.*width=192"):
        CascadeCLIP(ModelConfig(), visual)
