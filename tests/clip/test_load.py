"""Mini-CLIP and open_clip's towers behind one face."""

from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch.nn import functional as F

from cascadeclip.analysis.lenses import last_layer_tokens, value_path_tokens
from cascadeclip.clip.load import Clip, fits_sizes, load_clip, resize_positions
from cascadeclip.clip.sentences import check_marks
from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.data.emojiscenes import CAPTIONS, THINGS, draw_scene
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import build_tower
from cascadeclip.presets import MINI


@pytest.fixture(scope="module")
def clip():
    return load_clip()


def test_mini_clip_has_the_default_towers_sizes(clip):
    assert clip.tower == TowerConfig()
    assert isinstance(clip.visual, VisionTransformer)
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())


def test_class_embeddings_are_the_renormalised_mean_over_templates(clip):
    text = clip.class_embeddings(["cat", "sand"])
    single = [clip.class_embeddings(["cat", "sand"], [template]) for template in CAPTIONS]
    assert text.shape == (2, 128)
    assert torch.allclose(text, F.normalize(torch.stack(single).mean(0), dim=-1), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["noto", "twemoji", "fluent"])
def test_mini_clip_names_single_things_in_every_style(clip, style):
    scenes = [draw_scene(77, i, styles=(style,), objects=(1, 1)) for i in range(60)]
    with torch.inference_mode():
        images = F.normalize(
            clip.model.encode_image(normalise(torch.stack([to_tensor(s.image) for s in scenes]))), dim=-1
        )
    best = (images @ clip.class_embeddings(THINGS).T).argmax(1)
    assert sum(THINGS[i] == s.things[0] for i, s in zip(best.tolist(), scenes, strict=True)) >= 42  # chance is 1


def test_value_path_tokens_are_those_of_an_attention_that_looks_only_at_itself(clip):
    """With the identity as its attention pattern, the last attention returns each token's own value."""
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        tokens = clip.visual._embeds(images)
        for block in clip.visual.transformer.resblocks[:-1]:
            tokens = block(tokens)
        last = clip.visual.transformer.resblocks[-1]
        only_itself = torch.full((145, 145), float("-inf")).fill_diagonal_(0)
        normed = last.ln_1(tokens)
        values = last.attn(normed, normed, normed, attn_mask=only_itself, need_weights=False)[0][:, 1:]
        expected = F.normalize(clip.visual.ln_post(values) @ clip.visual.proj, dim=-1)
        assert torch.allclose(value_path_tokens(clip.visual, images), expected, atol=1e-4)
        assert last_layer_tokens(clip.visual, images).shape == (1, 144, 128)


@pytest.mark.slow
def test_vit_b_16_carries_a_cascade():
    real = load_clip("ViT-B-16", image_size=64)
    assert real.tower == TowerConfig(image_size=64, patch_size=16, width=768, layers=12, heads=12, embed_dim=512)
    model = CascadeCLIP(ModelConfig(tower=real.tower, prompt_tokens=2), real.visual).eval()
    text = real.class_embeddings(["anything at all", "sky"], ["a photo of a {}"])
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 64, 96), text).mask_logits.shape == (1, 2, 4, 6)


def test_positions_are_resized_in_place():
    visual = build_tower(TowerConfig(image_size=32, patch_size=8, width=16, layers=1, heads=2, embed_dim=8))
    before = visual.positional_embedding.detach().clone()
    resize_positions(visual, 64)
    assert visual.positional_embedding.shape == (65, 16)
    assert visual.grid_size == (8, 8)
    assert torch.equal(visual.positional_embedding[0], before[0])
    with pytest.raises(InputError, match="multiple of the patch size"):
        resize_positions(visual, 60)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-99", None, "unknown CLIP 'ViT-B-99'"),
        ("ViT-B-16", "no/such/weights.pt", "cannot load weights 'no/such/weights.pt'"),
        ("RN50", None, "does not fit: its image tower is a ResNet"),
        ("mini", "openai", "'mini' comes with its weights: leave out 'openai'"),
        ("mini", "random", "'mini' comes with its weights: leave out 'random'"),
        ("ViT-B-16", "", "pretrained='': give a weights file, a tag of open_clip, or 'random'"),
        ("ViT-B-16", 7, "pretrained=7: give a weights file"),
    ],
)
def test_a_clip_that_cannot_be_had_is_refused(name, pretrained, message):
    with pytest.raises(InputError, match=message):
        load_clip(name, pretrained)


@pytest.fixture
def small(register):
    """The name of a small architecture of open_clip."""
    return register("ViT-small")


@pytest.fixture
def untrained(small):
    return load_clip(small)


def test_random_weights_have_a_word(untrained, small):
    asked = load_clip(small, "random")
    assert asked.pretrained is None
    assert torch.equal(asked.visual.proj, untrained.visual.proj)


def test_a_weights_file_may_be_a_path(untrained, small, tmp_path):
    torch.save(untrained.model.state_dict(), tmp_path / "weights.pt")
    found = load_clip(small, tmp_path / "weights.pt")
    assert found.pretrained == str(tmp_path / "weights.pt")
    assert torch.equal(found.visual.proj, untrained.visual.proj)


