"""The parts of the model against formulas written apart from it: aggregation, descriptor, decoder, cascade, encoder."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cascadeclip.config import ModelConfig
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import (
    Aggregation,
    CascadeCLIP,
    DecoderLayer,
    MaskLayer,
    RelationshipDescriptor,
    TextImageDecoder,
    nga_weights,
)
from cascadeclip.presets import MINI

WIDTH = 16


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def three_blocks():
    return list(torch.randn(3, 2, 5, WIDTH))


@pytest.fixture
def queries_and_tokens():
    return torch.randn(2, 4, WIDTH), torch.randn(2, 7, WIDTH)


# --- aggregation ----------------------------------------------------------------------------------------------------


def test_nga_starts_at_the_published_weights():
    torch.testing.assert_close(nga_weights(3), torch.tensor([0.135, 0.607, 1.0]), rtol=0, atol=5e-4)


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_nga_weights_follow_the_gaussian(blocks, sigma):
    wanted = [math.exp(-((blocks - block) ** 2) / (2 * sigma**2)) for block in range(1, blocks + 1)]
    assert nga_weights(blocks, sigma).tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-30)


def softmax_over_blocks(features, query):
    """Attention aggregation, one patch at a time."""
    mixed = torch.zeros_like(features[0])
    for image in range(mixed.shape[0]):
        for patch in range(mixed.shape[1]):
            scores = [math.exp(float(f[image, patch] @ query)) for f in features]
            for score, f in zip(scores, features, strict=True):
                mixed[image, patch] += score / sum(scores) * f[image, patch]
    return mixed


FORMULAS = {
    "nga": lambda m, f: m.weights[0] * f[0] + m.weights[1] * f[1] + m.weights[2] * f[2],
    "sum": lambda m, f: f[0] + f[1] + f[2],
    "mean": lambda m, f: (f[0] + f[1] + f[2]) / 3,
    "concat": lambda m, f: sum(f[i] @ m.mix.weight[:, i * WIDTH : (i + 1) * WIDTH].T for i in range(3)) + m.mix.bias,
    "attention": lambda m, f: softmax_over_blocks(f, m.query),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_aggregation_equals_its_formula(kind, three_blocks, randomise):
    module = randomise(Aggregation(3, WIDTH, kind=kind))
    with torch.no_grad():
        torch.testing.assert_close(module(three_blocks), FORMULAS[kind](module, three_blocks), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_stage_of_one_block_is_that_block(kind, three_blocks):
    module = Aggregation(1, WIDTH, kind=kind)
    assert torch.equal(module(three_blocks[:1]), three_blocks[0])
    assert not list(module.parameters())


def test_sigma_reaches_the_initial_weights_of_the_model(make_model):
    plain = make_model(sigma=2.0).aggregations[0].weights - make_model(sigma=1.0).aggregations[0].weights
    torch.testing.assert_close(plain, torch.tensor([math.exp(-1 / 8) - math.exp(-1 / 2), 0.0]))


# --- relationship descriptor ----------------------------------------------------------------------------------------


def test_descriptor_equals_a_loop_over_images_and_classes(randomise):
    module = randomise(RelationshipDescriptor(WIDTH))
    text, image_embedding = torch.randn(5, WIDTH), torch.randn(3, WIDTH)
    queries = module(text, image_embedding)
    assert queries.shape == (3, 5, WIDTH)
    for image in range(3):
        for name in range(5):
            described = torch.cat([text[name] * image_embedding[image], text[name]])
            wanted = module.linear.weight @ described + module.linear.bias
            torch.testing.assert_close(queries[image, name], wanted, rtol=1e-5, atol=1e-5)


# --- decoder --------------------------------------------------------------------------------------------------------


def torch_attention(layer, heads, **options) -> nn.MultiheadAttention:
    """PyTorch's own attention with the projections of `layer`."""
    attention = nn.MultiheadAttention(WIDTH, heads, batch_first=True, **options)
    value = getattr(layer, "value", layer.key)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, value.weight]))
        attention.in_proj_bias.copy_(torch.cat([layer.query.bias, layer.key.bias, value.bias]))
        if hasattr(layer, "out"):
            attention.out_proj.load_state_dict(layer.out.state_dict())
    return attention.eval()


