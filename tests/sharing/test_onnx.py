"""ONNX files against PyTorch, in onnxruntime, at numbers of pictures and classes other than the exported ones."""

import json
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cascadeclip.clip.load import Clip
from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.data.transforms import normalise
from cascadeclip.errors import InputError
from cascadeclip.evaluation.scores import predict
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.segmenter import Segmenter
from cascadeclip.sharing import onnx as export
from cascadeclip.sharing.onnx import export_onnx

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module", params=[False, True], ids=["GELU", "QuickGELU"])
def small(request):
    """A segmenter on a small model with random weights: GELU is Mini-CLIP's, QuickGELU that of OpenAI's towers."""
    torch.manual_seed(0)
    tower = TowerConfig(
        image_size=32, patch_size=8, width=32, layers=2, heads=2, embed_dim=16, quick_gelu=request.param
    )  # fmt: skip
    model = CascadeCLIP(
        ModelConfig(stages=((1,), (2,)), prompt_tokens=3, decoder_heads=2, decoder_layers=2, tower=tower)
    )
    clip = Clip("small", None, torch.nn.Module(), lambda texts: None)
    return Segmenter(model, clip, ("cat", "sand"), seen_offset=0.07, templates=("a {}",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def exported(small, folder):
    """The model as a file, and the difference that the check saw."""
    return folder / "model.onnx", export_onnx(small, folder / "model.onnx")


def run(path, images, text):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": images.numpy(), "text": text.numpy()})
    return torch.from_numpy(output)


@pytest.mark.slow
def test_probabilities_equal_predict_for_any_batch_and_classes(small, make_inputs, exported):
    path, seen = exported
    assert 0 <= seen <= 1e-4
    for batch, classes in ((1, 1), (1, 9), (4, 3)):
        images, text = make_inputs(small.model, batch, classes, seed=batch + classes)
        found = run(path, images, text)
        assert found.shape == (batch, classes, 32, 32) and found.dtype == torch.float32
        wanted = predict(small.model, images, text, seen=[], seen_offset=0.0)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
        assert wanted.std() > 0.01  # not all alike


@pytest.mark.slow
def test_names_and_shapes_and_metadata_say_how_to_use_it(exported):
    path, _ = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {value.name: value.shape for value in session.get_inputs()}
    assert inputs == {"images": ["batch", 3, 32, 32], "text": ["classes", 16]}
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("probabilities", ["batch", "classes", 32, 32])
    told = session.get_modelmeta().custom_metadata_map
    told = {name.removeprefix("cascadeclip."): json.loads(value) for name, value in told.items()}
    assert (told["seen"], told["seen_offset"], told["templates"]) == (["cat", "sand"], 0.07, ["a {}"])
    picture = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    mean, std = (np.array(told[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    assert np.allclose((picture.numpy() / 255 - mean) / std, normalise(picture).numpy(), atol=1e-5)


@pytest.mark.slow
def test_logits_of_larger_pictures_at_another_size(small, make_inputs, folder):
    path = folder / "logits.onnx"
    export_onnx(small, path, image_size=48, size=20, output="logits")
    images, text = make_inputs(small.model, 3, 4, size=(48, 48))
    with torch.no_grad():
        logits = small.model(images, text).mask_logits
    wanted = F.interpolate(logits, (20, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(run(path, images, text), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("through", [True, False])
def test_what_the_file_computes_follows_the_quirk_of_resizing(make_model, make_inputs, through):
    """In PyTorch alone: pictures of another size than those of training, as `predict` scores them."""
    model = make_model(upsample_through_training_size=through)
    images, text = make_inputs(model, 2, 3, size=(48, 48))
    with torch.no_grad():
        found = export.Masks(model, 48, "probabilities")(images, text)
    torch.testing.assert_close(found, predict(model, images, text, [], 0.0), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_check_sees_other_weights_and_other_shapes(small, make_inputs, exported, randomise):
    path, _ = exported
    images, text = make_inputs(small.model, 2, 3)
    assert export.difference(path, export.Masks(small.model, 32, "probabilities"), images, text) <= 1e-4
    assert export.difference(path, export.Masks(small.model, 16, "probabilities"), images, text) == float("inf")
    other = randomise(deepcopy(small.model))
    assert export.difference(path, export.Masks(other, 32, "probabilities"), images, text) > 1e-4


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_kept(small, exported, folder, monkeypatch, randomise):
    """The exporter is made to write the file of another model."""
    path, _ = exported
    other = Segmenter(randomise(deepcopy(small.model)), small.clip, small.seen)
    monkeypatch.setattr(export, "_export", lambda masks, inputs, scratch, *rest: shutil.copy(path, scratch))
    export_onnx(small, folder / "same.onnx")
    with pytest.raises(InputError, match="differs from PyTorch by"):
        export_onnx(other, folder / "wrong.onnx")
    assert not list(folder.glob("*wrong*")) and (folder / "same.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(path="model.pt"), r"ends in \.onnx"),
        (dict(output="labels"), "choose from probabilities, logits"),
        (dict(image_size=33), "multiple of the patch size, 8 px"),
        (dict(image_size=0), "multiple of the patch size"),
        (dict(size=0), "size=0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(small, folder, options, message):
    options = {"path": "never.onnx"} | options
    with pytest.raises(InputError, match=message):
        export_onnx(small, folder / options.pop("path"), **options)
    assert not (folder / "never.onnx").exists()


def test_missing_packages_are_named(small, folder, monkeypatch):
    monkeypatch.setattr(export, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(InputError, match=r"export needs no_such_package: pip install 'cascadeclip\[export\]'"):
        export_onnx(small, folder / "never.onnx")


@pytest.mark.slow
def test_weights_beyond_one_file_lie_beside_it_under_its_name(small, exported, tmp_path, monkeypatch, make_inputs):
    monkeypatch.setattr(export, "ONE_FILE", 1000)
    place = tmp_path / "large"
    export_onnx(small, place / "model.onnx")
    assert sorted(path.name for path in place.iterdir()) == ["model.onnx", "model.onnx.data"]
    images, text = make_inputs(small.model, 2, 3)
    shutil.move(place, tmp_path / "moved")  # together, they can be moved
    assert torch.equal(run(tmp_path / "moved" / "model.onnx", images, text), run(exported[0], images, text))


@pytest.mark.slow
def test_a_file_is_looked_at_again_where_it_lies(small, exported, folder, monkeypatch):
    looked_at = []

    def look(path, *rest):
        looked_at.append(path)
        return 1.0 if path.parent == folder / "there" else 0.0

    monkeypatch.setattr(export, "difference", look)
    monkeypatch.setattr(export, "_export", lambda masks, inputs, scratch, *rest: shutil.copy(exported[0], scratch))
    with pytest.raises(InputError, match=r"there/model\.onnx differs from PyTorch by 1\.0e\+00 where it lies now"):
        export_onnx(small, folder / "there" / "model.onnx")
    assert looked_at[-1] == folder / "there" / "model.onnx"
