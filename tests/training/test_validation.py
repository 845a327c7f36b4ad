"""A validation set is looked at before the first step; nothing costs a trained model."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from cascadeclip.errors import InputError
from cascadeclip.training import validation
from tests.cli.test_commands import run


@pytest.fixture
def own(tmp_path, register):
    register("small")
    for number in range(6):
        for folder, shape in (("images", (48, 64, 3)), ("masks", (48, 64))):
            path = tmp_path / folder / f"{number}.{'jpg' if folder == 'images' else 'png'}"
            path.parent.mkdir(exist_ok=True)
            values = np.random.default_rng(number).integers(0, 3, shape, dtype=np.uint8)
            Image.fromarray(values).save(path)
    described = {"images": "images", "masks": "masks", "names": ["cat", "sofa", "floor"], "unseen": ["sofa"],
                 "val_images": "images", "val_masks": "masks"}  # fmt: skip
    (tmp_path / "own.json").write_text(json.dumps(described))
    return tmp_path


def train(own, *more):
    return run(
        "train", "--own", own / "own.json", "--clip", "small", "--clip-weights", "random", "--image-size", 64,
        "--steps", 1, "--batch-size", 1, "--stages", "4", "--workers", 0, "--out", own / "run", *more,
    )  # fmt: skip


@pytest.mark.parametrize("fault", ["cut", "missing", "value"])
def test_a_bad_validation_set_is_told_of_before_the_first_step(own, fault):
    described = json.loads((own / "own.json").read_text())
    (own / "val").mkdir()
    for number in range(3):
        (own / "val" / f"{number}.jpg").write_bytes((own / "images" / f"{number}.jpg").read_bytes())
    if fault == "cut":
        (own / "val" / "2.jpg").write_bytes((own / "val" / "2.jpg").read_bytes()[:400])
    described["val_images"] = "nowhere" if fault == "missing" else "val"
    if fault == "value":
        Image.fromarray(np.full((48, 64), 99, np.uint8)).save(own / "masks" / "2.png")
    (own / "own.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"2\.jpg|no folder|99"):
        train(own)
    assert not list((own / "run").glob("state*")) and not (own / "run" / "model.safetensors").exists()


def test_a_validation_that_fails_is_a_warning_and_the_model_is_there(own, monkeypatch, caplog):
    there = []

    def failing(*arguments, **options):
        there.append((own / "run" / "model.safetensors").exists() and (own / "run" / "state.pt").exists())
        raise InputError("a picture vanished")

    monkeypatch.setattr(validation, "score", failing)
    with caplog.at_level(logging.WARNING):
        printed = train(own)
    assert there == [True]
    assert "no validation scores, training is not affected: a picture vanished" in caplog.text
    assert "wrote " in printed and "hIoU" not in printed


def test_its_length_is_said_and_limited(own, capfd):
    printed = train(own, "--validate-limit", 2)
    said = printed + "".join(capfd.readouterr())
    assert "training on 6 pictures with masks" in said and "validation on 2 pictures, at the end" in said
    assert "hIoU" in printed


@pytest.mark.slow
def test_a_trained_model_without_its_state_is_kept_beside_the_new_one(own, caplog):
    train(own)
    train(own)  # finished: nothing is moved
    assert not list((own / "run").glob("*before*"))
    old = (own / "run" / "model.safetensors").read_bytes()
    for state in (own / "run").glob("state*.pt"):
        state.unlink()
    with caplog.at_level(logging.WARNING):
        train(own, "--seed", 1)
    assert (own / "run" / "model.before-1.safetensors").read_bytes() == old
    assert (own / "run" / "model.safetensors").read_bytes() != old and "model.before-1.safetensors" in caplog.text
