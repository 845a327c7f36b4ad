"""Pictures segmented by a frozen CLIP, and what the trained segmenter shares with it: background, refinement, words."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import cascadeclip
from cascadeclip.analysis.dense import METHODS, DenseReader, Protocol, dense_features, segment_training_free
from cascadeclip.clip.load import load_clip
from cascadeclip.data.emojiscenes import CLASSES, EmojiScenes
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.errors import InputError
from cascadeclip.evaluation.refine import pamr as refine


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def segmenter():
    return cascadeclip.load("mini")


@pytest.fixture(scope="module")
def scene():
    return EmojiScenes.split("test")[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_comes_back_at_its_size_in_the_words_given(clip, scene, method):
    picture = Image.fromarray(scene.image).resize((150, 110))
    result = segment_training_free(clip, picture, ["tiger", "grass", "sand"], method)
    assert result.labels.shape == (110, 150) and result.scores.shape == (3, 110, 150)
    assert (result.scores.argmax(0) == result.labels).all()
    assert np.allclose(result.scores.sum(0), 1, atol=1e-5)
    assert result.names == ("tiger", "grass", "sand") and result.seen == () and result.method == method
    assert "unseen" not in " ".join(map(result.called, result.names))


def test_scores_are_a_softmax_of_the_similarities_at_the_pixels(clip, scene):
    words = ["tiger", "grass", "sand"]
    patches = dense_features(clip, normalise(to_tensor(scene.image)[None]), "naclip")
    similarity = (patches @ clip.class_embeddings(words).T).mT.unflatten(2, (12, 12))
    expected = (40 * F.interpolate(similarity, (96, 96), mode="bilinear")).softmax(1)[0]
    found = segment_training_free(clip, scene.image, words).scores
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)


def test_methods_that_repair_the_last_block_find_more_than_clip(clip):
    right = {}
    for method in ("clip", "maskclip", "naclip"):
        hits = []
        for scene in (EmojiScenes.split("test")[i] for i in range(6)):
            result = segment_training_free(clip, scene.image, scene.things + scene.stuff, method)
            truth = np.array([CLASSES.index(name) for name in result.names])[result.labels]
            hits.append((truth == scene.labels).mean())
        right[method] = np.mean(hits)
    assert right["maskclip"] > right["clip"] + 0.1 and right["naclip"] > right["clip"]


def test_windows_average_what_each_window_says(clip):
    images = torch.randn(1, 3, 96, 144, generator=torch.Generator().manual_seed(0))
    text, reader = clip.class_embeddings(["cat", "owl"]), DenseReader(clip)
    left, right = (reader.at_pixels(images[..., part], text) for part in (slice(0, 96), slice(48, 144)))
    found = reader.at_pixels(images, text, window=96, stride=48)
    torch.testing.assert_close(found[..., :48], left[..., :48], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[..., 48:96], (left[..., 48:] + right[..., :48]) / 2, atol=1e-6, rtol=0)


def test_common_parts_are_taken_off(clip, scene):
    plain = segment_training_free(clip, scene.image, ["tiger", "sand"], "clip_surgery")
    less = segment_training_free(clip, scene.image, ["tiger", "sand"], "clip_surgery", common_removed=True)
    assert not np.allclose(plain.scores, less.scores, atol=1e-3)
    with pytest.raises(InputError, match="two words or more"):
        segment_training_free(clip, scene.image, ["tiger"], "clip_surgery", common_removed=True)


def test_blocks_protocol_and_settings_reach_the_method(clip, scene):
    result = segment_training_free(
        clip, scene.image, ["tiger", "sand"], blocks=(10, 11), protocol=Protocol(144, 96, 48), std=2.0
    )
    assert result.method == "naclip on block 10, 11" and result.labels.shape == (96, 96)


# --- both kinds of segmentation --------------------------------------------------------------------------------------


@pytest.fixture(params=["cascade", "training-free"])
def segment(request, segmenter, clip):
    if request.param == "cascade":
        return segmenter.segment
    return lambda image, words, **options: segment_training_free(clip, image, words, "maskclip", **options)


def test_a_threshold_gives_pixels_to_the_background(segment, scene):
    plain = segment(scene.image, ["tiger", "sand", "grass"])
    threshold = float(np.median(plain.scores.max(0)))
    result = segment(scene.image, ["tiger", "sand", "grass"], background=threshold)
    assert result.names == ("tiger", "sand", "grass", "background") and result.background == "background"
    below = plain.scores.max(0) < threshold
    assert 0.3 < below.mean() < 0.7
    assert ((result.labels == 3) == below).mean() > 0.999
    assert (result.labels == plain.labels)[~below].mean() > 0.999
    assert (result.scores.argmax(0) == result.labels).all()
    assert result.shares()["background"] == pytest.approx(below.mean(), abs=1e-3)


def test_words_for_the_background_win_what_they_would_win(segment, scene):
    every = segment(scene.image, ["tiger", "sand", "grass"])
    result = segment(scene.image, ["tiger"], background=["sand", "grass"])
    assert result.names == ("tiger", "background")
    assert ((every.labels != 0) == (result.labels == 1)).all()


def test_the_background_is_named_and_grey(segment, scene):
    result = segment(scene.image, ["tiger"], background=["sand", "grass"])
    figure = result.plot()
    handles = dict(zip(
        [text.get_text() for text in figure.axes[1].get_legend().get_texts()],
        [patch.get_facecolor() for patch in figure.axes[1].get_legend().get_patches()], strict=True,
    ))  # fmt: skip
    assert handles["background"][:3] == (0.8, 0.8, 0.8)
    assert "background" in repr(result)


def test_synonyms_are_one_class(segment, scene):
    apart = segment(scene.image, ["tiger", "sand", "grass"])
    result = segment(scene.image, ["tiger", "sand|grass"])
    assert result.names == ("tiger", "sand")
    assert np.allclose(result.scores[1], apart.scores[1:].max(0), atol=1e-4)
    mean = segment(scene.image, ["tiger", "sand|grass"], synonyms="mean")
    assert mean.scores.shape == (2, 96, 96) and not np.allclose(mean.scores, result.scores, atol=1e-3)


def test_refinement_follows_the_picture(segment, scene):
    plain, result = (segment(scene.image, ["tiger", "sand"], pamr=times) for times in (0, 10))
    assert not np.allclose(plain.scores, result.scores, atol=1e-3)
    assert result.labels.shape == (96, 96)


def test_refined_scores_of_the_cascade_are_pamrs(segmenter, scene):
    plain, result = (segmenter.segment(scene.image, ["tiger", "sand"], pamr=times) for times in (0, 3))
    expected = refine(normalise(to_tensor(scene.image)[None]), torch.from_numpy(plain.scores)[None], 3)[0]
    torch.testing.assert_close(torch.from_numpy(result.scores), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([], {}, "no words given"),
        (["tiger"], dict(background=2.0), "lies in 0..1"),
        (["tiger"], dict(pamr=-1), "pamr=-1"),
        (["tiger"], dict(synonyms="all"), "choose from best, mean"),
        (["tiger|"], {}, "write synonyms"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(segment, scene, words, options, message):
    with pytest.raises(InputError, match=message):
        segment(scene.image, words, **options)


def test_seen_words_keep_their_mark_with_synonyms_and_background(segmenter, scene):
    result = segmenter.segment(scene.image, ["tiger", "sand|grass"], background=0.2)
    assert result.seen == ("sand",)
    assert [result.called(name) for name in result.names] == ["tiger (unseen)", "sand", "background"]


def test_scores_need_a_positive_scale(clip):
    with pytest.raises(InputError, match="scale=0"):
        DenseReader(clip, scale=0)
