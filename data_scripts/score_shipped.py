"""Score every model that ships with the package: segmenters on the balanced test scenes of preset `mini-frozen`,
Mini-CLIP on scenes that its pretraining held out.

    python data_scripts/score_shipped.py

Writes `cascadeclip/assets/mini/scores.json` and `mini_clip.json`, from which `python data_scripts/fill_in_results.py`
makes the tables in the texts. To be run whenever a shipped model changes; 1 to 2 minutes a model on a laptop.
"""

from pathlib import Path

from train_mini_clip import evaluate

from cascadeclip.evaluation import score, summarise
from cascadeclip.files import write_json
from cascadeclip.presets import FROZEN
from cascadeclip.segmenter import SHIPPED, load
from cascadeclip.training import open_clip_of

TARGET = Path(__file__).resolve().parents[1] / "cascadeclip" / "assets" / "mini"
HELD_OUT = 1000  # scenes for each of Mini-CLIP's figures


def main(target=TARGET, limit=None):
    clip = open_clip_of(FROZEN)
    held_out = limit or HELD_OUT
    write_json(target / "mini_clip.json", {"scenes": held_out, "scores": evaluate(clip.model, held_out)})
    scores = {name: summarise(FROZEN, score(FROZEN, clip, load(name).model, limit=limit)) for name in SHIPPED}
    write_json(target / "scores.json", scores)


if __name__ == "__main__":
    main()
