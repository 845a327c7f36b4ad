"""The prompted encoder against open_clip's own image tower, and its prompts and taps block by block."""

import pytest
import torch
from torch.nn import functional as F

from cascadeclip.model import encoder
from cascadeclip.model.tower import attend, position_embedding, run_block


@pytest.fixture
def plain(make_model):
    """The class token as CLIP has it, no prompts, last block only: CLIP's own tower."""
    return make_model(stages=((4,),), prompt_tokens=0, class_embedding_twice=False)


@pytest.fixture
def watched(monkeypatch):
    """Lists that fill with every block's input tokens, output tokens and prompt tokens."""
    seen_in, seen_out, prompted = [], [], []

    def run_and_note(block, tokens, prompts):
        seen_in.append(tokens)
        prompted.append(prompts)
        seen_out.append(run_block(block, tokens, prompts))
        return seen_out[-1]

    monkeypatch.setattr(encoder, "run_block", run_and_note)
    return seen_in, seen_out, prompted


@torch.no_grad()
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_without_prompts_the_tower_is_open_clips(make_model, make_inputs, watched, quick_gelu):
    model = make_model({"quick_gelu": quick_gelu}, stages=((4,),), prompt_tokens=0, class_embedding_twice=False)
    images, open_clips = make_inputs(model)[0], []
    embedding = model.encoder(images).image_embedding
    for block in model.encoder.visual.transformer.resblocks:
        block.register_forward_hook(lambda _, inputs, output: open_clips.append(output))
    own = F.normalize(model.encoder.visual(images), dim=-1)
    assert len(open_clips) == len(watched[1]) == 4
    torch.testing.assert_close(watched[1], open_clips, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(embedding, own, rtol=0, atol=1e-6)


@torch.no_grad()
def test_without_prompts_the_patch_features_are_open_clips(plain, make_inputs):
    images, text = make_inputs(plain)
    visual = plain.encoder.visual
    visual.output_tokens = True
    patches = F.normalize(visual(images)[1] @ visual.proj, dim=-1)  # open_clip gives tokens before its projection
    output = plain(images, text)
    torch.testing.assert_close(output.layer_features[-1].flatten(2).transpose(1, 2), patches, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_second_class_embedding_is_a_switch(make_model, make_inputs):
    twice = make_model(stages=((4,),), prompt_tokens=0, class_embedding_twice=True)
    images, text = make_inputs(twice)
    found = twice(images, text).image_embedding
    visual = twice.encoder.visual
    assert not torch.allclose(found, F.normalize(visual(images), dim=-1), atol=1e-3)
    visual.positional_embedding[0] += visual.class_embedding  # now open_clip adds it twice as well
    torch.testing.assert_close(found, F.normalize(visual(images), dim=-1), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_taps_read_the_output_of_the_block_they_name(make_model, make_inputs, watched):
    model = make_model(stages=((3, 1), (4,)), prompt_tokens=2)
    outputs = watched[1]
    features = model.encoder(make_inputs(model)[0]).features
    prompted = model.encoder
    assert list(features) == [1, 3, 4]
    for position, block in enumerate((1, 3)):
        patches = prompted.prompt_norm(outputs[block - 1][:, 1:])
        norm = prompted.tap_norms[position]
        wanted = F.layer_norm(patches, (32,), norm.weight, norm.bias) @ prompted.tap_projections[position]
        torch.testing.assert_close(features[block], wanted / wanted.norm(dim=-1, keepdim=True), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_last_block_goes_through_clips_own_norm_and_projection(make_model, make_inputs, watched):
    model = make_model(stages=((4,),), prompt_tokens=2)
    outputs = watched[1]
    found = model.encoder(make_inputs(model)[0])
    visual = model.encoder.visual
    joint = visual.ln_post(model.encoder.prompt_norm(outputs[-1])) @ visual.proj
    torch.testing.assert_close(found.image_embedding, F.normalize(joint[:, 0], dim=-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.features[4], F.normalize(joint[:, 1:], dim=-1), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_every_block_gets_its_own_prompts_and_hands_on_none(make_model, make_inputs, watched):
    model = make_model(prompt_tokens=3)
    inputs, outputs, prompts = watched
    prompted = model.encoder
    images = make_inputs(model)[0]
    prompted(images)
    for block in range(4):
        wanted = prompted.prompts[block] @ prompted.prompt_proj.weight.T + prompted.prompt_proj.bias
        torch.testing.assert_close(prompts[block], wanted.expand(len(images), 3, -1), rtol=1e-5, atol=1e-5)
        assert inputs[block].shape[1] == outputs[block].shape[1] == 1 + 16
        if block:
            assert inputs[block] is outputs[block - 1]


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_prompts_act_as_tokens_of_the_block_whose_outcome_is_dropped(make_model, quick_gelu):
    """The same tokens and gradients as open_clip's own block gives, told of the prompts as of any other token."""
    block = make_model({"quick_gelu": quick_gelu}).encoder.visual.transformer.resblocks[1].requires_grad_(False)
    tokens, prompts = torch.randn(2, 17, 32), torch.randn(2, 3, 32)
    ours, theirs = ([x.clone().requires_grad_() for x in (tokens, prompts)] for _ in range(2))
    found = run_block(block, *ours)
    given = torch.cat([theirs[0][:, :1], theirs[1], theirs[0][:, 1:]], dim=1)
    expected = block(given)[:, [0, *range(4, 20)]]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    assert not torch.allclose(found, run_block(block, tokens), atol=1e-3)
    for output in (found, expected):
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    for own, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, wanted.grad, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_prompts_of_a_block_reach_that_block_and_no_earlier_one(make_model, make_inputs, block):
    model = make_model(stages=((1,), (2,), (3,), (4,)))
    images = make_inputs(model)[0]
    before = model.encoder(images).features
    model.encoder.prompts[block - 1] += 5 * torch.randn_like(model.encoder.prompts[block - 1])
    after = model.encoder(images).features
    assert [b for b in before if not torch.equal(before[b], after[b])] == list(range(block, 5))


@torch.no_grad()
def test_dropout_falls_on_the_prompts_while_training(make_model, make_inputs, watched):
    model = make_model(prompt_tokens=3, dropout=0.5).train()
    inputs, _, prompts = watched
    model.encoder(make_inputs(model)[0])
    assert (prompts[0] == 0).float().mean() == pytest.approx(0.5, abs=0.15)
    assert not (inputs[0] == 0).any()


@torch.no_grad()
def test_position_embedding_of_the_stored_grid_is_the_stored_one(plain):
    assert torch.equal(position_embedding(plain.encoder.visual, (4, 4)), plain.encoder.visual.positional_embedding)


@torch.no_grad()
def test_position_embedding_is_resized_along_rows_and_columns_apart(plain):
    stored = plain.encoder.visual.positional_embedding  # a 4 x 4 grid
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    stored[1:, 0], stored[1:, 1] = rows.flatten(), columns.flatten()
    resized = position_embedding(plain.encoder.visual, (2, 4))
    assert resized.shape == (1 + 8, 32)
    assert torch.equal(resized[0], stored[0])
    # halving 4 rows reads between rows 0 and 1, and between 2 and 3; the columns stay
    assert resized[1:, 0].view(2, 4).tolist() == [[0.5] * 4, [2.5] * 4]
    assert resized[1:, 1].view(2, 4).tolist() == [[0.0, 1.0, 2.0, 3.0]] * 2
    doubled = position_embedding(plain.encoder.visual, (4, 8))[1:, 1].view(4, 8)[0]
    assert doubled.tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]


@torch.no_grad()
def test_patches_keep_their_place_in_a_wide_picture(plain, make_inputs):
    images, text = make_inputs(plain, batch=1, size=(16, 40))
    for block in plain.encoder.visual.transformer.resblocks:  # without attention every patch stays by itself
        block.attn.out_proj.weight.zero_()
    before = plain(images, text).layer_features[-1]
    images[:, :, 8:16, 24:32] += 1.0  # row 1, column 3
    changed = (plain(images, text).layer_features[-1] != before).any(1)[0]
    assert changed.nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("gradient", ["", "kv", "qkv"])
def test_attention_and_its_gradient_are_pytorch_s(dtype, tolerance, gradient):
    torch.manual_seed(0)
    given = {name: torch.randn(2, 3, tokens, 8) for name, tokens in (("q", 5), ("k", 7), ("v", 7))}
    ours = [x.to(dtype).requires_grad_(name in gradient) for name, x in given.items()]
    theirs = [x.to(dtype).float().requires_grad_(name in gradient) for name, x in given.items()]
    found, expected = attend(*ours), F.scaled_dot_product_attention(*theirs)
    assert found.dtype == dtype and torch.allclose(found.float(), expected, atol=tolerance)
    if gradient:
        found.float().square().sum().backward()
        expected.square().sum().backward()
        for own, wanted in zip(ours, theirs, strict=True):
            assert (own.grad is None) == (wanted.grad is None)
            if own.grad is not None:
                assert torch.allclose(own.grad.float(), wanted.grad, atol=5 * tolerance, rtol=tolerance)


@pytest.mark.parametrize(("gradient", "written_out"), [("", False), ("kv", True), ("qkv", True)])
def test_on_a_cpu_bfloat16_attention_that_learns_is_written_out(gradient, written_out):
    """In the first block only the prompts' keys and values take a gradient."""
    q, k, v = (torch.randn(1, 1, 4, 8, dtype=torch.bfloat16, requires_grad=name in gradient) for name in "qkv")
    with torch.profiler.profile() as recorded:
        attend(q, k, v)
    names = {event.key for event in recorded.key_averages()}
    assert ("aten::softmax" in names) == written_out != ("aten::scaled_dot_product_attention" in names)


def test_attention_drops_weights_only_when_told():
    q, k, v = (torch.randn(1, 1, 4, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    assert torch.equal(attend(q, k, v), attend(q, k, v))
    assert not torch.equal(attend(q, k, v, 0.5), attend(q, k, v, 0.5))
