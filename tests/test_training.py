"""The loop: schedule, data order, what training may know, determinism, resume."""

import json
from dataclasses import replace

import pytest
import torch
from noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate

from cascadeclip import training
from cascadeclip.cascade import CascadeCLIP
from cascadeclip.config import TrainConfig
from cascadeclip.errors import InputError
from cascadeclip.training import Shuffled, pseudo_labels, reduce_labels, seen_only, train

CONFIG = TrainConfig(steps=6, batch_size=2, learning_rate=1e-2, warmup=2, bf16=False, checkpoint_every=2)


class Stopped(Exception):
    """A run cut off in the middle."""


def run(config=CONFIG, out=None, **kwargs):
    torch.manual_seed(3)
    model = CascadeCLIP(MODEL)
    log = train(model, Noise(), TEXT, NAMES, UNSEEN, config, collate=collate, out=out, progress=False, **kwargs)
    return model, log


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_schedule_warms_up_linearly_and_decays_to_the_minimum():
    config = TrainConfig(steps=100, learning_rate=1.0, warmup=10, warmup_factor=1e-6, power=0.9, min_learning_rate=1e-6)
    assert config.learning_rate_at(0) == pytest.approx(1e-6)
    assert config.learning_rate_at(5) == pytest.approx(0.95**0.9 * 0.5, rel=1e-4)
    assert config.learning_rate_at(50) == pytest.approx(0.5**0.9, rel=1e-4)
    assert config.learning_rate_at(100) == pytest.approx(1e-6)


def test_order_is_a_new_permutation_every_pass_and_can_be_skipped_into():
    whole = [index for index, _ in zip(iter(Shuffled(5, seed=1)), range(15), strict=False)]
    assert all(sorted(whole[i : i + 5]) == list(range(5)) for i in (0, 5, 10))
    assert whole[:5] != whole[5:10]
    assert [index for index, _ in zip(iter(Shuffled(5, seed=1, start=7)), range(8), strict=False)] == whole[7:]


def test_unseen_labels_become_ignored_and_seen_ones_are_renumbered():
    seen, table = seen_only(NAMES, UNSEEN)
    assert seen == [0, 2]
    assert table[[0, 1, 2, 3, 255]].tolist() == [0, 255, 1, 255, 255]


def test_reducing_labels_takes_pixels_and_never_mixes_them():
    labels = torch.tensor([[[7, 7, 9, 9], [7, 7, 9, 9], [255, 255, 3, 3], [255, 255, 3, 3]]])
    assert reduce_labels(labels, 2).tolist() == [[[7, 9], [255, 3]]]
    assert reduce_labels(labels, None) is labels


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    assert same_weights(run()[0], run()[0])
    assert not same_weights(run()[0], run(replace(CONFIG, seed=1))[0])


def test_training_moves_what_is_trainable_and_nothing_else():
    torch.manual_seed(3)
    before = CascadeCLIP(MODEL)
    after, _ = run()
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new) != old.requires_grad, name
    assert not after.training


def test_the_loss_falls_on_a_few_pictures():
    _, log = run(replace(CONFIG, steps=150, checkpoint_every=0))
    assert log[-1]["total"] < 0.5 * log[0]["total"]


def test_unseen_text_and_masks_never_reach_training(monkeypatch):
    seen_by_loss, original = [], training.segmentation_loss

    def spy(logits, labels, **kwargs):
        seen_by_loss.append((logits.shape[1], set(labels.unique().tolist())))
        return original(logits, labels, **kwargs)

    monkeypatch.setattr(training, "segmentation_loss", spy)
    run()
    assert len(seen_by_loss) == CONFIG.steps
    assert all(classes == 2 and labels <= {0, 1, 255} for classes, labels in seen_by_loss)


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, monkeypatch, stop_at):
    straight, log = run()
    original = training._after_step

    def stopping(step, *args):
        original(step, *args)
        if step == stop_at:
            raise Stopped

    monkeypatch.setattr(training, "_after_step", stopping)
    with pytest.raises(Stopped):
        run(out=tmp_path)
    monkeypatch.setattr(training, "_after_step", original)
    resumed, resumed_log = run(out=tmp_path)
    assert same_weights(straight, resumed)
    assert resumed_log[-1] == log[-1]


def test_a_finished_run_is_not_run_again(tmp_path):
    first, log = run(out=tmp_path)
    second, same_log = run(out=tmp_path)
    assert same_weights(first, second)
    assert same_log == log
    lines = (tmp_path / training.LOG).read_text().splitlines()
    assert [json.loads(line) for line in lines] == log


def test_a_state_of_other_settings_is_refused(tmp_path):
    run(out=tmp_path)
    with pytest.raises(InputError, match="other settings \\(learning_rate\\)"):
        run(replace(CONFIG, learning_rate=1e-3), out=tmp_path)


def test_validation_is_called_as_often_as_asked():
    calls = []

    def validate(model):
        calls.append(model.training)
        return {"score": float(len(calls))}

    _, log = run(replace(CONFIG, validate_every=2), validate=validate)
    assert [entry.get("score") for entry in log] == [1.0, 2.0, 3.0]


def test_a_loss_that_is_no_number_stops_the_run(monkeypatch):
    broken = {"focal": torch.tensor(0.0), "dice": torch.tensor(0.0), "total": torch.tensor(float("nan"))}
    monkeypatch.setattr(training, "segmentation_loss", lambda *args, **kwargs: broken)
    with pytest.raises(InputError, match="nan at step 0"):
        run()


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("batch_size", 0), ("learning_rate", 0), ("warmup", -1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        TrainConfig(**{name: value})


def test_pseudo_labels_are_the_reference_values(reference):
    labels = pseudo_labels(reference.out["mask_logits"], reference.inputs["label_all"], reference.unseen)
    assert torch.equal(labels, reference.out["transductive_label"])


def test_transductive_training_sees_every_class_but_no_unseen_label(monkeypatch):
    classes, original = [], training.segmentation_loss

    def spy(logits, labels, **kwargs):
        classes.append(logits.shape[1])
        return original(logits, labels, **kwargs)

    monkeypatch.setattr(training, "segmentation_loss", spy)
    run(replace(CONFIG, transductive=True))
    assert classes == [3] * CONFIG.steps
