"""The page that tells why the order turns round: made by code from its rows, and true of them."""

import json

import numpy as np
import pytest
import torch

from cascadeclip.experiments import claims_table, get_comparison, stored_report
from cascadeclip.presets import FROZEN
from cascadeclip.segmenter import RECOMMENDED
from tests.data.prepare.test_scripts import load_script

tell_why, study_stuff = load_script("tell_why"), load_script("study_stuff")
WITHOUT = "things, without pixels of stuff"


@pytest.fixture(scope="module")
def rows():
    return json.loads((tell_why.SHOWN / "why.json").read_text(encoding="utf-8"))["rows"]


@pytest.fixture(scope="module")
def stuff():
    return json.loads(study_stuff.TARGET.read_text(encoding="utf-8"))


def test_the_page_shows_what_is_stored(rows, stuff):
    assert (tell_why.SHOWN / "why.md").read_text(encoding="utf-8") == tell_why.text(rows, stuff)


def test_things_and_stuff_together_are_the_unseen_classes_of_the_full_trainings(stuff):
    shares = {group: len(words) / len(FROZEN.unseen) for group, words in FROZEN.unseen_groups.items()}
    for name, found in stuff.items():
        for row, other in zip(found, stored_report(name)["rows"], strict=True):
            parts = [share * np.array(row["runs"][group]) for group, share in shares.items()]
            assert row["name"] == other["name"]
            np.testing.assert_allclose(sum(parts), other["runs"]["mIoU_unseen"], atol=1e-6)


def test_the_page_says_of_stuff_what_is_stored(stuff):
    """With the preset's settings the cascade loses by the unseen grounds alone, and leads on things without them."""
    rows = {row["name"]: row for row in stuff["fusion"]}
    assert rows["cascade"]["difference"]["things"]["high"] < 0
    assert rows["cascade"]["difference"]["stuff"]["high"] < 0
    assert all(rows[name]["difference"][WITHOUT]["low"] > 0 for name in ("sum", "concat", "cascade"))
    means = {name: np.mean(row["runs"][WITHOUT]) for name, row in rows.items()}
    assert abs(means["cascade"] - means["sum"]) < 0.01, "level with the sum"
    assert min(rows["cascade"]["runs"]["stuff called a thing"]) > 0.3, "a large part"
    assert "ahead of the last layer on unseen things" in claims_table()


def test_the_page_says_of_the_settings_of_the_paper_what_is_stored(stuff):
    last, *fused, cascade = stuff["fusion-paper"]
    assert (last["name"], cascade["name"]) == ("last layer", "cascade")
    for row in fused:
        assert min(row["runs"]["stuff called a thing"]) > max(last["runs"]["stuff called a thing"])
        apart = np.array(row["runs"][WITHOUT]) - last["runs"][WITHOUT]
        assert np.abs(apart).max() < 0.01, "within a point"
    unseen = {row["name"]: row["runs"]["mIoU_unseen"] for row in stored_report("fusion-paper")["rows"]}
    below = np.array(unseen["cascade"]) < unseen["last layer"]
    called = np.array(cascade["runs"]["stuff called a thing"])
    assert below.sum() == 1 and called[below] > 1 / 3 and called[~below].max() < 0.07
    assert min(np.array(cascade["runs"][WITHOUT]) - last["runs"][WITHOUT]) > 0.1, "far better"
    assert all(row["not_compared"] for row in stored_report("fusion-paper")["rows"]), "no verdict"


def test_a_ground_that_is_called_a_thing_costs_the_thing_only_while_its_pixels_count():
    things, stuff = (study_stuff.POSITIONS[group] for group in ("things", "stuff"))
    whole = torch.zeros(3, 1, len(FROZEN.names))
    whole[:, 0, things + stuff] = 10.0  # right, true and given pixels
    whole[2, 0, things[0]] = 40  # this thing was given 30 pixels of a ground,
    whole[0, 0, stuff[0]] = whole[2, 0, stuff[0]] = 5  # which got half of its own
    without = whole.clone()
    without[:, 0, stuff], without[2, 0, things[0]] = 0, 10
    of_things, of_others, of_stuff, called, unseen = study_stuff.measured(whole, without, torch.tensor([[20], [5]]))
    assert of_things == pytest.approx((len(things) - 1 + 0.25) / len(things)) and of_others == 1
    assert of_stuff == pytest.approx(0.75) and called == 0.25
    assert unseen == pytest.approx((len(things) - 1 + 0.25 + 2 * 0.75) / (len(things) + 2))


