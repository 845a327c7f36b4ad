"""Score every model that ships with the package on the balanced test scenes of preset `mini-frozen`.

    python data_scripts/score_shipped.py

Writes `cascadeclip/assets/mini/scores.json`, from which `python data_scripts/fill_in_results.py` makes the tables in
the texts. To be run whenever a shipped model changes; 1 to 2 minutes a model on a laptop.
"""

from pathlib import Path

from cascadeclip.evaluation import score, summarise
from cascadeclip.files import write_json
from cascadeclip.presets import FROZEN
from cascadeclip.segmenter import SHIPPED, load
from cascadeclip.training import open_clip_of

TARGET = Path(__file__).resolve().parents[1] / "cascadeclip" / "assets" / "mini" / "scores.json"


def main(target=TARGET, limit=None):
    clip = open_clip_of(FROZEN)
    write_json(
        target, {name: summarise(FROZEN, score(FROZEN, clip, load(name).model, limit=limit)) for name in SHIPPED}
    )


if __name__ == "__main__":
    main()
