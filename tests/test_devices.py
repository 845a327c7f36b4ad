"""Mixed devices fail here, on a machine without a GPU: presets on fake tensors, all that takes tensors on a pretended
GPU, and who owns the tower that a model is built on."""

import inspect
import pkgutil
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import cascadeclip
from cascadeclip import analysis, clip, data, evaluation, plots, training
from cascadeclip import model as models
from cascadeclip.data import normalise
from cascadeclip.evaluation import scores as scores_module
from cascadeclip.model import CascadeCLIP, build_tower
from cascadeclip.model.tower import patch_embedding
from cascadeclip.presets import NAMES, get_preset
from cascadeclip.processes import autocast
from tests.support.noise import MODEL, TEXT
from tests.support.noise import NAMES as WORDS
from tests.support.pretend_gpu import OnGpu, PretendGpu

CUDA = torch.device("cuda")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "bf16") for name in NAMES), ("voc12", "fp32"), ("voc12", "fp16")]
)
def test_every_preset_trains_and_scores_on_one_device(name, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(scores_module, "_check_finite", lambda finite: None)  # fake tensors have no values to look at
    preset = get_preset(name, image_size=None if name.startswith("mini") else 64)
    side, classes = preset.model.tower.image_size, len(preset.names)
    with FakeTensorMode(), CUDA:
        model = CascadeCLIP(preset.model)
        images, text = (
            torch.zeros(2, 3, side, side, dtype=torch.uint8),
            torch.randn(classes, model.config.tower.embed_dim),
        )
        labels = training.reduce_labels(torch.zeros(2, side, side, dtype=torch.int64), preset.training.loss_size)
        with autocast(CUDA, precision):
            logits = model(normalise(images), text).mask_logits
            labels = training.pseudo_labels(logits, labels, torch.arange(2))
            pairs = models.present_pairs(labels, classes)
            loss = models.segmentation_loss(logits, labels, pairs=pairs, trusted=True)["total"]
            scores = evaluation.predict(model.eval(), normalise(images), text, [0, 1], window=side, stride=side)
            found = evaluation.argmax_at(scores, (side, side + 3))
    assert {tensor.device.type for tensor in (logits, labels, loss, scores, found)} == {"cuda"}
    assert loss.dtype == scores.dtype == torch.float32


# --- everything public that takes tensors ---------------------------------------------------------------------------


@pytest.fixture
def gpu():
    """Things on a pretended GPU: a tower, a model, pictures, words, maps."""
    with PretendGpu(), torch.no_grad():
        torch.manual_seed(0)
        visual = build_tower(MODEL.tower).eval()
        model = CascadeCLIP(MODEL, visual).eval().to(CUDA)
        images = torch.randn(5, 3, 16, 16).to(CUDA)
        labels = torch.randint(0, 3, (5, 16, 16))
        yield SimpleNamespace(
            visual=build_tower(MODEL.tower).eval().to(CUDA), model=model, images=images, text=TEXT.to(CUDA),
            pixels=torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8).to(CUDA),
            logits=torch.randn(5, 3, 2, 2).to(CUDA), labels=labels.to(CUDA),
            predicted=labels.roll(1, 0).to(CUDA), tokens=torch.randn(5, 5, 16).to(CUDA),
            picture=np.zeros((16, 16, 3), dtype=np.uint8), counts=torch.rand(3, 5, 3).to(CUDA) + 1,
        )  # fmt: skip


def block(g):
    return g.visual.transformer.resblocks[0]


def batches(g):
    return [(g.pixels.cpu(), g.labels.cpu())]  # as a loader gives them


def readout(g):
    return evaluation.Readout(
        g.labels, g.labels.short(), g.labels.short(), *F.interpolate(g.logits, (16, 16)).unbind(1)[:2]
    )


def queries(g):
    return torch.randn(5, 3, 8).to(CUDA)


def joint(g):
    return torch.randn(5, 4, 8).to(CUDA)


