"""What comparisons keep of their runs is read through the checked door: logs of trainings and counts of pixels."""

import json
from copy import deepcopy
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file

from cascadeclip.checkpoints.own import TRAINED
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.errors import InputError
from cascadeclip.experiments import run as compare
from cascadeclip.experiments.comparisons import Variant
from cascadeclip.experiments.curves import VALIDATIONS, Curve, read_curve
from cascadeclip.presets import FROZEN, MINI, own_preset
from cascadeclip.training.calibrate import calibrated_offset
from cascadeclip.training.run import on_tower_of, open_clip_of
from cascadeclip.training.state import FREE, STATE
from cascadeclip.training.validation import Validation


def test_kept_counts_that_are_damaged_or_of_other_weights_are_scored_anew(tmp_path, monkeypatch, caplog):
    scored, folder = [], tmp_path / "run"
    runs = compare._Runs(MINI, open_clip_of(MINI), tmp_path, 2, progress=False)

    def score(*args):
        scored.append(args)
        return torch.ones(3, 2, len(MINI.names), dtype=torch.float64)

    monkeypatch.setattr(runs, "trained", lambda *args: folder)
    monkeypatch.setattr(runs, "_score", score)
    folder.mkdir()
    save_file({"weight": torch.ones(1)}, folder / TRAINED)
    whole = runs.counts(Variant("one"), 0)
    assert torch.equal(runs.counts(Variant("one"), 0), whole) and len(scored) == 1
    (path,) = folder.glob("counts-*")
    good = path.read_bytes()
    others = [
        {"counts": whole.float()},
        {"counts": whole[:, :1].contiguous()},
        {"other": whole},
        {"counts": whole * torch.nan},
        {"counts": whole + 1},
    ]
    broken = [b"", good[:-8], b"{}", *(save(tensors, metadata(good)) for tensors in others), save({"counts": whole})]
    for number, content in enumerate(broken, start=2):
        path.write_bytes(content)
        caplog.clear()
        assert torch.equal(runs.counts(Variant("one"), 0), whole) and len(scored) == number
        assert f"{path} is" in caplog.text and "scoring anew" in caplog.text
    save_file({"weight": torch.zeros(1)}, folder / TRAINED)
    runs.counts(Variant("one"), 0)
    assert len(scored) == len(broken) + 2


@pytest.mark.parametrize("stopped_at", [1, 12])
def test_a_training_that_was_stopped_in_a_validation_has_all_its_looks(tmp_path, monkeypatch, stopped_at):
    """After the last step the model is there, the last scores are not: it would be compared with nothing, for good."""
    looks, runs = (
        [],
        compare._Runs(compare.budgeted("mini-frozen", None, 12, 1), open_clip_of(MINI), tmp_path, 1, False),
    )

    def score(validation, model):
        looks.append(model)
        if len(looks) == stopped_at:
            raise KeyboardInterrupt
        return {"mIoU_seen": 0.5, "mIoU_unseen": 0.5}

    monkeypatch.setattr(Validation, "__call__", score)
    with pytest.raises(KeyboardInterrupt):
        runs.trained(Variant("one"), 0)
    folder = runs.trained(Variant("one"), 0)
    assert len(read_curve(folder).steps) == VALIDATIONS == 12 and len(looks) == 13
    runs.trained(Variant("one"), 0)
    (folder / STATE).unlink()  # of a training that cannot go on, the log says itself what is missing
    runs.trained(Variant("one"), 0)
    assert len(looks) == 13


@pytest.mark.parametrize("change", [dict(window=48, stride=24), dict(window=48, stride=48), "text tower"])
def test_kept_counts_of_other_windows_or_another_text_tower_are_scored_anew(tmp_path, monkeypatch, change):
    scored, folder, clip = [], tmp_path / "run", open_clip_of(MINI)
    folder.mkdir()
    save_file({"weight": torch.ones(1)}, folder / TRAINED)

    def score(*args):
        scored.append(args)
        return torch.ones(3, 2, len(MINI.names), dtype=torch.float64)

    def counts(preset):
        runs = compare._Runs(preset, clip, tmp_path, 2, progress=False)
        monkeypatch.setattr(runs, "trained", lambda *args: folder)
        monkeypatch.setattr(runs, "_score", score)
        runs.counts(Variant("one"), 0)

    counts(MINI), counts(MINI)
    assert len(scored) == 1
    if isinstance(change, str):
        clip = other_words(clip)
    counts(MINI if isinstance(change, str) else replace(MINI, **change))
    assert len(scored) == 2


def other_words(clip):
    """The same CLIP with another text tower."""
    model = deepcopy(clip.model)
    next(tensor for name, tensor in model.named_parameters() if not name.startswith("visual.")).data.add_(1)
    return replace(clip, model=model, _embedded={})


