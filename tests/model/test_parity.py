"""Parity with the authors' modules: `fixtures/reference_tiny.safetensors`, loaded through `from_authors`."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from cascadeclip.checkpoints.authors import from_authors
from cascadeclip.evaluation.scores import predict
from cascadeclip.model.losses import segmentation_loss

with safe_open(Path(__file__).parents[1] / "fixtures" / "reference_tiny.safetensors", "pt") as _file:
    NAMES = list(_file.keys())


def names(group: str) -> list[str]:
    return [name.removeprefix(f"{group}/") for name in NAMES if name.startswith(f"{group}/")]


@pytest.fixture(scope="module")
def model(reference):
    return from_authors(reference.state_dict, heads=2, decoder_heads=2, quick_gelu=True)


@pytest.fixture(scope="module")
def outputs(reference, model):
    """Everything under `out/`, computed by our model."""
    inputs, found = reference.inputs, {}
    with torch.no_grad():
        output = model(inputs["image"], inputs["text"])
    found |= {f"feature_{i}": feature for i, feature in enumerate(output.layer_features)}
    for number, (logits, queries) in enumerate(zip(output.stage_logits, output.stage_queries, strict=True), start=1):
        found |= {f"stage{number}_masks": logits, f"stage{number}_queries": queries}
    found |= {f"stage{i}_tokens": output.stage_tokens[i - 1] for i in (1, 2)}  # stage 3 is feature_6
    found["mask_logits"] = F.interpolate(output.mask_logits, (64, 64), mode="bilinear", align_corners=False)
    found["global"] = output.image_embedding
    found["transductive_label"] = pseudo_labels(found["mask_logits"], inputs["label_all"], reference.unseen)
    text, seen = inputs["text"], reference.seen
    found["prediction"] = predict(model, inputs["image"], text, seen, seen_offset=0.1)
    found["prediction_large"] = predict(model, inputs["image_large"], text, seen, seen_offset=0.1)
    found["prediction_slide"] = predict(model, inputs["image_slide"], text, seen, seen_offset=0.1, window=64, stride=53)
    return found


def pseudo_labels(logits, labels, unseen):
    """Pixels of unseen classes take the likeliest unseen class."""
    likeliest = torch.tensor(unseen)[logits[:, unseen].sigmoid().argmax(1)]
    return torch.where(torch.isin(labels, torch.tensor(unseen)), likeliest, labels)


def inductive_labels(labels, seen):
    """Seen classes renumbered 0, 1, ..; everything else is ignored."""
    renumbered = torch.full_like(labels, 255)
    for new, old in enumerate(seen):
        renumbered[labels == old] = new
    return renumbered


@pytest.fixture(scope="module")
def losses(reference, model):
    """Everything under `loss/`; the inductive losses' gradients are left on the model."""
    inputs, out = reference.inputs, reference.out
    inductive = segmentation_loss(
        model(inputs["image"], inputs["text"][reference.seen]).mask_logits,
        inductive_labels(inputs["label_all"], reference.seen),
    )
    model.zero_grad()
    inductive["total"].backward()
    with torch.no_grad():
        logits = model(inputs["image"], inputs["text"]).mask_logits
        transductive = segmentation_loss(logits, out["transductive_label"])
    return {f"inductive_{name}": loss.detach() for name, loss in inductive.items()} | {
        f"transductive_{name}": loss for name, loss in transductive.items()
    }


@pytest.fixture(scope="module")
def gradients(losses, model, to_authors):
    """Gradients of all that we train, under the authors' names."""
    ours = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return to_authors(ours, model.config)


def test_sizes_are_read_off_the_tensors(model):
    config, tower = model.config, model.config.tower
    assert (tower.image_size, tower.patch_size, tower.width, tower.layers, tower.embed_dim) == (64, 8, 32, 12, 16)
    assert config.stages == ((6, 7, 8), (9, 10, 11), (12,))
    assert (config.prompt_tokens, config.decoder_layers) == (3, 3)


def test_the_reference_holds_every_tensor_of_the_model_and_dead_ones(reference, model, to_authors, dead_tensors):
    live = to_authors(model.state_dict(), model.config)
    assert reference.state_dict.keys() == live.keys() | dead_tensors(model.config).keys()
    for name, tensor in live.items():
        assert torch.equal(tensor, reference.state_dict[name]), name


def test_every_output_is_compared(outputs):
    assert outputs.keys() == set(names("out"))


@pytest.mark.parametrize("name", names("out"))
def test_output_equals_the_authors(name, outputs, reference):
    assert outputs[name].dtype == reference.out[name].dtype
    torch.testing.assert_close(outputs[name], reference.out[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", names("loss"))
def test_loss_equals_the_authors(name, losses, reference):
    torch.testing.assert_close(losses[name], reference.loss[name], rtol=1e-5, atol=0)


def test_total_is_focal_plus_dice(losses):
    for setting in ("inductive", "transductive"):
        parts = losses[f"{setting}_focal"] + losses[f"{setting}_dice"]
        torch.testing.assert_close(losses[f"{setting}_total"], parts, rtol=1e-6, atol=0)


def test_what_the_authors_train_and_what_we_train_are_the_same(gradients):
    assert gradients.keys() == set(names("grad"))


def is_rounding_noise(name: str) -> bool:
    """A key bias under a softmax shifts all scores of a query alike: its gradient is 0 but for rounding."""
    return re.fullmatch(r"decode_head\.cascade_decoders\.\d\.layers\.[01]\.multihead_attn\.k\.bias", name) is not None


@pytest.mark.parametrize("name", names("grad"))
def test_gradient_equals_the_authors(name, gradients, reference):
    ours, theirs = gradients[name], reference.grad[name]
    assert ours.shape == theirs.shape
    if is_rounding_noise(name):
        assert max(ours.abs().max(), theirs.abs().max()) < 1e-7
    else:
        assert theirs.abs().max() > 1e-5
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
