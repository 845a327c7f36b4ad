"""Counts and sizes that are none are one line, wherever they are given."""

import numpy as np
import pytest
import torch

from cascadeclip import analysis, data, evaluation, experiments, training
from cascadeclip.analysis.dense.trunk import check_blocks
from cascadeclip.clip.load import scaled_stages
from cascadeclip.clip.vocabulary import read_vocabulary
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import nga_weights
from cascadeclip.plots import plot_panels
from cascadeclip.presets import MINI
from cascadeclip.schema import Count, checked

NAMES = ["a", "b", "c"]
MAPS = torch.arange(128).view(2, 8, 8) % 3
CONFUSION = evaluation.confusion_of(MAPS, MAPS, 3)
GIVEN = {
    "ConfusionMatrix": lambda value: evaluation.ConfusionMatrix(value),
    "top_confusions": lambda value: evaluation.top_confusions(CONFUSION, NAMES, count=value),
    "confusion_of": lambda value: evaluation.confusion_of(MAPS, MAPS, value),
    "picture_counts": lambda value: evaluation.picture_counts(MAPS, MAPS, value),
    "boundary_counts": lambda value: evaluation.boundary_counts(MAPS, MAPS, 3, value),
    "boundary_width": lambda value: evaluation.boundary_width(value, 8),
    "rim": lambda value: evaluation.rim(MAPS, value),
    "through_grid": lambda value: evaluation.through_grid(MAPS, 3, value),
    "bootstrap": lambda value: evaluation.bootstrap(np.mean, 5, repeats=value),
    "window_starts": lambda value: evaluation.window_starts(9, value, 2),
    "argmax_at": lambda value: evaluation.argmax_at(torch.zeros(1, 3, 4, 4), (value, 8)),
    "scene size": lambda value: data.EmojiScenes(3, size=value),
    "Shares": lambda value: data.Shares(value),
    "Augment": lambda value: data.Augment(value, data.IGNORE),
    "ToWorkingSize": lambda value: data.ToWorkingSize(value),
    "working_size": lambda value: data.working_size(9, 9, value),
    "draw_change": lambda value: data.draw_change(9, value),
    "held_out": lambda value: training.held_out(MINI, value),
    "reduce_labels": lambda value: training.reduce_labels(MAPS, value),
    "run_comparison": lambda value: experiments.run_comparison(None, MINI, "", limit=value),
    "matmul_tflops": lambda value: experiments.matmul_tflops(torch.device("cpu"), "fp32", value),
    "run_demo": lambda value: experiments.run_demo("", limit=value),
    "scene_pictures": lambda value: analysis.scene_pictures(value),
    "patch_labels": lambda value: analysis.patch_labels(MAPS, (value, 4)),
    "check_blocks": lambda value: check_blocks([value] if value else [], 12),
    "scaled_stages": lambda value: scaled_stages(value),
    "nga_weights": lambda value: nga_weights(value),
    "plot_panels": lambda value: plot_panels([("one", np.zeros((2, 2)))], columns=value),
}


@pytest.mark.parametrize("value", [-1, 0, 1.5, True, float("nan"), "2"], ids=repr)
@pytest.mark.parametrize("take", GIVEN.values(), ids=GIVEN)
def test_counts_that_are_none_are_refused_in_one_line(take, value):
    with pytest.raises(InputError) as caught:
        take(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "take",
    [
        lambda value: evaluation.bootstrap(np.mean, 5, seed=value),
        lambda value: data.EmojiScenes(3, value),
        lambda value: data.Endless(data.EmojiScenes(3), value),
        lambda value: data.EmojiScenes(value),
        lambda value: data.stream(data.Endless(data.EmojiScenes(3), 0), data.Shares(1), list, value),
        lambda value: experiments.run_comparison(None, MINI, "", seeds=[value]),
    ],
)
@pytest.mark.parametrize("value", [-1, 1.5, True, float("nan")], ids=repr)
def test_seeds_and_what_may_be_nothing_are_no_less(take, value):
    with pytest.raises(InputError, match=r"must be (at least 0|a whole number)"):
        take(value)


def test_what_fits_is_taken_as_it_is():
    assert evaluation.top_confusions(CONFUSION, NAMES, count=np.int64(2)) and evaluation.ConfusionMatrix(1).classes == 1
    with pytest.raises(InputError, match="background=True: a threshold"):
        read_vocabulary(None, ["cat"], ["{}"], background=True)


def test_the_argument_is_named_however_it_is_given():
    @checked(count=Count)
    def take(name, count=1):
        return name, count

    assert take("a") == ("a", 1) and take("a", 2) == take(count=2, name="a") == ("a", 2)
    for wrong in (lambda: take("a", 0), lambda: take("a", count=0)):
        with pytest.raises(InputError, match=r"^count=0 must be at least 1$"):
            wrong()
    with pytest.raises(TypeError, match="missing a required argument: 'name'"):
        take()
