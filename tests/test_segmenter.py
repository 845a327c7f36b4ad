"""Pictures and words in every shape people bring them, through the shipped checkpoint."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import cascadeclip
from cascadeclip import segmenter as module
from cascadeclip.analysis.dense.segment import segment_by_methods
from cascadeclip.checkpoints.own import save_checkpoint
from cascadeclip.cli.scoring import score_checkpoint
from cascadeclip.cli.segmenting import segment_by_model
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.images import read_image
from cascadeclip.data.transforms import working_size
from cascadeclip.errors import InputError
from cascadeclip.evaluation import bands
from cascadeclip.evaluation.scores import predict
from cascadeclip.presets import MINI, get_preset

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def segmenter():
    return cascadeclip.load("mini")


@pytest.fixture(scope="module")
def scene():
    return EmojiScenes.split("test")[0]


def test_segmentation_has_the_pictures_size_and_the_words(segmenter, scene):
    picture = np.asarray(Image.fromarray(scene.image).resize((150, 110)))
    result = segmenter.segment(picture, ["tiger", "grass", "sand"])
    assert result.labels.shape == (110, 150) and result.labels.dtype == np.int32
    assert result.scores.shape == (3, 110, 150) and result.scores.dtype == np.float32
    assert result.names == ("tiger", "grass", "sand")
    assert result.seen == ("grass",)
    assert (result.scores.argmax(0) == result.labels).all()


def test_shipped_model_finds_what_is_there(segmenter):
    hits = []
    for scene in (EmojiScenes.split("test")[i] for i in range(12)):
        result = segmenter.segment(scene.image, scene.things + scene.stuff)
        truth = np.array([EMOJI_NAMES.index(name) for name in result.names])[result.labels]
        hits.append((truth == scene.labels).mean())
    assert np.mean(hits) > 0.75


EMOJI_NAMES = MINI.names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "device", "autocast"),
    [(torch.bfloat16, "cpu", False), (torch.float64, "cpu", False), (torch.float32, "meta", False),
     (torch.float32, "cpu", True)],
)  # fmt: skip
def test_a_users_settings_of_pytorch_change_no_score(dtype, device, autocast, segmenter, scene):
    words, text = ["tiger", "grass"], segmenter.clip.class_embeddings(["tiger", "grass"])
    picture = np.asarray(Image.fromarray(scene.image).resize((150, 110)))
    images = torch.randn(1, 3, 110, 150, generator=torch.Generator().manual_seed(0))

    def all_ways():
        late = segmenter.segment(picture, words)
        by_method = segment_by_methods(segmenter.clip, picture, words, ("naclip",))["naclip"]
        yield lambda: late.scores
        yield lambda: by_method.scores
        yield lambda: segment_by_methods(segmenter.clip, picture, words, ("naclip",))["naclip"].scores
        if not autocast:  # which is how a precision is chosen for `predict`
            yield lambda: predict(segmenter.model, images, text, [0], 0.1, window=96).numpy()

    for scores in all_ways():
        wanted = scores()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                found = scores()
        finally:
            torch.set_default_dtype(torch.float32)
        assert found.dtype == np.float32 and np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-5), (torch.float16, 0.01), (torch.bfloat16, 0.03)], ids=str
)
def test_a_model_in_another_precision_segments_too(dtype, near, segmenter, scene):
    wanted, other = segmenter.segment(scene.image, ["tiger", "grass"]).scores, cascadeclip.load("mini")
    other.model.to(dtype)
    found = other.segment(scene.image, ["tiger", "grass"]).scores
    assert found.dtype == np.float32 and np.abs(found - wanted).max() < near
    other.clip.model.to(dtype)
    found = other.segment(scene.image, ["tiger", "sand"]).scores
    assert np.abs(found - segmenter.segment(scene.image, ["tiger", "sand"]).scores).max() < 2 * near


def test_order_of_words_permutes_the_scores(segmenter, scene):
    one = segmenter.segment(scene.image, ["cat", "sand", "rocket"])
    other = segmenter.segment(scene.image, ["rocket", "cat", "sand"])
    assert np.allclose(one.scores[[2, 0, 1]], other.scores, atol=1e-5)


def test_path_pil_and_array_give_the_same(segmenter, scene, tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(scene.image).save(path)
    results = [segmenter.segment(image, ["cat", "sand"]) for image in (path, str(path), Image.open(path), scene.image)]
    assert all(np.array_equal(results[0].scores, result.scores) for result in results)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA", "1", "I;16", "F"])
def test_every_mode_of_picture_works(segmenter, scene, mode):
    picture = Image.fromarray(scene.image)
    picture = picture.convert("F").convert(mode) if mode in ("I;16", "F") else picture.convert(mode)
    assert segmenter.segment(picture, ["cat", "sand"]).labels.shape == (96, 96)


def test_transparent_pixels_are_white():
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (read_image(picture) == 255).all()


def test_sixteen_bit_grey_keeps_its_range():
    ramp = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    assert read_image(ramp)[0, :, 0].tolist() == [0, 255]


def test_exif_rotation_is_undone(tmp_path, scene):
    picture = Image.fromarray(scene.image[:60])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: show it rotated by 270 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(scene.image[:60], 3))


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (700, 20), (13, 400)])
def test_tiny_and_very_wide_pictures_work(segmenter, size):
    result = segmenter.segment(np.zeros((*size, 3), np.uint8), ["night", "cat"])
    assert result.labels.shape == size and np.isfinite(result.scores).all()


def test_working_size_keeps_the_shape_of_ordinary_pictures():
    assert working_size(300, 400, 96) == (96, 128)
    assert working_size(400, 300, 96) == (128, 96)
    assert working_size(1, 1000, 96) == (96, 384)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(H, W, 3\) uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"\(H, W, 3\) uint8"),
        (np.zeros((4, 4, 3), np.float32), "astype"),
        (np.zeros((0, 4, 3), np.uint8), r"\(H, W, 3\)"),
        ([[1, 2]], "path, a PIL image or an array"),
        ("no/such/file.png", "no image at"),
    ],
)
def test_images_that_are_none_are_refused(segmenter, image, message):
    with pytest.raises(InputError, match=message):
        segmenter.segment(image, ["cat"])


def test_cut_off_and_foreign_files_are_refused(segmenter, scene, tmp_path):
    path = tmp_path / "whole.png"
    Image.fromarray(scene.image).save(path)
    (tmp_path / "cut.png").write_bytes(path.read_bytes()[:300])
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("cut.png", "text.png"):
        with pytest.raises(InputError, match=f"{name} is no image or a damaged one"):
            segmenter.segment(tmp_path / name, ["cat"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no words given"),
        (["cat", "cat"], "given twice: cat"),
        (["cat", " "], "not empty"),
        ([3], "must be text"),
        (["tigre"], "did you mean tiger"),
        (["spaceship"], "does not know the word 'spaceship'"),
    ],
)
def test_words_that_do_not_fit_are_refused(segmenter, scene, words, message):
    with pytest.raises(InputError, match=message):
        segmenter.segment(scene.image, words)


def test_one_word_may_stand_alone(segmenter, scene):
    assert (segmenter.segment(scene.image, "cat").labels == 0).all()


@pytest.mark.parametrize(
    ("synonyms", "background"), [("mean", None), ("mean", 0.3), ("mean", ["snow"]), ("best", 0.3)], ids=str
)
def test_the_order_of_synonyms_changes_no_score(segmenter, scene, synonyms, background):
    settings = dict(synonyms=synonyms, background=background)
    one, other, plain = (
        segmenter.segment(scene.image, [words, "grass"], **settings)
        for words in ("umbrella|cat", "cat|umbrella", "umbrella|tiger")
    )
    assert np.abs(one.scores - other.scores).max() < 1e-5
    assert (one.seen, other.seen, plain.seen) == (("umbrella", "grass"), ("cat", "grass"), ("grass",))
    assert one.called("umbrella") == "umbrella" and plain.called("umbrella") == "umbrella (unseen)"


def test_the_offset_is_taken_off_seen_words_and_off_a_mean_with_one(segmenter, scene, monkeypatch):
    def scores():
        best, mean = (
            segmenter.segment(scene.image, "umbrella|cat", synonyms=how).scores[0] for how in ("best", "mean")
        )
        return best, mean, segmenter.segment(scene.image, ["umbrella", "cat"]).scores

    best, mean, apart = scores()
    assert np.allclose(best, apart.max(0), atol=1e-5)
    monkeypatch.setattr(segmenter, "seen_offset", 0.0)
    _, whole, raised = scores()
    assert np.allclose(whole - mean, 0.1, atol=1e-5)
    assert np.allclose(raised - apart, [[[0.0]], [[0.1]]], atol=1e-5)


def test_a_class_of_two_words_and_a_threshold_are_two_classes(segmenter, scene):
    found = segmenter.segment(scene.image, "umbrella|tiger", background=0.3)
    assert found.names == ("umbrella", "background") and np.allclose(found.scores[1], 0.3)


def test_both_tell_of_themselves_in_a_line(segmenter):
    assert repr(segmenter) == "Segmenter(clip='mini', stages=[[6, 7, 8, 9, 10, 11, 12]], 58 seen words)"
    result = segmenter.segment(np.zeros((40, 60, 3), np.uint8), ["sand", "owl"])
    share = (result.labels == 0).mean()
    assert repr(result) == f"Segmentation(60 x 40 px: sand {share:.0%}, owl {1 - share:.0%})"


def test_saved_model_is_loaded_again_with_its_seen_words(segmenter, scene, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, segmenter.model, clip=MINI.clip, seen=("cat",))
    again = cascadeclip.load(path)
    assert again.seen == ("cat",)
    one, other = (s.segment(scene.image, ["tiger", "rocket"]) for s in (segmenter, again))
    assert np.array_equal(one.scores, other.scores)


def test_a_checkpoint_s_own_templates_and_offset_count(segmenter, scene, tmp_path, capsys):
    """Also where a preset is named, as the command line always does: it stands in for what a checkpoint leaves open."""
    path, picture = tmp_path / "own.safetensors", tmp_path / "scene.png"
    Image.fromarray(scene.image).save(picture)
    of = {"clip": {"name": "mini", "pretrained": None}, "seen": segmenter.seen}
    save_checkpoint(path, segmenter.model, **of, templates=("{}",), seen_offset=0.0)
    for loaded in (cascadeclip.load(path), cascadeclip.load(path, preset=MINI)):
        assert (loaded.templates, loaded.seen_offset) == (("{}",), 0.0)
    found, figure = segment_by_model(picture, ["balloon", "umbrella", "sand"], str(path), "mini", None, {})
    wanted = cascadeclip.load(path).segment(picture, ["balloon", "umbrella", "sand"])
    assert np.array_equal(found[""].scores, wanted.scores) and figure is not None
    run = {"split": "test", "limit": 2, "out": None, "predictions": False, "progress": False}
    scored, *_ = score_checkpoint(MINI, str(path), {}, False, None, 0, run)
    assert (scored.templates, scored.seen_offset) == (("{}",), 0.0)
    assert f"the templates and offset (0) are those of {path}, not of preset mini" in capsys.readouterr().out
    save_checkpoint(path, segmenter.model, **of)
    assert cascadeclip.load(path, preset=replace(MINI, templates=("{}",))).templates == ("{}",)
    score_checkpoint(MINI, "mini", {}, False, None, 0, run)
    assert "those of" not in capsys.readouterr().out


def test_an_unknown_model_is_refused():
    with pytest.raises(InputError, match="neither a file nor one of the shipped models: mini"):
        cascadeclip.load("maxi")


def test_the_clip_that_is_given_reads_the_words_of_the_authors_checkpoints(segmenter, tmp_path, monkeypatch):
    theirs = SimpleNamespace(info=None, clip=None, model=segmenter.model, lines=())
    asked = []
    monkeypatch.setattr(module, "load_any", lambda *args, **kwargs: theirs)
    monkeypatch.setattr(module, "load_clip", lambda **given: asked.append(given) or segmenter.clip)
    preset = get_preset("voc12")
    for weights in (None, "here.pt", "random"):
        cascadeclip.load(tmp_path, preset=preset, clip_weights=weights)
    cascadeclip.load(tmp_path, preset=preset, clip="ViT-B-16")
    assert [one["pretrained"] for one in asked] == [
        preset.clip["pretrained"],
        "here.pt",
        "random",
        preset.clip["pretrained"],
    ]
    assert [one["name"] for one in asked] == [*["ViT-B-16-quickgelu"] * 3, "ViT-B-16"]


def test_another_clip_than_that_of_the_authors_tower_is_told_of(segmenter, tmp_path, monkeypatch, caplog):
    theirs = SimpleNamespace(info=None, clip=None, model=segmenter.model, lines=())
    monkeypatch.setattr(module, "load_any", lambda *args, **kwargs: theirs)
    cascadeclip.load(tmp_path, preset=MINI)
    assert not caplog.messages
    with pytest.raises(InputError, match=r"have 128 numbers, those of CLIP 'ViT-B-16' have 512: give the preset"):
        cascadeclip.load(tmp_path, preset=MINI, clip="ViT-B-16", clip_weights="random")
    other = cascadeclip.clip.load_clip()
    other.visual.proj.data *= 2
    monkeypatch.setattr(module, "load_clip", lambda **given: other)
    cascadeclip.load(tmp_path, preset=MINI)
    assert "is not that of CLIP 'mini'" in caplog.text and "give the preset, or the CLIP" in caplog.text


def test_plot_shows_the_words_that_were_found(segmenter, scene):
    result = segmenter.segment(scene.image, ["cactus", "sand"])
    figure = result.plot()
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == [f"{result.names[i]} (unseen)" for i in np.unique(result.labels)]


def test_scores_come_in_bands_that_are_the_whole(segmenter, monkeypatch):
    monkeypatch.setattr(bands, "BAND_VALUES", 3 * 150 * 7)
    picture = np.random.default_rng(0).integers(0, 255, (200, 150, 3), dtype=np.uint8)
    result = segmenter.segment(picture, ["tiger", "grass", "sand"])
    found = list(result.score_bands())
    assert [band.shape for _, band in found] == [(3, 7, 150)] * 28 + [(3, 4, 150)]
    assert np.array_equal(np.concatenate([band for _, band in found], axis=1), result.scores)
    assert (result.scores.argmax(0) == result.labels).all()


def test_scores_that_no_memory_holds_say_how_to_read_them(segmenter, scene, monkeypatch):
    result = segmenter.segment(scene.image, ["tiger", "grass"])
    monkeypatch.setattr(module, "physical_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"2 words at 96 x 96 px .* in bands"):
        _ = result.scores


@pytest.mark.slow
def test_a_large_picture_and_many_words_need_little_memory(run, tmp_path):
    """4000 x 3000 px and 60 words: scores of 2.7 GiB, which nobody asked for."""
    script = """
import resource, numpy as np, cascadeclip
from cascadeclip.data.emojiscenes import CLASSES
segmenter = cascadeclip.load("mini")
segmenter.segment(np.zeros((96, 96, 3), np.uint8), CLASSES[:60])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), dtype=np.uint8)
result = segmenter.segment(picture, CLASSES[:60])
assert result.labels.shape == (3000, 4000), result.labels.shape
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert int(run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(ROOT)).split()[-1]) < 800  # MiB
