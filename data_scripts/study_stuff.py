"""Things and stuff apart: which unseen classes does a full training of the mini world lose, and to what?

    python data_scripts/study_stuff.py fusion fusion-paper --runs runs/experiments

Stuff (sand, snow) covers whole grounds. Where it is taken for a thing, that thing's IoU breaks down, however well the
thing itself is found; so a mean over unseen things is told twice, once without the pixels of unseen stuff. Reads the
trainings that `cascadeclip experiments` left in the folder given, and trains those that are missing. Scored on all test
pictures, over three seeds, with the seen offset of the preset; a difference is to the comparison's first row, with a
95 % interval over seeds and pictures. Writes `notebooks/results/stuff.json`, which `tell_why.py` makes texts from.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from cascadeclip.evaluation import OverRuns, Resampled, bootstrap
from cascadeclip.evaluation.bands import argmax_at
from cascadeclip.evaluation.diagnostics import picture_counts
from cascadeclip.evaluation.scores import predict_batches
from cascadeclip.experiments import get_comparison, trained_run
from cascadeclip.files import exists, read_json, write_json
from cascadeclip.presets import FROZEN
from cascadeclip.segmenter import load
from cascadeclip.training.recall import recalling

TARGET = Path(__file__).resolve().parents[1] / "notebooks" / "results" / "stuff.json"
SEEDS, REPEATS = (0, 1, 2), 200
POSITIONS = {group: [FROZEN.names.index(name) for name in words] for group, words in FROZEN.unseen_groups.items()}
MEASURES = ("things", "things, without pixels of stuff", "stuff", "stuff called a thing")


def tables(path, tokens):
    """Of one trained model: counts (3, pictures, C), the same without pixels of unseen stuff, and (2, pictures) pixels
    of unseen stuff: all of them, and those that are called an unseen thing."""
    segmenter, data = load(path, preset=FROZEN), FROZEN.eval_data(FROZEN.final_split)
    text = segmenter.clip.class_embeddings(FROZEN.names, FROZEN.templates)
    seen = [FROZEN.names.index(name) for name in FROZEN.seen]
    batches = DataLoader(data, FROZEN.scoring_batch, collate_fn=FROZEN.collate)
    things, stuff = torch.tensor(POSITIONS["things"]), torch.tensor(POSITIONS["stuff"])
    parts = []
    with recalling(segmenter.model, tokens):
        for scores, labels in predict_batches(
            segmenter.model, batches, text, seen, FROZEN.seen_offset, None, None, FROZEN.training.precision
        ):
            found, labels = argmax_at(scores, labels.shape[1:]).long(), labels.long()
            of_stuff = torch.isin(labels, stuff)
            without = torch.where(of_stuff, 255, labels)
            called = of_stuff & torch.isin(found, things)
            counts = [picture_counts(found, some, len(FROZEN.names)) for some in (labels, without)]
            parts.append((*counts, torch.stack([of_stuff, called]).flatten(2).sum(2)))
    return [torch.cat(part, dim=1) for part in zip(*parts, strict=True)]


def measured(whole, without, stuff):
    """Tables of some pictures -> the four measures."""

    def mean(counts, group):
        right, true, given = counts.sum(1)[:, POSITIONS[group]]
        return (right / (true + given - right)).mean().item()

    return (
        mean(whole, "things"),
        mean(without, "things"),
        mean(whole, "stuff"),
        (stuff[1].sum() / stuff[0].sum()).item(),
    )


def over_seeds(runs):
    """Tables of every seed -> measure -> `OverRuns`."""

    def measure(rows):
        return np.array([measured(*(table[:, rows] for table in run)) for run in runs]).flatten()

    found = bootstrap(measure, runs[0][0].shape[1], repeats=REPEATS)
    whole, draws = found.whole.reshape(len(runs), -1), found.draws.reshape(REPEATS, len(runs), -1)
    return {
        key: OverRuns(whole[:, k], Resampled(whole[:, k].mean(), draws[..., k].mean(1), found.drawn_as))
        for k, key in enumerate(MEASURES)
    }


def study(name, folder):
    """Rows of one comparison."""
    variants, tokens = get_comparison(name).variants, folder / "tokens"
    found = {}
    for variant in tqdm(variants, desc=name, unit="row"):
        paths = [trained_run(variant, FROZEN, folder, seed) / "model.safetensors" for seed in SEEDS]
        found[variant.name] = over_seeds([tables(path, tokens) for path in paths])
    first = found[variants[0].name]
    rows = []
    for row, of_row in found.items():
        difference = {}
        for key, measure in of_row.items():
            low, high = (measure - first[key]).interval()
            difference[key] = {"difference": measure.whole - first[key].whole, "low": low, "high": high}
        runs = {key: measure.runs.tolist() for key, measure in of_row.items()}
        rows.append({"name": row, "runs": runs, "difference": difference if row != variants[0].name else None})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="comparisons, such as fusion")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"))
    arguments = parser.parse_args()
    done = read_json(TARGET) if exists(TARGET) else {}
    for name in arguments.names:
        write_json(TARGET, done := {**done, name: study(name, arguments.runs)})