CALLS = {
    "analysis": {
        "CKA": lambda g: _updated(analysis.CKA(), [g.tokens[:, 0], g.tokens[:, 1]]),
        "Surgery": lambda g: [
            analysis.Surgery(attention).on(block(g), g.tokens, (2, 2)) for attention in ("query-key", "key-key")
        ],
        "attention_distance": lambda g: analysis.attention_distance(
            analysis.attention_maps(g.visual, g.images), (2, 2), 8
        ),
        "attention_maps": lambda g: analysis.attention_maps(g.visual, g.images),
        "attention_weights": lambda g: analysis.attention_weights(block(g), g.tokens),
        "block_inputs": lambda g: analysis.block_inputs(g.visual, g.images),
        "block_tokens": lambda g: analysis.block_tokens(g.visual, g.images),
        "boundary_patches": lambda g: analysis.boundary_patches(g.labels, (2, 2)),
        "grid_of": lambda g: analysis.grid_of(g.images, g.visual),
        "last_block": lambda g: analysis.last_block(g.visual, g.tokens, (2, 2), analysis.Surgery(repair=1.0)),
        "last_layer_tokens": lambda g: analysis.last_layer_tokens(g.visual, g.images),
        "localise": lambda g: analysis.localise(torch.randn(5, 4, 3).to(CUDA), g.labels[:, ::8, ::8].flatten(1)),
        "loss_along_gap": lambda g: analysis.loss_along_gap(g.tokens[:, 0], g.tokens[:, 1], [0.0, 1.0], 0.1),
        "modality_gap": lambda g: analysis.modality_gap(g.tokens[:, 0], g.tokens[:, 1]),
        "one_batch": lambda g: analysis.one_batch([g.picture], g.visual),
        "operate": lambda g: analysis.operate(g.visual, g.images, analysis.Surgery(repair=1.0)),
        "patch_labels": lambda g: analysis.patch_labels(g.labels, (2, 2)),
        "probe": lambda g: _probe(g),
        "raw_lens": lambda g: analysis.raw_lens(g.visual, g.tokens),
        "repair_outliers": lambda g: analysis.repair_outliers(g.tokens, (2, 2), 1.0),
        "to_batch": lambda g: analysis.to_batch(g.picture, g.visual),
        "value_path_tokens": lambda g: analysis.value_path_tokens(g.visual, g.images),
    },
    "data": {
        "distort": lambda g: data.distort(g.pixels, torch.stack([data.draw_change(9, 16)] * 5).to(CUDA)),
    },
    "evaluation": {
        "ConfusionMatrix": lambda g: evaluation.confusion_of(g.predicted, g.labels, 3),
        "OneStage": lambda g: evaluation.OneStage(g.model, 0)(g.images, g.text),
        "argmax_at": lambda g: evaluation.argmax_at(g.logits, (16, 16)),
        "bootstrap_scores": lambda g: evaluation.bootstrap_scores(g.counts, WORDS, ["b"], repeats=2),
        "boundary_counts": lambda g: evaluation.boundary_counts(g.predicted, g.labels, 3),
        "class_iou": lambda g: evaluation.class_iou(g.counts),
        "confusion_of": lambda g: evaluation.confusion_of(g.predicted, g.labels, 3).scores(WORDS, ["b"]),
        "count": lambda g: evaluation.count(evaluation.ConfusionMatrix(3), [(g.logits, g.labels.cpu())]),
        "error_kinds": lambda g: evaluation.error_kinds(g.predicted, g.labels, WORDS, ["b"]),
        "evaluate": lambda g: evaluation.evaluate(g.model, batches(g), TEXT, WORDS, ["b"], window=16),
        "iou_of_counts": lambda g: evaluation.iou_of_counts(*g.counts),
        "masks_and_rims": lambda g: evaluation.masks_and_rims(g.predicted, g.labels, WORDS, ["b"]),
        "mean_scores": lambda g: evaluation.mean_scores(g.counts, WORDS, ["b"]),
        "picture_counts": lambda g: evaluation.picture_counts(g.predicted, g.labels, 3),
        "predict": lambda g: evaluation.predict(g.model, g.images, g.text, [0], window=16),
        "predict_batches": lambda g: list(
            evaluation.predict_batches(g.model, batches(g), TEXT, [0], 0.1, None, None, "fp32")
        ),
        "read_out": lambda g: evaluation.read_out(g.model, batches(g), TEXT, WORDS, ["b"], present_only=True),
        "rim": lambda g: evaluation.rim(g.labels, 1),
        "right_unseen_names": lambda g: evaluation.right_unseen_names(readout(g), [1]),
        "scores_at": lambda g: evaluation.scores_at(readout(g), WORDS, ["b"]),
        "through_grid": lambda g: evaluation.through_grid(g.labels, 3, 2),
    },
    "model": {
        "Aggregation": lambda g: [
            models.Aggregation(2, 16, kind=kind).to(CUDA)([g.tokens, g.tokens])
            for kind in cascadeclip.config.AGGREGATIONS
        ],
        "CascadeCLIP": lambda g: (g.model.centre_on(g.text), g.model.centred(g.text), g.model(g.images, g.text)),
        "DecoderLayer": lambda g: models.DecoderLayer(8, 2, 0.0).to(CUDA)(queries(g), joint(g)),
        "MaskLayer": lambda g: models.MaskLayer(8, 2).to(CUDA)(queries(g), joint(g)),
        "PromptedEncoder": lambda g: g.model.encoder(g.images),
        "RelationshipDescriptor": lambda g: models.RelationshipDescriptor(8).to(CUDA)(g.text, queries(g)[:, 0]),
        "SpectralPrompt": lambda g: [
            models.SpectralPrompt(16, grid).to(CUDA)(g.tokens, (2, 2)) for grid in ((2, 2), (4, 4))
        ],
        "TextImageDecoder": lambda g: models.TextImageDecoder(8, heads=2).to(CUDA).eval()(queries(g), joint(g)),
        "attend": lambda g: models.attend(*[torch.randn(2, 2, 3, 4).to(CUDA)] * 3),
        "bilinear": lambda g: models.bilinear(g.logits, (16, 16)),
        "bilinear_matrix": lambda g: models.bilinear_matrix(2, 5, CUDA),
        "embed": lambda g: models.embed(g.visual, g.images, True),
        "position_embedding": lambda g: models.position_embedding(g.visual, (3, 4)),
        "present_pairs": lambda g: models.present_pairs(g.labels, 3),
        "run_block": lambda g: models.run_block(block(g), g.tokens, g.tokens[:, :2]),
        "segmentation_loss": lambda g: models.segmentation_loss(g.logits, g.labels),
        "mean_over_ranks": lambda g: models.mean_over_ranks(g.labels.sum()),
        "weighted_sum": lambda g: models.weighted_sum(torch.ones(2).to(CUDA), [g.tokens, g.tokens]),
    },
    "plots": {
        "TrainingWatch": lambda g: _watched(g),
        "attention_by_layer": lambda g: plots.attention_by_layer(g.model.decoders[0], queries(g), joint(g)),
        "auroc_against": lambda g: plots.auroc_against(F.interpolate(g.logits, (16, 16)), g.labels, [0], [1]),
        "plot_error_kinds": lambda g: plots.plot_error_kinds(
            {"a": (evaluation.error_kinds(g.predicted, g.labels, WORDS, ["b"]).sum(0), 10)}
        ),
        "plot_predictions": lambda g: plots.plot_predictions(
            g.model, [(g.picture, np.zeros((16, 16), dtype=np.int64))], g.text, WORDS, ["b"], 0.1
        ),
    },
    "training": {
        "pseudo_labels": lambda g: training.pseudo_labels(g.logits, g.labels, [1]),
        "reduce_labels": lambda g: training.reduce_labels(g.labels, 4),
    },
}
# They compute with what a loader, a file or `train` hands them on the CPU, or have nothing to compute.
ON_THE_CPU = {
    *(
        "ProbeResult",
        "Tower",
        "Readout",
        "CascadeOutput",
        "EncoderOutput",
        "build_model",
        "load_own_state",
        "own_state",
    ),
    *("read_checkpoint", "to_authors", "Clip", "Augment", "FolderDataset", "ToWorkingSize", "normalise", "to_tensor"),
    *("compare_counts", "nga_weights", "seen_only", "stream", "train"),
}


