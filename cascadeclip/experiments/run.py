"""Comparisons run: every variant trained with every seed and scored, then set side by side. Finished runs are kept."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from cascadeclip.checkpoints.own import TRAINED
from cascadeclip.clip.load import Clip
from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.identity import data_identity, digest_of, tensor_digest
from cascadeclip.data.streams import Batches, CheckedCollate
from cascadeclip.data.words import seen_positions
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.evaluation.bands import argmax_at
from cascadeclip.evaluation.diagnostics import mean_scores, picture_counts
from cascadeclip.evaluation.resampling import OverRuns, bootstrap_runs
from cascadeclip.evaluation.scores import predict_batches
from cascadeclip.experiments.comparisons import Comparison, Variant
from cascadeclip.experiments.curves import VALIDATIONS, Curve, read_curve
from cascadeclip.experiments.kept import clip_digest, kept_counts, learnt_from
from cascadeclip.files import check_no_folder, check_writable, exists, replace_file, write_json
from cascadeclip.presets import MINIS, Preset, get_preset
from cascadeclip.processes import device, told_of_ended
from cascadeclip.schema import Count, Natural, checked
from cascadeclip.segmenter import load
from cascadeclip.tensors import read_safetensors
from cascadeclip.training.calibrate import calibrated_offset
from cascadeclip.training.recall import recalling
from cascadeclip.training.run import fit, on_tower_of, open_clip_of
from cascadeclip.training.state import FREE, STATE

logger = logging.getLogger(__name__)

RUNS = "runs"  # folder of the trained models
TOKENS = "tokens"  # folder of the mini world's tokens, see `training.recall`: some 4 GB a seed
MEASURES = ("mIoU_seen", "mIoU_unseen", "hIoU")


@dataclass(frozen=True)
class Row:
    """One variant, over all seeds.

    Attributes:
        name: of the variant.
        runs: measure -> one value per seed, fractions.
        difference: measure -> mean over seeds of this variant minus the first one's, with an interval over seeds and
            pictures; None for the first variant.
        curves: of each seed's training.
    """

    name: str
    runs: dict[str, tuple[float, ...]]
    difference: dict[str, OverRuns] | None
    curves: tuple[Curve, ...]

    def mean(self, measure: str) -> float:
        return float(np.mean(self.runs[measure]))

    def deviation(self, measure: str) -> float:
        """Standard deviation over the seeds; nan for a single one."""
        return float(np.std(self.runs[measure], ddof=1)) if len(self.runs[measure]) > 1 else float("nan")


@checked(seeds=Sequence[Natural], limit=Count | None)
def run_comparison(
    comparison: Comparison,
    preset: Preset,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    limit: int | None = None,
    progress: bool = True,
) -> list[Row]:
    """Train, score and compare; a comparison that was stopped goes on, and runs that two comparisons share count once.

    Args:
        preset: its schedule is that of every variant which does not say otherwise.
        out: gets a folder per run under `runs/`; the table is written by `report.write_report`.
        seeds: of initial weights, data order and dropout; the same for every variant.
        limit: score on the first pictures only.

    Raises:
        InputError: no seeds, or a variant that the preset cannot have.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds={list(seeds)}: give one or more, each once")
    runs = _Runs(preset, open_clip_of(preset), Path(out) / RUNS, limit, progress)
    counts = {v.name: torch.stack([runs.counts(v, seed) for seed in seeds]) for v in comparison.variants}
    curves = {v.name: tuple(read_curve(runs.trained(v, seed)) for seed in seeds) for v in comparison.variants}
    return compare_counts(counts, curves, preset)


def trained_run(variant: Variant, preset: Preset, out: str | Path, seed: int) -> Path:
    """Folder of a variant's run among those that `run_comparison` keeps in `out`; trained, if it is not there."""
    return _Runs(preset, open_clip_of(preset), Path(out) / RUNS, None, True).trained(variant, seed)


def budgeted(name: str, data_root: str | Path | None, steps: int | None, batch_size: int | None) -> Preset:
    """A preset as comparisons run it: with another length of training or batch; None keeps its own."""
    preset = get_preset(name, data_root)
    asked = {"steps": steps, "batch_size": batch_size}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    return replace(preset, training=replace(preset.training, **given))


@checked(seeds=Sequence[Natural], limit=Count | None, jobs=Count)
def run_ahead(
    comparisons: Sequence[Comparison],
    make_preset: Callable[[], Preset],
    out: str | Path,
    *,
    seeds: Sequence[int],
    limit: int | None = None,
    jobs: int,
) -> None:
    """Do the runs of several comparisons in `jobs` processes, which share the processor's cores: small models keep
    two processes of one thread busier than one process of two. `run_comparison` then finds the runs done.

    Args:
        make_preset: a function of a module, or a `functools.partial` of one: every process calls it.
        out, seeds, limit: as in `run_comparison`.
    """
    tasks: dict[str, list[tuple[Variant, int]]] = {}
    model = make_preset().model
    for seed in seeds:
        for variant in (variant for comparison in comparisons for variant in comparison.variants):
            # two processes must not do the same run: what shares a training or starts from one stays together
            training = replace(model, **variant.model), variant.training, variant.steps, variant.train_styles
            tasks.setdefault(repr((seed, training)), []).append((variant, seed))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with told_of_ended("--jobs"), ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads,)) as pool:
        work = [pool.submit(_run_group, make_preset, Path(out) / RUNS, limit, group) for group in tasks.values()]
        for done in tqdm(as_completed(work), total=len(work), desc="runs", unit="run"):
            done.result()