@pytest.mark.parametrize("name", ["visual.proj", "text_projection"])
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(untrained, small, tmp_path, name, value):
    spoilt = {name: tensor.clone() for name, tensor in untrained.model.state_dict().items()}
    spoilt[name][3, 5] = value
    torch.save(spoilt, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=rf"weights\.pt' of CLIP 'ViT-small' are of no use: NaN .* in {name}$"):
        load_clip(small, str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("size", [0, -8, 96.0, "96", 10**9])
def test_a_size_that_no_picture_has_is_refused(size):
    with pytest.raises(InputError, match="must be a whole number of px, from 1 to 16384"):
        load_clip(image_size=size)


def test_text_is_encoded_where_the_text_tower_is():
    clip = load_clip()
    clip.visual.to("meta")  # as a model on an accelerator takes its image tower along
    assert clip.class_embeddings(["cat"]).device.type == "cpu"


def test_class_embeddings_are_computed_once_and_handed_out_as_copies(clip, monkeypatch):
    first = clip.class_embeddings(["cat", "dog"], ["a {}"])
    monkeypatch.setattr(clip.model, "encode_text", None)
    again = clip.class_embeddings(["cat", "dog"], ["a {}"])
    assert torch.equal(first, again)
    again.zero_()
    assert torch.equal(clip.class_embeddings(["cat", "dog"], ["a {}"]), first)
    with pytest.raises(TypeError):
        clip.class_embeddings(["dog", "cat"], ["a {}"])


@pytest.mark.parametrize("template", ["{.__class__} {}", "{0!r:>999999999} {}", "{x} {}", "{ {}", "} {}", "{{}} {}"])
def test_nothing_in_a_template_is_obeyed(clip, template):
    with pytest.raises(InputError, match="and no other braces"):
        clip.class_embeddings(["cat"], [template])


def test_words_take_the_place_of_the_braces_as_they_are(clip):
    told = []
    asked = Clip("told", None, clip.model, lambda texts: told.extend(texts) or clip.tokenize(["cat"] * len(texts)))
    asked.class_embeddings(["{x} {0}"], ["a {}"])
    assert told[0] == "a {x} {0}"


def test_a_users_settings_of_pytorch_change_no_tower_and_no_embedding(clip):
    wanted = clip.class_embeddings(["cat", "sand"])
    for dtype, device, autocast in (
        (torch.float64, "cpu", False), (torch.bfloat16, "cpu", False), (torch.float32, "meta", False),
        (torch.float32, "cpu", True),
    ):  # fmt: skip
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                fresh = load_clip()
                found = fresh.class_embeddings(["cat", "sand"])
        finally:
            torch.set_default_dtype(torch.float32)
        assert found.dtype == torch.float32 and torch.equal(found, wanted)
        assert {parameter.dtype for parameter in fresh.visual.parameters()} == {torch.float32}


def test_a_forked_process_computes(clip):
    import os
    import time

    torch.randn(600, 600) @ torch.randn(600, 600)
    child = os.fork()
    if not child:
        os._exit(0 if (torch.randn(600, 600) @ torch.randn(600, 600)).shape == (600, 600) else 1)
    for _ in range(300):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize(
    ("words", "templates"),
    [
        (["cat", "cat<end_of_text> dog"], ["a photo of a {}"]),
        (["cat", "cat <END_OF_TEXT>"], ["a photo of a {}"]),
        (["cat", "cat&lt;end_of_text&gt; dog"], ["a photo of a {}"]),  # the tokenizer reads HTML
        (["<start_of_text>cat"], ["{}"]),
        (["cat"], ["a photo<end_of_text> of a {}"]),
        (["cat<end_of_text>" + " dog" * 99], ["{}"]),
    ],
)
def test_marks_of_the_tokenizer_are_no_words(untrained, words, templates):
    for long_texts in ("refuse", "warn"):
        untrained.long_texts = long_texts
        with pytest.raises(InputError, match=r"reads a start or end of text inside the sentence '.*out of words"):
            untrained.class_embeddings(words, templates)
    assert untrained.class_embeddings(["cat", "end of text", "<cat>!"], ["a photo of a {}"]).shape == (3, 16)


@pytest.mark.parametrize(
    ("start", "end", "padding"), [([0], 2, 1), ([], 1, 0), ([101], 102, 0), ([256047], 2, 1)],
    ids=["roberta", "mt5", "bert", "nllb"],
)  # fmt: skip
def test_marks_are_known_by_any_tokenizer(start, end, padding):
    ids = {"<s>": 0, "</s>": end, "[CLS]": 101, "cat": 300, "dog": 301}

    def tokenize(texts, context_length=8):
        rows = [[*start, *map(ids.get, text.split()), end] for text in texts]
        return torch.tensor([row + [padding] * (context_length - len(row)) for row in rows])

    check_marks(tokenize, ["cat dog", "dog"], tokenize(["cat dog", "dog"]), "any")
    with pytest.raises(InputError, match="inside the sentence 'cat </s> dog'"):
        check_marks(tokenize, ["dog", "cat </s> dog"], tokenize(["dog", "cat </s> dog"]), "any")


@pytest.mark.parametrize("name", ["hf-hub:somebody/anything", "local-dir:/tmp", "nothing"])
def test_a_name_that_a_stranger_chose_is_looked_up_nowhere(name, monkeypatch):
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: pytest.fail(f"{name} was looked up"))
    assert fits_sizes(name, MINI.model.tower)  # `load_clip` refuses the name
    with pytest.raises(InputError, match="unknown CLIP"):
        load_clip(name)


def test_weights_that_hold_code_are_refused_without_advice_to_run_it(tmp_path):
    torch.save({"weight": Path("x")}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="holds more than tensors and was not opened") as refused:
        load_clip("ViT-B-32", tmp_path / "weights.pt")
    assert "weights_only" not in str(refused.value) and "\n" not in str(refused.value)
