"""The table method x block, against the same measures taken one at a time."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cascadeclip.analysis.alignment import localise
from cascadeclip.analysis.dense import MEASURES, Judge, as_markdown, dense_features, method_table
from cascadeclip.analysis.layers import patch_labels
from cascadeclip.clip.load import load_clip
from cascadeclip.data.emojiscenes import CLASSES, UNSEEN, EmojiScenes
from cascadeclip.data.labels import IGNORE
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.errors import InputError
from cascadeclip.evaluation.contours import contour_counts, contour_f
from cascadeclip.evaluation.diagnostics import mean_scores, picture_counts


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def scenes():
    some = [EmojiScenes.split("test")[i] for i in range(6)]
    return torch.stack([to_tensor(s.image) for s in some]), torch.stack([torch.as_tensor(s.labels) for s in some])


@pytest.fixture(scope="module")
def rows(clip, scenes):
    return method_table(
        clip, *scenes, CLASSES, UNSEEN, methods=("naclip", "sc_clip"), blocks=(1, 11, (10, 12)), batch=4, repeats=20
    )


def test_there_is_a_line_for_every_method_and_set_of_blocks(rows):
    assert [(row.method, row.blocks) for row in rows] == [
        ("naclip", (1,)), ("naclip", (11,)), ("naclip", (10, 12)), ("sc_clip", (11,)), ("sc_clip", (10, 12)),
    ]  # fmt: skip
    assert all(tuple(row.measures) == MEASURES for row in rows)


def test_measures_are_those_of_each_kind_alone(clip, scenes, rows):
    images, labels = scenes
    similarity = dense_features(clip, normalise(images), "naclip", blocks=(11,)) @ clip.class_embeddings(CLASSES).T
    row, by_patch = rows[1].measures, patch_labels(labels, (12, 12))
    patches = mean_scores(picture_counts(similarity.argmax(2)[:, None], by_patch[:, None], 72), CLASSES, UNSEEN)
    maps = F.interpolate(similarity.mT.unflatten(2, (12, 12)), (96, 96), mode="bilinear").argmax(1)
    pixels = mean_scores(picture_counts(maps, labels.long(), 72), CLASSES, UNSEEN)
    for group in ("seen", "unseen"):
        assert row[f"patch mIoU {group}"].whole == pytest.approx(patches[f"mIoU_{group}"])
        assert row[f"pixel mIoU {group}"].whole == pytest.approx(pixels[f"mIoU_{group}"], abs=1e-4)
    assert row["AUROC"].whole == pytest.approx(localise(similarity, by_patch).mean("auroc"))
    assert row["boundary F"].whole == pytest.approx(contour_f(contour_counts(maps, labels, 72)), abs=1e-3)
    low, high = row["AUROC"].interval()
    assert low < row["AUROC"].whole < high and row["AUROC"].whole > 0.6


def test_rows_are_paired(rows):
    low, high = (rows[2].measures["pixel mIoU seen"] - rows[0].measures["pixel mIoU seen"]).interval()
    assert low <= high


def test_as_markdown(rows):
    lines = as_markdown(rows).splitlines()
    assert len(lines) == 2 + len(rows) and lines[4].startswith("| naclip | 10, 12 | ")


def test_a_judge_scores_anything_and_leaves_out_ignored_patches():
    names, labels = ("a", "b", "c"), torch.randint(0, 3, (4, 16, 16), generator=torch.Generator().manual_seed(0))
    labels = labels[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)  # a patch is of one class
    labels[0, :4] = IGNORE
    right = F.one_hot(labels[:, ::4, ::4].clamp(max=2), 3).permute(0, 3, 1, 2).float()
    judge = Judge(names, ("c",))
    for some, truth in zip(right.split(2), labels.split(2), strict=True):
        judge.add(some, truth)
    found = judge.measures(repeats=5)
    assert found["patch mIoU seen"].whole == found["patch mIoU unseen"].whole == found["AUROC"].whole == 1
    assert found["pixel mIoU seen"].whole > 0.6
    with pytest.raises(InputError, match="nothing to measure"):
        Judge(names, ("c",)).measures()


def test_without_unseen_words_that_half_is_empty():
    judge = Judge(("a", "b"), ())
    judge.add(torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 8, 8)))
    assert np.isnan(judge.measures(repeats=5)["patch mIoU unseen"].whole)


def test_ignored_patches_change_no_localisation():
    generator = torch.Generator().manual_seed(1)
    similarity, labels = torch.randn(1, 30, 3, generator=generator), torch.randint(0, 3, (1, 20), generator=generator)
    padded = torch.cat([labels, torch.full((1, 10), IGNORE)], dim=1)
    one, other = localise(similarity[:, :20], labels), localise(similarity, padded)
    for name in ("auroc", "average_precision", "prevalence", "hit", "confusion"):
        assert np.allclose(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(methods=("naclp",)), "did you mean naclip"),
        (dict(blocks=(13,)), "1..12"),
        (dict(blocks=((1, 1),)), "each once"),
        (dict(unseen=("spaceship",)), "none of the 72 class names"),
        (dict(images=torch.zeros(0, 3, 96, 96, dtype=torch.uint8)), "one or more"),
    ],
)
def test_what_does_not_fit_is_refused(clip, scenes, change, message):
    images, labels = scenes
    with pytest.raises(InputError, match=message):
        method_table(clip, **{"images": images, "labels": labels, "names": CLASSES, **change})
