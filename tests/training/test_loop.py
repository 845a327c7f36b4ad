"""The loop: schedule, data order, what training may know, determinism, resume."""

import json
from dataclasses import replace

import pytest
import torch

from cascadeclip.config import TrainConfig
from cascadeclip.data import folders
from cascadeclip.data.distortion import draw_change
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.training import loop as training
from cascadeclip.training.loop import pseudo_labels, reduce_labels, seen_only, train
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate

CONFIG = TrainConfig(steps=6, batch_size=2, learning_rate=1e-2, warmup=2, precision="fp32", checkpoint_every=2)


class Stopped(Exception):
    """A run cut off in the middle."""


def run(config=CONFIG, out=None, settings=MODEL, **kwargs):
    torch.manual_seed(3)
    model = CascadeCLIP(settings)
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


def test_unseen_labels_become_ignored_and_seen_ones_are_renumbered():
    seen, table = seen_only(NAMES, UNSEEN)
    assert seen == [0, 2]
    assert table[[0, 1, 2, 3, 255]].tolist() == [0, 255, 1, 255, 255]


def test_reducing_labels_takes_pixels_and_never_mixes_them():
    labels = torch.tensor([[[7, 7, 9, 9], [7, 7, 9, 9], [255, 255, 3, 3], [255, 255, 3, 3]]])
    assert reduce_labels(labels, 2).tolist() == [[[7, 9], [255, 3]]]
    assert reduce_labels(labels, None) is labels


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, monkeypatch, stop_at):
    straight, log = run()
    original = training._Run._after_step

    def stopping(self, step, *args):
        original(self, step, *args)
        if step == stop_at:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(training._Run, "_after_step", stopping)
        run(out=tmp_path)
    resumed, resumed_log = run(out=tmp_path)
    assert same_weights(straight, resumed)
    assert resumed_log[-1] == log[-1]


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(tmp_path):
    first, log = run(out=tmp_path)
    second, same_log = run(out=tmp_path)
    assert same_weights(first, second)
    assert same_log == log
    lines = (tmp_path / training.LOG).read_text().splitlines()
    assert [json.loads(line) for line in lines] == log


def test_a_finished_run_without_validation_writes_nothing_more(tmp_path, monkeypatch):
    _, log = run(out=tmp_path)
    monkeypatch.setattr(training, "save_state", None)
    assert run(out=tmp_path)[1] == log


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


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_run_that_was_stopped_in_a_validation_gets_its_scores(tmp_path, call):
    """States are saved before scores are made; those of the step that it was stopped at were missing for good."""
    calls = []

    def validate(model):
        calls.append(model)
        if len(calls) == call:
            raise Stopped
        return {"score": float(sum(weight.double().sum() for weight in model.state_dict().values()))}

    config = replace(CONFIG, validate_every=2)
    with pytest.raises(Stopped):
        run(config, tmp_path, validate=validate)
    calls[:] = [None] * call
    resumed, log = run(config, tmp_path, validate=validate)
    calls[:] = [None] * call
    straight, wanted = run(config, validate=validate)
    assert log == wanted and same_weights(resumed, straight) and all("score" in entry for entry in log)
    calls.clear()
    assert run(config, tmp_path, validate=validate)[1] == log and not calls, "nothing is left to do"
    lines = (tmp_path / training.LOG).read_text().splitlines()
    assert [json.loads(line) for line in lines] == log


def test_scores_that_an_earlier_call_did_not_ask_for_are_made(tmp_path):
    run(out=tmp_path)
    _, log = run(out=tmp_path, validate=lambda model: {"score": 1.0})
    assert log[-1]["score"] == 1.0


def test_what_is_no_number_before_the_first_step_is_not_blamed_on_pictures():
    model = CascadeCLIP(MODEL)
    with torch.no_grad():
        model.encoder.prompts[0] = float("nan")
    for start, text, named in (
        (model, TEXT, r"the model to train is damaged .*in encoder\.prompts"),
        (CascadeCLIP(MODEL), TEXT / 0, "the CLIP that made them is damaged.* in the text embeddings"),
    ):
        with pytest.raises(InputError, match=named):
            train(start, Noise(), text, NAMES, UNSEEN, CONFIG, collate=collate, progress=False)


