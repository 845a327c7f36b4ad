"""Methods scored on presets, as trained models are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cascadeclip.analysis.dense import score_training_free, segment_training_free
from cascadeclip.analysis.dense import scoring as module
from cascadeclip.clip.load import load_clip
from cascadeclip.clip.vocabulary import TEMPLATE_SETS
from cascadeclip.data.emojiscenes import CLASSES, EmojiScenes
from cascadeclip.errors import InputError
from cascadeclip.evaluation.scores import ConfusionMatrix
from cascadeclip.presets import MINI, get_preset


@pytest.fixture(scope="module")
def clip():
    return load_clip()


def test_scores_are_those_of_the_pictures_one_by_one(clip):
    scores = score_training_free(MINI, "maskclip", limit=4, clip=clip)
    confusion = ConfusionMatrix(len(CLASSES))
    for i in range(4):
        scene = EmojiScenes.split("test")[i]
        found = segment_training_free(clip, scene.image, CLASSES, "maskclip").labels
        confusion.update(torch.as_tensor(found), torch.as_tensor(scene.labels))
    expected = confusion.scores(CLASSES, MINI.unseen)
    assert scores.pAcc == pytest.approx(expected.pAcc, abs=1e-3)
    assert scores.mIoU_unseen == pytest.approx(expected.mIoU_unseen, abs=1e-3)


def test_settings_blocks_and_refinement_change_the_scores(clip):
    plain = score_training_free(MINI, limit=3, clip=clip).pAcc
    assert plain != score_training_free(MINI, limit=3, clip=clip, std=1.0).pAcc
    assert plain != score_training_free(MINI, limit=3, clip=clip, blocks=(9,)).pAcc
    assert plain != score_training_free(MINI, limit=3, clip=clip, pamr=3).pAcc


def test_a_stopped_evaluation_of_another_method_is_not_gone_on_with(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("cascadeclip.evaluation.run.SAVE_EVERY", 1)
    one = score_training_free(MINI, "clip", limit=3, clip=clip, out=tmp_path).pAcc
    other = score_training_free(MINI, "maskclip", limit=3, clip=clip, out=tmp_path).pAcc
    assert other == score_training_free(MINI, "maskclip", limit=3, clip=clip).pAcc != one
    read = []
    monkeypatch.setattr(module, "normalised", lambda *given: read.append(given))
    again = score_training_free(MINI, "maskclip", limit=3, clip=clip, out=tmp_path).pAcc
    assert again == other and not read, "the same call goes on"


@pytest.mark.parametrize(("wrong", "message"), [(dict(method="x"), "unknown method"), (dict(blocks=(13,)), "1..12")])
def test_what_does_not_fit_is_refused(clip, wrong, message):
    with pytest.raises(InputError, match=message):
        score_training_free(MINI, limit=1, clip=clip, **wrong)


@pytest.mark.parametrize("name", ["training-free", "voc12-training-free", "context59-training-free"])
def test_the_papers_protocol_is_a_preset(name):
    preset = get_preset(name)
    assert (preset.window, preset.stride, preset.seen_offset) == (224, 112, 0.0)
    assert preset.templates == TEMPLATE_SETS["openai80"] and preset.clip["pretrained"] == "openai"
    assert len(preset.names) == (59 if "context" in name else 20)


def test_it_reads_a_benchmark_at_one_and_a_half_windows(clip, tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    labels = np.random.default_rng(0).integers(0, 21, (60, 80), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(EmojiScenes.split("test")[0].image).resize((80, 60)).save(root / f"JPEGImages/{name}.jpg")
        Image.fromarray(labels).save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\n")
    preset = get_preset("training-free", tmp_path, image_size=64)
    images, truth = preset.eval_data("val")[0]
    assert tuple(images.shape) == (3, 96, 128) and tuple(truth.shape) == (60, 80)
    words = replace(preset, names=CLASSES[:20], unseen=CLASSES[:5], templates=MINI.templates)
    assert (words.window, words.stride) == (64, 32)
    assert 0 <= score_training_free(words, clip=clip).pAcc <= 1
