"""Segmenters as folders: what is written, what is read back, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors import safe_open

import cascadeclip
from cascadeclip.clip.load import Clip, load_clip
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.errors import InputError
from cascadeclip.segmenter import Segmenter
from cascadeclip.sharing.hub import HubMixin


class Kept(Segmenter, HubMixin):
    """A segmenter that can be kept, whether or not `Segmenter` itself already can."""


def kept(unseen=("tiger", "rocket"), **changed) -> Kept:
    shipped = cascadeclip.load("mini")
    settings = dict(seen_offset=0.07, templates=("a photo of a {}", "{}"), seen=("cat", "sand")) | changed
    segmenter = Kept(shipped.model, shipped.clip, settings.pop("seen"), **settings)
    segmenter.unseen = unseen
    return segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "made" / "segmenter"
    kept().save_pretrained(folder, model_card_kwargs={"license": "mit"})
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """The folder, to be damaged."""
    return shutil.copytree(folder, tmp_path / "copy")


def change(folder, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.slow
def test_round_trip_gives_the_same_segmenter(folder):
    first, again = kept(), Kept.from_pretrained(folder)
    assert (again.seen, again.unseen) == (("cat", "sand"), ("tiger", "rocket"))
    assert (again.templates, again.seen_offset) == (("a photo of a {}", "{}"), 0.07)
    assert again.model.config == first.model.config and not again.model.training
    picture, words = EmojiScenes.split("test")[0].image, ["cat", "tiger", "grass"]
    one, other = first.segment(picture, words), again.segment(picture, words)
    assert np.array_equal(one.scores, other.scores) and one.seen == other.seen


def test_the_tower_is_not_stored_but_its_fingerprint_is(folder):
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "visual" in name]  # noqa: SIM118
    built_on = json.loads((folder / "config.json").read_text())["built_on"]
    assert built_on["name"] == "mini" and len(built_on["tower_sha256"]) == 64


def test_config_lists_the_classes(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["classes"] == {"seen": ["cat", "sand"], "unseen": ["tiger", "rocket"]}
    assert config["templates"] == ["a photo of a {}", "{}"] and config["seen_offset"] == 0.07


def test_model_card_is_readable_by_the_hub_and_filled_from_the_model(folder):
    card = ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == (
        "cascadeclip", "image-segmentation", "mit",
    )  # fmt: skip
    for text in (
        "cat, sand",
        "tiger, rocket",
        "- `a photo of a {}`",
        "[[6, 7, 8, 9, 10, 11, 12]]",
        "96 px",
        "0.07",
    ):
        assert text in card.text, text


def test_a_card_that_is_there_is_kept(copy):
    (copy / "README.md").write_text("mine")
    kept(seen_offset=0.0).save_pretrained(copy)
    assert (copy / "README.md").read_text() == "mine"
    assert Kept.from_pretrained(copy).seen_offset == 0.0


def test_push_uploads_what_save_writes(monkeypatch):
    sent = {}

    def upload(self, *, repo_id, folder_path, **options):
        sent.update(repo=repo_id, files={path.name: path.read_bytes() for path in folder_path.iterdir()})
        return "https://hub/commit"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert kept().push_to_hub("me/segmenter") == "https://hub/commit"
    assert sent["repo"] == "me/segmenter"
    assert sent["files"].keys() == {"model.safetensors", "config.json", "README.md"}
    assert json.loads(sent["files"]["config.json"])["classes"]["unseen"] == ["tiger", "rocket"]


def test_a_repository_is_read_through_the_hub(folder, monkeypatch):
    asked = []

    def download(*parts, filename=None, revision=None, **_):
        asked.append((filename or parts[1], revision))
        return str(folder / (filename or parts[1]))

    for module in ("huggingface_hub.hub_mixin", "cascadeclip.sharing.hub"):
        monkeypatch.setattr(f"{module}.hf_hub_download", download)
    assert Kept.from_pretrained("me/segmenter", revision="v1").unseen == ("tiger", "rocket")
    assert set(asked) == {("config.json", "v1"), ("model.safetensors", "v1")}


def test_weights_in_a_file_leave_no_path_behind(tmp_path):
    shipped = cascadeclip.load("mini")
    clip = Clip("mini", "/home/someone/mini.pt", shipped.clip.model, shipped.clip.tokenize)
    Kept(shipped.model, clip, ("cat",)).save_pretrained(tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if b"someone" in path.read_bytes()]
    assert json.loads((tmp_path / "config.json").read_text())["built_on"]["pretrained"] == "mini.pt"


def test_a_clip_at_another_size_is_recognised(tmp_path):
    """A model at 64 px, whose segmenter holds the CLIP as it is stored, at 96 px."""
    shipped, resized = cascadeclip.load("mini"), load_clip("mini", image_size=64)
    model = cascadeclip.CascadeCLIP(cascadeclip.ModelConfig(tower=resized.tower), resized.visual)
    Kept(model, load_clip("mini"), shipped.seen).save_pretrained(tmp_path)
    assert Kept.from_pretrained(tmp_path).model.config.tower.image_size == 64


def test_another_tower_is_refused_before_anything_is_written(tmp_path):
    segmenter = kept()
    segmenter.clip = load_clip("mini")
    with torch.no_grad():
        segmenter.clip.visual.proj[0, 0] += 1
    with pytest.raises(InputError, match="tower is not that of CLIP 'mini'"):
        segmenter.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_word_both_seen_and_unseen_is_refused(tmp_path):
    with pytest.raises(InputError, match="both seen and unseen: cat"):
        kept(unseen=("cat",)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="both seen and unseen: sand"):
        kept(unseen=(" Sand", "owl")).save_pretrained(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        kept().save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_files_are_named(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(InputError, match=f"no (checkpoint at .*)?{missing}"):
        Kept.from_pretrained(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "other"}, "format must be 'cascadeclip-hub-1'"),
        ({"classes": {"seen": ["cat"]}}, "damaged: classes must be seen and unseen, not seen"),
        ({"classes": {"seen": ["cat"], "unseen": [3]}}, "class words must be text"),
        ({"architecture": {"stages": [[12]]}}, "missing settings"),
        ({"classes": {"seen": ["cat"], "unseen": []}}, r"contradict each other \(classes\)"),
        ({"seen_offset": 0.1}, r"contradict each other \(seen_offset\)"),
        ({"extra": 1}, r"contradict each other \(extra\)"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(copy, values, message):
    change(copy, **values)
    with pytest.raises(InputError, match=message):
        Kept.from_pretrained(copy)


def test_cut_off_files_are_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        Kept.from_pretrained(copy)
    (copy / "config.json").write_text('{"format": ')
    with pytest.raises(InputError, match=r"config\.json of .* is damaged"):
        Kept.from_pretrained(copy)


def test_a_place_that_is_none_is_refused():
    with pytest.raises(InputError, match="neither a folder nor the name of a repository"):
        Kept.from_pretrained("no/such/folder")
    with pytest.raises(InputError, match=r"nobody/nothing is no folder here, and cannot be had"):
        Kept.from_pretrained("nobody/nothing", local_files_only=True)


def test_a_forced_download_without_network_says_why_in_one_line(monkeypatch):
    def download(*parts, **_):
        raise ValueError("Force download failed due to the above error.") from OSError("no network:\nname not known")

    monkeypatch.setattr("cascadeclip.sharing.hub.hf_hub_download", download)
    with pytest.raises(InputError, match="cannot be had from the Hub: no network: name not known") as refused:
        Kept.from_pretrained("nobody/nothing", force_download=True)
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize("options", [{}, {"local_files_only": True}])
def test_a_forced_download_that_is_forbidden_is_refused(options, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"nobody/nothing is no folder here.*(offline|force_download)") as refused:
        Kept.from_pretrained("nobody/nothing", force_download=True, **options)
    assert "\n" not in str(refused.value) and "damaged" not in str(refused.value)


def test_unknown_options_are_refused(folder):
    with pytest.raises(InputError, match="no option revison; choose from cache_dir, "):
        Kept.from_pretrained(folder, revison="main")


def test_clip_weights_from_elsewhere_are_tried_and_checked(copy, tmp_path, monkeypatch):
    asked = []
    shipped = cascadeclip.load("mini")
    published = Clip("a-small-one", "openai", shipped.clip.model, shipped.clip.tokenize)  # its sizes are not known
    Kept(shipped.model, published, ("cat",)).save_pretrained(tmp_path / "published")

    def other(name, pretrained, image_size):
        asked.append(pretrained)
        clip = load_clip(image_size=image_size)
        with torch.no_grad():
            clip.visual.proj[0, 0] += 1
        return clip

    monkeypatch.setattr("cascadeclip.checkpoints.own.load_clip", other)
    with pytest.raises(InputError, match=r"with its own weights, not on 'mine.pt': leave --clip-weights out"):
        Kept.from_pretrained(copy, clip_weights="mine.pt")
    with pytest.raises(InputError, match="trained on other weights of CLIP"):
        Kept.from_pretrained(tmp_path / "published", clip_weights="mine.pt")
    assert asked == ["mine.pt"]