@pytest.mark.parametrize("broken_at", [2, 4])
def test_a_loss_that_is_no_number_stops_the_run_and_names_what_it_saw(tmp_path, monkeypatch, broken_at):
    calls, original = [], training.segmentation_loss

    def breaking(logits, *args, **kwargs):
        calls.append(logits)
        return original(logits * (float("nan") if len(calls) == broken_at else 1), *args, **kwargs)

    monkeypatch.setattr(training, "segmentation_loss", breaking)
    monkeypatch.setattr(Noise, "source", lambda self, index: f"noise-{index}.jpg", raising=False)
    with pytest.raises(InputError) as caught:
        run(out=tmp_path)
    message = str(caught.value)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(CONFIG.seed)).tolist()
    pictures = [f"noise-{index}.jpg" for index in order[2 * (broken_at - 1) : 2 * broken_at]]
    assert f"the loss is nan at step {broken_at}, on {', '.join(pictures)};" in message
    assert ("no state was written yet" if broken_at == 2 else str(tmp_path / training.STATE)) in message


class Coloured(Noise):
    """Pictures whose colours are to change, by numbers that are drawn with the picture."""

    def __getitem__(self, index):
        return *super().__getitem__(index), draw_change(16, 16)


def coloured(**config):
    torch.manual_seed(3)
    model = CascadeCLIP(replace(MODEL, dropout=0.0))
    settings = replace(CONFIG, batch_size=4, learning_rate=1e-3, **config)
    train(model, Coloured(), TEXT, NAMES, UNSEEN, settings, collate=folders.collate, progress=False)
    return model.encoder.prompts


@pytest.mark.slow
def test_colours_change_in_training_as_drawn_with_each_picture(monkeypatch):
    """However a step is cut and whoever reads: the numbers come with the picture, from its place in the stream."""
    seen, original = [], training.distort

    def spy(images, changes):
        seen.append((images, changes))
        return original(images, changes)

    monkeypatch.setattr(training, "distort", spy)
    whole, number = coloured(), CONFIG.steps
    data = training.Endless(Coloured(), CONFIG.seed)
    images, _, changes = folders.collate([data[position] for position in range(4 * number)])
    for found, wanted in zip(zip(*seen, strict=True), (images, changes), strict=True):
        assert torch.equal(torch.cat(found), wanted)
    torch.testing.assert_close(coloured(accumulate=2, workers=1), whole, rtol=0, atol=1e-5)
    monkeypatch.setattr(training, "distort", lambda images, changes: images)
    assert not torch.equal(coloured(), whole)


@pytest.mark.slow
def test_gradient_accumulation_gives_the_weights_of_whole_batches():
    config, settings = replace(CONFIG, batch_size=4), replace(MODEL, dropout=0.0)
    whole, log = run(config, settings=settings)
    for parts in (2, 4):
        cut, cut_log = run(replace(config, accumulate=parts), settings=settings)
        for (name, one), other in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
            if not name.endswith("key.bias"):  # drops out of the softmax: its gradient is rounding noise, Adam's unit
                torch.testing.assert_close(other, one, rtol=0, atol=1e-5, msg=name)
        assert cut_log[-1]["total"] == pytest.approx(log[-1]["total"], rel=1e-5)


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(InputError, match="batch_size=2 does not split into 1 processes times accumulate=4 parts"):
        run(replace(CONFIG, accumulate=4))


def test_gradient_checkpointing_gives_the_same_weights():
    assert same_weights(run()[0], run(replace(CONFIG, gradient_checkpointing=True))[0])


def test_gradient_checkpointing_keeps_fewer_tensors_for_the_backward_pass():
    kept = {}
    for recompute in (False, True):
        torch.manual_seed(3)
        model = CascadeCLIP(MODEL)
        model.encoder.recompute, sizes = recompute, []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(2, 3, 16, 16), TEXT)
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.7 * kept[False]


def test_workers_read_the_same_pictures():
    assert same_weights(run()[0], run(replace(CONFIG, workers=1))[0])


@pytest.mark.slow
def test_where_and_how_fast_a_run_goes_may_change_when_it_goes_on(tmp_path):
    straight, _ = run()
    run(replace(CONFIG, steps=6), out=tmp_path)
    again, _ = run(replace(CONFIG, checkpoint_every=1, workers=1, gradient_checkpointing=True), out=tmp_path)
    assert same_weights(straight, again)


def test_models_are_kept_as_often_as_asked():
    kept = []
    run(replace(CONFIG, keep_every=2), keep=lambda model, step: kept.append((step, model.training)))
    assert [step for step, _ in kept] == [2, 4, 6]


