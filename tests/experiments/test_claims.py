"""The paper's claims against stored reports, and the documents that show both."""

import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import cascadeclip
from cascadeclip.data.emojiscenes import SPLITS
from cascadeclip.errors import InputError
from cascadeclip.evaluation import score
from cascadeclip.experiments import CLAIMS, claims, conclusion, demo, get_comparison, report, stored_report, texts
from cascadeclip.experiments.claims import CANNOT_SAY, HOLDS, NOT_HERE, NOT_RUN, Claim, claims_table, verdict
from cascadeclip.experiments.curves import Curve
from cascadeclip.presets import FROZEN
from cascadeclip.segmenter import RECOMMENDED, SHIPPED
from cascadeclip.training import open_clip_of

ROOT = Path(__file__).parents[2]
STORED = sorted(path.stem for path in (ROOT / "cascadeclip" / "assets" / "results").glob("*.json"))


def row(low, high, refused=""):
    found = {"difference": 0.05, "low": low, "high": high}
    return {
        "name": "cascade", "runs": {key: [0.5, 0.6] for key in ("mIoU_seen", "mIoU_unseen", "hIoU")},
        "difference": {"mIoU_unseen": found, "hIoU": found}, "not_compared": refused,
        "curves": [{"steps": [6, 12]}],
    }  # fmt: skip


@pytest.fixture
def stored(monkeypatch):
    """Puts one row in the place of every stored report."""

    def put(second):
        first = {**row(0, 0), "name": "last layer", "difference": {}}
        made = {"rows": [first, second], "steps": 12, "batch_size": 2, "seeds": 2, "here": "there"}
        for module in (claims, texts):
            monkeypatch.setattr(module, "stored_report", lambda name: made)
        return made

    return put


REASONS = {HOLDS: "so it is", NOT_HERE: "so it is not"}
MORE = Claim("More.", "1 to 2", "fusion", "cascade", "hIoU", why=REASONS)
BOTH = replace(MORE, as_paper="fusion-paper")


@pytest.mark.parametrize(
    "second, up, down",
    [
        (row(0.01, 0.09), HOLDS, NOT_HERE),
        (row(-0.09, -0.01), NOT_HERE, HOLDS),
        (row(-0.01, 0.09), CANNOT_SAY, CANNOT_SAY),
        (row(0.01, 0.09, "still learning"), CANNOT_SAY, CANNOT_SAY),
        (row(None, None), CANNOT_SAY, CANNOT_SAY),
    ],
)
def test_a_verdict_needs_an_interval_without_zero_between_trained_models(stored, second, up, down):
    stored(second)
    assert verdict(MORE) == up
    assert verdict(Claim("Less.", "", "fusion", "cascade", "hIoU", more=False)) == down