def _begin(threads: int) -> None:
    """Of a process of the pool: so many threads, and no training that goes on when the command was killed."""
    torch.set_num_threads(threads)
    if (starter := parent_process()) is not None:
        Thread(target=_end_with, args=(starter,), daemon=True).start()


def _end_with(starter: BaseProcess) -> None:
    starter.join()
    os._exit(1)


def _run_group(
    make_preset: Callable[[], Preset], out: Path, limit: int | None, group: Sequence[tuple[Variant, int]]
) -> None:
    preset = make_preset()
    runs = _Runs(preset, open_clip_of(preset), out, limit, progress=False)
    for variant, seed in group:
        runs.counts(variant, seed)


def compare_counts(
    counts: dict[str, torch.Tensor], curves: dict[str, tuple[Curve, ...]], preset: Preset, *, repeats: int = 200
) -> list[Row]:
    """Rows of a table from pixel counts, variant -> (seeds, 3, pictures, C) as in `diagnostics.picture_counts`, and
    from the learning curves of the same trainings."""

    def measure(table: torch.Tensor, drawn: np.ndarray) -> np.ndarray:
        scores = mean_scores(table[:, drawn], preset.names, preset.unseen)
        return np.array([scores[key] for key in MEASURES])

    rows: list[Row] = []
    first: dict[str, OverRuns] = {}
    for name, tables in counts.items():  # the same pictures for every variant and seed: all is paired
        measured = bootstrap_runs(measure, list(tables), tables.shape[2], repeats=repeats)
        own = dict(zip(MEASURES, measured, strict=True))
        difference = {key: own[key] - first[key] for key in MEASURES} if first else None
        first = first or own
        runs = {key: tuple(value.runs.tolist()) for key, value in own.items()}
        rows.append(Row(name, runs, difference, curves[name]))
    return rows