def test_tensorboard_gets_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, log = run(out=tmp_path, tensorboard=True)
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Scalars("total")[-1].value == pytest.approx(log[-1]["total"], rel=1e-6)
    assert events.Scalars("total")[-1].step == CONFIG.steps


def test_tensorboard_without_a_folder_is_refused():
    with pytest.raises(InputError, match="needs an output folder"):
        run(tensorboard=True)


def test_half_precision_on_a_cpu_is_refused_with_what_to_do():
    with pytest.raises(InputError, match="fp16 needs a CUDA device, this is cpu; use bf16 or fp32"):
        run(replace(CONFIG, precision="fp16"))


def test_files_that_a_killed_process_left_half_written_are_removed(tmp_path):
    left = tmp_path / f".{training.STATE}.123.tmp"
    left.write_bytes(b"half")
    run(out=tmp_path)
    assert not left.exists() and (tmp_path / training.STATE).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("batch_size", 0), ("learning_rate", 0), ("warmup", -1), ("accumulate", 0), ("precision", "int8")],
)
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


def test_words_that_no_class_has_and_pseudo_labels_of_nothing_are_refused():
    def start(names=NAMES, unseen=UNSEEN, config=CONFIG):
        train(CascadeCLIP(MODEL), Noise(), TEXT, names, unseen, config, collate=collate, progress=False)

    with pytest.raises(InputError, match=r"unseen=\['nobody'\] are none of the 3 class names"):
        start(unseen=["nobody"])
    with pytest.raises(InputError, match="3 text embeddings for 4 class names"):
        start(names=[*NAMES, "more"])
    with pytest.raises(InputError, match="no class is unseen"):
        start(unseen=[], config=replace(CONFIG, transductive=True))


@pytest.mark.parametrize(("labels", "told"), [([1, 255], True), ([0, 1], False)])
def test_masks_without_a_seen_class_are_told_of(labels, told, caplog):
    """Class 1 is unseen. A wrong number for the masks' first class looks like this."""

    def without(items):
        images, masks = collate(items)
        return images, torch.tensor(labels).repeat(masks.numel() // 2).view(masks.shape)

    train(CascadeCLIP(MODEL), Noise(), TEXT, NAMES, UNSEEN, CONFIG, collate=without, progress=False)
    assert ("steps showed a seen class: nothing was learnt" in caplog.text) == told


CENTRED = replace(MODEL, centre_text=True)


def test_centred_text_is_relative_to_the_words_trained_on_and_stays_so(tmp_path):
    model, _ = run(out=tmp_path, settings=CENTRED)
    seen, _ = seen_only(NAMES, UNSEEN)
    assert torch.equal(model.text_mean, TEXT[seen].mean(0))  # no unseen word enters
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        moved = TEXT - 0.5 * model.text_mean
        model.text_mean.mul_(0.5)  # text and mean moved alike
        first = model(images, moved).mask_logits
        model.text_mean.mul_(2)
        assert torch.allclose(model(images, TEXT).mask_logits, first, atol=1e-6)
        model.text_mean.zero_()
        assert not torch.allclose(model(images, TEXT).mask_logits, first, atol=1e-3)
    resumed, _ = run(out=tmp_path, settings=CENTRED)
    assert torch.equal(resumed.text_mean, TEXT[seen].mean(0))


def test_self_training_keeps_the_mean_it_starts_with():
    model, _ = run(settings=CENTRED)
    before = model.text_mean.clone()
    train(model, Noise(), TEXT, NAMES, UNSEEN, replace(CONFIG, transductive=True), collate=collate, progress=False)
    assert torch.equal(model.text_mean, before) and not torch.allclose(before, TEXT.mean(0))


def test_without_the_setting_there_is_nothing_to_centre_on():
    model, _ = run()
    model.centre_on(TEXT)
    assert model.text_mean is None and "text_mean" not in model.state_dict()


@pytest.mark.slow
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    finished = []
    whole = run(out=tmp_path / "whole")
    first = run(out=tmp_path / "parts", until=2, finished=finished.append)
    assert not finished and max(entry["step"] for entry in first[1]) == 2
    second = run(out=tmp_path / "parts", finished=finished.append)
    assert len(finished) == 1 and same_weights(whole[0], second[0])
    assert second[1][0] == first[1][0] and second[1][-1] == whole[1][-1]
