"""Every plotting function with little or nothing: what can be drawn is drawn, the rest is refused in one line."""

import numpy as np
import pytest
import torch

import cascadeclip.experiments.figures as report
from cascadeclip import plots
from cascadeclip.config import ModelConfig
from cascadeclip.errors import InputError
from cascadeclip.evaluation.resampling import Resampled
from cascadeclip.evaluation.scores import ConfusionMatrix, Scores
from cascadeclip.plots import decoders, evaluation, layers
from cascadeclip.plots.given import reach_of, refuse_empty
from cascadeclip.segmenter import PixelScores, Segmentation

NAN = float("nan")
PICTURE, MASK = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)
NANS, ZEROS, ONE = np.full((2, 2), NAN), np.zeros((2, 2)), np.ones((1, 1))
NOTHING = Scores(("a", "b"), ("b",), (NAN, NAN), NAN)


def resampled(value):
    one = Resampled(np.array(value), np.full(5, value), (3, 5, 0))
    return {"mIoU_seen": one, "mIoU_unseen": one, "hIoU": one}


def row(score, difference=None, curves=1):
    curve = {"steps": [1, 2], "seen": [score] * 2, "unseen": [score] * 2, "trained": True}
    runs = {key: [score] for key in ("mIoU_seen", "mIoU_unseen", "hIoU")}
    return {"name": "a", "runs": runs, "difference": difference or {}, "curves": [curve] * curves}


def compared(*rows):
    return {"comparison": "c", "question": "q", "rows": list(rows)}


