"""Fixtures shared by the tests: the reference values, small models, and our tensors under the authors' names."""

import gc
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from hypothesis import settings
from safetensors import safe_open
from torch.nn import functional as F

from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.model.cascade import CascadeCLIP

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path(__file__).parent / "fixtures" / "reference_tiny.safetensors"
TINY_TOWER = dict(image_size=32, patch_size=8, width=32, layers=4, heads=2, embed_dim=16)
SMALL_VISION = dict(image_size=32, patch_size=8, width=64, layers=4, head_width=32)
TINY_MODEL = dict(stages=((1, 2), (3,), (4,)), prompt_tokens=3, decoder_heads=2)


def pytest_configure(config):
    """On a machine with a GPU, all tests but those of `pytest -m gpu` compute on its CPU: many expect the same bits
    from two runs, or from a run in parts, which no GPU promises. A process has one device."""
    if torch.accelerator.is_available() and config.option.markexpr != "gpu":
        os.environ["ACCELERATE_USE_CPU"] = "1"


def pytest_collection_modifyitems(config, items):
    """In the processes of pytest-xdist, files with slow tests come first: none shall end long after the others."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path.name != "test_notebooks.py", item.path not in slow))


def pytest_collection_finish(session):
    gc.freeze()  # see `_forgotten`


def pytest_unconfigure(config):
    gc.unfreeze()  # or some packages' C++ tells of objects that are still there at the end


@pytest.fixture(scope="module", autouse=True)
def _forgotten():
    """Every training ends with a full garbage collection, which looks at all objects there are: those of packages and
    of earlier files are left out of it. Otherwise it takes seconds in a process that has run half of the suite."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def run():
    """Runs a command in a folder, with more environment variables; fails with what it printed, or returns it."""

    def command(*parts, cwd, **env):
        done = subprocess.run(
            [str(part) for part in parts], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return command


@pytest.fixture(scope="session")
def wheel(run, tmp_path_factory):
    """Built from a copy: what an earlier build left in the checkout must not get into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "cascadeclip", source / "cascadeclip", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / path, source)
    run(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", out, cwd=source)
    (path,) = out.glob("cascadeclip-*.whl")
    return path


@pytest.fixture(scope="session")
def installed(run, wheel, tmp_path_factory):
    """A folder outside the checkout with the wheel's content, to be put first on the path."""
    target = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", "install", wheel, "--no-deps", "--no-index", "--target", target, cwd=target)
    return target


@pytest.fixture(scope="session")
def reference() -> SimpleNamespace:
    """The reference file: `state_dict`, `inputs`, `out`, `loss` and `grad` by name, `seen` and `unseen` classes."""
    with safe_open(REFERENCE, "pt") as file:
        entries = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    groups = {"state_dict": {}, "in": {}, "out": {}, "loss": {}, "grad": {}}
    for name, tensor in entries.items():
        group, rest = name.split("/", 1)
        groups[group][rest] = tensor
    groups["inputs"] = groups.pop("in")
    classes = {name: [int(digit) for digit in re.findall(r"\d+", metadata[name])] for name in ("seen", "unseen")}
    return SimpleNamespace(**groups, **classes)


@pytest.fixture
def register(monkeypatch):
    """Gives open_clip a small architecture, with other settings if asked: real ones take seconds to build."""

    def add(name: str, quick_gelu: bool = False, **vision) -> str:
        text = dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=1)
        config = dict(embed_dim=16, vision_cfg={**SMALL_VISION, **vision}, text_cfg=text)
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config | {"quick_gelu": quick_gelu})
        return name

    return add


@pytest.fixture
def make_model():
    """Builder of a small model in eval mode with random weights: settings of `ModelConfig`, tower sizes as a dict."""

    def make(tower: dict | None = None, seed: int = 0, **settings) -> CascadeCLIP:
        torch.manual_seed(seed)
        config = ModelConfig(**{**TINY_MODEL, **settings, "tower": TowerConfig(**{**TINY_TOWER, **(tower or {})})})
        return randomise(CascadeCLIP(config)).eval()

    return make


