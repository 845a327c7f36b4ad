"""The paper's comparisons: settings that can be built, runs that are kept, tables that are right."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cascadeclip import compare
from cascadeclip.alignment import bootstrap
from cascadeclip.cascade import CascadeCLIP
from cascadeclip.cli import app
from cascadeclip.compare import Row, compare_counts, run_comparison
from cascadeclip.compare_report import markdown, plot_comparison, write_report
from cascadeclip.comparisons import COMPARISONS, Comparison, Variant, get_comparison
from cascadeclip.errors import InputError
from cascadeclip.evaluation import ConfusionMatrix
from cascadeclip.experiment import on_tower_of
from cascadeclip.presets import MINI, get_preset

TWO = Comparison("two", "Which?", "Neither.", (Variant("one"), Variant("other", {"stages": ((12,),)})))


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_row_is_the_one_model_with_other_settings(name, mini_tower):
    for variant in COMPARISONS[name].variants:
        settings = MINI.model.to_dict() | variant.model
        model = CascadeCLIP(type(MINI.model).from_dict(settings))
        assert model(torch.randn(1, 3, 96, 96), torch.randn(3, 128)).mask_logits.shape == (1, 3, 12, 12)
        type(MINI.training)(**{**vars(MINI.training), **variant.training})


@pytest.fixture(scope="module")
def mini_tower():
    class Clip:
        tower = MINI.model.tower

    assert on_tower_of(Clip, MINI.model) == MINI.model
    return Clip


def test_the_paper_s_tables_are_there():
    assert {
        "fusion", "components", "stages", "aggregation", "sigma", "sharing", "prompts", "bases", "loss", "length",
        "offset", "setting", "styles", "quirks",
    } == set(COMPARISONS)  # fmt: skip
    with pytest.raises(InputError, match="choose from fusion, components"):
        get_comparison("colours")
    with pytest.raises(InputError, match="two variants or more"):
        Comparison("x", "?", "!", (Variant("a"), Variant("a")))


def scores(guess, labels):
    confusion = ConfusionMatrix(len(MINI.names))
    confusion.update(guess, labels)
    return confusion.scores(MINI.names, MINI.unseen)


def test_rows_hold_each_seed_s_scores_and_paired_differences():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 72, (30, 12, 12), generator=generator)
    right = {"one": 0.3, "better": 0.6}
    maps = {
        name: [
            torch.where(torch.rand(labels.shape, generator=generator) < share, labels, 71 - labels) for _ in range(2)
        ]
        for name, share in right.items()
    }
    counts = {
        name: torch.stack([compare.picture_counts(found, labels, 72) for found in of_seeds])
        for name, of_seeds in maps.items()
    }
    one, better = compare_counts(counts, MINI, repeats=50)
    for row in (one, better):
        expected = [scores(found, labels) for found in maps[row.name]]
        assert row.runs["hIoU"] == pytest.approx([score.hIoU for score in expected])
        assert row.runs["mIoU_seen"] == pytest.approx([score.mIoU_seen for score in expected])
    assert one.difference is None
    assert better.difference["hIoU"].whole == pytest.approx(better.mean("hIoU") - one.mean("hIoU"))
    low, high = better.difference["hIoU"].interval()
    assert 0 < low < better.difference["hIoU"].whole < high
    same = compare_counts({"a": counts["one"], "b": counts["one"]}, MINI, repeats=20)[1]
    assert np.all(same.difference["hIoU"].draws == 0)  # the same seeds and pictures were drawn for both


def test_finished_runs_are_kept_and_shared(tmp_path, monkeypatch):
    trained, original = [], compare.fit

    def counting(preset, clip, model, training, *args, **kwargs):
        trained.append((model.stages, training.seed))
        return original(preset, clip, model, training, *args, **kwargs)

    monkeypatch.setattr(compare, "fit", counting)
    settings = dict(seeds=(0, 1), steps=2, limit=20, progress=False)
    rows = run_comparison(TWO, MINI, tmp_path, **settings)
    assert len(trained) == len(set(trained)) == 4
    assert [row.name for row in rows] == ["one", "other"] and len(rows[0].runs["hIoU"]) == 2
    again = run_comparison(TWO, MINI, tmp_path, **settings)
    assert [row.runs for row in again] == [row.runs for row in rows] and len(trained) == 4
    offsets = Comparison("three", "?", "!", (Variant("one"), Variant("0", seen_offset=0.0)))
    found = run_comparison(offsets, MINI, tmp_path, **settings)
    assert len(trained) == 4  # other offsets need no other training
    assert found[0].runs == rows[0].runs
    run_comparison(offsets, MINI, tmp_path, **{**settings, "steps": 3, "seeds": (0,)})
    assert len(trained) == 5


def test_self_training_starts_from_the_inductive_run_half_way(tmp_path):
    rows = run_comparison(COMPARISONS["setting"], MINI, tmp_path, seeds=(0,), steps=2, limit=20, progress=False)
    assert [row.name for row in rows] == ["inductive", "transductive"]
    written = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/settings.json")]
    assert sorted((run["training"]["transductive"], run["training"]["steps"]) for run in written) == [
        (False, 2),
        (True, 1),
    ]


def test_styles_are_the_mini_world_s_alone(tmp_path):
    comparison = COMPARISONS["styles"]
    rows = run_comparison(
        Comparison("s", "?", "!", comparison.variants[:2]),
        MINI,
        tmp_path,
        seeds=(0,),
        steps=2,
        limit=20,
        progress=False,
    )
    assert len(rows) == 2
    with pytest.raises(InputError, match="has no drawing styles"):
        compare._preset_of(comparison.variants[0], get_preset("voc12"))


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_differ(tmp_path, seeds):
    with pytest.raises(InputError, match="give one or more, each once"):
        run_comparison(TWO, MINI, tmp_path, seeds=seeds)


@pytest.fixture
def rows():
    found = bootstrap(lambda drawn: 0.1012 + 0.001 * float(drawn.mean()), 20, repeats=30)
    runs = {key: (0.2, 0.3) for key in compare.MEASURES}
    return [Row("first", runs, None), Row("second", runs, {key: found for key in compare.MEASURES})]


def test_the_table_has_means_deviations_and_intervals(rows):
    text = markdown(TWO, rows, "preset mini, 3 steps")
    assert "| first | 25.0 ± 7.1 | 25.0 ± 7.1 | 25.0 ± 7.1 |  |" in text
    low, high = rows[1].difference["hIoU"].interval()
    assert f"+11.1 ({100 * low:+.1f} to {100 * high:+.1f})" in text.splitlines()[-1]
    assert "Paper: Neither." in text and "preset mini, 3 steps" in text
    single = [Row("only", {key: (0.5,) for key in compare.MEASURES}, None)]
    assert "| only | 50.0 | 50.0 | 50.0 |  |" in markdown(TWO, single, "")


def test_the_report_is_a_table_numbers_and_a_figure(rows, tmp_path):
    path = write_report(TWO, rows, "here", tmp_path)
    assert path.read_text() == markdown(TWO, rows, "here")
    report = json.loads(path.with_suffix(".json").read_text())
    assert [row["name"] for row in report["rows"]] == ["first", "second"]
    assert set(report["rows"][1]["difference"]["hIoU"]) == {"difference", "low", "high"}
    assert path.with_suffix(".png").stat().st_size > 5000
    bars, _ = plot_comparison(rows, "Which?").axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["first", "second"]


def test_the_command_lists_and_runs(tmp_path):
    listed = CliRunner().invoke(app, ["experiments"], catch_exceptions=False).output
    assert all(name in listed for name in COMPARISONS)
    arguments = ["experiments", "offset", "--seeds", "1", "--steps", "2", "--limit", "10", "--out", str(tmp_path)]
    printed = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "| 0.05 |" in printed and (tmp_path / "offset.png").exists()
