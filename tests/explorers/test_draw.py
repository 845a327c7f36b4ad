"""The explorers' figures: what stands where, and that a click finds it."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from cascadeclip.explorers import draw
from cascadeclip.explorers.canvas import WIDTH, Drawing, Plot, heat, montage
from cascadeclip.explorers.compute import WordMasks


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
    return {"similarity to the patch": values, "colours": np.random.default_rng(1).random((blocks, *grid, 3)),
            "similarity to the word": values + 1, "attention of the patch": values * 3}  # fmt: skip


def test_layers_figure_shows_one_block_large_and_all_small(drawn):
    maps, image = layer_example(), np.zeros((6, 8, 3), np.uint8)
    draw.draw_layers(image, maps, 2, 1, 3, "owl")
    picture, similarity, colours, word, attention, sheet = (panel for _, panel in drawn.panels)
    assert np.array_equal(picture, image) and np.allclose(colours, maps["colours"][1])
    assert np.allclose(similarity, heat(maps["similarity to the patch"][1]))
    assert np.allclose(attention, heat(maps["attention of the patch"][1])) and word.shape == (3, 4, 3)
    assert sheet.shape == (4 * 4 - 1, 5 * 5 - 1, 3)
    assert np.allclose(sheet[4:7, 15:19], maps["colours"][3])
    low, high = maps["similarity to the word"][1].min(), maps["similarity to the word"][1].max()
    assert f"similarity to “owl”\n{low:.2f} to {high:.2f}" in drawn.texts
    assert [text for text in drawn.texts if text.isdigit()] == ["1", "2", "3", "4", "5"] and "block" in drawn.texts


@pytest.mark.parametrize("grid", [(3, 4), (12, 12), (4, 2)])
def test_a_click_on_any_map_finds_its_patch(grid, drawn):
    """The points are those at which the figure itself frames the patch."""
    blocks, place = 5, (grid[0] - 1, 1)
    drawing = draw.draw_layers(np.zeros((8, 8, 3), np.uint8), layer_example(blocks, grid), 2, *place, "owl")
    centres = [((left + width / 2) / WIDTH, (top + height / 2) / drawing.image.height)
               for left, top, width, height in drawn.frames[:-1]]  # fmt: skip
    found = [draw.patch_at(x, y, blocks, grid) for x, y in centres]
    assert found[:5] == [(None, *place)] * 5
    assert found[5:] == [(block, *place) for block in range(1, blocks + 1) for _ in range(4)]
    for x, y in ((0.001, 0.001), (0.5, 0.01), (0.02, 0.9), (0.999, 0.999)):
        assert draw.patch_at(x, y, blocks, grid) is None


def test_maps_of_many_classes_are_drawn(drawn):
    names, truth = [f"word {i}" for i in range(300)], np.full((4, 4), 65_535)
    truth[0], truth[1] = 255, 299
    weights = {"as trained": {0: [1.0]}, "now": {0: [1.0]}}
    draw.draw_cascade(np.zeros((4, 4, 3), np.uint8), {"truth": truth}, names, [], weights, [[1]], 0.1, None, [])
    panel = drawn.panels[1][1]
    assert (panel[2:] == 1).all() and not (panel[0] == 1).all() and "word 255" in drawn.texts


def test_words_figure_has_a_row_a_word_and_pale_stages_that_are_off(drawn):
    logits = np.random.default_rng(0).normal(size=(3, 2, 16, 16))
    best, truth = logits.argmax(1), np.full((16, 16), 255)
    truth[:4] = best[2][:4]
    truth[4:8] = 1 - best[2][4:8]
    found = WordMasks(("cat", "owl"), ("owl",), (True, False), logits, best, truth)
    draw.draw_words(np.zeros((16, 16, 3), np.uint8), found, ["a", "b"])
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
    return draw.draw_cascade(**{**given, **changes})


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


def test_scores_of_a_group_without_pictures_are_said_to_be_missing(drawn):
    nothing = dict(mIoU_seen=[0.5, 0.5], mIoU_unseen=[np.nan, np.nan], hIoU=[np.nan, np.nan])
    cascade_example(curves={"as trained": nothing, "now": nothing})
    assert {"seen: 50.0", "unseen: none in the pictures", "harmonic mean: none in the pictures"} <= set(drawn.texts)


def test_cascade_figure_without_labels_says_so(drawn):
    cascade_example(curves=None, maps={"now": np.array([[0, 1], [1, 2]])})
    assert any("no labels" in text for text in drawn.texts) and not any("mIoU" in text for text in drawn.texts)


def test_surgery_figure_shows_maps_scores_and_repaired_patches(drawn):
    before, after = np.random.default_rng(0).random((2, 2, 3, 3))
    scores = {"before": {"right words": 0.1, "random tower": 0.2}, "after": {"right words": 0.5, "random tower": 0.3}}
    repaired, image = np.zeros((3, 3), bool), np.zeros((6, 6, 3), np.uint8)
    repaired[1, 2] = True
    draw.draw_surgery(image, {"before": before, "after": after}, ["cat", "sea"], scores, repaired)
    sheet = drawn.panels[1][1]
    assert sheet.shape == (7, 11, 3) and np.allclose(sheet[4:7, 4:7], heat(after[1]))
    assert [across[1] for across, *_ in drawn.bars] == [10.0, 20.0, 50.0, 30.0]
    colours = [colour for *_, colour in drawn.bars]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    assert {"10.0", "20.0", "50.0 (+40.0)", "30.0", "after: right words"} <= set(drawn.texts)
    assert len(drawn.frames) == 1 and drawn.frames[0][0] == pytest.approx(8 + 160 * 2 / 3)
    assert not any("no labels" in text for text in drawn.texts)
    draw.draw_surgery(image, {"before": before, "after": after}, ["cat", "sea"], None)
    assert any("no labels" in text for text in drawn.texts)
