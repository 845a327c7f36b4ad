"""256 and more classes: 255 is a class like any other, whichever integers hold the labels."""

import pytest
import torch

from cascadeclip.analysis.alignment import localise
from cascadeclip.data.labels import ignored_label, wide_labels
from cascadeclip.data.streams import CheckedCollate
from cascadeclip.errors import InputError
from cascadeclip.evaluation import diagnostics as d
from cascadeclip.evaluation.contours import contour_counts
from cascadeclip.explorers.surgery import own_words_only
from cascadeclip.model.losses import present_pairs, segmentation_loss
from cascadeclip.training.labels import pseudo_labels

CLASSES = 300
NAMES = [str(index) for index in range(CLASSES)]
LABELS = torch.full((2, 8, 8), 255)
LABELS[0, 2:6, 2:6], LABELS[1, :, 5:] = 44, 200  # 300 is 44 among bytes
GUESSED = LABELS.roll(1, 2)
SCORES = torch.randn(2, CLASSES, 8, 8, generator=torch.Generator().manual_seed(0))


def collated(labels, classes=CLASSES):
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    return CheckedCollate(lambda _: (images, labels), classes, training=True)([0, 1])[1]


MEASURES = {
    "ConfusionMatrix": lambda guessed, labels: d.confusion_of(guessed, labels, CLASSES).counts,
    "picture_counts": lambda guessed, labels: d.picture_counts(guessed, labels, CLASSES),
    "boundary_counts": lambda guessed, labels: d.boundary_counts(guessed, labels, CLASSES, 1),
    "error_kinds": lambda guessed, labels: d.error_kinds(guessed, labels, NAMES, ["255"]),
    "contour_counts": lambda guessed, labels: contour_counts(guessed, labels, classes=CLASSES, width=1),
    "localise": lambda _, labels: torch.from_numpy(localise(SCORES.flatten(2).mT, labels.flatten(1)).confusion),
    "CheckedCollate": lambda _, labels: collated(labels),
    "present_pairs": lambda _, labels: present_pairs(labels, CLASSES, ignored_label(CLASSES)),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_bytes_count_as_wider_integers_do(measure):
    wanted = MEASURES[measure](GUESSED, LABELS)
    found = MEASURES[measure](GUESSED.to(torch.uint8), LABELS.to(torch.uint8))
    assert torch.equal(found.double(), wanted.double()) and wanted.any()


@pytest.mark.parametrize("measure", ["picture_counts", "boundary_counts", "CheckedCollate", "present_pairs"])
def test_so_do_integers_for_which_pytorch_has_few_functions(measure):
    wanted = MEASURES[measure](GUESSED, LABELS)
    found = MEASURES[measure](GUESSED.to(torch.uint16), LABELS.to(torch.uint16))
    assert torch.equal(found.double(), wanted.double())


def test_pseudo_labels_take_such_integers_too():
    labels = LABELS.to(torch.uint16)
    assert torch.equal(pseudo_labels(SCORES, labels, [44, 299]), pseudo_labels(SCORES, LABELS, [44, 299]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64], ids=str)
def test_class_255_is_a_word_of_its_picture(dtype):
    similarity = torch.zeros(2, 64, CLASSES)
    similarity[..., 255] = 1.0
    assert (own_words_only(similarity, LABELS.to(dtype).flatten(1)) == 255).all()


def test_contours_of_class_255_are_those_of_any_other():
    renumbered = [maps.where(maps != 255, 7) for maps in (GUESSED, LABELS)]
    assert torch.equal(MEASURES["contour_counts"](GUESSED, LABELS), MEASURES["contour_counts"](*renumbered))


def test_labels_that_are_wide_already_are_not_copied():
    for dtype in (torch.int32, torch.int64):
        labels = LABELS.to(dtype)
        assert wide_labels(labels) is labels
    assert (wide_labels(torch.tensor([255], dtype=torch.uint8)) != 65_535).all()


def test_labels_out_of_range_are_named_as_they_are():
    with pytest.raises(InputError, match=r"labels hold \[-1\]; expected 0..65534, or 65535"):
        collated(torch.full((2, 8, 8), -1, dtype=torch.int16), 65_535)


@pytest.mark.parametrize("ignored", [255, 0])
def test_a_class_is_not_ignored_by_the_loss(ignored):
    for call in (lambda: segmentation_loss(SCORES, LABELS, ignored), lambda: present_pairs(LABELS, CLASSES, ignored)):
        with pytest.raises(InputError, match=f"ignore_index={ignored} is the index of one of the 300 classes"):
            call()
