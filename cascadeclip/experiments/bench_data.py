"""Whether reading pictures keeps up with training on them: the loader alone, the step alone, and both together.

The mini world draws its own scenes; for the benchmarks pictures of VOC's usual size are made up for the occasion.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from cascadeclip.data.distortion import distort
from cascadeclip.data.folders import FolderDataset
from cascadeclip.data.labels import LabelMap
from cascadeclip.data.streams import Endless, Shares, stream
from cascadeclip.data.transforms import Augment, normalise
from cascadeclip.experiments.bench import Case, sized_preset, training_step
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import MINI, Preset
from cascadeclip.processes import device, readers, told_of_compiler
from cascadeclip.training.labels import reduce_labels, seen_only

PICTURES, ROWS, COLUMNS = 32, 375, 500
AHEAD = 2  # batches that each reader has ready, as PyTorch's loaders do


def measure_data(case: Case) -> dict[str, Any]:
    """Training pictures per second on this device, as `training.train` reads, uploads, distorts and learns them.

    Returns:
        `workers`, processes that read (0: the one that trains), `loader`, `step` and `both`, pictures per second, and
        `limit`, which of `loader` and `step` the other waits for.

    Raises:
        InputError: as `bench.measure`.
    """
    preset = sized_preset(case)
    workers = readers(preset.training.workers)
    with tempfile.TemporaryDirectory() as folder:
        data = preset.train_data(0) if preset.clip == MINI.clip else made_up(preset, Path(folder))
        loader = stream(Endless(data, 0), Shares(case.batch_size), preset.collate, workers)
        batches = iter(loader)
        step = _step(preset, case)
        with told_of_compiler():
            step(next(batches))  # starts the readers, compiles, allocates
        held = next(batches)
        times = {
            "step": _seconds(lambda: step(held), case.repeats),
            "loader": _seconds(lambda: next(batches), case.repeats * max(1, workers), AHEAD * workers),
            "both": _seconds(lambda: step(next(batches)), case.repeats, AHEAD * workers),
        }
    rates = {name: case.batch_size / seconds for name, seconds in times.items()}
    return {"workers": workers, **rates, "limit": min(("loader", "step"), key=rates.__getitem__)}


def made_up(preset: Preset, folder: Path) -> Dataset[Any]:
    """Pictures in colours that vary slowly, with some noise, which compress about as photographs do, and masks of the
    preset's classes in blocks; augmented as the preset's own."""
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((COLUMNS, ROWS), Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = (smooth + random.normal(0, 18, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.jpg", quality=90)
        blocks = random.integers(0, len(preset.names), (3, 4)).repeat(125, 0).repeat(125, 1)
        Image.fromarray(blocks.astype(np.uint8)).save(folder / f"{number}.png")
    pairs = [(folder / f"{number}.jpg", folder / f"{number}.png") for number in range(PICTURES)]
    labels = LabelMap(len(preset.names))
    return FolderDataset(pairs, labels, Augment(preset.model.tower.image_size, labels.ignore))


def _seconds(run: Callable[[], object], repeats: int, untimed: int = 0) -> float:
    """Mean of the runs, after some that are not timed."""
    for _ in range(untimed):
        run()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _step(preset: Preset, case: Case) -> Callable[[tuple[Tensor, ...]], None]:
    """A step from a batch as the loader gives it."""
    where = device()
    hidden = () if preset.training.transductive else preset.unseen
    known, table = seen_only(preset.names, hidden)
    torch.manual_seed(0)
    model, table = CascadeCLIP(preset.model).to(where), table.to(where)
    text = F.normalize(torch.randn(len(known), model.config.tower.embed_dim, device=where), dim=-1)
    run = training_step(cast(CascadeCLIP, torch.compile(model)) if case.compile else model, text, preset, case)

    def step(batch: tuple[Tensor, ...]) -> None:
        images, labels, *changes = (part.to(where, non_blocking=True) for part in batch)
        images = distort(images, *changes) if changes else images
        run(normalise(images), table[reduce_labels(labels.long(), preset.training.loss_size)])
        if where.type == "cuda":
            torch.cuda.synchronize(where)

    return step