def _updated(cka, layers):
    cka.update(layers)
    return cka.result()


def _probe(g):
    tokens, labels = np.random.default_rng(0).normal(size=(5, 4, 6)), np.zeros((5, 4), dtype=np.int64)
    labels[:, 0] = 1
    return analysis.probe(tokens, labels, tokens, g.labels % 2, 2, (2, 2))


def _watched(g):
    config = cascadeclip.TrainConfig(steps=2, validate_every=1, precision="fp32", loss_size=None)
    return plots.TrainingWatch(g.pixels, g.labels, g.text, WORDS, ["b"], config)(g.model)


def takes_tensors(thing) -> bool:
    methods = [f for name, f in vars(thing).items() if callable(f)] if inspect.isclass(thing) else [thing]
    annotations = [getattr(method, "__annotations__", {}) for method in methods]
    return any("Tensor" in str(kind) for one in annotations for name, kind in one.items() if name != "return")


def public():
    for room in (info.name for info in pkgutil.iter_modules(cascadeclip.__path__) if info.ispkg):
        module = import_module(f"cascadeclip.{room}")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if (inspect.isfunction(thing) or inspect.isclass(thing)) and takes_tensors(thing):
                yield room, name


def test_no_public_name_that_takes_tensors_is_forgotten():
    missing = [
        f"{room}.{name}" for room, name in public() if name not in CALLS.get(room, {}) and name not in ON_THE_CPU
    ]
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize(("room", "name"), [(room, name) for room, calls in CALLS.items() for name in calls])
def test_it_takes_tensors_of_a_gpu(gpu, room, name):
    CALLS[room][name](gpu)


