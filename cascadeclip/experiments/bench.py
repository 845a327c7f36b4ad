"""What a preset costs on this device: seconds, memory, multiply-adds, parameters, and the share of its matmul peak.

Weights and pictures are random, so nothing has to be downloaded; each figure is measured in a process of its own, so
that one cannot hide in the memory of another. The text tower is left out: it runs once, before training.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cascadeclip.config import ModelConfig
from cascadeclip.data.labels import ignored_label
from cascadeclip.errors import InputError
from cascadeclip.evaluation.scores import predict
from cascadeclip.files import exists
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.losses import segmentation_loss
from cascadeclip.presets import Preset, get_preset
from cascadeclip.processes import autocast, has_bf16, number_format, told_of_compiler, told_of_ended
from cascadeclip.processes import device as this_device
from cascadeclip.schema import Count, checked
from cascadeclip.training.labels import pseudo_labels, reduce_labels
from cascadeclip.training.optimiser import adamw

WORK = ("train", "inference")
MIB = 2**20
GROWTH = {  # what is changed, and to what, to see how cost grows
    "image_size": (0.5, 0.75, 1.0, 1.5),  # times the preset's
    "classes": (15, 50, 156, 400, 1000),
    "stages": (1, 2, 3, 4),
    "batch_size": (1, 2, 4),
}


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        preset: its name.
        work: `train`, a step with forward, loss, backward and AdamW, or `inference`, `evaluation.predict`.
        batch_size: pictures.
        image_size: px; the preset's by default.
        classes: C; what the preset trains on or scores by default.
        stages: number of stages: the last block, and three blocks more for each stage before it; None: the preset's.
        precision: `fp32`, `bf16` or `fp16`.
        compile: measure the model as `torch.compile` makes it.
        repeats: timed runs, after one that is not timed.
    """

    preset: str
    work: str
    batch_size: int = 1
    image_size: int | None = None
    classes: int | None = None
    stages: int | None = None
    precision: str = "fp32"
    compile: bool = False
    repeats: int = 5

    def __post_init__(self) -> None:
        if self.work not in WORK:
            raise InputError(f"work={self.work!r}: choose from {', '.join(WORK)}")
        for name in ("batch_size", "image_size", "classes", "stages", "repeats"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1")


def bench(cases: Sequence[Case], show: Callable[[dict[str, Any]], None] = lambda row: None) -> list[dict[str, Any]]:
    """`measure` each case in a fresh process; `show` gets every row as soon as it is there."""
    rows = []
    for case in cases:
        rows.append(alone(measure, case))
        show(rows[-1])
    return rows


def alone(work: Callable[[Case], dict[str, Any]], case: Case) -> dict[str, Any]:
    """`work(case)`, in a fresh process."""
    with told_of_ended("--batch-size"), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, case).result()


def measure(case: Case) -> dict[str, Any]:
    """Figures of one case, on CUDA where there is one, else on the CPU.

    Returns:
        the case's settings, `device`, `seconds` (median, min and max of the repeats), `images_per_second`, `peak_mib`
        (CUDA: allocated; CPU: the whole process, with the compiler if it ran; None where the system does not tell),
        `gmacs` (billions of multiply-adds of matrix products), `parameters` (total, trainable, receiving gradient; the
        last one only for training), `matmul_tflops` (the device's own, measured) and `of_peak` (the share of it that
        was reached).

    Raises:
        InputError: as `get_preset`, or a precision that the device does not compute in.
    """
    device = this_device()
    number_format(device, case.precision)  # refuses what the device cannot do, before the work
    if case.precision == "bf16" and not has_bf16(device):
        raise InputError(f"this {device.type} has no instructions for bf16: measure fp32, or fp16 on CUDA")
    preset = sized_preset(case)
    torch.manual_seed(0)
    model = CascadeCLIP(preset.model).to(device)
    work = _training if case.work == "train" else _inference
    run = work(cast(CascadeCLIP, torch.compile(model)) if case.compile else model, preset, case)
    with told_of_compiler():
        run()  # not timed: compiles, allocates, and chooses kernels
    seconds = [_timed(run, device) for _ in range(case.repeats)]
    peak = _peak_mib(device)
    if case.compile:
        run = work(model, preset, case)  # the counter does not see into what is compiled
    # some releases of PyTorch do not count the fused attention of a CPU; as plain products every one does
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    macs, tflops = counter.get_total_flops() / 2, matmul_tflops(device, case.precision)
    middle = statistics.median(seconds)
    return {
        **_settings(case, preset),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        "seconds": {"median": middle, "min": min(seconds), "max": max(seconds)},
        "images_per_second": case.batch_size / middle,
        "peak_mib": peak,
        "gmacs": macs / 1e9,
        "parameters": parameters(model) if case.work == "train" else {"total": parameters(model)["total"]},
        "matmul_tflops": tflops,
        "of_peak": 2 * macs / middle / 1e12 / tflops,
    }


def parameters(model: CascadeCLIP) -> dict[str, int]:
    """Numbers of parameters: all, those that train, and those that a backward pass has given a gradient."""
    every = list(model.parameters())
    return {
        "total": sum(p.numel() for p in every),
        "trainable": sum(p.numel() for p in every if p.requires_grad),
        "receiving_gradient": sum(p.numel() for p in every if p.grad is not None),
    }


