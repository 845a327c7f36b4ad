"""Scoring a model on a preset: the same counts however the work is cut, stopped or kept."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cascadeclip.config import TrainConfig
from cascadeclip.errors import InputError
from cascadeclip.evaluation import run as scoring
from cascadeclip.evaluation import scores as evaluation
from cascadeclip.evaluation.run import score, summarise, table
from cascadeclip.experiments import run as experiments
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import Preset
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate


class Words:
    """A CLIP of which only the class embeddings are asked for."""

    def class_embeddings(self, names, templates):
        return TEXT


@pytest.fixture
def preset():
    return Preset(
        name="noise", clip={}, model=MODEL, training=TrainConfig(precision="fp32"), names=tuple(NAMES),
        unseen=tuple(UNSEEN), templates=("{}",), train_data=lambda seed: Noise(), eval_data=lambda split: Noise(),
        collate=collate, final_split="test", scoring_batch=2,
    )  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CascadeCLIP(MODEL).eval()


def test_scores_are_those_of_one_pass(preset, model):
    batches = [collate([Noise()[i]]) for i in range(8)]
    assert score(preset, Words(), model) == evaluation.evaluate(model, batches, TEXT, NAMES, UNSEEN)


def test_only_the_first_pictures(preset, model):
    batches = [collate([Noise()[i]]) for i in range(3)]
    assert score(preset, Words(), model, limit=3) == evaluation.evaluate(model, batches, TEXT, NAMES, UNSEEN)


def test_a_stopped_evaluation_goes_on_where_it_was(preset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    whole, asked, original = score(preset, Words(), model), [], scoring.predict_batches

    def stopping(*args):
        for number, item in enumerate(original(*args)):
            asked.append(len(item[0]))
            if number == 2 and len(asked) == 3:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(scoring, "predict_batches", stopping)
    with pytest.raises(KeyboardInterrupt):
        score(preset, Words(), model, out=tmp_path)
    assert score(preset, Words(), model, out=tmp_path) == whole
    assert asked == [
        2,
        2,
        2,
        2,
        2,
    ]  # three, of which two were counted; then that one again and the last
    assert score(preset, Words(), model, out=tmp_path) == whole
    assert len(asked) == 5  # nothing was left to do


class Ending(Noise):
    """Noise of which the sixth item raises what ends loops."""

    def __getitem__(self, index):
        if index == 5:
            raise StopIteration
        return super().__getitem__(index)


def test_data_that_end_early_have_no_scores(preset, model, tmp_path):
    with pytest.raises(InputError, match=r"^item 5 cannot be read"):
        score(replace(preset, eval_data=lambda split: Ending()), Words(), model)
    loader = torch.utils.data.DataLoader(Ending(), 2, collate_fn=collate)
    with pytest.raises(InputError, match="ended after 2 of 4 batches"):
        evaluation.evaluate(model, loader, TEXT, NAMES, UNSEEN)
    data = experiments.segmentations(tmp_path, preset, Words(), Ending(), 0.1, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "load", lambda *args, **more: SimpleNamespace(model=model))
        with pytest.raises(InputError, match=r"^item 5 cannot be read"):
            list(data)


def test_counts_are_gone_on_with_in_whichever_order_unseen_classes_are_named(preset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    first = score(preset.with_unseen(["b", "c"]), Words(), model, out=tmp_path)
    monkeypatch.setattr(scoring, "predict_batches", lambda *args: iter(()))  # nothing is scored again
    assert score(preset.with_unseen(["c", "b"]), Words(), model, out=tmp_path) == first


def test_counts_of_another_evaluation_are_not_used(preset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    score(preset, Words(), model, out=tmp_path)
    for changed in (replace(preset, seen_offset=0.5), replace(preset, window=8)):
        assert score(changed, Words(), model, out=tmp_path) == score(changed, Words(), model)
    torch.manual_seed(1)
    other = CascadeCLIP(MODEL).eval()
    assert score(preset, Words(), other, out=tmp_path) == score(preset, Words(), other)


def test_predictions_are_written_as_class_numbers_with_colours(preset, model, tmp_path):
    score(preset, Words(), model, out=tmp_path, predictions=True)
    files = sorted((tmp_path / "predictions").iterdir())
    assert [path.stem for path in files] == list("01234567")
    images, _ = collate([Noise()[5]])
    found = evaluation.predict(model, evaluation.normalise(images), TEXT, [0, 2]).argmax(1)[0]
    with Image.open(files[5]) as picture:
        assert np.array_equal(np.asarray(picture), found.numpy())
        assert len({tuple(picture.getpalette()[3 * c : 3 * c + 3]) for c in range(3)}) == 3


def test_predictions_without_a_folder_are_refused(preset, model):
    with pytest.raises(InputError, match="need an output folder"):
        score(preset, Words(), model, predictions=True)


def test_processes_count_their_shares(preset, model, monkeypatch):
    """Two processes, one after the other: their counts add up to those of one."""

    class Share:
        num_processes, is_main_process, device = 2, False, torch.device("cpu")

        def __init__(self):
            self.process_index = rank

    counted = []
    monkeypatch.setattr(scoring, "this_process", Share)
    monkeypatch.setattr(scoring, "_sum_over_processes", lambda confusion, state: counted.append(confusion.counts))
    for rank in (0, 1):  # noqa: B007, read by Share
        score(preset, Words(), model)
    whole = evaluation.ConfusionMatrix(3)
    batches = [collate([Noise()[i]]) for i in range(8)]
    evaluation.count(whole, evaluation.predict_batches(model, batches, TEXT, [0, 2], 0.1, None, None, "fp32"))
    assert torch.equal(counted[0] + counted[1], whole.counts)


def test_a_table_has_the_columns_that_there_are(preset, model):
    printed = table({"mine": summarise(preset, score(preset, Words(), model)), "seconds": 3})
    assert "mIoU(U)" in printed and "of it things" not in printed and "seconds" not in printed
    assert json.dumps(summarise(preset, score(preset, Words(), model)))


# --- kept counts ------------------------------------------------------------------------------------------------------


class Changed(Noise):
    """The same pictures, with one mask changed."""

    def __getitem__(self, index):
        image, labels = super().__getitem__(index)
        return image, (labels + 1) % 3 if index == 3 else labels


def test_counts_of_other_masks_or_of_another_split_are_not_used(preset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    first = score(preset, Words(), model, out=tmp_path)
    changed = replace(preset, eval_data=lambda split: Changed())
    assert score(changed, Words(), model, out=tmp_path) == score(changed, Words(), model) != first
    counted = replace(preset, unseen=("c",))
    assert score(counted, Words(), model, out=tmp_path) == score(counted, Words(), model)


def test_counts_of_masks_changed_on_disk_are_not_used(preset, model, tmp_path, monkeypatch):
    from cascadeclip.data.folders import FolderDataset, matching_pairs
    from cascadeclip.data.labels import LabelMap

    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for index in range(8):
        image, labels = Noise()[index]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(labels.numpy().astype(np.uint8)).save(tmp_path / "masks" / f"{index}.png")

    def data(split):
        return FolderDataset(matching_pairs(tmp_path / "images", tmp_path / "masks"), LabelMap(3))

    on_disk = replace(preset, eval_data=data)
    before = score(on_disk, Words(), model, out=tmp_path / "out")
    values = (np.asarray(Image.open(tmp_path / "masks" / "2.png")) + 1) % 3
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "masks" / "2.png")
    assert score(on_disk, Words(), model, out=tmp_path / "out") == score(on_disk, Words(), model) != before


def test_predictions_asked_for_later_are_written(preset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    whole = score(preset, Words(), model, out=tmp_path)
    assert score(preset, Words(), model, out=tmp_path, predictions=True) == whole
    assert len(list((tmp_path / "predictions").iterdir())) == 8
    (tmp_path / "predictions" / "3.png").unlink()
    assert score(preset, Words(), model, out=tmp_path, predictions=True) == whole
    assert len(list((tmp_path / "predictions").iterdir())) == 8


def segmentations(folder):
    return [np.asarray(Image.open(path)).tolist() for path in sorted((folder / "predictions").iterdir())]


def test_predictions_of_another_evaluation_are_written_anew(preset, model, tmp_path, monkeypatch):
    """One that was too short to leave counts of its own writes over those of the first."""
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    score(preset, Words(), model, out=tmp_path, predictions=True)
    found = segmentations(tmp_path)
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1000)
    score(replace(preset, seen_offset=-1.0), Words(), model, out=tmp_path, predictions=True)
    assert segmentations(tmp_path) != found
    score(preset, Words(), model, out=tmp_path, predictions=True)
    assert segmentations(tmp_path) == found
    (tmp_path / "predictions" / "3.png").write_bytes(b"")
    score(preset, Words(), model, out=tmp_path, predictions=True)
    assert segmentations(tmp_path) == found


def test_predictions_that_another_evaluation_left_are_told_of(preset, model, tmp_path, caplog):
    score(preset, Words(), model, out=tmp_path, predictions=True)
    assert "other evaluations" not in caplog.text
    score(preset, Words(), model, out=tmp_path, predictions=True, limit=2)
    assert "predictions also holds 6 segmentations of other evaluations" in caplog.text


class Named(Noise):
    """A data set of somebody's own, whose attributes have names that ours use for other things."""

    options, seed, files, label_map = {"root": "here"}, 0, ["a.png"], {}

    def __init__(self, added=0):
        self.added = added
        self.label_map["own"] = self.label_map

    def __getitem__(self, index):
        image, labels = super().__getitem__(index)
        return image, (labels + self.added) % 3


