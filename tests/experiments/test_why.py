"""The page that tells why the order turns round: made by code from its rows, and true of them."""

import json

import pytest

from cascadeclip.experiments import stored_report
from cascadeclip.segmenter import RECOMMENDED
from tests.data.prepare.test_scripts import load_script

tell_why = load_script("tell_why")


@pytest.fixture(scope="module")
def rows():
    return json.loads((tell_why.SHOWN / "why.json").read_text(encoding="utf-8"))["rows"]


def test_the_page_shows_what_is_stored(rows):
    assert (tell_why.SHOWN / "why.md").read_text(encoding="utf-8") == tell_why.text(rows)


def test_the_page_says_what_its_rows_say(rows):
    """What stands on it in words: the paper's order with the paper's settings, and no lead with the preset's."""

    def held_out(factor, model):  # with the seed that all have: another one holds out other classes
        (found,) = [row for row in rows if (row["factor"], row["model"], row["seed"]) == (factor, model, 0)]
        return found["scores"]["all"]["unseen"]

    assert held_out("paper", "sum") < held_out("paper", "last layer") < held_out("paper", "cascade")
    assert held_out("mini preset", "cascade") < held_out("mini preset", "sum")
    best, _, seeds = tell_why.chosen(tell_why.grouped(rows))
    assert f"mini/{best}" == RECOMMENDED and seeds >= 2
    assert held_out("mini preset", best) - held_out("mini preset", "cascade") < 0.05, "keeps up"
    paper = {row["name"]: row["runs"]["hIoU"] for row in stored_report("fusion-paper")["rows"]}
    assert min(paper["cascade"]) > max(max(runs) for name, runs in paper.items() if name != "cascade"), "leads"
    fusion = {row["name"]: row["runs"]["mIoU_unseen"] for row in stored_report("fusion")["rows"]}
    assert max(fusion["cascade"]) + 0.1 < min(fusion[best]), "far behind"
    stages = {row["factor"]: row["scores"] for row in rows if row["model"] == "cascade"}
    assert max(stages["paper"][stage]["unseen"] for stage in "123") < held_out("paper", "cascade") / 2
    for factor in ("mini preset", "random start"):
        assert stages[factor]["3"]["hIoU"] < 0.01


def test_rows_of_a_model_are_told_with_their_spread(rows):
    first = next(row for row in rows if row["model"] == "cascade")
    other = {**first, "seed": 1, "scores": {**first["scores"], "all": {**first["scores"]["all"], "unseen": 0.5}}}
    groups = tell_why.grouped([other, first])
    line = tell_why.table(groups, [first["factor"]]).splitlines()[-1]
    assert line.endswith("| 2 |") and " ± " in line
    assert [row["seed"] for row in groups[first["factor"], "cascade"]] == [0, 1]