@checked(size=Count | None, repeats=Count)
def matmul_tflops(device: torch.device, precision: str, size: int | None = None, repeats: int = 5) -> float:
    """The best of several products of two square matrices, in 10^12 additions and multiplications per second."""
    size = size or (8192 if device.type == "cuda" else 2048)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(_timed(lambda: a @ b, device) for _ in range(repeats)) / 1e12


def last_stages(layers: int, number: int) -> tuple[tuple[int, ...], ...]:
    """The last block, and before it stages of three blocks each: 3 of 12 gives the paper's stages."""
    if 3 * (number - 1) >= layers:
        raise InputError(f"{layers} blocks are too few for {number} stages")
    first = layers - 3 * (number - 1)
    return (*((b, b + 1, b + 2) for b in range(first, layers, 3)), (layers,))


def growth_cases(case: Case) -> list[tuple[str, float, Case]]:
    """What is changed, its value, and `case` with that value, for training and inference."""
    preset = sized_preset(case)
    cases: list[tuple[str, float, Case]] = []
    for name, values in GROWTH.items():
        for value in values:
            if name == "image_size":
                patch = preset.model.tower.patch_size
                value = max(1, round(value * _side(case, preset) / patch)) * patch
            changed: dict[str, Any] = {name: value}
            cases += [(name, value, replace(case, work=work, **changed)) for work in WORK]
    return cases


def sized_preset(case: Case) -> Preset:
    """The preset with the case's image size and number of stages."""
    preset = get_preset(case.preset, image_size=case.image_size)
    if case.stages is not None:
        stages = last_stages(preset.model.tower.layers, case.stages)
        preset = replace(preset, model=ModelConfig(**{**vars(preset.model), "stages": stages}))
    return preset


def _side(case: Case, preset: Preset) -> int:
    return case.image_size or preset.model.tower.image_size


def _settings(case: Case, preset: Preset) -> dict[str, Any]:
    return {
        "preset": case.preset,
        "work": case.work,
        "batch_size": case.batch_size,
        "image_size": _side(case, preset),
        "classes": _classes(case, preset),
        "stages": len(preset.model.stages),
        "precision": case.precision,
        "compile": case.compile,
    }


def _classes(case: Case, preset: Preset) -> int:
    if case.classes is not None:
        return case.classes
    inductive = case.work == "train" and not preset.training.transductive
    return len(preset.seen if inductive else preset.names)


def _inputs(model: CascadeCLIP, preset: Preset, case: Case) -> tuple[Tensor, Tensor]:
    """Random pictures (B, 3, S, S) and text embeddings (C, E)."""
    device, side = next(model.parameters()).device, _side(case, preset)
    text = torch.randn(_classes(case, preset), model.config.tower.embed_dim, device=device)
    return torch.randn(case.batch_size, 3, side, side, device=device), F.normalize(text, dim=-1)


def _training(model: CascadeCLIP, preset: Preset, case: Case) -> Callable[[], None]:
    """A training step on random pictures, and labels in blocks of 8 px."""
    images, text = _inputs(model, preset, case)
    side = images.shape[-1]
    coarse = torch.randint(0, len(text), (case.batch_size, -(-side // 8), -(-side // 8)), device=images.device)
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :side, :side]
    labels, step = reduce_labels(labels, preset.training.loss_size), training_step(model, text, preset, case)
    return lambda: step(images, labels)


def training_step(model: CascadeCLIP, text: Tensor, preset: Preset, case: Case) -> Callable[[Tensor, Tensor], None]:
    """A step as `training.train` does it: of pictures (B, 3, H, W), normalised, and labels (B, H', W') for `text`."""
    settings, classes = preset.training, len(text)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = adamw(trained, settings)
    scaler = torch.amp.GradScaler(text.device.type, enabled=case.precision == "fp16")
    unseen = torch.arange(classes - max(1, classes // 4), classes, device=text.device)
    model.train()

    def step(images: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)  # first, so that the gradients can be looked at afterwards
        with autocast(images.device, case.precision):
            logits = model(images, text).mask_logits
        target = pseudo_labels(logits.detach(), labels, unseen) if settings.transductive else labels
        loss = segmentation_loss(
            logits, target, focal_weight=settings.focal_weight, dice_weight=settings.dice_weight,
            ignored_are_negatives=settings.ignored_are_negatives, trusted=True, ignore_index=ignored_label(classes),
        )  # fmt: skip
        scaler.scale(loss["total"]).backward()
        scaler.step(optimiser)
        scaler.update()

    return step


def _inference(model: CascadeCLIP, preset: Preset, case: Case) -> Callable[[], None]:
    images, text = _inputs(model, preset, case)
    seen = list(range(min(len(text), len(preset.seen))))
    model.eval().requires_grad_(False)  # the counter of multiply-adds follows what takes gradients

    def run() -> None:
        with autocast(images.device, case.precision):
            predict(model, images, text, seen, preset.seen_offset, preset.window, preset.stride)

    return run


def _timed(run: Callable[[], object], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    run()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_mib(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    # getrusage would do elsewhere, but starts from what the parent process held when it started this one
    status = Path("/proc/self/status")
    if not exists(status):
        return None
    (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
