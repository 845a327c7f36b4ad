"""Comparisons run: every variant trained with every seed and scored, then set side by side. Finished runs are kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Subset

from cascadeclip.alignment import Resampled, bootstrap
from cascadeclip.clip import Clip
from cascadeclip.comparisons import Comparison, Variant
from cascadeclip.config import ModelConfig, TrainConfig
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.diagnostics import mean_scores, picture_counts
from cascadeclip.errors import InputError
from cascadeclip.evaluation import argmax_at, predict_batches
from cascadeclip.experiment import fit, on_tower_of, open_clip_of
from cascadeclip.presets import Preset
from cascadeclip.segmenter import TRAINED, load
from cascadeclip.tensors import replace_file
from cascadeclip.training import FREE

MEASURES = ("mIoU_seen", "mIoU_unseen", "hIoU")


@dataclass(frozen=True)
class Row:
    """One variant, over all seeds.

    Attributes:
        name: of the variant.
        runs: measure -> one value per seed, fractions.
        difference: measure -> mean over seeds of this variant less the first one's, with an interval that draws
            seeds and pictures anew; None for the first variant.
    """

    name: str
    runs: dict[str, tuple[float, ...]]
    difference: dict[str, Resampled] | None

    def mean(self, measure: str) -> float:
        return float(np.mean(self.runs[measure]))

    def deviation(self, measure: str) -> float:
        """Standard deviation over the seeds; nan for a single one."""
        return float(np.std(self.runs[measure], ddof=1)) if len(self.runs[measure]) > 1 else float("nan")


def run_comparison(
    comparison: Comparison,
    preset: Preset,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> list[Row]:
    """Train, score and compare; a comparison that was stopped goes on, and runs that two comparisons share count once.

    Args:
        out: gets a folder per run under `runs/`; the table is written by `compare_report.write_report`.
        seeds: of initial weights, data order and dropout; the same for every variant.
        steps: of training; the preset's by default.
        limit: score on the first pictures only.

    Raises:
        InputError: no seeds, or a variant that the preset cannot have.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds={list(seeds)}: give one or more, each once")
    runs = _Runs(preset, open_clip_of(preset), Path(out) / "runs", steps or preset.training.steps, limit, progress)
    counts = {v.name: torch.stack([runs.counts(v, seed) for seed in seeds]) for v in comparison.variants}
    return compare_counts(counts, preset)


def compare_counts(counts: dict[str, torch.Tensor], preset: Preset, *, repeats: int = 200) -> list[Row]:
    """Rows of a table from pixel counts, variant -> (seeds, 3, pictures, C) as in `diagnostics.picture_counts`."""
    seeds, pictures = next(iter(counts.values())).shape[0::2][:2]
    drawn_seeds = iter([np.arange(seeds), *np.random.default_rng(0).integers(0, seeds, (repeats, seeds))])

    def measure(drawn: np.ndarray) -> np.ndarray:
        chosen = next(drawn_seeds)  # the same seeds and pictures for every variant: differences are paired
        return np.array([_means(table[chosen][:, :, drawn], preset).mean(0) for table in counts.values()])

    found = bootstrap(lambda drawn: measure(drawn).flatten(), pictures, repeats=repeats)
    shape = (len(counts), len(MEASURES))
    whole, draws = found.whole.reshape(shape), found.draws.reshape(repeats, *shape)
    rows = []
    for position, (name, table) in enumerate(counts.items()):
        values = _means(table, preset)
        difference = {
            key: Resampled(whole[position, k] - whole[0, k], draws[:, position, k] - draws[:, 0, k], found.drawn_as)
            for k, key in enumerate(MEASURES)
        }
        runs = {key: tuple(values[:, k].tolist()) for k, key in enumerate(MEASURES)}
        rows.append(Row(name, runs, difference if position else None))
    return rows


def _means(counts: torch.Tensor, preset: Preset) -> np.ndarray:
    """(seeds, 3, n, C) -> (seeds, measures)."""
    scores = [mean_scores(table, preset.names, preset.unseen) for table in counts]
    return np.array([[score[key] for key in MEASURES] for score in scores])