@pytest.fixture
def make_inputs():
    """Builder of an image batch and text embeddings that fit a model."""

    def make(model: CascadeCLIP, batch: int = 2, classes: int = 5, size: tuple[int, int] = (32, 32), seed: int = 1):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, 3, *size, generator=generator)
        text = torch.randn(classes, model.config.tower.embed_dim, generator=generator)
        return images, F.normalize(text, dim=-1)

    return make


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Shift every weight, so that no bias is 0 and no norm is 1: a tensor unused or in the wrong place then shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


@pytest.fixture(name="randomise")
def _randomise():
    """`randomise`, for tests that build modules of their own."""
    return randomise


_AUTHORS = [  # our name -> the authors'
    (r"encoder\.tap_norms\.", "backbone.ln_layers."),
    (r"encoder\.tap_projections", "backbone.proj_layers"),
    (r"encoder\.visual\.", "backbone."),
    (r"encoder\.", "backbone."),
    (r"descriptors\.(\d+)\.linear\.", r"decode_head.q_projs.\1."),
    (r"^decoders\.(\d+)\.mask\.", r"decode_head.cascade_decoders.\1.layers.LAST."),
    (r"^decoders\.", "decode_head.cascade_decoders."),
    (r"(layers\.\w+)\.(query|key|value)\.", lambda m: f"{m[1]}.multihead_attn.{m[2][0]}."),
    (r"(layers\.\w+)\.out\.", r"\1.multihead_attn.proj."),
    (r"(layers\.\w+)\.norm_attention\.", r"\1.norm2."),
    (r"(layers\.\w+)\.norm_feed_forward\.", r"\1.norm3."),
    (r"(layers\.\w+)\.expand\.", r"\1.linear1."),
    (r"(layers\.\w+)\.contract\.", r"\1.linear2."),
    (r"aggregations\.(\d+)\.weights", lambda m: f"decode_head.weights_s{int(m[1]) + 1}"),
]


def _authors_name(name: str, last_layer: int) -> str:
    for pattern, replacement in _AUTHORS:
        name = re.sub(pattern, replacement, name)
    return name.replace("LAST", str(last_layer))


@pytest.fixture(scope="session")
def to_authors():
    """Inverse of the converter's renaming, written apart from it: our tensors by name -> the same in their layout."""

    def export(tensors: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
        tensors = dict(tensors)
        prompts = tensors.pop("encoder.prompts")
        named = {_authors_name(name, config.decoder_layers - 1): tensor for name, tensor in tensors.items()}
        return {
            **named,
            "backbone.prompt_embeddings": prompts[:1].clone(),
            "backbone.deep_prompt_embeddings": prompts[1:].clone(),
        }

    return export


@pytest.fixture(scope="session")
def dead_tensors():
    """Builder of the tensors that a checkpoint of the authors holds besides: random, none of them reaches a mask."""

    def build(config: ModelConfig) -> dict[str, torch.Tensor]:
        width, tensors = config.tower.embed_dim, {"loss_decode.criterion.empty_weight": torch.rand(7)}
        attention = {"self_attn.in_proj_": 3 * width, "self_attn.out_proj.": width}
        in_last = {"multihead_attn.v.": width, "multihead_attn.proj.": width, "linear1.": 4 * width}
        for decoder in range(len(config.stages)):
            for layer in range(config.decoder_layers):
                matrices = attention | (in_last if layer == config.decoder_layers - 1 else {})
                norms = ("norm1.", "norm2.", "norm3.") if layer == config.decoder_layers - 1 else ("norm1.",)
                prefix = f"cascade_decoders.{decoder}.layers.{layer}."
                for name, rows in matrices.items():
                    tensors[f"{prefix}{name}weight"] = torch.randn(rows, width)
                    tensors[f"{prefix}{name}bias"] = torch.randn(rows)
                for name in norms:
                    tensors |= {f"{prefix}{name}{kind}": torch.randn(width) for kind in ("weight", "bias")}
                if layer == config.decoder_layers - 1:
                    tensors[f"{prefix}linear2.weight"] = torch.randn(width, 4 * width)
                    tensors[f"{prefix}linear2.bias"] = torch.randn(width)
        return {f"decode_head.{name}": tensor for name, tensor in tensors.items()}

    return build