def segmentations(
    path: Path, preset: Preset, clip: Clip, data: Dataset[Any], offset: float, tokens: Path | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What the model in a file makes of pictures: segmentations (B, H, W) on the CPU and labels, batch by batch.

    Args:
        tokens: folder of kept tokens, see `training.recall`; None keeps none.
    """
    segmenter = load(path, preset=preset, device=device())
    collate = CheckedCollate(preset.collate, len(preset.names), training=False)
    batches = Batches(data, collate, workers=0, batch_size=preset.scoring_batch)
    text, seen = clip.class_embeddings(preset.names, preset.templates), seen_positions(preset.names, preset.unseen)
    with recalling(segmenter.model, tokens):
        for scores, labels in predict_batches(
            segmenter.model, batches, text, seen, offset, preset.window, preset.stride, preset.training.precision
        ):
            yield argmax_at(scores, labels.shape[1:]).cpu(), labels


class _Runs:
    """Trained and scored models of one preset, each in a folder named by a digest of its settings."""

    def __init__(self, preset: Preset, clip: Clip, out: Path, limit: int | None, progress: bool):
        self.preset, self.clip, self.out = preset, clip, out
        self.limit, self.progress = limit, progress
        self._told: dict[tuple[Any, int], dict[str, Any]] = {}  # by styles and seed

    @cached_property
    def _clip_sum(self) -> str:
        return clip_digest(self.clip)

    @property
    def tokens(self) -> Path | None:
        """Where the mini world's tokens are kept; those of larger pictures would take too much room."""
        return self.out.parent / TOKENS if self.preset.name in MINIS else None

    def counts(self, variant: Variant, seed: int) -> torch.Tensor:
        """Pixel counts (3, pictures, C) of a variant trained with a seed; from the file, if it was done before."""
        preset = _preset_of(variant, self.preset)
        folder = self.trained(variant, seed)
        offset = preset.seen_offset if variant.seen_offset is None else variant.seen_offset
        if variant.calibrated:
            model, training = self._settings(variant, preset, seed)
            offset = calibrated_offset(
                preset, self.clip, model, training, folder / "calibration", limit=self.limit, progress=self.progress
            )
        scored: dict[str, Any] = {
            "offset": offset, "styles": variant.test_styles, "limit": self.limit, "split": preset.final_split,
        }  # fmt: skip
        data = self._first(preset.eval_data(preset.final_split))
        scored |= data_identity(preset.eval_data(preset.final_split), preset.collate, every="time")
        scored |= {"classes": preset.names, "unseen": preset.unseen, "templates": preset.templates}
        scored |= {"window": preset.window, "stride": preset.stride, "CLIP": self._clip_sum}
        scored["weights"] = tensor_digest(read_safetensors(folder / TRAINED)[1])
        path = folder / f"counts-{digest_of(scored)[:16]}.safetensors"
        check_no_folder(path)
        if exists(path):
            try:
                return kept_counts(path, (3, len(data), len(preset.names)))  # type: ignore[arg-type]  # has a length
            except DamagedFile as error:
                logger.warning("%s; scoring anew", error)
        check_writable(folder)  # now, and not when all was scored
        table = self._score(preset, folder / TRAINED, offset)
        metadata = {"sum": tensor_digest({"counts": table})}
        replace_file(path, lambda scratch: save_file({"counts": table}, scratch, metadata=metadata))
        return table

    def trained(self, variant: Variant, seed: int) -> Path:
        """Folder of the trained model; trains it, if that was not done before."""
        preset = _preset_of(variant, self.preset)
        model, training = self._settings(variant, preset, seed)
        half = max(1, training.steps // 2)  # kept, for self-training may start there
        folder = self._fit(preset, variant, model, replace(training, keep_every=half))
        if not variant.transductive:
            return folder
        whole, training = training.steps, replace(training, steps=half, transductive=True)
        odd = {"starts half-way of": whole} if whole != 2 * half else {}  # 4 and 5 steps have one half
        return self._fit(preset, variant, model, training, folder / f"model-{half}.safetensors", odd)

    def _settings(self, variant: Variant, preset: Preset, seed: int) -> tuple[ModelConfig, TrainConfig]:
        model = on_tower_of(self.clip, replace(self.preset.model, **variant.model))
        steps = max(1, int(preset.training.steps * variant.steps))
        return model, replace(preset.training, seed=seed, steps=steps, keep_every=0, **variant.training)

    def _fit(
        self, preset: Preset, variant: Variant, model: ModelConfig, training: TrainConfig, start: Path | None = None,
        more: dict[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        """Folder of a model that was trained so; `more` tells its training from others of the same settings."""
        lasting = {key: value for key, value in asdict(training).items() if key not in FREE}
        settings = {
            "preset": preset.name, "model": model.to_dict(), "training": lasting, "styles": variant.train_styles,
        } | self._told_of(variant, preset, training.seed) | (more or {})  # fmt: skip
        folder = self.out / digest_of(settings)[:16]
        if not exists(folder / TRAINED) or _ended_before_its_scores(folder, training.steps):
            print(f"{variant.name}, seed {training.seed}: {training.steps} steps", flush=True)
            write_json(folder / "settings.json", settings)
            begin = load(start, preset=preset).model if start is not None else None
            training = replace(training, validate_every=max(1, training.steps // VALIDATIONS))
            shown = replace(preset, eval_data=lambda split: self._first(preset.eval_data(split)))
            fit(
                shown, self.clip, model, training, folder, start=begin, validate=True, recall=self.tokens,
                progress=self.progress,
            )  # fmt: skip
        return folder

    def _told_of(self, variant: Variant, preset: Preset, seed: int) -> dict[str, Any]:
        """What a training learns from; nothing where the preset's name says it all, as that of the mini world does
        unless the preset was given other words, data or another CLIP."""
        key = variant.train_styles, seed
        if key not in self._told:
            told = learnt_from(preset, self.clip, seed)
            if preset.name in MINIS:
                usual = _preset_of(variant, MINIS[preset.name])
                told = {} if told == learnt_from(usual, open_clip_of(usual), seed) else told
            self._told[key] = told
        return self._told[key]

    def _score(self, preset: Preset, path: Path, offset: float) -> torch.Tensor:
        data = self._first(preset.eval_data(preset.final_split))
        parts = [
            picture_counts(found, labels, len(preset.names))
            for found, labels in segmentations(path, preset, self.clip, data, offset, self.tokens)
        ]
        return torch.cat(parts, dim=1)

    def _first(self, data: Dataset[Any]) -> Dataset[Any]:
        """The first pictures of a set, as many as may be looked at."""
        length = len(data)  # type: ignore[arg-type]  # PyTorch's class does not promise a length
        return data if self.limit is None else Subset(data, range(min(self.limit, length)))


def _preset_of(variant: Variant, preset: Preset) -> Preset:
    """The preset with the variant's drawing styles."""
    if variant.train_styles is None and variant.test_styles is None:
        return preset
    if preset.name not in MINIS:
        raise InputError(
            f"{variant.name}: preset {preset.name} has no drawing styles; that comparison is the mini world's alone"
        )
    train: dict[str, Any] = {} if variant.train_styles is None else {"styles": variant.train_styles}
    test = {} if variant.test_styles is None else {"styles": variant.test_styles}
    return replace(
        preset,
        train_data=lambda seed: EmojiScenes(1_000_000, seed, **train),
        eval_data=lambda split: EmojiScenes.split(split, **test),
    )


def _ended_before_its_scores(folder: Path, steps: int) -> bool:
    """Whether a training that can go on was stopped after its last step, but before its last scores."""
    try:
        return exists(folder / STATE) and read_curve(folder).steps[-1] != steps
    except InputError:
        return True
