"""Figures of `bench` against numbers worked out by hand, files and tables, and the peaks of the loss."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from cascadeclip.errors import InputError
from cascadeclip.evaluation.scores import predict
from cascadeclip.experiments import bench
from cascadeclip.experiments.bench import Case, growth_cases, last_stages, measure, parameters
from cascadeclip.experiments.bench_data import made_up, measure_data
from cascadeclip.experiments.bench_report import bench_table, plot_growth, run_bench
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.losses import segmentation_loss
from cascadeclip.presets import MINI, get_preset
from tests.support.yardsticks import PlainCascade, TowerAlone, plain_loss, plain_predict


@pytest.fixture(scope="module")
def rows():
    return {work: measure(Case("mini", work, batch_size=2, classes=3, repeats=3)) for work in ("train", "inference")}


def linear(rows, inner, columns):
    return rows * inner * columns


def mini_forward(batch, classes, side=96):
    """Multiply-adds of the mini model's matrix products, from its sizes."""
    tokens, width, embed, prompts = (side // 8) ** 2, 192, 128, 10
    length = 1 + tokens
    patches = linear(tokens, 3 * 8 * 8, width)
    block = linear(length, width, 12 * width) + 2 * length * (length + prompts) * width
    block += linear(prompts, width, 2 * width)  # prompts are keys and values only
    taps = 6 * linear(tokens, width, embed) + linear(length, width, embed)
    attention = linear(2 * classes + 2 * tokens, embed, embed) + 2 * classes * tokens * embed
    feed_forward = 2 * linear(classes, embed, 4 * embed)
    mask = linear(classes + tokens, embed, embed) + classes * tokens * embed
    decoder = linear(classes, 2 * embed, embed) + 2 * (attention + feed_forward) + mask
    aggregation = 2 * 3 * tokens * embed
    once = 12 * linear(prompts, width, width)  # prompts go through their layer once per batch
    return batch * (patches + 12 * block + taps + 3 * decoder + aggregation) + once


@pytest.mark.slow
def test_multiply_adds_are_those_of_the_sizes(rows):
    wanted = mini_forward(2, 3) / 1e9
    assert rows["inference"]["gmacs"] == pytest.approx(wanted, rel=0.01)
    # frozen weights: the backward pass costs about as much as the forward pass again, attention and decoders twice
    assert 1.9 * wanted < rows["train"]["gmacs"] < 2.6 * wanted


def test_parameters_are_counted(rows):
    model = CascadeCLIP(MINI.model)
    tower = sum(parameter.numel() for parameter in model.encoder.visual.parameters())
    counts = rows["train"]["parameters"]
    assert counts["total"] == tower + counts["trainable"] == rows["inference"]["parameters"]["total"]
    assert counts["receiving_gradient"] == counts["trainable"]
    assert parameters(model)["receiving_gradient"] == 0
    model.encoder.prompts.grad = torch.zeros_like(model.encoder.prompts)
    assert parameters(model)["receiving_gradient"] == 12 * 10 * 192


def test_rates_follow_from_the_seconds(rows):
    for row in rows.values():
        seconds = row["seconds"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert row["images_per_second"] == pytest.approx(2 / seconds["median"])
        assert row["of_peak"] == pytest.approx(2 * row["gmacs"] / 1e3 / seconds["median"] / row["matmul_tflops"])
        assert 0 < row["of_peak"] < 1.2 and row["peak_mib"] > 50
        assert (row["image_size"], row["classes"], row["stages"]) == (96, 3, 3)


def test_classes_and_sizes_come_from_the_preset(monkeypatch):
    sizes = {}

    def inputs(model, preset, case):
        sizes[case.preset, case.work] = (bench._classes(case, preset), bench._side(case, preset))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_inputs", inputs)
    for name in ("mini", "mini-transductive"):
        for work in bench.WORK:
            with pytest.raises(KeyboardInterrupt):
                measure(Case(name, work))
    assert sizes["mini", "train"] == (58, 96) and sizes["mini", "inference"] == (72, 96)
    assert sizes["mini-transductive", "train"] == (72, 96)


@pytest.mark.slow
def test_self_training_and_another_number_of_stages_are_measured():
    row = measure(Case("mini-transductive", "train", classes=6, stages=1, repeats=1))
    assert row["stages"] == 1 and row["parameters"]["trainable"] < parameters(CascadeCLIP(MINI.model))["trainable"]


def test_stages_end_with_the_last_block():
    assert last_stages(12, 1) == ((12,),)
    assert last_stages(12, 3) == ((6, 7, 8), (9, 10, 11), (12,))
    assert last_stages(12, 4) == ((3, 4, 5), (6, 7, 8), (9, 10, 11), (12,))
    with pytest.raises(InputError, match="12 blocks are too few for 5 stages"):
        last_stages(12, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(work="rest"), "choose from train, inference"),
        (dict(batch_size=0), "batch_size=0 must be at least 1"),
        (dict(repeats=0), "repeats=0 must be at least 1"),
        (dict(precision="fp8"), "choose from fp32, bf16, fp16"),
        (dict(precision="fp16"), "fp16 needs a CUDA device"),
        (dict(preset="maxi"), "no preset 'maxi'"),
        (dict(image_size=64), "preset mini draws its own pictures"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is measured there")
def test_what_cannot_be_measured_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        measure(Case(**{"preset": "mini", "work": "train"} | settings))


def test_bf16_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(bench, "has_bf16", lambda device: False)
    with pytest.raises(InputError, match="no instructions for bf16"):
        measure(Case("mini", "train", precision="bf16"))


def test_table_shows_each_row(rows):
    train, inference, counts, peak = bench_table(list(rows.values())).splitlines()[1:]
    assert train.split()[:6] == ["mini", "train", "2", "96", "3", "fp32"]
    assert inference.split()[1] == "inference" and inference.split()[-1].endswith("%")
    assert "trainable" in counts and "receiving gradient" in counts and "TFLOP/s" in peak
    assert bench_table([{**rows["train"], "peak_mib": None}]).splitlines()[1].split()[9] == "-"


def test_loader_step_and_both_are_measured_and_the_slower_is_named(rows):
    told = measure_data(Case("mini", "train", batch_size=2, repeats=2))
    assert told["workers"] == 0 and told["limit"] == min(("loader", "step"), key=told.get)
    one_after_the_other = 1 / (1 / told["loader"] + 1 / told["step"])  # the training process reads
    assert 0.3 < told["both"] / one_after_the_other < 3
    for limit, loader in (("loader", 1.0), ("step", 99.0)):
        row = {**rows["train"], "data": {"workers": 3, "loader": loader, "step": 9.0, "both": 0.9, "limit": limit}}
        line = bench_table([row]).splitlines()[3]
        assert line == (
            f"mini: pictures/s read {loader} (by 3 processes), learnt 9.0, both together 0.9: the {limit} limits"
        )


def test_pictures_are_made_up_where_a_preset_has_none_of_its_own(tmp_path):
    data = made_up(get_preset("voc12", image_size=64), tmp_path)
    image, labels, change = data[0]
    assert image.shape == (3, 64, 64) and labels.shape == (64, 64) and change.shape == (6,)
    assert data.read(0)[0].shape == (375, 500, 3) and len(data) == 32
    assert 70_000 < (tmp_path / "0.jpg").stat().st_size < 150_000  # as a photograph of that size


@pytest.mark.slow
def test_each_case_runs_in_a_process_of_its_own(tmp_path):
    """The peak of a small case must not show what the process that asked for it, or a case before, has held."""
    held = torch.ones(2**28)  # 1 GiB
    shown = []
    settings = dict(classes=2, repeats=1)
    rows = run_bench(["mini"], settings, tmp_path, show=shown.append)
    assert len(held) and [row["work"] for row in rows] == ["train", "inference"]
    if rows[0]["peak_mib"] is not None:
        assert max(row["peak_mib"] for row in rows) < 1000
    assert json.loads((tmp_path / "bench.json").read_text()) == rows and shown == [bench_table(rows)]


def test_growth_changes_one_thing_at_a_time():
    changed = growth_cases(Case("voc12", "train", batch_size=2, repeats=1))
    assert {name for name, _, _ in changed} == {"image_size", "classes", "stages", "batch_size"}
    for name, value, case in changed:
        assert getattr(case, name) == value
        others = {"image_size": None, "classes": None, "stages": None, "batch_size": 2}
        assert all(getattr(case, other) == usual for other, usual in others.items() if other != name)
    assert {value for name, value, _ in changed if name == "image_size"} == {256, 384, 512, 768}


def test_growth_is_drawn_from_the_rows(rows):
    grown = [(name, value, rows[case.work]) for name, value, case in growth_cases(Case("voc12", "train"))]
    figure = plot_growth(grown)
    line = figure.axes[1].lines[0]
    assert figure.axes[1 + len(bench.GROWTH)].get_xlabel() == "classes"
    assert list(line.get_xdata()) == [15, 50, 156, 400, 1000]
    assert list(line.get_ydata()) == [rows["train"]["seconds"]["median"]] * 5


def test_growth_needs_a_folder():
    with pytest.raises(InputError, match="needs a folder: --out"):
        run_bench(["mini"], {}, growth=True)


def test_plain_cascade_computes_the_same_masks_and_gradients(make_model, make_inputs):
    model = make_model(tower=dict(quick_gelu=True))
    images, text = make_inputs(model)
    plain, found = PlainCascade(model).eval()(images, text), model(images, text).mask_logits
    torch.testing.assert_close(plain, found, rtol=1e-4, atol=1e-5)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), trained)
    theirs = torch.autograd.grad((plain * weights).sum(), trained)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_plain_loss_is_the_same_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 3, 5, requires_grad=True), torch.randint(0, 3, (2, 24, 30))
    labels[:, 5:9] = 255
    one, other = segmentation_loss(logits, labels)["total"], plain_loss(logits, labels)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(one, logits)[0], torch.autograd.grad(other, logits)[0], rtol=1e-4, atol=1e-6
    )


