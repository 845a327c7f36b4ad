"""What the explorers compute, each function against the model itself or a case whose answer is known."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import cascadeclip
from cascadeclip.analysis.lenses import attention_maps, block_tokens, raw_lens
from cascadeclip.analysis.pictures import Picture, grid_of, one_batch, picture_from_file, scene_pictures, to_batch
from cascadeclip.data.emojiscenes import CLASSES, UNSEEN, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import read_out
from cascadeclip.explorers import compute
from cascadeclip.model.cascade import nga_weights


@pytest.fixture(scope="module")
def segmenter():
    return cascadeclip.load("mini/cascade-prompts")


@pytest.fixture(scope="module")
def visual(segmenter):
    return segmenter.clip.visual


@pytest.fixture(scope="module")
def pictures():
    return scene_pictures(4)


@pytest.fixture(scope="module")
def text(segmenter):
    return segmenter.clip.class_embeddings(CLASSES)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


# --- pictures and words ---


def test_scenes_come_with_their_words_and_truth(pictures):
    scene = EmojiScenes.split("test")[2]
    assert np.array_equal(pictures[2].image, scene.image) and np.array_equal(pictures[2].labels, scene.labels)
    assert pictures[2].words == scene.things + scene.stuff
    assert all(word in pictures[2].title for word in scene.things)


def test_files_become_pictures_no_larger_than_needed():
    image = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    picture = picture_from_file("my cat.png", png(image))
    assert np.array_equal(picture.image, image) and picture.words == () and picture.labels is None
    assert "my cat.png" in picture.title
    assert picture_from_file("a", png(image), longest=30).image.shape == (20, 30, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", png(np.zeros((40, 40, 3), np.uint8))[:60]])
def test_files_that_are_no_pictures_are_refused_by_name(content):
    with pytest.raises(InputError, match=r"cat\.png is no image"):
        picture_from_file("cat.png", content)


def test_pictures_that_the_tower_would_squeeze_are_refused():
    assert picture_from_file("a", png(np.zeros((20, 80, 3), np.uint8))).image.shape == (20, 80, 3)
    with pytest.raises(InputError, match=r"81 x 20 px.*cut a piece"):
        picture_from_file("a", png(np.zeros((20, 81, 3), np.uint8)))


def test_words_stand_between_commas():
    assert compute.split_words(" hot dog,, cat ,") == ("hot dog", "cat")
    with pytest.raises(InputError, match="9 words"):
        compute.split_words("a,b,c,d,e,f,g,h,i")


def test_batches_are_what_the_model_is_trained_on(pictures, visual):
    expected = normalise(collate([EmojiScenes.split("test")[i] for i in (0, 1)])[0])
    found = one_batch([picture.image for picture in pictures[:2]], visual)
    torch.testing.assert_close(found, expected)


def test_long_pictures_are_read_in_whole_patches(visual):
    batch = to_batch(np.zeros((50, 77, 3), np.uint8), visual)
    assert batch.shape == (1, 3, 96, 144)  # 96 / 50 * 77 = 147.8
    assert grid_of(batch, visual) == (12, 18)
    with pytest.raises(InputError, match="of one size"):
        one_batch([np.zeros((50, 77, 3), np.uint8), np.zeros((50, 50, 3), np.uint8)], visual)


def test_truth_in_the_words_given():
    labels = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 255, 255], [1, 1, 255, 255]], np.uint8)
    picture = Picture("", np.zeros((4, 4, 3), np.uint8), labels=labels)
    found = compute.truth_among(picture, ["sky", "sea", "sand"], ["dog", "sand", "sky"], (2, 2))
    assert found.tolist() == [[2, 1], [255, 255]]
    unknown = Picture("", picture.image)
    assert (compute.truth_among(unknown, ["sky"], ["sky"], (2, 3)) == np.full((2, 3), 255)).all()


def test_truth_in_words_however_they_are_written():
    picture = Picture("", np.zeros((2, 2, 3), np.uint8), labels=np.array([[0, 1], [2, 255]], np.uint8))
    found = compute.truth_among(picture, ["Hot dog", "sea", "sand"], [" SAND", "hot  Dog"], (2, 2))
    assert found.tolist() == [[1, 255], [0, 255]]


def test_truth_among_more_classes_than_a_byte_has_numbers_for():
    names = [f"word {i}" for i in range(300)]
    picture = Picture("", np.zeros((2, 2, 3), np.uint8), labels=np.array([[0, 255], [299, 65_535]], np.uint16))
    assert compute.truth_among(picture, names, names, (2, 2)).tolist() == [[0, 255], [299, 65_535]]


# --- layers ---


@torch.inference_mode()
def test_layers_are_those_of_the_lenses(pictures, visual):
    layers = compute.read_layers(visual, pictures[1].image)
    batch = to_batch(pictures[1].image, visual)
    tokens = torch.stack(block_tokens(visual, batch))[:, 0, 1:]
    torch.testing.assert_close(layers.tokens, tokens)
    torch.testing.assert_close(layers.joint, raw_lens(visual, tokens))
    expected = attention_maps(visual, batch)[:, 0].mean(1)[:, 1:, 1:]
    torch.testing.assert_close(layers.attention.float(), expected, atol=1e-3, rtol=0)
    assert layers.grid == (12, 12)


def test_maps_of_one_patch_and_one_word(pictures, visual, text):
    layers = compute.read_layers(visual, pictures[1].image)
    colours = compute.fit_colours(visual, [picture.image for picture in pictures], samples=200)
    maps = compute.layer_maps(layers, colours, text[3], row=2, column=5)
    assert list(maps) == ["similarity to the patch", "colours", "similarity to the word", "attention of the patch"]
    assert [found.shape for found in maps.values()] == [(12, 12, 12), (12, 12, 12, 3), (12, 12, 12), (12, 12, 12)]
    own, other = layers.tokens[6, 2 * 12 + 5], layers.tokens[6, 7 * 12 + 1]
    cosine = torch.nn.functional.cosine_similarity(own, other, dim=0).item()
    assert maps["similarity to the patch"][6, 7, 1] == pytest.approx(cosine, abs=1e-5)
    assert maps["similarity to the patch"][:, 2, 5] == pytest.approx(1, abs=1e-5)
    assert maps["similarity to the word"][11, 4, 9] == pytest.approx((layers.joint[11, 57] @ text[3]).item(), abs=1e-5)
    assert maps["attention of the patch"][3, 0, 8] == pytest.approx(144 * layers.attention[3, 29, 8].item(), rel=1e-5)
    assert np.allclose(maps["colours"][4, 1, 1], colours(4, layers.tokens[4, 13][None].numpy())[0])
    with pytest.raises(InputError, match=r"\(12, 0\)"):
        compute.layer_maps(layers, colours, text[3], row=12, column=0)


# --- words, stages, weights, offset ---


@torch.inference_mode()
def test_stages_add_up_to_the_models_masks(segmenter, pictures, text):
    model = segmenter.model
    output = model(one_batch([p.image for p in pictures], segmenter.clip.visual), text)
    encoded = compute.encode(model, [picture.image for picture in pictures])
    found = torch.stack([compute.stage_logits(model, encoded, text, stage) for stage in range(3)])
    torch.testing.assert_close(found, torch.stack(output.stage_logits), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(compute.with_sum(found, [True] * 3)[3], output.mask_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(compute.with_sum(found, [True, False, True])[3], found[0] + found[2])
    with pytest.raises(InputError, match="switch on"):
        compute.with_sum(found, [False] * 3)


def test_given_weights_are_used_as_if_the_model_had_them(make_model, make_inputs):
    model = make_model(stages=((1, 2, 3), (4,)))
    images, text = make_inputs(model)
    weights = nga_weights(3, 2.5).tolist()
    with torch.inference_mode():
        encoded = model.encoder(images)
    assert list(compute.trained_weights(model)) == [0]
    before = compute.stage_logits(model, encoded, text, 0)
    found = compute.stage_logits(model, encoded, text, 0, weights)
    torch.testing.assert_close(compute.stage_logits(model, encoded, text, 0, compute.trained_weights(model)[0]), before)
    model.aggregations[0].weights.data = torch.tensor(weights)
    with torch.inference_mode():
        torch.testing.assert_close(found, model(images, text).stage_logits[0])
    assert (found - before).abs().max() > 1e-3
    for stage, wrong in ((1, [1.0]), (0, [1.0, 1.0])):
        with pytest.raises(InputError, match=f"stage {stage + 1}"):
            compute.stage_logits(model, encoded, text, stage, wrong)


def test_shared_decoders_serve_every_stage(make_model, make_inputs):
    model = make_model(shared_decoder=True, shared_projection=True)
    images, text = make_inputs(model)
    with torch.inference_mode():
        encoded, expected = model.encoder(images), model(images, text).stage_logits
    for stage, logits in enumerate(expected):
        torch.testing.assert_close(compute.stage_logits(model, encoded, text, stage), logits)


@torch.inference_mode()
def test_readouts_are_those_of_a_whole_pass(segmenter, text):
    scenes = [EmojiScenes.split("test")[i] for i in range(4)]
    expected = read_out(segmenter.model, [collate(scenes)], text, CLASSES, UNSEEN)
    encoded = compute.encode(segmenter.model, [scene.image for scene in scenes])
    logits = sum(compute.stage_logits(segmenter.model, encoded, text, stage) for stage in range(3))
    found = compute.read_out_logits(logits, expected.labels, [CLASSES.index(name) for name in UNSEEN])
    for offset in (0.0, 0.1, 0.4):
        assert (found.segmentation(offset) == expected.segmentation(offset)).float().mean() > 0.999
    torch.testing.assert_close(found.seen_score, expected.seen_score, atol=1e-4, rtol=0)


@pytest.mark.parametrize("names", [("Balloon", "sand"), ("balloon", "GRASS "), (" BALLOON", "Umbrella")])
def test_words_mean_the_same_however_they_are_written(segmenter, pictures, names):
    plain = tuple(name.strip().lower() for name in names)
    one, other = (compute.word_masks(segmenter, pictures[3], words, [True] * 3) for words in (names, plain))
    assert np.array_equal(one.best, other.best) and np.array_equal(one.truth, other.truth)
    assert one.unseen == tuple(name for name, word in zip(names, plain, strict=True) if word in other.unseen)
    whole = segmenter.segment(pictures[3].image, [name.strip() for name in names])
    assert (one.best[3] == whole.labels).mean() > 0.999


def test_word_masks_of_all_stages_are_what_the_segmenter_says(segmenter, pictures):
    picture, names = pictures[3], pictures[3].words
    found, whole = compute.word_masks(segmenter, picture, names, [True] * 3), segmenter.segment(picture.image, names)
    assert (found.best[3] == whole.labels).mean() > 0.999
    assert found.unseen == ("umbrella",) and found.names == names
    names_at = np.array(CLASSES)[picture.labels]
    assert found.right()[3] == pytest.approx((np.array(names)[found.best[3]] == names_at).mean())
    two = compute.word_masks(segmenter, picture, names, (True, True, False))
    assert np.allclose(two.masks[3], found.masks[0] + found.masks[1], atol=1e-4)
    assert not np.array_equal(two.best[3], found.best[3])
    unknown = compute.word_masks(segmenter, Picture("", picture.image), names, [True] * 3)
    assert np.isnan(unknown.right()).all()


def test_the_offset_comes_off_the_seen_alone():
    logits = torch.zeros(1, 3, 2, 2)
    found = compute.probabilities(logits, (4, 6), seen=[0, 2], seen_offset=0.2)
    assert found.shape == (1, 3, 4, 6)
    assert found[0, :, 1, 1].tolist() == pytest.approx([0.3, 0.5, 0.3])


def test_every_second_pixel():
    labels = np.arange(36).reshape(6, 6)
    picture = Picture("", np.zeros((6, 6, 3), np.uint8), labels=labels)
    assert compute.every_second_pixel([picture, picture]).shape == (2, 3, 3)
    assert compute.every_second_pixel([picture])[0, 0].tolist() == [7, 9, 11]