def test_attributes_of_somebodys_data_say_nothing_of_what_is_in_them(preset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    one, two = (replace(preset, eval_data=lambda split, added=added: Named(added)) for added in (0, 1))
    first = score(one, Words(), model, out=tmp_path)
    assert score(two, Words(), model, out=tmp_path) == score(two, Words(), model) != first


def test_nothing_to_score_and_texts_that_are_none_are_refused(preset, model, monkeypatch):
    class Empty(Noise):
        def __len__(self):
            return 0

    with pytest.raises(InputError, match="split 'test' of preset 'noise' holds no picture"):
        score(replace(preset, eval_data=lambda split: Empty()), Words(), model)
    monkeypatch.setattr(Words, "class_embeddings", lambda *args: TEXT[:2])
    with pytest.raises(InputError, match="2 text embeddings for 3 class names"):
        score(preset, Words(), model)
    monkeypatch.setattr(Words, "class_embeddings", lambda *args: TEXT * float("nan"))
    with pytest.raises(InputError, match=r"NaN or infinite numbers in the text embeddings"):
        score(preset, Words(), model)


def spoil(path, counts=None, **metadata):
    from safetensors.torch import save_file

    from cascadeclip.tensors import read_safetensors

    old, tensors = read_safetensors(path)
    save_file({"counts": tensors["counts"] if counts is None else counts}, path, metadata=old | metadata)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: spoil(path, torch.zeros(2, 2, dtype=torch.int64)),
        lambda path: spoil(path, torch.zeros(3, 3)),
        lambda path: spoil(path, torch.full((3, 3), -1)),
        lambda path: spoil(path, torch.ones(3, 3, dtype=torch.int64)),
        lambda path: spoil(path, done="-2"),
        lambda path: spoil(path, done="9"),
        lambda path: spoil(path, done="9" * 9999),
        lambda path: spoil(path, done="4"),
        lambda path: spoil(path, done="x"),
    ],
)
def test_damaged_counts_are_told_of_and_counted_anew(preset, model, tmp_path, monkeypatch, caplog, damage):
    whole = score(preset, Words(), model)
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1)
    score(preset, Words(), model, out=tmp_path)
    monkeypatch.setattr(scoring, "SAVE_EVERY", 1000)
    damage(tmp_path / "counts-0.safetensors")
    assert score(preset, Words(), model, out=tmp_path) == whole
    assert "counts-0.safetensors" in caplog.text and "counting anew" in caplog.text


def test_a_folder_in_the_counts_place_is_told_of_before_anything_is_counted(preset, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "count", lambda *arguments: pytest.fail("something was counted"))
    (tmp_path / "counts-0.safetensors").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*counts-0\.safetensors: that is a folder"):
        score(preset, Words(), model, out=tmp_path)


def test_pictures_of_one_name_get_predictions_of_their_own(preset, model, tmp_path):
    class Twins(Noise):
        def source(self, index):
            return f"folder-{index % 2}/picture-{index // 2}.jpg"

    twins = replace(preset, eval_data=lambda split: Twins())
    score(twins, Words(), model, out=tmp_path, predictions=True)
    assert len(list((tmp_path / "predictions").iterdir())) == 8
