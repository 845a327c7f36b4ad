"""Every method against what its authors' public code gives for one small random tower (fp32, CPU)."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cascadeclip.analysis.dense import Surgery, Trunk, class_token, dense_features, feature_surgery, many_features
from cascadeclip.config import TowerConfig
from cascadeclip.evaluation.refine import pamr
from cascadeclip.model.tower import build_tower

FILE = Path(__file__).parents[2] / "fixtures" / "training_free_tiny.safetensors"
NAMED = ("clip", "maskclip", "sclip", "clearclip", "naclip", "sc_clip", "clip_surgery")


@pytest.fixture(scope="module")
def golden():
    with safe_open(FILE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def visual(golden):
    sizes = dict(image_size=64, patch_size=8, width=64, layers=12, heads=2, embed_dim=32, quick_gelu=True)
    tower = build_tower(TowerConfig(**sizes)).eval().requires_grad_(False)
    tower.load_state_dict({n.removeprefix("visual/"): t for n, t in golden.items() if n.startswith("visual/")})
    return tower


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", NAMED)
def test_tokens_are_those_of_the_authors_code(golden, visual, method):
    close(dense_features(visual, golden["in/image"], method), golden[f"out/{method}"])


def test_key_key_with_all_else_kept_is_a_surgery(golden, visual):
    close(dense_features(visual, golden["in/image"], Surgery("key-key")), golden["out/key_key"])


def test_feature_surgery_and_its_class_token(golden, visual):
    trunk = Trunk(visual, golden["in/image"])
    image = class_token(trunk, 12)
    close(image, golden["out/clip_surgery_class_token"])
    patches = dense_features(visual, golden["in/image"], "clip_surgery")
    close(feature_surgery(patches, image, golden["in/text"]), golden["out/clip_surgery_similarity"])


def test_refined_masks(golden):
    found = pamr(golden["in/image"], golden["in/pamr_masks"], 10, (8, 16))
    close(found, golden["out/pamr_masks"])


def test_several_methods_together_give_what_each_gives_alone(golden, visual):
    for name, found in many_features(visual, golden["in/image"]).items():
        close(found, dense_features(visual, golden["in/image"], name))
