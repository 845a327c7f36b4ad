"""Mini-CLIP: its closed vocabulary and its sizes."""

import pytest
import torch

from cascadeclip.clip.mini import WORDS, MiniTokenizer, build_mini_clip
from cascadeclip.config import TowerConfig
from cascadeclip.data.emojiscenes import CAPTIONS, CLASSES, STUFF, THINGS, draw_scene
from cascadeclip.errors import InputError


@pytest.fixture
def tokenizer():
    return MiniTokenizer()


def test_ids_are_start_then_words_in_alphabetical_order_then_end_then_padding(tokenizer):
    assert list(WORDS) == sorted(set(WORDS))
    tokens = tokenizer("a photo of a cat")
    end = len(WORDS) + 2
    wanted = [1, 2 + WORDS.index("a"), 2 + WORDS.index("photo"), 2 + WORDS.index("of"), 2, 2 + WORDS.index("cat"), end]
    assert tokens.dtype == torch.int64 and tokens.shape == (1, 20)
    assert tokens[0].tolist() == wanted + [0] * 13
    assert tokens.max() == end and tokens.argmax(1).tolist() == [6]


def test_ids_of_the_shipped_weights_stay():
    """Adding or removing a word moves the others: the weights of Mini-CLIP belong to this numbering."""
    assert len(WORDS) == 83
    ids = {word: MiniTokenizer.ids[word] for word in ("a", "cat", "sand", "umbrella", "wood")}
    assert ids == {"a": 2, "cat": 23, "sand": 62, "umbrella": 80, "wood": 84}


def test_case_and_punctuation_do_not_count(tokenizer):
    assert torch.equal(tokenizer("A photo of: a CAT, on grass."), tokenizer("a photo of a cat on grass"))


def test_several_texts_are_several_rows(tokenizer):
    texts = ["cat", "a dog and a cat on sand"]
    assert torch.equal(tokenizer(texts), torch.cat([tokenizer(text) for text in texts]))
    assert torch.equal(tokenizer(iter(texts)), tokenizer(tuple(texts)))
    assert tokenizer([]).shape == (0, 20)


def test_every_class_and_every_word_of_the_captions_has_an_id_of_its_own(tokenizer):
    tokens = tokenizer(list(CLASSES))
    assert (tokens != 0).sum(1).tolist() == [3] * len(CLASSES)
    assert len({tuple(row) for row in tokens.tolist()}) == len(CLASSES)
    for caption in CAPTIONS:
        tokenizer(caption.format("cat"))


def test_every_caption_of_every_world_tokenises(tokenizer):
    scenes = [draw_scene(seed, index, size=24) for seed in (0, 900_001, 900_002) for index in range(200)]
    tokens = tokenizer([scene.caption for scene in scenes])
    for scene, row in zip(scenes, tokens.tolist(), strict=True):
        assert {MiniTokenizer.ids[name] for name in scene.things} <= set(row)


@pytest.mark.parametrize(
    ("word", "near"), [("tigre", "tiger"), ("umbrela", "umbrella"), ("cats", "cat"), ("photos", "photo")]
)
def test_an_unknown_word_lists_near_ones(word, near, tokenizer):
    with pytest.raises(InputError, match=rf"does not know the word '{word}': did you mean .*\b{near}\b.*\?"):
        tokenizer(f"a picture of a {word}")


def test_an_unknown_word_that_is_near_none_lists_the_classes(tokenizer):
    with pytest.raises(InputError) as caught:
        tokenizer("xyzzy")
    message = str(caught.value)
    assert "'xyzzy'" in message and "did you mean" not in message
    assert all(name in message for name in THINGS + STUFF)


def test_texts_that_are_too_long_or_empty_are_named(tokenizer):
    assert (tokenizer(" ".join(["cat"] * 18)) != 0).all()
    for text, count in ((" ".join(["cat"] * 19), 19), ("", 0), (" ,.! ", 0)):
        with pytest.raises(InputError, match=rf"has {count} words; Mini-CLIP reads texts of 1 to 18 words"):
            tokenizer(text)


def test_mini_clip_has_the_sizes_of_the_default_tower():
    with torch.device("meta"):
        clip = build_mini_clip()
    visual, tower = clip.visual, TowerConfig()
    assert visual.image_size == (tower.image_size,) * 2 and visual.patch_size == (tower.patch_size,) * 2
    assert tuple(visual.proj.shape) == (tower.width, tower.embed_dim)
    blocks = visual.transformer.resblocks
    assert len(blocks) == tower.layers and {block.attn.num_heads for block in blocks} == {tower.heads}
    assert clip.text_projection.shape[1] == tower.embed_dim
    assert clip.vocab_size == MiniTokenizer.end + 1 and clip.context_length == MiniTokenizer.context_length


@torch.no_grad()
def test_the_text_tower_reads_the_end_token_and_not_the_padding():
    torch.manual_seed(0)
    clip, tokenizer = build_mini_clip().eval(), MiniTokenizer()
    tokens = tokenizer(["a cat", "a dog"])
    padded = tokens.clone()
    padded[:, 10:] = 5
    torch.testing.assert_close(clip.encode_text(padded), clip.encode_text(tokens), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(clip.encode_text(tokens)[0], clip.encode_text(tokens)[1], atol=1e-3)


@torch.no_grad()
def test_patch_dropout_falls_only_while_training():
    torch.manual_seed(0)
    clip, images = build_mini_clip(patch_dropout=0.5), torch.randn(1, 3, 96, 96)
    assert not torch.allclose(clip.encode_image(images), clip.encode_image(images), atol=1e-4)
    clip.eval()
    assert torch.equal(clip.encode_image(images), clip.encode_image(images))