class _Runs:
    """Trained and scored models of one preset, each in a folder named by a digest of its settings."""

    def __init__(self, preset: Preset, clip: Clip, out: Path, steps: int, limit: int | None, progress: bool):
        self.preset, self.clip, self.out, self.steps = preset, clip, out, steps
        self.limit, self.progress = limit, progress

    def counts(self, variant: Variant, seed: int) -> torch.Tensor:
        """Pixel counts (3, pictures, C) of a variant trained with a seed; from the file, if it was done before."""
        preset = _preset_of(variant, self.preset)
        offset = preset.seen_offset if variant.seen_offset is None else variant.seen_offset
        folder = self.trained(variant, preset, seed)
        scored = {"offset": offset, "styles": variant.test_styles, "limit": self.limit, "split": preset.final_split}
        path = folder / f"counts-{_digest(scored)}.safetensors"
        if not path.exists():
            table = self._score(preset, folder / TRAINED, offset)
            replace_file(path, lambda scratch: save_file({"counts": table}, scratch))
        return load_file(path)["counts"]

    def trained(self, variant: Variant, preset: Preset, seed: int) -> Path:
        """Folder of the trained model."""
        model = on_tower_of(self.clip, replace(self.preset.model, **variant.model))
        half = max(1, int(self.steps * variant.steps) // 2)
        training = replace(
            preset.training, seed=seed, steps=max(1, int(self.steps * variant.steps)), keep_every=half,
            **variant.training,
        )  # fmt: skip
        folder = self._fit(preset, variant, model, training, None)
        if not variant.transductive:
            return folder
        training = replace(training, steps=half, transductive=True, keep_every=0)
        return self._fit(preset, variant, model, training, folder / f"model-{half}.safetensors")

    def _fit(
        self, preset: Preset, variant: Variant, model: ModelConfig, training: TrainConfig, start: Path | None
    ) -> Path:
        lasting = {key: value for key, value in asdict(training).items() if key not in FREE}
        settings = {"preset": preset.name, "model": model.to_dict(), "training": lasting}
        settings["styles"] = variant.train_styles
        folder = self.out / _digest(settings)
        if not (folder / TRAINED).exists():
            print(f"{variant.name}, seed {training.seed}: {training.steps} steps", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(settings, indent=1) + "\n"
            replace_file(folder / "settings.json", lambda scratch: scratch.write_text(text))
            begin = load(start, preset=preset).model if start is not None else None
            fit(preset, self.clip, model, training, folder, start=begin, progress=self.progress)
        return folder

    def _score(self, preset: Preset, path: Path, offset: float) -> torch.Tensor:
        segmenter, data = load(path, preset=preset), preset.eval_data(preset.final_split)
        if self.limit is not None:
            data = Subset(data, range(min(self.limit, len(data))))
        batches = DataLoader(data, preset.scoring_batch, collate_fn=preset.collate)
        text = self.clip.class_embeddings(preset.names, preset.templates)
        seen = [preset.names.index(name) for name in preset.seen]
        parts = [
            picture_counts(argmax_at(scores, labels.shape[1:]).cpu(), labels, len(preset.names))
            for scores, labels in predict_batches(
                segmenter.model, batches, text, seen, offset, preset.window, preset.stride, preset.training.precision
            )
        ]
        return torch.cat(parts, dim=1)


def _preset_of(variant: Variant, preset: Preset) -> Preset:
    """The preset with the variant's drawing styles."""
    if variant.train_styles is None and variant.test_styles is None:
        return preset
    if preset.name != "mini":
        raise InputError(f"{variant.name}: preset {preset.name} has no drawing styles; that comparison is mini's alone")
    train = {} if variant.train_styles is None else {"styles": variant.train_styles}
    test = {} if variant.test_styles is None else {"styles": variant.test_styles}
    return replace(
        preset,
        train_data=lambda seed: EmojiScenes(1_000_000, seed, **train),
        eval_data=lambda split: EmojiScenes.split(split, **test),
    )


def _digest(settings: dict) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
