"""Any ViT of open_clip: what fits carries a cascade, what does not is refused with the reason before it is built."""

import hashlib
import logging

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from cascadeclip.clip import load as clip_module
from cascadeclip.clip.load import load_clip, misfit, resize_positions, scaled_stages
from cascadeclip.config import ModelConfig
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import tower_config
from tests.conftest import SMALL_VISION

PAPER = ((6, 7, 8), (9, 10, 11), (12,))


def build_visual(name: str) -> nn.Module:
    """The image tower alone, as open_clip builds it, with random weights."""
    config = open_clip.get_model_config(name)
    return open_clip.model._build_vision_tower(
        config["embed_dim"], config["vision_cfg"], quick_gelu=config.get("quick_gelu", False)
    )


def cascade_on(visual: VisionTransformer, **settings) -> CascadeCLIP:
    tower = tower_config(visual)
    config = ModelConfig(stages=scaled_stages(tower.layers), prompt_tokens=2, decoder_layers=2, tower=tower)
    return CascadeCLIP(ModelConfig(**{**vars(config), **settings}), visual).eval()


# --- which fit ------------------------------------------------------------------------------------------------------

NAMES = open_clip.list_models()
FITTING = [name for name in NAMES if misfit(name) is None]


def test_all_that_fit_are_found():
    assert len(FITTING) >= 40
    assert {"ViT-B-16", "ViT-B-32-quickgelu", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14", "ViT-M-16-alt"} < set(FITTING)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTING)
def test_every_architecture_that_fits_carries_a_cascade(name):
    with torch.device("meta"):  # sizes only: the largest of them would need 20 GB
        visual = build_visual(name)
        model = cascade_on(visual)
        images, text = torch.empty(1, 3, 112, 168), torch.empty(3, visual.proj.shape[1])
        output = model(images, text)
    patch = open_clip.get_model_config(name)["vision_cfg"].get("patch_size", 16)
    assert output.mask_logits.shape == (1, 3, 112 // patch, 168 // patch)
    assert len(output.layer_features) == 7
    assert all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)
    assert visual.attn_pool is None and visual.pool_type == "tok"


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [("ViT-B-32", 64), ("ViT-B-16-plus-240", 48), pytest.param("ViT-L-14", 42, marks=pytest.mark.slow)],
)
def test_a_real_tower_computes_what_open_clip_does_and_carries_a_cascade(name, size):
    with torch.device("meta"):  # open_clip's own random weights take longest of all
        visual = build_visual(name).eval()
    for parameter in visual.to_empty(device="cpu").parameters():
        parameter.uniform_(-0.1, 0.1)
    resize_positions(visual, size)
    plain = cascade_on(visual, prompt_tokens=0, class_embedding_twice=False)
    images, text = torch.randn(2, 3, size, size), F.normalize(torch.randn(3, visual.proj.shape[1]), dim=-1)
    expected = F.normalize(visual(images), dim=-1)
    output = plain(images, text)
    torch.testing.assert_close(output.image_embedding, expected, rtol=0, atol=1e-5)
    prompted = cascade_on(visual)(images, text)
    assert not torch.allclose(prompted.image_embedding, expected, atol=1e-3)
    grid = size // visual.patch_size[0]
    assert prompted.mask_logits.shape == (2, 3, grid, grid) and prompted.mask_logits.isfinite().all()


VARIANTS = {
    "no norm before the blocks": dict(no_ln_pre=True),
    "layer scale": dict(ls_init_value=0.3),
    "wide feed-forward": dict(mlp_ratio=5.5),
    "GELU by tanh": dict(act_kwargs={"approximate": "tanh"}),
    "another epsilon": dict(norm_kwargs={"eps": 1e-3}),
    "class token normed after pooling": dict(final_ln_after_pool=True),
    "positions by sine": dict(pos_embed_type="sin_cos_2d"),
    "blocks named": dict(block_type="default"),
}


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("vision", VARIANTS.values(), ids=VARIANTS)
def test_a_plain_vit_of_other_settings_computes_what_open_clip_does(vision, register):
    loaded = load_clip(register("small", **vision))
    for parameter in loaded.visual.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    model = cascade_on(loaded.visual, prompt_tokens=0, class_embedding_twice=False)
    images = torch.randn(2, 3, 32, 32)
    found = model(images, loaded.class_embeddings(["cat", "sky"], ["a {}"])).image_embedding
    torch.testing.assert_close(found, F.normalize(loaded.visual(images), dim=-1), rtol=0, atol=1e-5)