def test_the_table_tells_the_reason_that_belongs_to_the_verdict(stored, monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", (MORE,))
    stored(row(-0.09, -0.01))
    line = claims_table().splitlines()[-1]
    assert line == "| More. | 1 to 2 | **not here**: hIoU +5.0 (-9.0 to -1.0) |  | so it is not |"
    stored(row(0.01, 0.09, "cascade: still learning"))
    assert "| *cannot say*: cascade: still learning |  |  |" in claims_table()


def test_a_claim_is_held_against_both_settings(monkeypatch):
    found = {"fusion": row(-0.09, -0.01), "fusion-paper": row(0.01, 0.09)}
    monkeypatch.setattr(claims, "CLAIMS", (BOTH,))
    monkeypatch.setattr(claims, "stored_report", lambda name: {"rows": [found[name]]})
    assert (verdict(BOTH), verdict(BOTH, as_paper=True)) == (NOT_HERE, HOLDS)
    line = claims_table().splitlines()[-1]
    assert line.endswith(
        "| **not here**: hIoU +5.0 (-9.0 to -1.0) | **holds**: hIoU +5.0 (+1.0 to +9.0) | so it is not |"
    )


def test_a_comparison_that_was_not_run_says_how_to_run_it(monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", (Claim("Any.", "", "sigma", "8", "hIoU"),))
    monkeypatch.setattr(report, "files", lambda package: ROOT / "tests")
    assert "| *not run yet*: `cascadeclip experiments sigma` |  |" in claims_table()
    with pytest.raises(InputError, match="no results of comparison 'sigma' are stored"):
        stored_report("sigma")
    with pytest.raises(InputError, match="no comparison 'nope'"):
        stored_report("nope")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.claim)
def test_every_claim_names_a_row_that_is_compared(claim):
    for name in filter(None, (claim.comparison, claim.as_paper)):
        assert claim.row in [variant.name for variant in get_comparison(name).variants][1:]
    if claim.as_paper:  # the same rows
        preset, paper = (get_comparison(name).variants for name in (claim.comparison, claim.as_paper))
        assert [one.name for one in preset] == [one.name for one in paper]
    found = verdict(claim)
    assert found == NOT_RUN or claim.comparison in STORED
    assert set(claim.why) <= {HOLDS, NOT_HERE, CANNOT_SAY}


def test_documents_show_what_is_stored():
    script = runpy.run_path(str(ROOT / "data_scripts" / "fill_in_results.py"))
    marked = script["documents"]()
    assert {ROOT / "README.md", ROOT / "docs" / "results.md"} <= set(marked)
    for path in marked:
        text = path.read_text(encoding="utf-8")
        assert script["with_results"](text) == text, f"{path}: run python data_scripts/fill_in_results.py"
    old = (ROOT / "README.md").read_text(encoding="utf-8").replace("| naclip | 12 |", "| naclip | 11 |")
    assert script["with_results"](old) != old


def test_every_shipped_model_has_its_scores():
    lines = texts.shipped_table().splitlines()[2:]
    assert [line.split('"')[1] for line in lines] == list(SHIPPED)
    (best,) = [line for line in lines if '"mini"' in line]
    assert best.startswith(f'| `"{RECOMMENDED}"`')
    assert f"<!-- results: shipped -->\n\n{texts.shipped_table()}" in (ROOT / "docs" / "results.md").read_text("utf-8")


def test_mini_clip_has_its_scores_in_its_card():
    card = (ROOT / "cascadeclip" / "assets" / "MODEL_CARD.md").read_text("utf-8")
    assert f"<!-- results: mini-clip -->\n\n{texts.mini_clip_table()}" in card
    assert texts.mini_clip_table().count("\n") == 2 + 6


def test_the_index_says_of_every_table_what_it_was_run_on(tmp_path):
    shown = ROOT / "notebooks" / "results"
    for name in STORED:
        shutil.copy(shown / f"{name}.md", tmp_path)
    text = report.write_index(tmp_path, ROOT / "cascadeclip" / "assets" / "results").read_text()
    assert text == (shown / "README.md").read_text(), "run data_scripts/store_mini_results.py"
    for name in STORED:
        (line,) = (line for line in text.splitlines() if line.startswith(f"On {stored_report(name)['hardware']};"))
        assert name in line.rpartition(": ")[2].rstrip(".").split(", ")


def test_rows_longer_than_the_budget_say_so(stored):
    made = stored(row(0.01, 0.09))
    made["rows"][1]["curves"] = [{"steps": [12, 24]}, {"steps": [12, 24]}]
    assert "| 12 to 24 steps of 2, 2 seeds |" in texts.table_of("fusion")
    made["rows"][0]["curves"] = made["rows"][1]["curves"]
    assert "| 24 steps of 2, 2 seeds |" in texts.table_of("fusion")


def test_a_mark_is_filled_and_a_lost_one_found(stored):
    stored(row(0.01, 0.09))
    marked = "before\n<!-- results: fusion -->\nold 99.9\n<!-- end of results -->\nafter\n"
    new = texts.filled(marked)
    assert "| 12 steps of 2, 2 seeds |" in new
    assert "old" not in new and "| cascade | 55.0 ± 7.1 |" in new and "+5.0 (+1.0 to +9.0)" in new
    assert new.startswith("before\n") and new.endswith("\nafter\n") and texts.filled(new) == new
    with pytest.raises(InputError, match="has no"):
        texts.filled("<!-- results: fusion -->\n")


@pytest.mark.parametrize("name", STORED)
def test_what_is_stored_was_trained_for_the_whole_budget(name):
    found = stored_report(name)
    assert (found["steps"], found["batch_size"], found["limit"]) == (
        FROZEN.training.steps,
        FROZEN.training.batch_size,
        None,
    )
    assert found["seeds"] >= 3 and [row["name"] for row in found["rows"]] == [
        variant.name for variant in get_comparison(name).variants
    ]


@pytest.mark.slow
def test_the_shipped_models_score_as_their_stored_runs():
    """The first quarter of the scenes: 310 of 1240, so a few points of room."""
    clip, rows = open_clip_of(FROZEN), {row["name"]: row for row in stored_report("fusion")["rows"]}
    for name, stored_row in rows.items():
        model = cascadeclip.load(f"mini/{name.replace(' ', '-')}").model
        scores = score(FROZEN, clip, model, limit=310).summary()
        for measure, tolerance in (("mIoU_seen", 0.03), ("mIoU_unseen", 0.06)):
            assert scores[measure] == pytest.approx(stored_row["runs"][measure][0], abs=tolerance), (name, measure)


@pytest.mark.slow
def test_the_demo_begins_a_training_and_compares_those_that_ended(tmp_path, monkeypatch):
    monkeypatch.setitem(SPLITS, "val", (SPLITS["val"][0], 20))  # the live curve's scores
    found = demo.run_demo(tmp_path, steps=2, limit=5)
    assert set(found["shipped"]) == {"last layer", "sum", "concat", "cascade"}
    assert found["live"]["steps"] == (2,) and 0 <= found["live"]["seen"][0] <= 1
    assert found["conclusion"] == conclusion(stored_report("fusion"))
    for picture in ("curves.png", "scores.png", "predictions.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    with pytest.raises(InputError, match="choose from last layer, sum, concat, cascade"):
        demo.run_demo(tmp_path, model="nga")


def test_the_live_curve_lies_on_the_stored_ones():
    curve = Curve((100, 200), (0.3, 0.4), (0.2, 0.3))
    seen, unseen = report.plot_curves(stored_report("fusion"), live={"cascade": curve}).axes
    lines = {line.get_label(): line for line in unseen.lines}
    assert list(lines["cascade, live"].get_ydata()) == [20, 30] and len(seen.lines) == 5