def metadata(content):
    """Metadata of a file of tensors."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def test_a_curve_is_read_from_a_training_s_log(tmp_path):
    (tmp_path / "log.jsonl").write_text(
        '{"step": 10, "total": 1.0}\n{"step": 12, "mIoU_seen": 0.1, "mIoU_unseen": 0.2, "total": 1.0}\n'
    )
    assert read_curve(tmp_path) == Curve((12,), (0.1,), (0.2,))
    for text, says in (
        ("", "holds no scores"),
        ("[1", r"no log of a training.*line 1 of"),
        ("[1]\n", "no log of a training"),
        ('{"step": "9", "mIoU_seen": 1, "mIoU_unseen": 1}', r"step\[0\]='9' must be a whole number"),
        ('{"step": 9, "mIoU_seen": [1], "mIoU_unseen": 1}', r"mIoU_seen\[0\]=\[1\] must be a finite number"),
        ('{"step": -9, "mIoU_seen": 1, "mIoU_unseen": 1}', "do not ascend"),
        ("\xff", "no log of a training"),
    ):
        (tmp_path / "log.jsonl").write_text(text)
        with pytest.raises(InputError, match=says):
            read_curve(tmp_path)
    with pytest.raises(InputError, match="no log of a training"):
        read_curve(tmp_path / "nothing")


# --- whose training a kept one is -------------------------------------------------------------------------------------


@pytest.fixture
def folder_of(tmp_path, monkeypatch):
    """Folder of a variant's kept training on a preset, and how many trainings were done so far; none takes a step."""
    trained = []

    def fit(preset, clip, model, training, folder, **more):
        trained.append(folder)
        for name in (TRAINED, f"model-{training.keep_every}.safetensors"):
            save_file({"weight": torch.ones(1)}, folder / name)

    monkeypatch.setattr(compare, "fit", fit)
    monkeypatch.setattr(compare, "load", lambda path, **more: SimpleNamespace(model=None))

    def find(preset, variant=None):
        runs = compare._Runs(preset, open_clip_of(preset), tmp_path / "runs", 2, progress=False)
        return runs.trained(variant or Variant("one"), 0), len(trained)

    return find


def draw(folder, shade):
    for number in range(3):
        for kind, content in (("images", np.full((32, 32, 3), shade)), ("masks", np.full((32, 32), number % 2))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content.astype(np.uint8)).save(folder / kind / f"{number}.png")
    return folder


def test_trainings_on_other_data_words_or_clips_are_not_taken(tmp_path, register, folder_of):
    register("small")
    names = ["cat", "sofa"]

    def preset(folder, unseen=("sofa",), words=names, **more):
        made = own_preset(folder / "images", folder / "masks", words, unseen, image_size=32, prompt_tokens=0, **more)
        return replace(made, clip={"name": "small", "pretrained": None}, model=replace(made.model, stages=((4,),)))

    here, there = draw(tmp_path / "here", 10), draw(tmp_path / "there", 200)
    first, done = folder_of(preset(here))
    assert done == 1 and folder_of(preset(here)) == (first, 1)
    (tmp_path / "moved").mkdir()
    here = here.rename(tmp_path / "moved" / "here")
    assert folder_of(preset(here)) == (first, 1)  # the same pictures
    two = [preset(here, order, ["cat", "dog", "sofa"]) for order in (["cat", "sofa"], ["sofa", "cat"])]
    assert len({folder_of(one) for one in two}) == 1  # the same split of the classes
    others = [
        preset(there), preset(here, ["cat"]), preset(here, words=["dog", "sofa"]), preset(here, words=names[::-1]),
        preset(here, templates="a drawing of a {}."), preset(here, strict=True), preset(here, ignored=[7]),
    ]  # fmt: skip
    folders = {first, *(folder_of(other)[0] for other in others)}
    assert len(folders) == 1 + len(others)
    Image.fromarray(np.full((32, 32, 3), 77, np.uint8)).save(here / "images" / "1.png")
    assert folder_of(preset(here))[0] not in folders
    register("small", width=96)
    assert folder_of(preset(there))[0] not in folders


def test_the_mini_world_s_kept_trainings_are_found_where_they_were(folder_of):
    model = on_tower_of(open_clip_of(FROZEN), FROZEN.model)
    lasting = {key: value for key, value in asdict(FROZEN.training).items() if key not in FREE}
    before = {"preset": FROZEN.name, "model": model.to_dict(), "training": lasting, "styles": None}
    folder, _ = folder_of(FROZEN)
    assert folder.name == compare.digest_of(before)[:16]
    others = [
        FROZEN.with_unseen(["tiger"]), replace(FROZEN, train_data=lambda seed: EmojiScenes(100, seed)),
        replace(FROZEN, templates=("a {}",)),
    ]  # fmt: skip
    assert len({folder, *(folder_of(other)[0] for other in others)}) == 1 + len(others)


def test_a_training_with_another_text_tower_is_another(tmp_path, folder_of):
    usual, clip = folder_of(FROZEN)[0], other_words(open_clip_of(FROZEN))
    assert compare._Runs(FROZEN, clip, tmp_path / "runs", 2, progress=False).trained(Variant("one"), 0) != usual


def test_self_trainings_from_the_middle_of_other_trainings_are_others(folder_of):
    own = Variant("own", transductive=True)
    presets = [replace(MINI, training=replace(MINI.training, steps=steps)) for steps in (4, 5)]
    assert len({folder_of(preset, own)[0] for preset in presets}) == 2


@pytest.mark.slow
def test_an_offset_is_not_calibrated_on_a_kept_training_of_others(tmp_path):
    preset = replace(MINI, training=replace(MINI.training, steps=2, batch_size=2))
    how = dict(limit=4, progress=False)
    clip = open_clip_of(MINI)
    first = calibrated_offset(preset, clip, preset.model, preset.training, tmp_path, **how)
    assert calibrated_offset(preset, clip, preset.model, preset.training, tmp_path, **how) == first
    other = preset.with_unseen(["tiger", "sand"])
    with pytest.raises(InputError, match=r"run with other settings .*unseen classes"):
        calibrated_offset(other, clip, preset.model, preset.training, tmp_path, **how)
