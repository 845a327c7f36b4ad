"""Scoring a model on a preset: the same counts however the work is cut, stopped or kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cascadeclip.config import TrainConfig
from cascadeclip.errors import InputError
from cascadeclip.evaluation import run as scoring
from cascadeclip.evaluation import scores as evaluation
from cascadeclip.evaluation.run import score, summarise, table
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
