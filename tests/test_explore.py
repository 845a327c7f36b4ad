"""What the explorers compute and draw, each function against the model itself or a case whose answer is known."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

import cascadeclip
from cascadeclip import explore, explore_plots
from cascadeclip.canvas import WIDTH, Drawing, Plot, heat, montage
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
    picture = explore.picture_from_file("my cat.png", png(image))
    assert np.array_equal(picture.image, image) and picture.words == () and picture.labels is None
    assert "my cat.png" in picture.title
    assert explore.picture_from_file("a", png(image), longest=30).image.shape == (20, 30, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", png(np.zeros((40, 40, 3), np.uint8))[:60]])
def test_files_that_are_no_pictures_are_refused_by_name(content):
    with pytest.raises(InputError, match=r"cat\.png is no image"):
        explore.picture_from_file("cat.png", content)


def test_pictures_that_the_tower_would_squeeze_are_refused():
    assert explore.picture_from_file("a", png(np.zeros((20, 80, 3), np.uint8))).image.shape == (20, 80, 3)
    with pytest.raises(InputError, match=r"81 x 20 px.*cut a piece"):
        explore.picture_from_file("a", png(np.zeros((20, 81, 3), np.uint8)))


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


@pytest.fixture
def drawn(monkeypatch):
    """What is written (texts) and put (panels, frames, bars with their colours) on drawings from now on."""
    found = SimpleNamespace(texts=[], panels=[], frames=[], bars=[])

    def spy(kind, name, seen):
        method = getattr(kind, name)

        def spied(self, *args, **options):
            seen(*args)
            return method(self, *args, **options)

        monkeypatch.setattr(kind, name, spied)

    spy(Drawing, "text", lambda left, top, text, *_: found.texts.append(text))
    spy(Drawing, "panel", lambda box, panel, *_: found.panels.append((box, panel)))
    spy(Drawing, "frame", lambda box, *_: found.frames.append(box))
    spy(Plot, "bar", lambda *bar: found.bars.append(bar))
    return found


def at(drawing, left, top):
    """The colour at a point of a drawing."""
    return np.asarray(drawing.image)[round(top), round(left)].tolist()


def test_a_drawing_is_a_sheet_with_pieces_in_their_places():
    drawing, panel = Drawing(100), np.array([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 0]]])
    drawing.panel((10, 20, 40, 30), panel, "title")
    drawing.rectangle((100, 10, 30, 20), "#0080ff")
    assert np.asarray(drawing.image).shape == (100, WIDTH, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(drawing._repr_png_()))), np.asarray(drawing.image))
    assert [at(drawing, *place) for place in ((10, 20), (49, 20), (29, 49), (30, 49), (50, 49))] == [
        [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255]]  # fmt: skip
    assert [at(drawing, *place) for place in ((100, 10), (129, 29), (130, 29), (129, 30))] == [
        [0, 128, 255], [0, 128, 255], [255] * 3, [255] * 3]  # fmt: skip
    above = np.asarray(drawing.image)[:20, :60]
    rows, columns = np.nonzero(above.min(-1) < 128)
    assert 0 < rows.max() < 19 and columns.mean() == pytest.approx(30, abs=3)  # the title, in the middle above
    drawing.frame((200, 20, 30, 30), "black")
    assert at(drawing, 200, 35) == at(drawing, 229, 35) == [0] * 3 and at(drawing, 215, 35) == [255] * 3


def test_text_without_room_is_cut_short():
    short, whole, same = Drawing(20), Drawing(20), Drawing(20)
    short.text(4, 10, "a very long word", room=60)
    whole.text(4, 10, "a very long word")
    same.text(4, 10, "a very long word", room=900)
    ends = [np.nonzero(np.asarray(drawing.image).min((0, 2)) < 128)[0].max() for drawing in (short, whole)]
    assert 40 < ends[0] < 64 < ends[1] and np.array_equal(np.asarray(whole.image), np.asarray(same.image))


def test_a_plot_puts_numbers_where_its_scales_say():
    drawing = Drawing(200)
    plot = Plot(drawing, (100, 20, 200, 100), (0, 4), (-1, 1))
    assert plot.at(1, 0) == (150, 70) and plot.at(4, -1) == (300, 120)
    plot.bar((1, 2), (0, 0.5), "black")
    assert [at(drawing, *place) for place in ((150, 69), (199, 45), (149, 69), (199, 44), (175, 70))] == [
        [0] * 3, [0] * 3, [255] * 3, [255] * 3, [255] * 3]  # fmt: skip
    plot.line([0, 4], [1, -1], "#ff0000")
    assert at(drawing, 240, 90) == [255, 0, 0] and at(drawing, 240, 97) == [255] * 3
    plot.line([0, 4], [-0.5, -0.5], "#0000ff", dashed=True)
    row = np.asarray(drawing.image)[95, 100:300].tolist()
    assert 30 <= sum(colour[2] > colour[0] + 60 for colour in row) <= 160 and [255] * 3 in row
    drawing.dot(400, 50, "black", 9)
    assert at(drawing, 400, 50) == [0] * 3 and at(drawing, 406, 50) == [255] * 3


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
    assert np.allclose(heat(values := np.random.default_rng(0).random((3, 3)), "RdBu_r", 0, 1),
                       colormaps["RdBu_r"](values)[..., :3], atol=0.03)  # fmt: skip


def layer_example(blocks=5, grid=(3, 4)):
    values = np.random.default_rng(0).random((blocks, *grid))
    return {"likeness to the patch": values, "colours": np.random.default_rng(1).random((blocks, *grid, 3)),
            "likeness to the word": values + 1, "attention of the patch": values * 3}  # fmt: skip


def test_layers_figure_shows_one_block_large_and_all_small(drawn):
    maps, image = layer_example(), np.zeros((6, 8, 3), np.uint8)
    explore_plots.draw_layers(image, maps, 2, 1, 3, "owl")
    picture, likeness, colours, word, attention, sheet = (panel for _, panel in drawn.panels)
    assert np.array_equal(picture, image) and np.allclose(colours, maps["colours"][1])
    assert np.allclose(likeness, heat(maps["likeness to the patch"][1]))
    assert np.allclose(attention, heat(maps["attention of the patch"][1])) and word.shape == (3, 4, 3)
    assert sheet.shape == (4 * 4 - 1, 5 * 5 - 1, 3)
    assert np.allclose(sheet[4:7, 15:19], maps["colours"][3])
    low, high = maps["likeness to the word"][1].min(), maps["likeness to the word"][1].max()
    assert f"likeness to “owl”\n{low:.2f} to {high:.2f}" in drawn.texts
    assert [text for text in drawn.texts if text.isdigit()] == ["1", "2", "3", "4", "5"] and "block" in drawn.texts


@pytest.mark.parametrize("grid", [(3, 4), (12, 12), (4, 2)])
def test_a_click_on_any_map_finds_its_patch(grid, drawn):
    """The points are those at which the figure itself frames the patch."""
    blocks, place = 5, (grid[0] - 1, 1)
    drawing = explore_plots.draw_layers(np.zeros((8, 8, 3), np.uint8), layer_example(blocks, grid), 2, *place, "owl")
    centres = [((left + width / 2) / WIDTH, (top + height / 2) / drawing.image.height)
               for left, top, width, height in drawn.frames[:-1]]  # fmt: skip
    found = [explore_plots.patch_at(x, y, blocks, grid) for x, y in centres]
    assert found[:5] == [(None, *place)] * 5
    assert found[5:] == [(block, *place) for block in range(1, blocks + 1) for _ in range(4)]
    for x, y in ((0.001, 0.001), (0.5, 0.01), (0.02, 0.9), (0.999, 0.999)):
        assert explore_plots.patch_at(x, y, blocks, grid) is None


def test_words_figure_has_a_row_a_word_and_pale_stages_that_are_off(drawn):
    logits = np.random.default_rng(0).normal(size=(3, 2, 16, 16))
    best, truth = logits.argmax(1), np.full((16, 16), 255)
    truth[:4] = best[2][:4]
    truth[4:8] = 1 - best[2][4:8]
    found = WordMasks(("cat", "owl"), ("owl",), (True, False), logits, best, truth)
    explore_plots.draw_words(np.zeros((16, 16, 3), np.uint8), found, ["a", "b"])
    (_, sheet), _ = drawn.panels
    assert sheet.shape == (3 * 17 - 1, 3 * 17 - 1, 3)
    reach = np.abs(logits).max()
    assert np.allclose(sheet[17:33, :16], heat(logits[0, 1], "RdBu_r", -reach, reach))
    assert np.allclose(sheet[17:33, 17:33], 0.75 + 0.25 * heat(logits[1, 1], "RdBu_r", -reach, reach))
    assert {"a", "b\n(off)", "sum", "cat", "owl\n(unseen)", "best word", "right: 50 %"} <= set(drawn.texts)


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


def test_cascade_figure_shows_weights_and_scores_of_now_and_then(drawn):
    cascade_example()
    assert [up[1] for _, up, _ in drawn.bars] == [0.1, 1.0, 0.5, 1.5]
    assert len({colour for *_, colour in drawn.bars[:2]} | {colour for *_, colour in drawn.bars[2:]}) == 2
    assert drawn.texts.index("3") < drawn.texts.index("4")  # the blocks with weights
    assert {"seen: 55.0", "unseen: 15.0", "harmonic mean: 25.0"} <= set(drawn.texts)
    assert {"truth", "as trained", "now", "owl (unseen)", "sky", "sea"} <= set(drawn.texts)
    truth, now = drawn.panels[1][1], drawn.panels[3][1]
    assert (truth[1, 1] == 1).all() and np.allclose(truth[0, 0], now[1, 1])  # no truth: white; sky: one colour
    assert (now[0, 1] == 0).all()  # the rim of what is unseen is black


def test_weights_below_zero_have_their_bars_too(drawn):
    cascade_example(weights={"as trained": {0: (-0.5, 1.0)}, "now": {0: (-0.5, 3.0)}})
    assert [up for _, up, _ in drawn.bars] == [(-0.5, 0.0), (0.0, 1.0), (-0.5, 0.0), (0.0, 3.0)]


def test_cascade_figure_without_labels_says_so(drawn):
    cascade_example(curves=None, maps={"now": np.array([[0, 1], [1, 2]])})
    assert any("no labels" in text for text in drawn.texts) and not any("mIoU" in text for text in drawn.texts)


def test_surgery_figure_shows_maps_scores_and_repaired_patches(drawn):
    before, after = np.random.default_rng(0).random((2, 2, 3, 3))
    scores = {"before": {"right words": 0.1, "random tower": 0.2}, "after": {"right words": 0.5, "random tower": 0.3}}
    repaired, image = np.zeros((3, 3), bool), np.zeros((6, 6, 3), np.uint8)
    repaired[1, 2] = True
    explore_plots.draw_surgery(image, {"before": before, "after": after}, ["cat", "sea"], scores, repaired)
    sheet = drawn.panels[1][1]
    assert sheet.shape == (7, 11, 3) and np.allclose(sheet[4:7, 4:7], heat(after[1]))
    assert [across[1] for across, *_ in drawn.bars] == [10.0, 20.0, 50.0, 30.0]
    colours = [colour for *_, colour in drawn.bars]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    assert {"10.0", "20.0", "50.0 (+40.0)", "30.0", "after: right words"} <= set(drawn.texts)
    assert len(drawn.frames) == 1 and drawn.frames[0][0] == pytest.approx(8 + 160 * 2 / 3)
    assert not any("no labels" in text for text in drawn.texts)
    explore_plots.draw_surgery(image, {"before": before, "after": after}, ["cat", "sea"], None)
    assert any("no labels" in text for text in drawn.texts)