PIXEL = Segmentation(
    np.zeros((1, 1), int), PixelScores(torch.zeros(1, 1, 1, 1), (1, 1)), ("a",), PICTURE[:1, :1], seen=()
)
LOST = {"hIoU": {"difference": None, "low": None, "high": None}}  # as JSON has nan
REFUSED = [
    (plots.plot_attention, (PICTURE, [], [], MASK, "cat"), "maps is empty"),
    (plots.plot_attention, (PICTURE, [[]], ["s"], MASK, "cat"), r"maps\[0\] is empty"),
    (plots.plot_stage_masks, (PICTURE, np.zeros((0, 1, 2, 2)), MASK[None], ["a"], []), "stage_logits is empty"),
    (plots.plot_stage_masks, (PICTURE, np.zeros((1, 0, 2, 2)), MASK[None][:0], [], ["s"]), "stage_logits is empty"),
    (plots.plot_mask_history, (PICTURE[None], MASK[None], ["a"], {}), "history is empty"),
    (plots.plot_mask_history, (PICTURE[None][:0], MASK[None][:0], [], {0: ZEROS[None][:0]}), "images is empty"),
    (plots.plot_mask_history, (PICTURE[None], MASK[None], ["a"], {0: np.zeros((2, 2, 2))}), r"1 words .*\{0: 2\}"),
    (layers.plot_maps, ([], {}), "0 pictures with maps"),
    (layers.plot_maps, ([PICTURE], {}), "1 pictures with maps {}"),
    (layers.plot_maps, ([PICTURE, PICTURE], {"m": [ZEROS]}), "2 pictures with maps {'m': 1}"),
    (layers.plot_maps, ([PICTURE], {"m": [ZEROS[:0]]}), r"maps\['m'\]\[0\] is empty"),
    (evaluation.plot_maps, ([PICTURE], {}, ["a"], []), "1 pictures with maps {}"),
    (plots.plot_matrices, ({}, "label"), "matrices is empty"),
    (plots.plot_matrices, ({"m": np.zeros((0, 0))}, "label"), r"matrices\['m'\] is empty"),
    (plots.plot_panels, ({},), "panels is empty"),
    (plots.plot_panels, ({"a": ZEROS[:0]},), r"panels\['a'\] is empty"),
    (plots.plot_over_blocks, ({}, "label"), "lines is empty"),
    (plots.plot_over_blocks, ({"a": []}, "label"), r"lines\['a'\] is empty"),
    (plots.plot_lines, ([], {}, "x", "y"), "x is empty"),
    (plots.plot_lines, ([1], {"a": []}, "x", "y"), r"lines\['a'\] is empty"),
    (plots.plot_lines, ([1, 2], {"a": [1.0]}, "x", "y"), "'a' has 1 values for 2 points of x"),
    (plots.plot_classes_over_blocks, ({}, [], [], "label"), "values is empty"),
    (plots.plot_classes_over_blocks, ({"a": np.zeros((0, 3))}, [], [], "label"), r"values\['a'\] is empty"),
    (plots.best_first, (np.zeros((3, 0)),), "values is empty"),
    (plots.plot_class_iou, (Scores((), (), (), NAN),), "classes is empty"),
    (plots.plot_class_table, ({}, {"": "ab"}), "report is empty"),
    (plots.plot_class_table, ({"m": [0.1]}, {"": "a", "x": "b"}), "'m' has 1 values for 2 classes"),
    (plots.plot_trades, ({}, {}), "at least one"),
    (plots.plot_trades, ({"a": ([], [])}, {"a": 0.1}), r"report\['a'\]\[0\] is empty"),
    (plots.plot_bars, ({}, "label"), "at least one"),
    (plots.plot_masks_and_rims, ({}, {"IoU": 0.5}), "report is empty"),
    (plots.plot_masks_and_rims, ({"m": {"IoU": resampled(0.5)}}, {}), "ceiling is empty"),
    (plots.plot_error_kinds, ({},), "report is empty"),
    (plots.plot_confusion, (ConfusionMatrix(2), ["a", "b"], []), "at least one"),
    (plots.plot_scores, ({},), "report is empty"),
    (plots.plot_methods, ({},), "segmentations of one picture"),
    (plots.plot_method_blocks, ({}, "label"), "values is empty"),
    (plots.plot_method_blocks, ({"m": []}, "label"), r"values\['m'\] is empty"),
    (plots.plot_method_blocks, ({"m": [0.1], "n": [0.1, 0.2]}, "label"), "'n' has 2 values for 1 blocks"),
    (plots.plot_method_scores, ({}, "label"), "one method or more"),
    (plots.plot_predictions, (None, [], torch.zeros(1, 4), ["a"], []), "scenes is empty"),
    (plots.plot_ablations, ({}, "label"), "report is empty"),
    (plots.plot_ablations, ({"a": {}}, "label"), r"report\['a'\] is empty"),
    (plots.plot_groups, ({"p": {}}, "label"), r"panels\['p'\] is empty"),
    (plots.plot_groups, ({"p": {"g": {}}}, "label"), r"panels\['p'\]\['g'\] is empty"),
    (plots.TrainingWatch, (torch.zeros(0, 3, 8, 8), None, None, ["a"], [], None), "images is empty"),
    (report.plot_report, (compared(),), "rows is empty"),
    (report.plot_report, (compared(row(0.1) | {"runs": {"hIoU": []}}),), r"rows\[0\]\['hIoU'\] is empty"),
    (report.plot_curves, (compared(),), "rows is empty"),
    (report.plot_curves, (compared(row(0.1, curves=0)),), r"rows\[0\] is empty"),
    (report.plot_leads, (compared(),), "rows is empty"),
    (report.plot_leads, (compared(row(0.1, curves=0)),), r"rows\[0\] is empty"),
]
DRAWN = [
    (plots.plot_segmentation, (PIXEL,)),
    (plots.plot_methods, ({"one": PIXEL},)),
    (plots.plot_method_blocks, ({"m": [NAN, NAN]}, "label")),
    (plots.plot_method_blocks, ({"m": [0.0]}, "label")),
    (plots.plot_method_scores, ({"m": {"seen": (NAN,) * 3, "unseen": (NAN,) * 3}}, "label")),
    (plots.plot_attention, (PICTURE, [[NANS, NANS]], ["s"], MASK, "cat")),
    (plots.plot_attention, (PICTURE, [[ZEROS, ZEROS]], ["s"], MASK, "")),
    (plots.plot_stage_masks, (PICTURE, NANS[None, None], MASK[None], ["a"], ["s"])),
    (plots.plot_stage_masks, (PICTURE, ZEROS[None, None], MASK[None], ["a"], ["s"])),
    (plots.plot_mask_history, (PICTURE[None], MASK[None], ["a"], {0: NANS[None]})),
    (plots.plot_mask_history, (PICTURE[None], MASK[None], ["a"], {0: ZEROS[None]})),
    (layers.plot_maps, ([PICTURE], {"m": [NANS]})),
    (layers.plot_maps, ([PICTURE], {"m": [ZEROS]})),
    (evaluation.plot_maps, ([PICTURE], {"m": [MASK.astype(int)]}, ["a"], ["a"])),
    (plots.plot_matrices, ({"m": NANS}, "label")),
    (plots.plot_matrices, ({"m": ONE}, "label")),
    (plots.plot_over_blocks, ({"a": [NAN, NAN]}, "label")),
    (plots.plot_over_blocks, ({"a": [1.0]}, "label")),
    (plots.plot_lines, ([0, 1], {"a": [NAN, NAN], "b": [NAN, 3.0]}, "x", "y")),
    (plots.plot_classes_over_blocks, ({"a": NANS}, "ab", [], "label")),
    (plots.plot_classes_over_blocks, ({"a": ONE}, "a", "a", "label")),
    (plots.plot_class_iou, (NOTHING,)),
    (plots.plot_class_table, ({"m": [NAN]}, {"": "a"})),
    (plots.plot_trades, ({"a": ([0.1], [NOTHING])}, {"a": 0.1})),
    (plots.plot_bars, ({"a": {"x": NAN}}, "label")),
    (plots.plot_ablations, ({"a": {"unseen": (NAN, NAN, NAN)}}, "label")),
    (plots.plot_groups, ({"p": {"g": {"x": NAN}}}, "label")),
    (plots.plot_architecture, (ModelConfig(stages=((12,),), decoder_layers=1, prompt_tokens=0),)),
    (plots.plot_masks_and_rims, ({"m": {"IoU": resampled(NAN)}}, {"IoU": NAN})),
    (plots.plot_error_kinds, ({"a": (torch.zeros(4), 0)},)),
    (plots.plot_confusion, (ConfusionMatrix(1), ["a"], ["a"])),
    (plots.plot_scores, ({"a": {"mIoU_seen": NAN, "mIoU_unseen": NAN, "hIoU": NAN}},)),
    (report.plot_report, (compared(row(None), row(None, LOST)),)),
    (report.plot_curves, (compared(row(None)),)),
    (report.plot_leads, (compared(row(None), row(None, LOST)),)),
]


