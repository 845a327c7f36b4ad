"""Words and options as people write them."""

import numpy as np
import pytest
from PIL import Image

import cascadeclip
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.words import check_names, positions_of, seen_positions
from cascadeclip.errors import InputError


@pytest.fixture(scope="module")
def segmenter():
    return cascadeclip.load("mini")


def test_capitals_and_spaces_change_nothing(segmenter):
    scene = EmojiScenes.split("test")[0]
    plain = segmenter.segment(scene.image, ["balloon", "sand"])
    written = segmenter.segment(scene.image, ["  Balloon ", "SAND"])
    assert np.array_equal(plain.labels, written.labels)
    assert (plain.seen, written.seen) == (("balloon",), ("Balloon",))
    assert written.names == ("Balloon", "SAND")


@pytest.mark.parametrize("names", [["tiger", "TIGER"], ["hot  dog", "Hot dog"]])
def test_a_word_written_twice_in_two_ways_is_refused(names):
    with pytest.raises(InputError, match="given twice"):
        check_names(names)


def test_unseen_words_are_found_among_the_names_or_refused():
    names = ["cat", "sofa", "floor"]
    assert positions_of(["floor", "cat"], names) == [2, 0] and positions_of("sofa", names) == [1]
    assert seen_positions(names, ["cat"]) == [1, 2] and seen_positions(names, ()) == [0, 1, 2]
    with pytest.raises(InputError, match=r"unseen=\['sofe'\] are none of the 3 class names"):
        seen_positions(names, ["cat", "sofe"])
    with pytest.raises(InputError, match="cat given twice"):
        positions_of(["cat", "cat"], names)


def test_words_in_one_text_are_refused_with_the_list_that_was_meant():
    with pytest.raises(InputError, match=r"\['balloon', 'sand'\]"):
        check_names("balloon, sand")


def test_a_folder_that_training_wrote_is_a_checkpoint(tmp_path, segmenter):
    cascadeclip.checkpoints.save_checkpoint(
        tmp_path / "model.safetensors", segmenter.model, clip={"name": "mini", "pretrained": None}, seen=("cat",),
        templates=("{}",), seen_offset=0.25,
    )  # fmt: skip
    loaded = cascadeclip.load(tmp_path)
    assert (loaded.seen, loaded.templates, loaded.seen_offset) == (("cat",), ("{}",), 0.25)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"no checkpoint at .*model\.safetensors"):
        cascadeclip.load(tmp_path)


def test_checkpoints_may_be_read_by_others(tmp_path, segmenter):
    path = tmp_path / "model.safetensors"
    cascadeclip.checkpoints.save_checkpoint(path, segmenter.model, clip={"name": "mini"}, seen=())
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_a_picture_too_large_to_be_meant_says_so(tmp_path, monkeypatch, segmenter):
    Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="is too large"):
        segmenter.segment(tmp_path / "large.png", ["cat"])
    with pytest.raises(InputError, match="that is a folder"):
        segmenter.segment(tmp_path, ["cat"])
