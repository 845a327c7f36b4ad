"""`torch.compile`: the same numbers as the code as it is written, for pictures of any number and size."""

import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from sysconfig import get_path

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F

from cascadeclip.config import TrainConfig
from cascadeclip.evaluation.scores import predict
from cascadeclip.experiments.bench import Case, measure
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.losses import segmentation_loss
from cascadeclip.training.loop import train
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate

COMPILED = TrainConfig(
    steps=4, batch_size=2, learning_rate=1e-2, warmup=2, precision="fp32", checkpoint_every=2, compile=True
)
ONE_STAGE = replace(MODEL, stages=((2, 3),))  # half the kernels to be made
CAN_COMPILE = (shutil.which("g++") or shutil.which("clang++")) and Path(get_path("include"), "Python.h").is_file()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CAN_COMPILE, reason="torch.compile needs a C++ compiler and Python's headers"),
]


@pytest.fixture(autouse=True)
def graphs():
    """A function that tells how many graphs were compiled so far in this test."""
    torch._dynamo.reset()
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


class Stopped(Exception):
    """A run cut off in the middle."""


def run(config, out=None, keep=None, settings=MODEL):
    torch.manual_seed(3)
    model = CascadeCLIP(settings)
    log = train(model, Noise(), TEXT, NAMES, UNSEEN, config, collate=collate, out=out, keep=keep, progress=False)
    # the keys' biases drop out of the softmax: their gradient is rounding, which Adam scales up
    return {name: value for name, value in model.state_dict().items() if not re.search(r"layers.*key\.bias", name)}, log


def test_training_gives_the_same_weights(graphs):
    # without dropout: what is dropped is drawn in another order
    settings = replace(MODEL, dropout=0.0)
    (plain, plain_log), compiled_before = run(replace(COMPILED, compile=False), settings=settings), graphs()
    weights, log = run(COMPILED, settings=settings)
    assert compiled_before == 0 and graphs() >= 1
    torch.testing.assert_close(weights, plain, rtol=1e-3, atol=1e-4)
    assert log[-1]["total"] == pytest.approx(plain_log[-1]["total"], rel=1e-4)


def test_a_run_in_parts_that_recomputes_goes_on_after_a_stop(graphs, tmp_path):
    config = replace(COMPILED, accumulate=2, gradient_checkpointing=True)
    weights, _ = run(config, settings=ONE_STAGE)
    assert graphs() >= 1

    def stop(model, step):
        raise Stopped

    with pytest.raises(Stopped):
        run(replace(config, keep_every=3), tmp_path, stop, ONE_STAGE)
    again, _ = run(config, tmp_path, settings=ONE_STAGE)
    torch.testing.assert_close(again, weights, rtol=1e-5, atol=1e-6)


def test_scores_are_the_same_for_pictures_of_other_sizes_and_numbers(graphs):
    model = CascadeCLIP(ONE_STAGE).eval()
    compiled = torch.compile(model)
    for images, classes, height, width in ((1, 3, 16, 16), (2, 5, 24, 40), (3, 4, 40, 24)):
        pictures, text = torch.randn(images, 3, height, width), F.normalize(torch.randn(classes, 8), dim=-1)
        found, wanted = (predict(each, pictures, text, [0], window=16) for each in (compiled, model))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert graphs() >= 1


def test_bench_measures_what_is_compiled(graphs, monkeypatch):
    """Graphs are found as always, but no C++ is made of them, which takes a minute: the tests above do that."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    case = Case("mini", "inference", classes=3, repeats=1)
    plain, row = measure(case), measure(replace(case, compile=True))
    assert graphs() >= 1 and row["compile"] and not plain["compile"]
    assert row["gmacs"] == pytest.approx(plain["gmacs"])


def test_model_and_loss_are_one_graph():
    model = CascadeCLIP(MODEL).train()

    def loss(images, text, labels, pairs):
        return segmentation_loss(model(images, text).mask_logits, labels, pairs=pairs, trusted=True)["total"]

    torch.manual_seed(0)
    given = torch.randn(2, 3, 16, 16), TEXT, torch.randint(0, 3, (2, 16, 16)), torch.tensor(3.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for decoder in model.decoders:
        for layer in decoder.layers:
            layer.dropout = 0.0
    wanted = loss(*given)
    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(*given)  # a break would raise
    torch.testing.assert_close(found, wanted)
    found.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