def test_the_pretended_gpu_refuses_what_a_real_one_does():
    with PretendGpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device.type == "cuda" and (there + there).sum().item() == 6 and there.cpu().device.type == "cpu"
        assert not isinstance(there.cpu(), OnGpu)
        for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: here.numpy() + there.numpy()):
            with pytest.raises((RuntimeError, TypeError)):
                mixed()


def test_float32_is_as_exact_on_a_gpu(gpu):
    """Its patch embedding must be the convolution's, which would be computed in TF32 there; with sides cut off, too."""
    here = build_tower(MODEL.tower)
    there = build_tower(MODEL.tower)
    there.load_state_dict(here.state_dict())
    images = torch.randn(2, 3, 20, 27)
    found = patch_embedding(there.to(CUDA), images.to(CUDA))
    torch.testing.assert_close(found.cpu(), patch_embedding(here, images), rtol=1e-5, atol=1e-6)


# --- who owns the tower ---------------------------------------------------------------------------------------------


def test_a_model_leaves_the_tower_it_is_built_on_alone():
    visual = build_tower(MODEL.tower).train()
    model = CascadeCLIP(MODEL, visual)
    assert model.encoder.visual.proj.data_ptr() == visual.proj.data_ptr()  # no memory for a second one
    assert not any(parameter.requires_grad for parameter in model.encoder.visual.parameters())
    with PretendGpu():
        model.eval().to(CUDA)
        assert all(parameter.requires_grad for parameter in visual.parameters()) and visual.training
        assert {tensor.device.type for tensor in visual.state_dict().values()} == {"cpu"}
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}


def test_words_are_embedded_on_the_device_and_come_back(monkeypatch):
    """171 classes in 15 sentences each take minutes on a CPU beside an idle GPU."""
    ours, computed_on = clip.load_clip("mini"), []
    wanted = ours.class_embeddings(["cat", "sand"])
    original = type(ours.model).encode_text

    def spy(self, tokens, *args, **kwargs):
        computed_on.append(tokens.device.type)
        return original(self, tokens, *args, **kwargs)

    monkeypatch.setattr(type(ours.model), "encode_text", spy)
    monkeypatch.setattr("cascadeclip.clip.load.device", lambda: CUDA)
    ours._embedded.clear()
    with PretendGpu():
        found = ours.class_embeddings(["cat", "sand"])
    assert computed_on == ["cuda"]
    assert type(found) is torch.Tensor and found.device.type == "cpu"
    torch.testing.assert_close(found, wanted)
    assert {tensor.device.type for tensor in ours.model.state_dict().values()} == {"cpu"}


def test_clip_alone_is_scored_where_the_tower_is():
    from cascadeclip.exercises import contest

    world = contest.small_world()
    with PretendGpu():
        CascadeCLIP(training.on_tower_of(contest._clip(), world.model), contest._clip().visual).to(CUDA)
    assert contest._clip().visual.proj.device.type == "cpu"  # what assignment 3 goes on with
