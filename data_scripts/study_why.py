"""Why does the order of cascade and naive fusion turn round? One factor at a time, on seen classes alone.

    python data_scripts/study_why.py --out runs/why                # every row not done yet, one after the other
    python data_scripts/study_why.py --out runs/why --only "mini preset, cascade"

Truly unseen classes are neither words nor scored here: every fifth seen class is held out and plays the unseen one
(which of the five depends on the seed), so that settings may be chosen by it. All rows of a seed train on the scenes
that preset `mini-frozen` trains on, with its schedule, and are scored on the 300 validation scenes at 24 x 24 px, six
times. Beside mean IoU a row tells, for the sum and for every stage alone, where the pixels of held-out words go:
`lost`, the share that a word with masks takes, and `named`, the share that is right where only held-out words are on
offer; and `margin`, the logit by which the best word that is not in a picture stays below the best that is. Writes one
JSON file a row, and `why.json` of all.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.streams import Endless
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
PAPER = {"train_taps": False, "centre_text": False, "aligned_start": "none"}
SWAPPED = "swapped words"  # a control: every class with masks bears the word of the next one
FACTORS = {
    "mini preset": {},
    SWAPPED: {},
    "random start": {"aligned_start": "none"},
    "last stage aligned": {"aligned_start": "last"},
    "untrained taps": {"train_taps": False},
    "raw text": {"centre_text": False},
    "dropout 0.1": {"dropout": 0.1},
    "one decoder layer": {"decoder_layers": 1},
    "paper": {**PAPER, "dropout": 0.1},
    "paper, no dropout": PAPER,
    "paper, trained taps": {**PAPER, "dropout": 0.1, "train_taps": True},
    "paper, centred text": {**PAPER, "dropout": 0.1, "centre_text": True},
    "paper, aligned start": {**PAPER, "dropout": 0.1, "aligned_start": "all"},
}


def classes_of(seed):
    """Seen words, and positions among them of those held out."""
    return list(FROZEN.seen), [position for position in range(len(FROZEN.seen)) if position % 5 == (4 - seed) % 5]


def batch_of(data, indices, table):
    images, labels = FROZEN.collate([data[index] for index in indices])
    return normalise(images), table[reduce_labels(labels.long(), SIDE)]


def table_of(names):
    """Labels of the world -> positions among some of its words, all others ignored."""
    table = torch.full((256,), IGNORED)
    table[[FROZEN.names.index(name) for name in names]] = torch.arange(len(names))
    return table


def train(model, text, known, seed, steps, look):
    """The loop of `training.loop`, without what a run needs besides; `look(step)` five times on the way."""
    settings = replace(FROZEN.training, steps=steps)
    data, table = Endless(FROZEN.training_data(seed), seed), table_of(known)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = adamw(parameters, settings)
    for step in tqdm(range(steps), mininterval=10):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate_at(step)
        images, labels = batch_of(data, range(step * 8, step * 8 + 8), table)
        loss = segmentation_loss(model(images, text).mask_logits, labels, focal_weight=settings.focal_weight)["total"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % max(steps // 6, 1) == 0 and step + 1 < steps:
            look(step + 1)


@torch.no_grad()
def judge(model, text, names, hidden):
    """What the module's text says a row tells, for "all" stages in sum and for stages "1", "2" ... alone."""
    model.eval()
    data, table = EmojiScenes.split("val"), table_of(names)
    offset = torch.full((len(names), 1, 1), FROZEN.seen_offset)
    offset[hidden] = 0
    counts, pixels, margins = {}, {}, {}
    for first in range(0, len(data), 50):
        images, labels = batch_of(data, range(first, first + 50), table)
        held = torch.isin(labels, torch.tensor(hidden))
        present = (labels.flatten(1)[..., None] == torch.arange(len(names))).any(1)[:, :, None]
        found = model(images, text)
        for name, logits in {"all": found.mask_logits, **dict(enumerate(found.stage_logits, 1))}.items():
            scores = F.interpolate(logits, (SIDE, SIDE), mode="bilinear").sigmoid() - offset
            best, of_held = scores.argmax(1), torch.tensor(hidden)[scores[:, hidden].argmax(1)]
            counts.setdefault(name, ConfusionMatrix(len(names))).update(best, labels)
            lost = ~torch.isin(best[held], torch.tensor(hidden))
            pixels.setdefault(name, []).append(torch.stack([lost, of_held[held] == labels[held]]).float().T)
            flat = logits.flatten(2)
            there, absent = (flat.masked_fill(mask, -torch.inf).amax(1) for mask in (~present, present))
            margins.setdefault(name, []).append((there - absent)[(there - absent).isfinite()])
    scores = {}
    for name, confusion in counts.items():
        found = confusion.scores(names, [names[position] for position in hidden])
        lost, named = torch.cat(pixels[name]).mean(0).tolist()
        scores[str(name)] = {
            "seen": found.mIoU_seen, "unseen": found.mIoU_unseen, "hIoU": found.hIoU,
            "lost": lost, "named": named, "margin": torch.cat(margins[name]).mean().item(),
        }  # fmt: skip
    model.train()
    return scores


def run(factor, kind, seed, out, steps):
    clip = open_clip_of(FROZEN)
    names, hidden = classes_of(seed)
    text = clip.class_embeddings(names, FROZEN.templates)
    known = [position for position in range(len(names)) if position not in hidden]
    if factor == SWAPPED:
        text[known] = text[known].roll(1, 0)
    torch.manual_seed(seed)
    settings = replace(FROZEN.model, **FACTORS[factor], **MODELS[kind])
    model = CascadeCLIP(on_tower_of(clip, settings), clip.visual)
    if model.text_mean is not None:
        model.centre_on(text[known])
    curve = {}

    def look(step):
        curve[step] = judge(model, text, names, hidden)

    with recalling(model, out / "tokens"):
        train(model.train(), text[known], [names[position] for position in known], seed, steps, look)
        look(steps)
    return {"factor": factor, "model": kind, "seed": seed, "steps": steps, "curve": curve, "scores": curve[steps]}


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