def named(case):
    return getattr(case, "__name__", "")


@pytest.mark.parametrize(("draw", "given", "message"), REFUSED, ids=named)
def test_nothing_to_draw_is_refused_in_one_line(draw, given, message):
    with pytest.raises(InputError, match=message) as refused:
        draw(*given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("draw", "given"), DRAWN, ids=named)
@pytest.mark.filterwarnings("error:All-NaN", "error:Mean of empty slice")
def test_the_least_that_can_be_drawn_is_drawn(draw, given):
    draw(*given).canvas.draw()


def test_no_plotting_function_is_left_out():
    public = {name for module in (plots, report) for name in dir(module) if name.startswith("plot_")}
    assert public <= {draw.__name__ for draw, *_ in (*REFUSED, *DRAWN)}


def test_a_block_without_values_is_not_the_best_and_all_lines_mark_what_there_is():
    assert plots.best_first(np.array([[NAN, 0.1, 0.3], [NAN, 0.2, 0.9], [NAN, NAN, NAN]])) == [1, 0]
    assert plots.best_first(NANS) == []
    (axis,) = plots.plot_lines([5, 6, 7], {"a": [NAN, 3.0, 2.0], "b": [NAN] * 3}, "x", "y").axes
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines if line.get_marker() == "v"] == [
        ([7], [2.0])
    ]


def test_what_is_measured_is_finite():
    assert reach_of() == reach_of(NANS) == reach_of(ZEROS) == 1.0
    assert reach_of(NANS, [-3.0, float("inf")]) == 3.0
    refuse_empty(word="", number=0, masks={"a": [torch.ones(1)]})


def test_scales_are_those_of_the_finite_values():
    logits = np.array([[NAN, -2.0], [0.5, 1.0]])[None, None]
    figure = decoders.plot_stage_masks(PICTURE, logits, MASK[None], ["a"], ["s"])
    assert {image.get_clim() for axis in figure.axes[1:3] for image in axis.images} == {(-2.0, 2.0)}