def test_the_page_says_what_its_rows_say(rows):
    """What stands on it in words: the paper's order with the paper's settings and few steps, no lead with the preset's;
    and of full trainings with the paper's settings a lead on seen classes, and seeds that part on unseen ones."""

    def held_out(factor, model):  # with the seed that all have: another one holds out other classes
        (found,) = [row for row in rows if (row["factor"], row["model"], row["seed"]) == (factor, model, 0)]
        return found["scores"]["all"]["unseen"]

    assert held_out("paper", "sum") < held_out("paper", "last layer") < held_out("paper", "cascade")
    assert held_out("mini preset", "cascade") < held_out("mini preset", "sum")
    best, _, seeds = tell_why.chosen(tell_why.grouped(rows))
    assert f"mini/{best}" == RECOMMENDED and seeds >= 2
    assert held_out("mini preset", best) - held_out("mini preset", "cascade") < 0.05, "keeps up"
    paper = {row["name"]: row["runs"] for row in stored_report("fusion-paper")["rows"]}
    seen, unseen = ([paper[name][key] for name in paper] for key in ("mIoU_seen", "mIoU_unseen"))
    assert min(seen[-1]) > max(map(max, seen[:-1])), "the cascade, last in order, leads on seen classes"
    assert min(unseen[-1]) < min(unseen[0]) < max(unseen[0]) < max(unseen[-1]), "its seeds part"
    assert all(np.less(fused, unseen[0]).all() for fused in unseen[1:-1]), "naive fusion is below with every seed"
    fusion = {row["name"]: row["runs"]["mIoU_unseen"] for row in stored_report("fusion")["rows"]}
    assert max(fusion["cascade"]) + 0.1 < min(fusion[best]), "far behind"
    stages = {row["factor"]: row["scores"] for row in rows if row["model"] == "cascade"}
    control, usual = (stages[factor]["all"] for factor in ("swapped words", "mini preset"))
    assert control["seen"] > 0.9 * usual["seen"] and control["unseen"] < 0.1 * usual["unseen"]
    assert max(stages["paper"][stage]["unseen"] for stage in "123") < held_out("paper", "cascade") / 2
    for factor in ("mini preset", "random start"):
        assert stages[factor]["3"]["hIoU"] < 0.01


def test_the_cascade_is_held_against_the_last_layer_of_the_same_settings(monkeypatch):
    monkeypatch.setattr(study_stuff, "study", lambda variants, folder: variants)
    pairs = study_stuff.by_setting(None)
    single = {variant.name: variant for variant in get_comparison("beyond-last-layer").variants}
    assert pairs.keys() == {*single, "last stage aligned"}
    for setting, pair in pairs.items():
        last, cascade = pair["last layer"], pair["cascade"]
        assert last == single.get(setting, single["preset mini-frozen"])
        if setting in single:
            changed = {key: value for key, value in cascade.model.items() if key != "stages"}
            assert changed == {key: value for key, value in last.model.items() if key != "stages"}
            assert cascade.steps == last.steps


def test_settings_with_a_row_that_still_learnt_are_not_compared(monkeypatch):
    runs = {tell_why.UNSEEN: [0.6, 0.62], tell_why.WITHOUT: [0.5, 0.5], tell_why.CALLED: [0.1, 0.1]}
    lead = {key: {"difference": -0.1, "low": -0.2, "high": -0.05} for key in runs}
    pair = [{"runs": runs, "difference": None}, {"runs": runs, "difference": lead}]
    trained = {"random start": [True, False], "raw text": [True, True]}
    reported = {"rows": [{"name": name, "trained": seeds} for name, seeds in trained.items()]}
    monkeypatch.setattr(tell_why, "stored_report", lambda name: reported)
    _, _, random, raw = tell_why.by_setting({"random start": pair, "raw text": pair}).splitlines()
    assert random.count("not compared") == 2 and "61.0 ± 1.4" in random
    assert raw.count("-10.0 (-20.0 to -5.0)") == 2


def test_rows_of_a_model_are_told_with_their_spread(rows):
    first = next(row for row in rows if row["model"] == "cascade")
    other = {**first, "seed": 1, "scores": {**first["scores"], "all": {**first["scores"]["all"], "unseen": 0.5}}}
    groups = tell_why.grouped([other, first])
    line = tell_why.table(groups, [first["factor"]]).splitlines()[-1]
    assert line.endswith("| 2 |") and " ± " in line
    assert [row["seed"] for row in groups[first["factor"], "cascade"]] == [0, 1]
