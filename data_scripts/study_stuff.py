"""Things and stuff apart: which unseen classes does a full training of the mini world lose, and to what?

    python data_scripts/study_stuff.py fusion fusion-paper beyond --runs runs/experiments

Stuff (sand, snow) covers whole grounds. Where it is taken for a thing, that thing's IoU breaks down, however well the
thing itself is found; so a mean over unseen things is told twice, once without the pixels of unseen stuff. Reads the
trainings that `cascadeclip experiments` left in the folder given, and trains those that are missing. Scored on all test
pictures, over three seeds, with the seen offset of the preset; a difference is to the comparison's first row, with a
95 % interval over seeds and pictures. Of `beyond` the cascade is held against the last layer of the same settings.
Writes `notebooks/results/stuff.json`, which `tell_why.py` makes texts from.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cascadeclip.checkpoints.own import TRAINED
from cascadeclip.data.labels import IGNORE
from cascadeclip.data.words import positions_of
from cascadeclip.evaluation.diagnostics import picture_counts
from cascadeclip.evaluation.resampling import bootstrap_runs
from cascadeclip.experiments import get_comparison, trained_run
from cascadeclip.experiments.report import differences_as_json
from cascadeclip.experiments.run import TOKENS, segmentations
from cascadeclip.files import exists, read_json, write_json
from cascadeclip.presets import FROZEN
from cascadeclip.training import open_clip_of

TARGET = Path(__file__).resolve().parents[1] / "notebooks" / "results" / "stuff.json"
SEEDS = (0, 1, 2)
POSITIONS = {group: positions_of(words, FROZEN.names) for group, words in FROZEN.unseen_groups.items()}
MEASURES = ("things", "things, without pixels of stuff", "stuff", "stuff called a thing")
UNSEEN = "unseen"  # things and stuff together


def tables(path, clip, tokens):
    """Of one trained model: counts (3, pictures, C), the same without pixels of unseen stuff, and (2, pictures) pixels
    of unseen stuff: all of them, and those that are called an unseen thing."""
    things, stuff = torch.tensor(POSITIONS["things"]), torch.tensor(POSITIONS["stuff"])
    data, parts = FROZEN.eval_data(FROZEN.final_split), []
    for found, labels in segmentations(path, FROZEN, clip, data, FROZEN.seen_offset, tokens):
        of_stuff = torch.isin(labels.long(), stuff)
        called = of_stuff & torch.isin(found.long(), things)
        truths = labels.long(), torch.where(of_stuff, IGNORE, labels.long())
        counts = [picture_counts(found, truth, len(FROZEN.names)) for truth in truths]
        parts.append((*counts, torch.stack([of_stuff, called]).flatten(2).sum(2)))
    return [torch.cat(part, dim=1) for part in zip(*parts, strict=True)]


def measured(whole, without, stuff):
    """Tables of some pictures -> the measures."""

    def mean(counts, group):
        right, true, given = counts.sum(1)[:, POSITIONS[group]]
        return (right / (true + given - right)).mean().item()

    things, of_stuff, called = mean(whole, "things"), mean(whole, "stuff"), stuff[1].sum() / stuff[0].sum()
    weights = [len(POSITIONS[group]) for group in ("things", "stuff")]
    unseen = float(np.average([things, of_stuff], weights=weights))
    return things, mean(without, "things"), of_stuff, called.item(), unseen


def over_seeds(runs):
    """Tables of every seed -> measure -> `OverRuns`."""

    def measure(run, drawn):
        return np.array(measured(*(table[:, drawn] for table in run)))

    return dict(zip((*MEASURES, UNSEEN), bootstrap_runs(measure, runs, runs[0][0].shape[1]), strict=True))


def study(variants, folder):
    """Row name -> variant, as rows of a table."""
    clip, found, rows = open_clip_of(FROZEN), {}, []
    for name, variant in tqdm(variants.items(), unit="row"):
        paths = [trained_run(variant, FROZEN, folder, seed) / TRAINED for seed in SEEDS]
        found[name] = over_seeds([tables(path, clip, folder / TOKENS) for path in paths])
    first = next(iter(found.values()))
    for row, own in found.items():
        difference = None if own is first else {key: own[key] - first[key] for key in own}
        runs = {key: measure.runs.tolist() for key, measure in own.items()}
        rows.append({"name": row, "runs": runs, "difference": difference and differences_as_json(difference)})
    return rows


def by_setting(folder):
    """Setting -> rows of the last layer and of the cascade that were trained with it."""
    last, cascade = (
        {variant.name: variant for variant in get_comparison(name).variants} for name in ("beyond-last-layer", "beyond")
    )
    same = last["preset mini-frozen"]  # to a single stage, the last one, nothing else can be done
    names = [name for name, variant in cascade.items() if not variant.calibrated]
    return {name: study({"last layer": last.get(name, same), "cascade": cascade[name]}, folder) for name in names}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="comparisons, such as fusion")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"))
    arguments = parser.parse_args()
    done = read_json(TARGET) if exists(TARGET) else {}
    for name in arguments.names:
        rows = {variant.name: variant for variant in get_comparison(name).variants}
        found = by_setting(arguments.runs) if name == "beyond" else study(rows, arguments.runs)
        write_json(TARGET, done := {**done, name: found})
