"""What the explorers compute and draw, each function against the model itself or a case whose answer is known."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import cascadeclip
from cascadeclip import explore, explore_plots
from cascadeclip.canvas import heat, montage
from cascadeclip.cascade import nga_weights
from cascadeclip.data.emojiscenes import CLASSES, UNSEEN, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.diagnostics import read_out
from cascadeclip.errors import InputError
from cascadeclip.explore import Picture, WordMasks
from cascadeclip.lenses import attention_maps, block_tokens, raw_lens


@pytest.fixture(scope="module")
def segmenter():
    return cascadeclip.load("mini")


@pytest.fixture(scope="module")
def visual(segmenter):
    return segmenter.clip.visual


@pytest.fixture(scope="module")
def pictures():
    return explore.scene_pictures(4)


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
    picture = explore.picture_from_file("my cat.png", png(image), ("cat",))
    assert np.array_equal(picture.image, image) and picture.words == ("cat",) and picture.labels is None
    assert "my cat.png" in picture.title
    assert explore.picture_from_file("a", png(image), longest=30).image.shape == (20, 30, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", png(np.zeros((40, 40, 3), np.uint8))[:60]])
def test_files_that_are_no_pictures_are_refused_by_name(content):
    with pytest.raises(InputError, match=r"cat\.png is no image"):
        explore.picture_from_file("cat.png", content)


def test_words_stand_between_commas():
    assert explore.split_words(" hot dog,, cat ,") == ("hot dog", "cat")
    with pytest.raises(InputError, match="9 words"):
        explore.split_words("a,b,c,d,e,f,g,h,i")


def test_batches_are_what_the_model_is_trained_on(pictures, visual):
    expected = normalise(collate([EmojiScenes.split("test")[i] for i in (0, 1)])[0])
    found = explore.one_batch([picture.image for picture in pictures[:2]], visual)
    torch.testing.assert_close(found, expected)


def test_long_pictures_are_read_in_whole_patches(visual):
    batch = explore.to_batch(np.zeros((50, 77, 3), np.uint8), visual)
    assert batch.shape == (1, 3, 96, 144)  # 96 / 50 * 77 = 147.8
    assert explore.grid_of(batch, visual) == (12, 18)
    with pytest.raises(InputError, match="of one size"):
        explore.one_batch([np.zeros((50, 77, 3), np.uint8), np.zeros((50, 50, 3), np.uint8)], visual)


def test_truth_in_the_words_given():
    labels = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 255, 255], [1, 1, 255, 255]], np.uint8)
    picture = Picture("", np.zeros((4, 4, 3), np.uint8), labels=labels)
    found = explore.truth_among(picture, ["sky", "sea", "sand"], ["dog", "sand", "sky"], (2, 2))
    assert found.tolist() == [[2, 1], [255, 255]]
    unknown = Picture("", picture.image)
    assert (explore.truth_among(unknown, ["sky"], ["sky"], (2, 3)) == np.full((2, 3), 255)).all()


# --- layers ---


@torch.inference_mode()
def test_layers_are_those_of_the_lenses(pictures, visual):
    layers = explore.read_layers(visual, pictures[1].image)
    batch = explore.to_batch(pictures[1].image, visual)
    tokens = torch.stack(block_tokens(visual, batch))[:, 0, 1:]
    torch.testing.assert_close(layers.tokens, tokens)
    torch.testing.assert_close(layers.joint, raw_lens(visual, tokens))
    expected = attention_maps(visual, batch)[:, 0].mean(1)[:, 1:, 1:]
    torch.testing.assert_close(layers.attention.float(), expected, atol=1e-3, rtol=0)
    assert layers.grid == (12, 12)


def test_maps_of_one_patch_and_one_word(pictures, visual, text):
    layers = explore.read_layers(visual, pictures[1].image)
    colours = explore.fit_colours(visual, [picture.image for picture in pictures], samples=200)
    maps = explore.layer_maps(layers, colours, text[3], row=2, column=5)
    assert list(maps) == ["likeness to the patch", "colours", "likeness to the word", "attention of the patch"]
    assert [found.shape for found in maps.values()] == [(12, 12, 12), (12, 12, 12, 3), (12, 12, 12), (12, 12, 12)]
    own, other = layers.tokens[6, 2 * 12 + 5], layers.tokens[6, 7 * 12 + 1]
    cosine = torch.nn.functional.cosine_similarity(own, other, dim=0).item()
    assert maps["likeness to the patch"][6, 7, 1] == pytest.approx(cosine, abs=1e-5)
    assert maps["likeness to the patch"][:, 2, 5] == pytest.approx(1, abs=1e-5)
    assert maps["likeness to the word"][11, 4, 9] == pytest.approx((layers.joint[11, 57] @ text[3]).item(), abs=1e-5)
    assert maps["attention of the patch"][3, 0, 8] == pytest.approx(144 * layers.attention[3, 29, 8].item(), rel=1e-5)
    assert np.allclose(maps["colours"][4, 1, 1], colours(4, layers.tokens[4, 13][None].numpy())[0])
    with pytest.raises(InputError, match=r"\(12, 0\)"):
        explore.layer_maps(layers, colours, text[3], row=12, column=0)


# --- words, stages, weights, offset ---


@torch.inference_mode()
def test_stages_add_up_to_the_models_masks(segmenter, pictures, text):
    model = segmenter.model
    output = model(explore.one_batch([p.image for p in pictures], segmenter.clip.visual), text)
    encoded = explore.encode(model, [picture.image for picture in pictures])
    found = torch.stack([explore.stage_logits(model, encoded, text, stage) for stage in range(3)])
    torch.testing.assert_close(found, torch.stack(output.stage_logits), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(explore.with_sum(found, [True] * 3)[3], output.mask_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(explore.with_sum(found, [True, False, True])[3], found[0] + found[2])
    with pytest.raises(InputError, match="switch on"):
        explore.with_sum(found, [False] * 3)


def test_given_weights_are_used_as_if_the_model_had_them(make_model, make_inputs):
    model = make_model(stages=((1, 2, 3), (4,)))
    images, text = make_inputs(model)
    weights = nga_weights(3, 2.5).tolist()
    with torch.inference_mode():
        encoded = model.encoder(images)
    assert list(explore.trained_weights(model)) == [0]
    before = explore.stage_logits(model, encoded, text, 0)
    found = explore.stage_logits(model, encoded, text, 0, weights)
    torch.testing.assert_close(explore.stage_logits(model, encoded, text, 0, explore.trained_weights(model)[0]), before)
    model.aggregations[0].weights.data = torch.tensor(weights)
    with torch.inference_mode():
        torch.testing.assert_close(found, model(images, text).stage_logits[0])
    assert (found - before).abs().max() > 1e-3
    for stage, wrong in ((1, [1.0]), (0, [1.0, 1.0])):
        with pytest.raises(InputError, match=f"stage {stage + 1}"):
            explore.stage_logits(model, encoded, text, stage, wrong)


def test_shared_decoders_serve_every_stage(make_model, make_inputs):
    model = make_model(shared_decoder=True, shared_projection=True)
    images, text = make_inputs(model)
    with torch.inference_mode():
        encoded, expected = model.encoder(images), model(images, text).stage_logits
    for stage, logits in enumerate(expected):
        torch.testing.assert_close(explore.stage_logits(model, encoded, text, stage), logits)


@torch.inference_mode()
def test_readouts_are_those_of_a_whole_pass(segmenter, text):
    scenes = [EmojiScenes.split("test")[i] for i in range(4)]
    expected = read_out(segmenter.model, [collate(scenes)], text, CLASSES, UNSEEN)
    encoded = explore.encode(segmenter.model, [scene.image for scene in scenes])
    logits = sum(explore.stage_logits(segmenter.model, encoded, text, stage) for stage in range(3))
    found = explore.read_out_logits(logits, expected.labels, [CLASSES.index(name) for name in UNSEEN])
    for offset in (0.0, 0.1, 0.4):
        assert (found.segmentation(offset) == expected.segmentation(offset)).float().mean() > 0.999
    torch.testing.assert_close(found.seen_score, expected.seen_score, atol=1e-4, rtol=0)


def test_word_masks_of_all_stages_are_what_the_segmenter_says(segmenter, pictures):
    picture, names = pictures[3], pictures[3].words
    found, whole = explore.word_masks(segmenter, picture, names, [True] * 3), segmenter.segment(picture.image, names)
    assert (found.best[3] == whole.labels).mean() > 0.999
    assert found.unseen == ("umbrella",) and found.names == names
    names_at = np.array(CLASSES)[picture.labels]
    assert found.right()[3] == pytest.approx((np.array(names)[found.best[3]] == names_at).mean())
    two = explore.word_masks(segmenter, picture, names, (True, True, False))
    assert np.allclose(two.masks[3], found.masks[0] + found.masks[1], atol=1e-4)
    assert not np.array_equal(two.best[3], found.best[3])
    unknown = explore.word_masks(segmenter, Picture("", picture.image), names, [True] * 3)
    assert np.isnan(unknown.right()).all()


def test_the_offset_comes_off_the_seen_alone():
    logits = torch.zeros(1, 3, 2, 2)
    found = explore.probabilities(logits, (4, 6), seen=[0, 2], seen_offset=0.2)
    assert found.shape == (1, 3, 4, 6)
    assert found[0, :, 1, 1].tolist() == pytest.approx([0.3, 0.5, 0.3])


def test_every_second_pixel():
    labels = np.arange(36).reshape(6, 6)
    picture = Picture("", np.zeros((6, 6, 3), np.uint8), labels=labels)
    assert explore.every_second_pixel([picture, picture]).shape == (2, 3, 3)
    assert explore.every_second_pixel([picture])[0, 0].tolist() == [7, 9, 11]


# --- figures ---


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts if text.get_text()]


def panels(figure):
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def test_montage_keeps_every_tile_in_its_place():
    tiles = [[np.full((2, 3, 3), 0.1 * (3 * r + c)) for c in range(3)] for r in range(2)]
    sheet = montage(tiles)
    assert sheet.shape == (5, 11, 3)
    assert np.allclose(sheet[3:5, 8:11], 0.5) and (sheet[2] == 1).all() and (sheet[:, 3] == 1).all()


def test_heat_spans_its_own_range_or_a_given_one():
    values = np.array([[2.0, 4.0]])
    assert np.allclose(heat(values), heat(values, low=2, high=4))
    assert np.allclose(heat(np.array([[0.5]]), low=0, high=1), heat(np.array([[2.0, 3, 4]]))[:, 1:2])
    assert np.isfinite(heat(np.ones((2, 2)))).all()


def layer_example(blocks=5, grid=(3, 4)):
    values = np.random.default_rng(0).random((blocks, *grid))
    return {"likeness to the patch": values, "colours": np.random.default_rng(1).random((blocks, *grid, 3)),
            "likeness to the word": values + 1, "attention of the patch": values * 3}  # fmt: skip


def test_layers_figure_shows_one_block_large_and_all_small():
    maps, image = layer_example(), np.zeros((6, 8, 3), np.uint8)
    figure = explore_plots.draw_layers(image, maps, 2, 1, 3, "owl")
    picture, likeness, colours, word, attention, sheet = panels(figure)
    assert np.array_equal(picture, image) and np.allclose(colours, maps["colours"][1])
    assert np.allclose(likeness, heat(maps["likeness to the patch"][1]))
    assert np.allclose(attention, heat(maps["attention of the patch"][1])) and word.shape == (3, 4, 3)
    assert sheet.shape == (4 * 4 - 1, 5 * 5 - 1, 3)
    assert np.allclose(sheet[4:7, 15:19], maps["colours"][3])
    low, high = maps["likeness to the word"][1].min(), maps["likeness to the word"][1].max()
    assert f"likeness to “owl”\n{low:.2f} to {high:.2f}" in texts(figure)
    assert {f"block {b}" for b in range(1, 6)} <= set(texts(figure))


@pytest.mark.parametrize("grid", [(3, 4), (12, 12), (4, 2)])
def test_a_click_on_any_map_finds_its_patch(grid):
    """The points are those at which the figure itself draws the patch."""
    blocks, place = 5, (grid[0] - 1, 1)
    maps = layer_example(blocks, grid)
    figure = explore_plots.draw_layers(np.zeros((8, 8, 3), np.uint8), maps, 2, *place, "owl")
    size = np.array([figure.get_figwidth(), figure.get_figheight()]) * figure.dpi
    axis = figure.axes[0]
    small = [(marks.get_xydata() / size) for marks in axis.lines]
    found = [explore_plots.patch_at(x, y, blocks, grid) for x, y in np.concatenate(small)]
    assert found == [(block, *place) for block in range(1, blocks + 1) for _ in range(4)]
    large = axis.patches[:5]
    centres = [((p.get_x() + p.get_width() / 2) / size[0], (p.get_y() + p.get_height() / 2) / size[1]) for p in large]
    assert [explore_plots.patch_at(x, y, blocks, grid) for x, y in centres] == [(None, *place)] * 5
    for x, y in ((0.001, 0.001), (0.5, 0.01), (0.02, 0.9), (0.999, 0.999)):
        assert explore_plots.patch_at(x, y, blocks, grid) is None


def test_words_figure_has_a_row_a_word_and_pale_stages_that_are_off():
    logits = np.random.default_rng(0).normal(size=(3, 2, 16, 16))
    best, truth = logits.argmax(1), np.full((16, 16), 255)
    truth[:4] = best[2][:4]
    truth[4:8] = 1 - best[2][4:8]
    found = WordMasks(("cat", "owl"), ("owl",), (True, False), logits, best, truth)
    figure = explore_plots.draw_words(np.zeros((16, 16, 3), np.uint8), found, ["a", "b"])
    sheet, _ = panels(figure)
    assert sheet.shape == (3 * 17 - 1, 3 * 17 - 1, 3)
    reach = np.abs(logits).max()
    assert np.allclose(sheet[17:33, :16], heat(logits[0, 1], "RdBu_r", -reach, reach))
    assert np.allclose(sheet[17:33, 17:33], 0.75 + 0.25 * heat(logits[1, 1], "RdBu_r", -reach, reach))
    assert {"a", "b\n(off)", "sum", "cat", "owl\n(unseen)", "best word", "right: 50 %"} <= set(texts(figure))


def cascade_example(**changes):
    maps = {"truth": np.array([[0, 1], [1, 255]]), "as trained": np.array([[0, 1], [1, 1]]),
            "now": np.array([[2, 1], [1, 0]])}  # fmt: skip
    curves = {title: dict(mIoU_seen=[0.5, level], mIoU_unseen=[0.1, 0.2], hIoU=[0.2, 0.3])
              for title, level in (("as trained", 0.4), ("now", 0.6))}  # fmt: skip
    given = dict(
        image=np.zeros((2, 2, 3), np.uint8), maps=maps, names=["sky", "owl", "sea"], unseen=["owl"],
        weights={"as trained": {0: (0.1, 1.0)}, "now": {0: (0.5, 1.5)}}, blocks=((3, 4), (5,)), offset=0.25,
        curves=curves, offsets=[0.0, 0.5],
    )  # fmt: skip
    return explore_plots.draw_cascade(**{**given, **changes})


def test_cascade_figure_shows_weights_and_scores_of_now_and_then():
    figure = cascade_example()
    canvas, bars, curves = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [0.1, 1.0, 0.5, 1.5]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["3", "4"]
    assert [text.get_text() for text in curves.get_legend().get_texts()][:2] == ["seen: 55.0", "unseen: 15.0"]
    assert {"truth", "as trained", "now", "owl (unseen)", "sky", "sea"} <= set(texts(figure))
    truth, now = np.asarray(canvas.images[1].get_array()), np.asarray(canvas.images[3].get_array())
    assert (truth[1, 1] == 1).all() and np.allclose(truth[0, 0], now[1, 1])  # no truth: white; sky: one colour
    assert (now[0, 1] == 0).all()  # the rim of what is unseen is black


def test_cascade_figure_without_labels_says_so():
    figure = cascade_example(curves=None, maps={"now": np.array([[0, 1], [1, 2]])})
    assert len(figure.axes) == 2 and any("no labels" in text for text in texts(figure))


def test_surgery_figure_shows_maps_scores_and_repaired_patches():
    before, after = np.random.default_rng(0).random((2, 2, 3, 3))
    scores = {"before": {"right words": 0.1, "random tower": 0.2}, "after": {"right words": 0.5, "random tower": 0.2}}
    repaired = np.zeros((3, 3), bool)
    repaired[1, 2] = True
    figure = explore_plots.draw_surgery(
        np.zeros((6, 6, 3), np.uint8), {"before": before, "after": after}, ["cat", "sea"], scores, repaired
    )
    _, sheet = panels(figure)
    assert sheet.shape == (7, 11, 3) and np.allclose(sheet[4:7, 4:7], heat(after[1]))
    bars = figure.axes[1]
    assert [bar.get_width() for bar in bars.patches] == [10.0, 20.0, 50.0, 20.0]
    assert [label.get_text() for label in bars.get_yticklabels()][2] == "after: right words"
    colours = [bar.get_facecolor() for bar in bars.patches]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    frames = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(frames) == 1 and frames[0].get_x() == pytest.approx(8 + 160 * 2 / 3)
    assert any("no labels" in text for text in texts(explore_plots.draw_surgery(
        np.zeros((6, 6, 3), np.uint8), {"before": before, "after": after}, ["cat", "sea"], None)))  # fmt: skip
