"""Train the cascade with prompt tokens that ships with the package, on the seen classes' masks of EmojiScenes.

    python data_scripts/train_mini_cascade.py --steps 1400 --out runs/mini_cascade

The `mini` preset with a longer run and without its aligned start. A stopped run goes on when the command is given
again. Writes `cascade-prompts.safetensors` (fp16, without the frozen tower) and the test scores into the output folder;
copy the first into `cascadeclip/assets/mini/` to ship it, and run `python data_scripts/score_shipped.py`.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from cascadeclip.checkpoints import save_checkpoint
from cascadeclip.evaluation import score, summarise
from cascadeclip.files import write_json
from cascadeclip.presets import MINI
from cascadeclip.segmenter import load
from cascadeclip.training import fit, open_clip_of

SHIPPED = "cascade-prompts.safetensors"


def main(arguments):
    clip = open_clip_of(MINI)
    training = replace(
        MINI.training,
        steps=arguments.steps,
        seed=arguments.seed,
        checkpoint_every=100,
    )
    settings = replace(MINI.model, aligned_start="none")
    model, _ = fit(MINI, clip, settings, training, arguments.out, progress=sys.stderr.isatty())
    path = arguments.out / SHIPPED
    save_checkpoint(path, model, clip=MINI.clip, seen=MINI.seen, half=True)
    scores = summarise(MINI, score(MINI, clip, load(path).model, limit=arguments.limit))
    report = {"steps": training.steps, "seed": training.seed, "bytes": path.stat().st_size} | scores
    print(json.dumps(report, indent=1))
    write_json(arguments.out / "report.json", report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, help="score on the first test scenes only")
    parser.add_argument("--out", type=Path, default=Path("runs/mini_cascade"))
    main(parser.parse_args())
