"""Why does the order of cascade and naive fusion turn round? One factor at a time, on seen classes alone.

    python data_scripts/study_why.py --out runs/why                # every row not done yet, one after the other
    python data_scripts/study_why.py --out runs/why --only "mini preset, cascade"

Truly unseen classes are neither words nor scored here: every fifth seen class is held out and plays the unseen one
(which of the five depends on the seed), so that settings may be chosen by it. All rows train on the same scenes, each
seen once, with the schedule of preset `mini-frozen`, and are scored on the 300 validation scenes at 24 x 24 px.
Beside mean IoU a row tells that of every stage alone, and how far the best word that is not in the picture stays below
the best that is. Writes one JSON file a row, and `why.json` of all.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.transforms import normalise
from cascadeclip.evaluation.scores import ConfusionMatrix
from cascadeclip.experiments.comparisons import CASCADE, FUSED, LAST
from cascadeclip.files import write_json
from cascadeclip.model import CascadeCLIP, segmentation_loss
from cascadeclip.presets import FROZEN
from cascadeclip.training import adamw, on_tower_of, open_clip_of, reduce_labels
from cascadeclip.training.recall import recalling

SIDE, IGNORED = 24, 255
MODELS = {
    "last layer": {"stages": LAST},
    "sum": {"stages": FUSED, "aggregation": "sum"},
    "concat": {"stages": FUSED, "aggregation": "concat"},
    "cascade": {"stages": CASCADE},
}
PAPER = {"train_taps": False, "centre_text": False, "aligned_start": False}
FACTORS = {
    "mini preset": {},
    "random start": {"aligned_start": False},
    "dropout 0.1": {"dropout": 0.1},
    "one decoder layer": {"decoder_layers": 1},
    "paper": {**PAPER, "dropout": 0.1},
    "paper, no dropout": PAPER,
}


def classes_of(seed):
    """Seen words, and positions among them of those held out."""
    return list(FROZEN.seen), [position for position in range(len(FROZEN.seen)) if position % 5 == (4 - seed) % 5]


def batch_of(data, indices, table):
    images, labels = FROZEN.collate([data[int(index)] for index in indices])
    return normalise(images), table[reduce_labels(labels.long(), SIDE)]


def table_of(names):
    """Labels of the world -> positions among some of its words, all others ignored."""
    table = torch.full((256,), IGNORED)
    table[[FROZEN.names.index(name) for name in names]] = torch.arange(len(names))
    return table


def train(model, text, known, seed, steps):
    settings, data, table = FROZEN.training, EmojiScenes(1_000_000, 0), table_of(known)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = adamw(parameters, settings)
    order = np.random.default_rng(seed + 5).permutation(8 * steps)
    for step in tqdm(range(steps), mininterval=10):
        for group in optimiser.param_groups:
            group["lr"] = replace(settings, steps=steps).learning_rate_at(step)
        images, labels = batch_of(data, np.sort(order[step * 8 : step * 8 + 8]), table)
        loss = segmentation_loss(model(images, text).mask_logits, labels, focal_weight=settings.focal_weight)["total"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimiser.step()
        optimiser.zero_grad()


@torch.no_grad()
def judge(model, text, names, hidden):
    """Scores of the sum and of each stage alone, and per stage the mean logit by which absent words stay below."""
    data, table = EmojiScenes.split("val"), table_of(names)
    offset = torch.full((len(names), 1, 1), FROZEN.seen_offset)
    offset[hidden] = 0
    held = [names[position] for position in hidden]
    counts, below = {}, []
    for first in range(0, len(data), 50):
        images, labels = batch_of(data, range(first, first + 50), table)
        found = model(images, text)
        present = (labels.flatten(1)[..., None] == torch.arange(len(names))).any(1)[:, :, None]
        for name, logits in {"all": found.mask_logits, **dict(enumerate(found.stage_logits, 1))}.items():
            scores = F.interpolate(logits, (SIDE, SIDE), mode="bilinear").sigmoid() - offset
            counts.setdefault(name, ConfusionMatrix(len(names))).update(scores.argmax(1), labels)
        for logits in (found.mask_logits, *found.stage_logits):
            flat = logits.flatten(2)
            there = flat.masked_fill(~present, -torch.inf).amax(1)
            absent = flat.masked_fill(present, -torch.inf).amax(1)
            margins = there - absent
            below.append(margins[margins.isfinite()].mean().item())
    scores = {str(name): confusion.scores(names, held) for name, confusion in counts.items()}
    parts = {name: {"seen": s.mIoU_seen, "unseen": s.mIoU_unseen, "hIoU": s.hIoU} for name, s in scores.items()}
    margins = np.array(below).reshape(-1, len(scores)).mean(0)
    return {name: part | {"margin": float(margin)} for (name, part), margin in zip(parts.items(), margins, strict=True)}


def run(factor, kind, seed, out, steps):
    clip = open_clip_of(FROZEN)
    names, hidden = classes_of(seed)
    text = clip.class_embeddings(names, FROZEN.templates)
    known = [position for position in range(len(names)) if position not in hidden]
    torch.manual_seed(seed)
    settings = replace(FROZEN.model, **FACTORS[factor], **MODELS[kind])
    model = CascadeCLIP(on_tower_of(clip, settings), clip.visual)
    if model.text_mean is not None:
        model.centre_on(text[known])
    with recalling(model, out / "tokens"):
        train(model.train(), text[known], [names[position] for position in known], seed, steps)
        found = judge(model.eval(), text, names, hidden)
    return {"factor": factor, "model": kind, "seed": seed, "steps": steps, "scores": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/why"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=FROZEN.training.steps)
    parser.add_argument("--only", help="rows whose name, 'factor, model', begins so")
    arguments = parser.parse_args()
    rows = [(factor, kind, seed) for seed in range(arguments.seeds) for factor in FACTORS for kind in MODELS]
    for factor, kind, seed in rows:
        name = f"{factor}, {kind}"
        path = arguments.out / f"{name}, seed {seed}.json".replace(" ", "_").replace(",", "")
        if path.exists() or (arguments.only and not name.startswith(arguments.only)):
            continue
        result = run(factor, kind, seed, arguments.out, arguments.steps)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
        print(name, seed, {key: round(100 * value, 1) for key, value in result["scores"]["all"].items()}, flush=True)
    done = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.out.glob("*seed_*.json"))]
    write_json(arguments.out / "why.json", {"rows": done})