@pytest.mark.parametrize("heads", [1, 2, 4, 16])
def test_mask_logits_are_the_mean_over_heads_of_the_scores_of_torch_attention(heads, queries_and_tokens, randomise):
    layer = randomise(MaskLayer(WIDTH, heads))
    queries, tokens = queries_and_tokens
    # `add_zero_attn` adds a key of zeros, whose score is 0: log(weight / its weight) is the score before the softmax
    attention = torch_attention(layer, heads, add_zero_attn=True)
    weights = attention(queries, tokens, tokens, average_attn_weights=False)[1]  # (B, heads, C, N + 1)
    scores = (weights[..., :-1] / weights[..., -1:]).log()
    torch.testing.assert_close(layer(queries, tokens), scores.mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_decoder_layer_equals_one_composed_of_torch_modules(heads, queries_and_tokens, randomise):
    layer = randomise(DecoderLayer(WIDTH, heads, dropout=0.3)).eval()
    queries, tokens = queries_and_tokens
    mixed = torch_attention(layer, heads)(queries, tokens, tokens, need_weights=False)[0]
    attended = layer.norm_attention(queries + mixed)
    feed_forward = nn.Sequential(layer.expand, nn.ReLU(), layer.contract)
    wanted = layer.norm_feed_forward(attended + feed_forward(attended))
    torch.testing.assert_close(layer(queries, tokens), wanted, rtol=1e-5, atol=1e-5)
    assert layer.expand.out_features == 4 * WIDTH


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_decoder_is_its_layers_in_order_and_then_the_mask_layer(layers, queries_and_tokens, randomise):
    decoder = randomise(TextImageDecoder(WIDTH, heads=2, layers=layers)).eval()
    queries, tokens = queries_and_tokens
    assert len(decoder.layers) == layers - 1
    wanted = queries
    for layer in decoder.layers:
        wanted = layer(wanted, tokens)
    assert torch.equal(decoder(queries, tokens), decoder.mask(wanted, tokens))


def test_queries_do_not_see_each_other(queries_and_tokens):
    decoder = TextImageDecoder(WIDTH, heads=2).eval()
    queries, tokens = queries_and_tokens
    changed = torch.cat([queries[:, :1], torch.randn_like(queries[:, 1:])], dim=1)
    torch.testing.assert_close(decoder(queries, tokens)[:, 0], decoder(changed, tokens)[:, 0], rtol=1e-5, atol=1e-6)


# --- cascade --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_mask_logits_are_the_sum_of_the_stages(make_model, make_inputs):
    model = make_model()
    output = model(*make_inputs(model))
    first, second, third = output.stage_logits
    torch.testing.assert_close(output.mask_logits, first + second + third, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_each_stage_reads_its_own_blocks_text_projection_and_decoder(make_model, make_inputs):
    model = make_model(stages=((3, 1), (2, 4)))
    output = model(*make_inputs(model))
    flat = [feature.flatten(2).transpose(1, 2) for feature in output.layer_features]  # blocks 1, 2, 3, 4
    text = make_inputs(model)[1]
    for stage, (one, other) in enumerate([(flat[2], flat[0]), (flat[1], flat[3])]):  # in the order they are listed
        weights = model.aggregations[stage].weights
        torch.testing.assert_close(output.stage_tokens[stage], weights[0] * one + weights[1] * other)
        queries = model.descriptors[stage](text, output.image_embedding)
        assert torch.equal(output.stage_queries[stage], queries)
        logits = model.decoders[stage](queries, output.stage_tokens[stage])
        assert torch.equal(output.stage_logits[stage].flatten(2), logits)


@torch.no_grad()
def test_order_of_classes_permutes_the_masks(make_model, make_inputs):
    model = make_model()
    images, text = make_inputs(model)
    order = torch.tensor([3, 0, 4, 1, 2])
    plain, permuted = model(images, text), model(images, text[order])
    torch.testing.assert_close(permuted.mask_logits, plain.mask_logits[:, order], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_batch_of_two_equals_two_batches(make_model, make_inputs):
    model = make_model()
    images, text = make_inputs(model)
    apart = torch.cat([model(images[:1], text).mask_logits, model(images[1:], text).mask_logits])
    torch.testing.assert_close(model(images, text).mask_logits, apart, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_evaluation_is_deterministic_and_training_drops_out(make_model, make_inputs):
    model = make_model(dropout=0.5)
    inputs = make_inputs(model)
    assert torch.equal(model(*inputs).mask_logits, model(*inputs).mask_logits)
    model.train()
    assert not torch.allclose(model(*inputs).mask_logits, model(*inputs).mask_logits, atol=1e-4)


@torch.no_grad()
def test_the_same_seed_builds_the_same_model(make_model, make_inputs):
    one, other, third = make_model(seed=5), make_model(seed=5), make_model(seed=6)
    inputs = make_inputs(one)
    assert torch.equal(one(*inputs).mask_logits, other(*inputs).mask_logits)
    assert not torch.allclose(one(*inputs).mask_logits, third(*inputs).mask_logits, atol=1e-3)


def test_classes_can_be_added_without_touching_the_others(make_model, make_inputs):
    model = make_model()
    images, text = make_inputs(model, classes=6)
    with torch.no_grad():
        few, many = model(images, text[:2]).mask_logits, model(images, text).mask_logits
    torch.testing.assert_close(few, many[:, :2], rtol=1e-5, atol=1e-5)
    assert F.cosine_similarity(many[:, 0].flatten(), many[:, 5].flatten(), dim=0) < 0.999


@pytest.mark.parametrize(("setting", "part"), [("shared_projection", "descriptors"), ("shared_decoder", "decoders")])
def test_stages_may_share_a_module(make_model, make_inputs, setting, part):
    """One module in place of three gives what three equal ones give, and its gradient is the sum of theirs."""
    shared, own = make_model(**{setting: True}), make_model()
    assert len(getattr(shared, part)) == 1 and len(getattr(own, part)) == 3
    state = own.state_dict()
    for name, tensor in shared.state_dict().items():
        for stage in range(3) if name.startswith(part) else (0,):
            state[name.replace(f"{part}.0.", f"{part}.{stage}.")] = tensor
    own.load_state_dict(state)
    images, text = make_inputs(own)
    for model in (shared, own):
        model(images, text).mask_logits.square().mean().backward()
    torch.testing.assert_close(shared(images, text).mask_logits, own(images, text).mask_logits)
    one, three = getattr(shared, part)[0], getattr(own, part)
    for name, parameter in one.named_parameters():
        total = sum(dict(module.named_parameters())[name].grad for module in three)
        torch.testing.assert_close(parameter.grad, total, rtol=1e-4, atol=1e-6)


def test_frozen_aggregation_takes_no_gradient(make_model):
    assert not any(
        parameter.requires_grad for parameter in make_model(train_aggregation=False).aggregations.parameters()
    )
    assert any(parameter.requires_grad for parameter in make_model().aggregations.parameters())


def test_an_aligned_mask_layer_starts_as_similarity_beside_its_random_weights():
    torch.manual_seed(0)
    plain = MaskLayer(WIDTH, 4)
    torch.manual_seed(0)
    aligned = MaskLayer(WIDTH, 4, aligned=True)
    assert torch.allclose(aligned.query.weight - plain.query.weight, torch.eye(WIDTH), atol=1e-6)
    with torch.no_grad():
        for linear, plain_linear in ((aligned.query, plain.query), (aligned.key, plain.key)):
            linear.weight -= plain_linear.weight
            linear.bias.zero_()
        queries = F.layer_norm(torch.randn(2, 3, WIDTH), (WIDTH,), eps=0)
        tokens = torch.randn(2, 5, WIDTH)
        cosine = F.cosine_similarity(queries[:, :, None], tokens[:, None], dim=-1)
        assert torch.allclose(aligned(queries, tokens), cosine * tokens.norm(dim=-1)[:, None], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "aligned"),
    [
        ({"aligned_start": "none"}, [False, False, False]),
        ({"aligned_start": "last"}, [False, False, True]),
        ({"aligned_start": "all"}, [True, True, True]),
        ({"aligned_start": "last", "shared_decoder": True}, [True]),
        ({"aligned_start": "last", "stages": ((6, 7), (9, 12), (11,))}, [False, True, False]),
        ({"aligned_start": "last", "stages": ((6, 7), (9, 11))}, [False, False]),
    ],
)
def test_the_stages_that_are_to_be_have_an_aligned_start(settings, aligned):
    """Without it, the diagonal of the random matrix is near 0."""
    decoders = CascadeCLIP(replace(MINI.model, **settings)).decoders
    assert [bool(decoder.mask.query.weight.diagonal().mean() > 0.5) for decoder in decoders] == aligned


def test_older_files_say_true_or_false_of_the_aligned_start():
    settings = MINI.model.to_dict()
    for before, now in ((True, "all"), (False, "none"), ("last", "last")):
        assert ModelConfig.from_dict({**settings, "aligned_start": before}).aligned_start == now
    for wrong in ("first", 1, None):
        with pytest.raises(InputError, match="aligned_start"):
            ModelConfig.from_dict({**settings, "aligned_start": wrong})
