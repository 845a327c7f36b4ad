"""The paper's comparisons: settings that can be built, runs that are kept, tables that are right."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cascadeclip.checkpoints.own import TRAINED, read_checkpoint
from cascadeclip.cli.commands import app
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import Readout
from cascadeclip.evaluation.resampling import OverRuns, bootstrap
from cascadeclip.evaluation.scores import ConfusionMatrix
from cascadeclip.experiments import run as compare
from cascadeclip.experiments.comparisons import COMPARISONS, Comparison, Variant, get_comparison
from cascadeclip.experiments.curves import Curve
from cascadeclip.experiments.figures import plot_curves, plot_leads, plot_report
from cascadeclip.experiments.findings import finding, in_points
from cascadeclip.experiments.report import can_be_written, markdown, read_report, write_index, write_report
from cascadeclip.experiments.run import Row, budgeted, compare_counts, run_ahead, run_comparison
from cascadeclip.experiments.texts import _spread
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import MINI, get_preset
from cascadeclip.training import calibrate
from cascadeclip.training.calibrate import OFFSETS, calibrated_offset, held_out
from cascadeclip.training.run import on_tower_of, open_clip_of

STEPS = tuple(range(1, 13))
FLAT, RISING = (0.5,) * 12, tuple(0.05 * step for step in STEPS)
DONE = (Curve(STEPS, FLAT, FLAT), Curve(STEPS, FLAT, FLAT))
TWO = Comparison("two", "Which?", "Neither.", (Variant("one"), Variant("other", {"stages": ((12,),)})))


POOL = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from cascadeclip.experiments.run import _begin
if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), _begin, (1,)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent here")
def test_processes_end_with_the_command_that_started_them(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    command = [sys.executable, str(tmp_path / "pool.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGTERM, done.stderr
    for _ in range(100):
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the process trains on")


@pytest.mark.slow
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
        "offset", "setting", "styles", "quirks", "beyond", "beyond-last-layer", "naive-fusion", "fusion-paper",
        "naive-fusion-paper",
    } == set(COMPARISONS)  # fmt: skip
    with pytest.raises(InputError, match="choose from fusion, naive-fusion"):
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
    one, better = compare_counts(counts, dict.fromkeys(counts, DONE), MINI, repeats=50)
    for row in (one, better):
        expected = [scores(found, labels) for found in maps[row.name]]
        assert row.runs["hIoU"] == pytest.approx([score.hIoU for score in expected])
        assert row.runs["mIoU_seen"] == pytest.approx([score.mIoU_seen for score in expected])
    assert one.difference is None
    assert better.difference["hIoU"].whole == pytest.approx(better.mean("hIoU") - one.mean("hIoU"))
    low, high = better.difference["hIoU"].interval()
    assert 0 < low < better.difference["hIoU"].whole < high
    same = compare_counts({"a": counts["one"], "b": counts["one"]}, {"a": DONE, "b": DONE}, MINI, repeats=20)[1]
    assert same.difference["hIoU"].interval() == (0, 0)  # the same seeds and pictures for both


@pytest.mark.slow
def test_finished_runs_are_kept_and_shared(tmp_path, monkeypatch):
    trained, original = [], compare.fit

    def counting(preset, clip, model, training, *args, **kwargs):
        trained.append((model.stages, training.seed))
        return original(preset, clip, model, training, *args, **kwargs)

    monkeypatch.setattr(compare, "fit", counting)
    settings = dict(seeds=(0, 1), limit=10, progress=False)
    short = budgeted("mini", None, 2, None)
    rows = run_comparison(TWO, short, tmp_path, **settings)
    assert len(trained) == len(set(trained)) == 4
    assert [row.name for row in rows] == ["one", "other"] and len(rows[0].runs["hIoU"]) == 2
    again = run_comparison(TWO, short, tmp_path, **settings)
    assert [row.runs for row in again] == [row.runs for row in rows] and len(trained) == 4
    offsets = Comparison("three", "?", "!", (Variant("one"), Variant("0", seen_offset=0.0)))
    found = run_comparison(offsets, short, tmp_path, **settings)
    assert len(trained) == 4  # other offsets need no other training
    assert found[0].runs == rows[0].runs
    run_comparison(offsets, budgeted("mini", None, 3, None), tmp_path, **{**settings, "seeds": (0,)})
    assert len(trained) == 5


@pytest.mark.slow
def test_self_training_starts_from_the_inductive_run_half_way(tmp_path):
    rows = run_comparison(
        COMPARISONS["setting"], budgeted("mini", None, 2, None), tmp_path, seeds=(0,), limit=10, progress=False
    )
    assert [row.name for row in rows] == ["inductive", "transductive"]
    written = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/settings.json")]
    assert sorted((run["training"]["transductive"], run["training"]["steps"]) for run in written) == [
        (False, 2),
        (True, 1),
    ]


@pytest.mark.slow
def test_styles_are_the_mini_world_s_alone(tmp_path):
    comparison = COMPARISONS["styles"]
    rows = run_comparison(
        Comparison("s", "?", "!", comparison.variants[:2]),
        budgeted("mini", None, 2, None),
        tmp_path,
        seeds=(0,),
        limit=10,
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
    found = OverRuns(
        np.array([0.1012, 0.1212]), bootstrap(lambda drawn: 0.1012 + 0.001 * float(drawn.mean()), 20, repeats=30)
    )
    runs = {key: (0.2, 0.3) for key in compare.MEASURES}
    return [Row("first", runs, None, DONE), Row("second", runs, dict.fromkeys(compare.MEASURES, found), DONE)]


def test_the_table_has_means_deviations_and_intervals(rows):
    text = markdown(TWO, rows, "preset mini, 3 steps")
    assert "| first | 25.0 ± 7.1 | 25.0 ± 7.1 | 25.0 ± 7.1 |  | 12 | 2 of 2 runs |" in text
    low, high = rows[1].difference["hIoU"].interval()
    assert f"+11.1 ({100 * low:+.1f} to {100 * high:+.1f})" in text.splitlines()[-1]
    assert "Paper: Neither." in text and "preset mini, 3 steps" in text
    single = [Row("only", {key: (0.5,) for key in compare.MEASURES}, None, DONE[:1])]
    assert "| only | 50.0 | 50.0 | 50.0 |  | 12 | 1 of 1 runs |" in markdown(TWO, single, "")


def test_rows_that_still_learn_are_not_compared(rows, tmp_path):
    first, second = rows
    learning = replace(second, curves=(DONE[0], Curve(STEPS, RISING, FLAT)))
    text = markdown(TWO, [first, learning], "")
    assert "| not compared | 12 | 1 of 2 runs |" in text and "still learning: +15.0 seen" in text
    unseen = replace(second, curves=(Curve(STEPS, FLAT, RISING),) * 2)  # unseen classes must not decide
    assert "not compared" not in markdown(TWO, [first, unseen], "")
    few = replace(second, curves=(Curve(STEPS[:11], FLAT[:11], FLAT[:11]),) * 2)
    assert "fewer than 12 looks" in markdown(TWO, [first, few], "")
    late = [replace(first, curves=learning.curves), second]  # the row that others are held against counts, too
    assert "not compared" in markdown(TWO, late, "")
    path = write_report(TWO, [first, learning], MINI, tmp_path, command="c", limit=None)
    report = read_report(path.with_suffix(".json"))
    assert report["rows"][1]["not_compared"].startswith("second: still learning")
    assert report["rows"][1]["trained"] == [True, False]
    assert not plot_report(report).axes[1].lines[:-1], "no dot, no interval; the zero line alone"
    assert finding(report) == 'hIoU beside "first", points: not compared, for a row was still learning: second'


@pytest.mark.parametrize(
    "ends, verdict",
    [((0.01, 0.2), "ahead"), ((-0.2, -0.01), "behind"), ((-0.1, 0.2), "cannot say"), ((None, None), "cannot say")],
)
def test_a_finding_is_the_interval_s(ends, verdict):
    difference = {"hIoU": dict(zip(("difference", "low", "high"), (0.05, *ends), strict=True))}
    rows = [{"name": "first", "difference": None, "not_compared": ""},
            {"name": "second", "difference": difference, "not_compared": ""}]  # fmt: skip
    assert finding({"rows": rows}) == f'hIoU beside "first", points: {verdict}: second (+5.0)'


def test_one_seed_has_a_difference_and_no_interval(rows, tmp_path):
    first, second = (replace(row, runs={key: (0.2,) for key in compare.MEASURES}, curves=DONE[:1]) for row in rows)
    pictures = second.difference["hIoU"].pictures
    alone = OverRuns(np.array([0.1]), pictures)
    second = replace(second, difference=dict.fromkeys(compare.MEASURES, alone))
    path = write_report(TWO, [first, second], MINI, tmp_path, command="c", limit=None)
    assert "+10.0 (one seed)" in path.read_text()
    report = read_report(path.with_suffix(".json"))
    axis = plot_report(report).axes[1]
    assert [list(line.get_xdata()) for line in axis.lines[:1]] == [[pytest.approx(10.0)]]


def test_the_curves_are_drawn_and_kept(rows, tmp_path):
    path = write_report(TWO, rows, MINI, tmp_path, command="c", limit=None)
    assert path.with_name("two-curves.png").stat().st_size > 5000
    report = read_report(path.with_suffix(".json"))
    seen, unseen = plot_curves(report).axes
    assert [line.get_label() for line in unseen.lines] == ["first", "second"]
    assert list(seen.lines[1].get_xdata()) == list(STEPS) and list(seen.lines[1].get_ydata()) == [50.0] * 12


def test_leads_are_drawn_against_the_first_row_with_the_same_seed(rows, tmp_path):
    first, second = rows
    grown = tuple(replace(curve, unseen=tuple(value + 0.1 for value in curve.unseen)) for curve in second.curves)
    path = write_report(TWO, [first, replace(second, curves=grown)], MINI, tmp_path, command="c", limit=None)
    seen, unseen = plot_leads(read_report(path.with_suffix(".json"))).axes
    assert [line.get_label() for line in unseen.lines] == ["second", "first"]
    assert list(unseen.lines[0].get_ydata()) == pytest.approx([10.0] * 12)
    assert list(seen.lines[0].get_ydata()) == pytest.approx([0.0] * 12)
    shorter = tuple(replace(curve, steps=tuple(step // 2 for step in curve.steps)) for curve in second.curves)
    path = write_report(TWO, [first, replace(second, curves=shorter)], MINI, tmp_path, command="c", limit=None)
    with pytest.raises(InputError, match=r"trainings of \['second'\] were scored at other steps"):
        plot_leads(read_report(path.with_suffix(".json")))


def test_the_rise_is_that_of_the_last_quarter():
    late = Curve(STEPS, (*(0.1,) * 8, 0.6, 0.61, 0.62, 0.63), FLAT)
    assert late.rise == pytest.approx(0.03) and not late.trained
    early = Curve(STEPS, (*(0.1,) * 8, 0.6, 0.6, 0.6, 0.6), FLAT)
    assert early.rise == pytest.approx(0) and early.trained
    falling = Curve(STEPS, (*(0.9,) * 8, 0.6, 0.5, 0.4, 0.3), FLAT)
    assert falling.trained


def test_the_report_is_a_table_numbers_and_a_figure(rows, tmp_path):
    path = write_report(TWO, rows, budgeted("mini", None, 3, 5), tmp_path, command="experiments two", limit=20)
    assert path.read_text() == markdown(
        TWO, rows, "preset mini, 12 steps of 5 pictures, 2 seeds, the first 20 test pictures"
    )
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["command"] == "experiments two" and report["seeds"] == 2
    assert report["versions"]["torch"] == torch.__version__.partition("+")[0] and "core" in report["hardware"]
    assert [row["name"] for row in report["rows"]] == ["first", "second"]
    assert set(report["rows"][1]["difference"]["hIoU"]) == {"difference", "low", "high"}
    assert path.with_suffix(".png").stat().st_size > 5000
    assert read_report(path.with_suffix(".json")) == report
    figure = plot_report(report)
    assert figure.get_suptitle() == f"{report['question']}\n{finding(report)}"
    bars, differences = figure.axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["first", "second"]
    low, high = rows[1].difference["hIoU"].interval()
    assert differences.lines[0].get_xdata() == pytest.approx([100 * low, 100 * high])


def test_comparisons_are_scored_on_balanced_scenes():
    assert (
        budgeted("mini-frozen", None, 3, 5)
        .eval_data(budgeted("mini-frozen", None, 3, 5).final_split)
        .options["balanced"]
    )
    assert budgeted("voc12", "data", None, None).final_split == "val"


def test_what_is_no_report_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "other.json").write_text("{}")
    for name, says in (
        ("list.json", "list.json is no report of a comparison"),
        ("other.json", "other.json is no report of a comparison"),
        ("missing.json", "no report of a comparison at .*missing.json"),
    ):
        with pytest.raises(InputError, match=says):
            read_report(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda report: report.pop("hardware"), "hardware=None must be text"),
        (lambda report: report.update(rows=3), "rows=3 must be a list"),
        (lambda report: report.update(rows=[]), "rows is empty"),
        (lambda report: report.update(versions=["torch"]), "versions=.* must be an object"),
        (lambda report: report["rows"][1].pop("curves"), r"rows\[1\].curves=None must be a list"),
        (lambda report: report["rows"][0]["runs"].pop("hIoU"), r"rows\[0\].runs lacks hIoU"),
        (lambda report: report["rows"][0]["runs"].update(hIoU=["much"]), r"runs.hIoU\[0\]='much' must be a finite"),
        (lambda report: report["rows"][1]["difference"]["hIoU"].pop("low"), "difference.hIoU lacks low"),
        (lambda report: report["rows"][0]["curves"][0].pop("unseen"), r"curves\[0\] lacks unseen"),
    ],
)
def test_a_damaged_report_is_refused_before_anything_is_drawn(rows, tmp_path, spoil, said):
    path = write_report(TWO, rows, MINI, tmp_path, command="c", limit=None).with_suffix(".json")
    report = json.loads(path.read_text())
    spoil(report)
    path.write_text(json.dumps(report))
    with pytest.raises(InputError, match=rf"two\.json is no report of a comparison \(.*{said}"):
        read_report(path)


def test_an_offset_is_chosen_among_scores_that_are_numbers():
    nan = float("nan")
    assert calibrate.best_offset((-0.1, 0.0, 0.1, 0.2), (nan, 0.3, 0.5, 0.5)) == 0.1
    with pytest.raises(InputError, match="no offset can be chosen"):
        calibrate.best_offset((-0.1, 0.0), (nan, nan))


def test_an_index_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no report of a comparison in .*; cascadeclip experiments writes them"):
        write_index(tmp_path)


def test_differences_that_could_not_be_measured_are_words():
    def found(*numbers):
        return dict(zip(("difference", "low", "high"), numbers, strict=True))

    assert in_points(found(None, None, None)) == "not measured"
    assert in_points(found(0.012, None, None)) == "+1.2"
    assert in_points(found(0.012, -0.003, 0.027)) == "+1.2 (-0.3 to +2.7)"
    assert _spread([0.5, None]) == "not measured" and _spread([0.5]) == "50.0"


def of_curves(*curves):
    named = [dict(zip(("steps", "seen", "unseen"), curve, strict=True)) for curve in curves]
    return {"question": "?", "rows": [{"name": "row", "curves": named}]}


def test_seeds_validated_at_other_steps_are_drawn_where_all_have_scores():
    report = of_curves(
        ([1, 2, 4], [0.1, 0.2, 0.4], [None, 0.2, 0.4]), ([2, 3, 4, 5], [0.4, 9, 0.6, 9], [0.4, 9, 0.6, 9])
    )
    seen, unseen = plot_curves(report).axes
    for axis in (seen, unseen):
        assert list(axis.lines[0].get_xdata()) == [2, 4]
        assert list(axis.lines[0].get_ydata()) == pytest.approx([30.0, 50.0])


@pytest.mark.parametrize(
    ("report", "live", "said"),
    [
        (of_curves(([1, 2], [0.1], [0.1, 0.2])), None, "'row, curve 0, seen' has 1 values for 2 steps"),
        (of_curves(([1], [0.1], [0.1]), ([2], [0.1], [0.1])), None, "'row' have no step in common"),
        (of_curves(([1], [0.1], [0.1])), Curve((1, 2), (0.1,), (0.1, 0.2)), "'row, live' has 1 values for 2 steps"),
    ],
)
def test_curves_that_fit_no_steps_are_refused(report, live, said):
    with pytest.raises(InputError, match=said):
        plot_curves(report, live={"row": live} if live else None)


@pytest.mark.slow
def test_the_command_lists_and_runs(tmp_path):
    listed = CliRunner().invoke(app, ["experiments"], catch_exceptions=False).output
    assert all(name in listed for name in COMPARISONS)
    arguments = ["experiments", "offset", "--seeds", "1", "--smoke", "--out", str(tmp_path)]
    printed = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "| 0.05 |" in printed and (tmp_path / "offset.png").exists()
    assert "preset mini-frozen, 2 steps of 2 pictures, 1 seed, the first 10 test pictures" in printed
    assert "not compared" in printed, "a smoke run is no result"
    index = (tmp_path / "README.md").read_text()
    assert (tmp_path / "offset.md").read_text() in index and "cascadeclip" in index


@pytest.mark.slow
def test_a_finished_comparison_is_read_where_nothing_can_be_written(tmp_path, monkeypatch, caplog):
    arguments = ["experiments", "loss", "--seeds", "1", "--smoke", "--out", str(tmp_path)]
    first = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    (tmp_path / "loss.md").unlink()

    def read_only(*args, **more):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("cascadeclip.files.os.replace", read_only)
    monkeypatch.setattr("cascadeclip.locks.os.open", read_only)
    again = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    table = [line for line in first.splitlines() if line.startswith("|")]
    assert len(table) > 3 and [line for line in again.splitlines() if line.startswith("|")] == table
    assert "wrote" not in again and "Read-only file system" in caplog.text and not (tmp_path / "loss.md").exists()
    with pytest.raises(InputError, match=r"^cannot write .*Read-only file system"):  # what is not finished
        CliRunner().invoke(app, [*arguments, "--steps", "3"], catch_exceptions=False)


def test_where_nothing_can_be_written_and_nothing_lies_it_is_said_first(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write into"):
        can_be_written([TWO], tmp_path / "file")
    assert can_be_written([TWO], tmp_path / "new")
    (tmp_path / "new" / "two.md").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*two\.md: that is a folder"):
        can_be_written([TWO], tmp_path / "new")


@pytest.mark.slow
def test_every_row_of_every_comparison_trains_and_is_scored(tmp_path):
    arguments = ["experiments", "all", "--seeds", "1", "--smoke", "--limit", "4"]
    CliRunner().invoke(app, [*arguments, "--jobs", "2", "--out", str(tmp_path)], catch_exceptions=False)
    for name, comparison in COMPARISONS.items():
        report = read_report(tmp_path / f"{name}.json")
        assert [row["name"] for row in report["rows"]] == [variant.name for variant in comparison.variants]
        assert all(0 <= row["runs"]["hIoU"][0] < 1 for row in report["rows"])


@pytest.mark.slow
def test_runs_done_ahead_by_several_processes_are_the_same(tmp_path, monkeypatch):
    """Threads may round differently, so that the models are compared with a tolerance."""
    short = partial(budgeted, "mini", None, 2, 2)
    same = Comparison("same", "?", "!", (Variant("one", {"sigma": 1.0}), Variant("0", seen_offset=0.0)))
    run_ahead([TWO, same], short, tmp_path / "ahead", seeds=(0,), limit=10, jobs=2)
    monkeypatch.setattr(compare, "fit", None)  # nothing is left to train
    rows = run_comparison(TWO, short(), tmp_path / "ahead", seeds=(0,), limit=10, progress=False)
    run_comparison(same, short(), tmp_path / "ahead", seeds=(0,), limit=10, progress=False)
    monkeypatch.undo()
    expected = run_comparison(TWO, short(), tmp_path / "alone", seeds=(0,), limit=10, progress=False)
    folders = {path.name for path in (tmp_path / "alone" / "runs").iterdir()}
    assert folders == {path.name for path in (tmp_path / "ahead" / "runs").iterdir()} and len(folders) == 2
    for row, wanted in zip(rows, expected, strict=True):
        assert row.runs["hIoU"] == pytest.approx(wanted.runs["hIoU"], abs=0.02)


@pytest.mark.slow
def test_the_calibrated_offset_sees_nothing_unseen(tmp_path):
    preset, clip = budgeted("mini", None, 2, 2), open_clip_of(MINI)
    asked, original = [], preset.eval_data
    data = replace(preset, eval_data=lambda split: asked.append(split) or original(split))
    found = calibrated_offset(data, clip, preset.model, preset.training, tmp_path, limit=20, progress=False)
    assert found in OFFSETS and asked == ["val"]
    hidden = set(held_out(preset).unseen)
    assert set(preset.unseen) < hidden and len(hidden) == len(preset.unseen) + len(preset.seen) // 5
    assert read_checkpoint(tmp_path / TRAINED)[0].seen == tuple(n for n in preset.names if n not in hidden)
    few = replace(preset, names=preset.names[:4], unseen=preset.names[:1])
    with pytest.raises(InputError, match="too few to hold some out"):
        calibrated_offset(few, clip, preset.model, preset.training, tmp_path)


@pytest.mark.slow
def test_the_calibrated_offset_is_the_best_on_the_held_out_classes(tmp_path, monkeypatch):
    """A readout in which held-out classes are always 0.2 too low: the offset has to make up for it."""
    preset, clip = budgeted("mini", None, 2, 2), open_clip_of(MINI)
    labels = torch.arange(len(preset.seen)).repeat(1, 10, 1)
    hidden = [preset.seen.index(name) for name in held_out(preset).unseen if name in preset.seen]
    is_hidden = torch.isin(labels, torch.tensor(hidden))
    other = next(index for index in range(len(preset.seen)) if index not in hidden)
    readout = Readout(
        labels, labels.where(~is_hidden, other), labels.where(is_hidden, hidden[0]),
        torch.full(labels.shape, 0.6), torch.where(is_hidden, 0.4, 0.1),
    )  # fmt: skip
    monkeypatch.setattr(calibrate, "read_out", lambda *args, **kwargs: readout)
    found = calibrated_offset(preset, clip, preset.model, preset.training, tmp_path, limit=1, progress=False)
    assert 0.2 <= found < 0.5
