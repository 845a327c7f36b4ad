"""Put what `cascadeclip experiments` found on the mini world where the package and its texts take it from.

    cascadeclip experiments all --jobs 2 --out runs/experiments
    python data_scripts/store_mini_results.py --runs runs/experiments

Copies the reports to `cascadeclip/assets/results/`, their tables and figures to `notebooks/results/`, and ships, if it
is among them, the four models of the comparison `fusion`, trained with seed 0, as `mini/last-layer`, `mini/sum`,
`mini/concat` and `mini/cascade` (float16, without the frozen tower). Then `python data_scripts/fill_in_results.py`
rewrites the texts.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

from cascadeclip.checkpoints import save_checkpoint
from cascadeclip.experiments import COMPARISONS, get_comparison, read_report, trained_run, write_index
from cascadeclip.files import check_apart
from cascadeclip.presets import FROZEN
from cascadeclip.segmenter import load

ROOT = Path(__file__).resolve().parents[1]
ASSETS, SHOWN = ROOT / "cascadeclip" / "assets", ROOT / "notebooks" / "results"


def store_reports(runs):
    """Those there are; what is stored of others stays."""
    (ASSETS / "results").mkdir(exist_ok=True)
    for path in (runs / f"{name}.json" for name in COMPARISONS):
        if not path.exists():
            continue
        check_apart((ASSETS / "results" / path.name, SHOWN / path.name), (path,))
        report = read_report(path)
        budget = FROZEN.training.steps, FROZEN.training.batch_size
        if (report["steps"], report["batch_size"]) != budget or report["limit"] is not None:
            raise SystemExit(f"{path} is not of the preset's whole budget: it is no result")
        report["command"] = re.sub(r" --out \S+", "", report["command"])  # a folder of one machine
        text = json.dumps(report, indent=1) + "\n"
        (ASSETS / "results" / path.name).write_text(text, encoding="utf-8")
        for shown in (path.with_suffix(".md"), path.with_suffix(".png"), path.with_name(f"{path.stem}-curves.png")):
            shutil.copy(shown, SHOWN)
        print(f"stored {path.name}")


def ship_models(runs):
    for variant in get_comparison("fusion").variants:
        model = load(trained_run(variant, FROZEN, runs, seed=0)).model
        target = ASSETS / "mini" / f"{variant.name.replace(' ', '-')}.safetensors"
        save_checkpoint(
            target, model, clip=FROZEN.clip, seen=FROZEN.seen, templates=FROZEN.templates,
            seen_offset=FROZEN.seen_offset, half=True,
        )  # fmt: skip
        print(f"shipped {target.name}, {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"))
    arguments = parser.parse_args()
    store_reports(arguments.runs)
    if (arguments.runs / "fusion.json").exists():
        ship_models(arguments.runs)
    write_index(SHOWN, ASSETS / "results")