# --- which do not ---------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_is_built(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a model was built")

    monkeypatch.setattr(open_clip, "create_model", refuse)
    monkeypatch.setattr(open_clip, "CLIP", refuse)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-B-16-SigLIP", r"timm's 'vit_base_patch16_siglip_224'"),
        ("EVA02-L-14", r"timm's 'eva02_large_patch14_clip_224'"),
        ("RN50", "a ResNet"),
        ("coca_ViT-B-32", "attentional pooling"),
        ("ViT-L-14-CLIPA", r"pools the patches \(pool_type='avg'\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason_before_it_is_built(name, reason, nothing_is_built):
    with pytest.raises(InputError, match=rf"CLIP '{name}' does not fit: .*{reason}.*plain ViT with a class token"):
        load_clip(name, "any weights")


@pytest.mark.parametrize(
    ("vision", "reason"),
    [
        (dict(qk_norm=True), r"blocks are not CLIP's own \(qk_norm=True\)"),
        (dict(scale_fc=True, scale_heads=True), r"\(scale_fc=True, scale_heads=True\)"),
        (dict(block_type="custom"), r"\(block_type='custom'\)"),
        (dict(some_later_setting=3), r"\(some_later_setting=3\)"),
        (dict(pool_type="none"), r"pool_type='none'"),
        (dict(image_size=[32, 64]), r"image_size=\[32, 64\] is not square"),
        (dict(patch_size=[8, 16]), r"patch_size=\[8, 16\] is not square"),
    ],
)
def test_other_blocks_and_shapes_are_refused_with_the_reason(vision, reason, register, nothing_is_built):
    with pytest.raises(InputError, match=rf"CLIP 'odd' does not fit: .*{reason}"):
        load_clip(register("odd", **vision))


def test_refused_towers_of_open_clip_are_indeed_other_towers():
    refused = [name for name in NAMES if name not in FITTING]
    own = [name for name in refused if "timm_model_name" not in open_clip.get_model_config(name)["vision_cfg"]]
    assert len(own) >= 15
    for name in own:
        with torch.device("meta"):
            visual = build_visual(name)
        plain = isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok"
        assert not plain, name


# --- activation -----------------------------------------------------------------------------------------------------


class Tree(nn.Module):
    """Tensors by dotted names, as modules in modules."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        super().__init__()
        children: dict[str, dict] = {}
        for name, tensor in tensors.items():
            head, _, rest = name.partition(".")
            if rest:
                children.setdefault(head, {})[rest] = tensor
            else:
                self.register_buffer(head, tensor)
        for head, inner in children.items():
            self.add_module(head, Tree(inner))


@pytest.fixture
def openai(monkeypatch, register, tmp_path):
    """A small CLIP published as OpenAI published theirs: (its file, its tensors)."""
    register("small", quick_gelu=False)
    register("small-quickgelu", quick_gelu=True)
    torch.manual_seed(0)
    vision, text = CLIPVisionCfg(**SMALL_VISION), CLIPTextCfg(width=16, heads=2, layers=1)
    model = open_clip.CLIP(16, vision, text, quick_gelu=True)
    tensors = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    numbers = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    path = tmp_path / "small.pt"
    torch.jit.script(Tree(tensors | numbers)).save(path)
    address = f"https://example.org/clip/models/{hashlib.sha256(path.read_bytes()).hexdigest()}/small.pt"
    tag = dict(url=address, quick_gelu=True)
    for name in ("small", "small-quickgelu"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"openai": tag, "other": dict(url=address)})
    return path, tensors


def activation(clip) -> type:
    (kind,) = {type(block.mlp.gelu) for block in clip.visual.transformer.resblocks}
    return kind


@pytest.mark.parametrize("name", ["small", "small-quickgelu"])
def test_openais_own_file_is_read_and_brings_quick_gelu(name, openai):
    path, tensors = openai
    clip = load_clip(name, str(path))
    assert activation(clip) is QuickGELU and clip.tower.quick_gelu
    text = {type(block.mlp.gelu) for block in clip.model.transformer.resblocks}
    assert text == {QuickGELU}
    assert clip.model.state_dict().keys() == tensors.keys()
    for key, tensor in clip.model.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, tensors[key].float()), key


def test_another_torchscript_archive_is_not_opened(openai, tmp_path, monkeypatch):
    path, tensors = openai
    torch.jit.script(Tree(tensors | {"more": torch.zeros(1)})).save(tmp_path / "other.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *args, **options: pytest.fail("opened"))
    with pytest.raises(InputError, match=r"other\.pt is a TorchScript archive.*not the one that OpenAI published"):
        load_clip("small", str(tmp_path / "other.pt"))
    with pytest.raises(InputError, match=r"OpenAI's: none"):
        load_clip("ViT-M-16", str(path))


@pytest.mark.parametrize(("tag", "kind"), [("openai", QuickGELU), ("other", nn.GELU)])
def test_a_tag_brings_its_activation_along(tag, kind, openai, tmp_path, monkeypatch):
    save_file({name: tensor.float() for name, tensor in openai[1].items()}, tmp_path / "model.safetensors")
    found = str(tmp_path / "model.safetensors")
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda tag, **options: found)
    assert activation(load_clip("small", tag)) is kind


@pytest.mark.parametrize(("name", "kind"), [("small", nn.GELU), ("small-quickgelu", QuickGELU)])
def test_of_another_file_the_name_tells_and_gelu_is_warned_of(name, kind, openai, tmp_path, caplog):
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.float() for name, tensor in openai[1].items()}, path)
    with caplog.at_level(logging.WARNING, clip_module.__name__):
        clip = load_clip(name, str(path))
    assert activation(clip) is kind
    assert torch.equal(clip.visual.proj, openai[1]["visual.proj"].float())
    warned = [record.getMessage() for record in caplog.records if record.name == clip_module.__name__]
    if kind is QuickGELU:
        assert not warned
    else:
        (message,) = warned
        assert "'small' computes with GELU" in message and "need 'small-quickgelu'" in message


# --- stages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (12, PAPER),
        (24, ((12, 14, 16), (18, 20, 22), (24,))),
        (48, ((24, 28, 32), (36, 40, 44), (48,))),
        (32, ((16, 19, 21), (24, 27, 29), (32,))),
        (6, ((3,), (4, 5), (6,))),
        (4, ((2,), (3,), (4,))),
    ],
)
def test_stages_are_scaled_with_the_depth(layers, expected):
    assert scaled_stages(layers) == expected


@pytest.mark.parametrize("stages", [PAPER, ((1, 3), (3, 2)), ((12,),), ((11, 2, 5),)])
def test_stages_of_the_same_depth_stay(stages):
    assert scaled_stages(12, stages) == stages


@pytest.mark.parametrize("layers", range(12, 60))
def test_in_a_deeper_tower_blocks_stay_distinct_and_ordered(layers):
    scaled = scaled_stages(layers)
    blocks = [block for stage in scaled for block in stage]
    assert [len(stage) for stage in scaled] == [3, 3, 1]
    assert blocks == sorted(set(blocks)) and blocks[-1] == layers
    assert all(abs(block - old * layers / 12) <= 0.5 for block, old in zip(blocks, range(6, 13), strict=True))


def test_a_first_block_stays_a_block():
    assert scaled_stages(4, ((1,), (12,))) == ((1,), (4,))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_stage_that_would_be_empty_is_refused(layers):
    with pytest.raises(InputError, match=rf"^{layers} blocks are too few for the stages"):
        scaled_stages(layers)


@pytest.mark.parametrize(("layers", "stages"), [(24, ((13,),)), (24, ((0, 12),)), (0, PAPER)])
def test_blocks_that_are_not_there_are_refused(layers, stages):
    with pytest.raises(InputError, match=r"blocks are numbered 1\.\.12"):
        scaled_stages(layers, stages)