def test_the_loss_is_float32_inside_autocast_too():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 24, 30))
    wanted = segmentation_loss(logits, labels)["total"]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(segmentation_loss(logits, labels)["total"], wanted, rtol=1e-6, atol=0)


def test_plain_windows_give_the_same_scores(make_model, make_inputs):
    model = make_model()
    images, text = make_inputs(model, size=(44, 70))
    plain = plain_predict(PlainCascade(model).eval(), images, text, [0, 2], 0.1, window=32, stride=26)
    found = predict(model, images, text, [0, 2], 0.1, window=32, stride=26)
    torch.testing.assert_close(plain, found, rtol=0, atol=1e-5)


def test_tower_alone_is_the_towers_own_output(make_model, make_inputs):
    model = make_model()
    images, _ = make_inputs(model)
    visual, tower = model.encoder.visual, TowerAlone(model.encoder.visual)
    wanted = F.normalize(visual(images), dim=-1)
    torch.testing.assert_close(F.normalize(tower(images)[:, 0], dim=-1), wanted, rtol=1e-4, atol=1e-5)
    tower(images).sum().backward()
    assert all(parameter.grad is None for parameter in visual.parameters())


def loss_peaks(classes: list[int], side: int) -> list[float]:
    """MiB that the loss and its gradient add to a process, for each number of classes; masks are `side` / 16 wide."""
    script = Path(__file__).parents[1] / "support" / "measure_speed.py"
    options = ["--threads", "1", "--side", str(side), "--classes", *map(str, classes)]
    done = subprocess.run(
        [sys.executable, str(script), "loss-peaks", *options], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)["added_mib"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read as Linux tells them")
@pytest.mark.parametrize("classes", [256, 512])
def test_the_loss_holds_no_mask_of_the_labels_size(classes):
    """Masks of 16 x 16 and chunks of a fixed size; a mask of 256 x 256 for each class would make up `whole` MiB."""
    (added,) = loss_peaks([classes], side=256)
    masks, whole = (classes * side**2 * 4 / 2**20 for side in (16, 256))
    assert added < 24 + 16 * masks < whole
