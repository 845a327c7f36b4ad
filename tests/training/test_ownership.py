"""What training borrows it gives back; what a launcher says that is not its business is not heard; bad steps."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from cascadeclip.errors import InputError
from cascadeclip.experiments import demo
from cascadeclip.experiments import run as experiments
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import build_tower
from cascadeclip.presets import MINI
from cascadeclip.training import calibrate, loop, optimiser
from cascadeclip.training.loop import train
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate
from tests.training.test_loop import CONFIG, run, same_weights


@pytest.fixture
def launched(monkeypatch):
    """Sets what `accelerate launch` hands over, as if this process had been started by it."""

    def launch(**variables):
        AcceleratorState._reset_state(reset_partial_state=True)
        for name, value in variables.items():
            monkeypatch.setenv(f"ACCELERATE_{name}", value)

    yield launch
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_training_gives_back_what_it_borrowed():
    visual = build_tower(MODEL.tower).train()
    model = CascadeCLIP(MODEL, visual)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(
        model, Noise(), TEXT, NAMES, UNSEEN, replace(CONFIG, gradient_checkpointing=True), collate=collate,
        progress=False,
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before)
    assert visual.training and all(parameter.requires_grad for parameter in visual.parameters())
    assert not model.training and not model.encoder.recompute


def test_a_training_that_breaks_off_gives_back_too(monkeypatch):
    homes, original = [], CascadeCLIP.to
    monkeypatch.setattr(CascadeCLIP, "to", lambda self, place: homes.append(place) or original(self, place))
    torch.manual_seed(5)
    model, before = CascadeCLIP(MODEL), torch.get_rng_state()
    bad = TEXT * 1e30  # finite, and too large for products
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step 1"):
        train(model, Noise(), bad, NAMES, UNSEEN, CONFIG, collate=collate, progress=False)
    assert torch.equal(torch.get_rng_state(), before) and not model.training
    assert homes[-1] == torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [
        {"MIXED_PRECISION": "bf16"},
        {"GRADIENT_ACCUMULATION_STEPS": "4"},
        {"DYNAMO_BACKEND": "EAGER"},
    ],
)
def test_what_the_launcher_says_of_precision_and_steps_changes_nothing(launched, monkeypatch, said):
    config = replace(CONFIG, clip_norm=0.01)
    wanted, log = run(config)
    launched(**said)
    found, same_log = run(config)
    assert same_weights(wanted, found) and same_log == log


def test_a_launchers_precision_is_named_once(launched, caplog):
    launched(MIXED_PRECISION="fp16")
    run()
    (line,) = [message for message in caplog.messages if "mixed precision" in message]
    assert "fp16" in line and "--precision" in line


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_a_launcher_that_splits_the_model_is_refused(launched, kind):
    launched(**{f"USE_{kind}": "true"})
    with pytest.raises(InputError, match=f"asks for {kind}"):
        run()


def test_an_accelerator_of_other_precision_is_refused(launched):
    launched()
    Accelerator(cpu=True, mixed_precision="bf16")
    with pytest.raises(InputError, match="train in a fresh process"):
        run()


# --- steps that are no numbers --------------------------------------------------------------------------------------


def breaking(monkeypatch, steps, how):
    """From now on, the loss of these steps (from 1) is what `how` makes of it."""
    calls, original = [], loop.segmentation_loss

    def loss(logits, *args, **kwargs):
        calls.append(1)
        found = original(logits, *args, **kwargs)
        return how(found, logits) if len(calls) in steps else found

    monkeypatch.setattr(loop, "segmentation_loss", loss)


def loss_is_nan(found, logits):
    return {name: value * float("nan") for name, value in found.items()}


def gradient_is_nan(found, logits):
    return found | {"total": found["total"] + (0 * logits.sum()).abs().sqrt()}


def test_a_gradient_that_is_no_number_stops_the_run_and_moves_nothing(monkeypatch):
    breaking(monkeypatch, {5}, gradient_is_nan)
    model = CascadeCLIP(MODEL)
    with pytest.raises(InputError, match="the norm of the gradient is nan at step 5"):
        train(model, Noise(), TEXT, NAMES, UNSEEN, replace(CONFIG, checkpoint_every=0), collate=collate, progress=False)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.fixture
def in_float16(monkeypatch):
    """Loss scaling as with float16, which only CUDA computes in."""
    monkeypatch.setattr(optimiser, "needs_scaling", lambda device, precision: True)


@pytest.mark.slow
@pytest.mark.parametrize("how", [loss_is_nan, gradient_is_nan])
def test_float16_may_lose_a_few_steps_in_a_row(monkeypatch, in_float16, how):
    config = replace(CONFIG, steps=20)
    breaking(monkeypatch, {3, 4, 5, 9, 10}, how)
    model, log = run(config)
    assert [entry["step"] for entry in log] == [10, 20]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(torch.tensor(entry["total"]).isfinite() for entry in log)


def test_float16_that_loses_too_many_steps_stops(monkeypatch, in_float16, tmp_path):
    breaking(monkeypatch, set(range(4, 20)), loss_is_nan)
    with pytest.raises(InputError, match=r"the loss is nan at step 9, on .*; the last good state is") as caught:
        run(replace(CONFIG, steps=20, checkpoint_every=2), tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.slow
def test_a_state_with_and_without_loss_scaling_goes_on_either_way(monkeypatch, tmp_path):
    """`bf16` is float16 on a card without bfloat16: the run may go on where there is bfloat16, and the other way."""
    for scaled in (True, False, True):
        monkeypatch.setattr(optimiser, "needs_scaling", lambda device, precision, scaled=scaled: scaled)
        run(CONFIG, tmp_path)


def test_the_device_is_looked_at_every_ten_steps(monkeypatch):
    looks, original = [], loop._Run._look
    monkeypatch.setattr(loop._Run, "_look", lambda self, done: looks.append(done) or original(self, done))
    run(replace(CONFIG, steps=25, checkpoint_every=0))
    assert looks == [10, 20, 25]


@pytest.mark.parametrize("wrong", [3, 200])
def test_labels_that_no_class_has_are_named_where_they_are_read(monkeypatch, wrong):
    original = Noise.__getitem__

    def item(self, index):
        image, labels = original(self, index)
        return image, torch.full_like(labels, wrong) if index == 2 else labels

    monkeypatch.setattr(Noise, "__getitem__", item)
    with pytest.raises(InputError, match=rf"labels hold \[{wrong}\]; expected 0\.\.2, or 255"):
        run()


# --- where models are scored ----------------------------------------------------------------------------------------


def test_experiments_calibration_and_demo_score_on_the_device(monkeypatch, tmp_path):
    class Asked(Exception):
        pass

    asked, place = [], torch.device("meta")

    def load(*args, device=None, **kwargs):
        asked.append(device)
        raise Asked

    for module in (demo, experiments, calibrate):
        monkeypatch.setattr(module, "device", lambda: place)
    monkeypatch.setattr(experiments, "load", load)
    monkeypatch.setattr(demo, "load", load)
    with pytest.raises(Asked):
        experiments._Runs(MINI, None, tmp_path, None, False)._score(MINI, tmp_path, 0.1)
    for name in ("score", "draw_predictions", "_train"):
        monkeypatch.setattr(demo, name, lambda *args, **kwargs: None)
    monkeypatch.setattr(demo, "summarise", lambda *args: {})
    with pytest.raises(Asked):
        demo.run_demo(tmp_path, steps=1)
    assert asked == [place, place]

    def read_out(model, *args, **kwargs):
        asked.append(next(model.parameters()).device)
        raise Asked

    model = torch.nn.Linear(1, 1)
    monkeypatch.setattr(calibrate, "fit", lambda *args, **kwargs: (model, []))
    monkeypatch.setattr(calibrate, "read_out", read_out)
    words = SimpleNamespace(class_embeddings=lambda names, templates: None)
    with pytest.raises(Asked):
        calibrate.calibrated_offset(MINI, words, MINI.model, MINI.training, tmp_path)
    assert asked[-1] == place
