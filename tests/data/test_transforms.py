"""What training and test pictures go through before the model."""

import pytest
import torch

from cascadeclip.data.labels import IGNORE
from cascadeclip.data.transforms import Augment, ToWorkingSize, normalise, working_size

SIDE = 64


def scene(height=90, width=120):
    """A picture whose colours tell the labels: class 0 left, class 1 right, the border ignored."""
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[:, width // 2 :] = 1
    labels[:2] = IGNORE
    image = torch.stack([(labels == 0) * 200, (labels == 1) * 200, torch.full_like(labels, 100)])
    return image.to(torch.uint8), labels


@pytest.fixture
def plain():
    """Augmentation without its changes of colour."""
    augment = Augment(SIDE)
    augment.colours = torch.nn.Identity()
    return augment


@pytest.mark.parametrize("seed", range(20))
def test_augmented_pictures_and_labels_stay_together(plain, seed):
    torch.manual_seed(seed)
    image, labels = plain(*scene())
    assert type(image) is type(labels) is torch.Tensor
    assert image.shape == (3, SIDE, SIDE) and labels.shape == (SIDE, SIDE)
    assert image.dtype == labels.dtype == torch.uint8
    assert set(labels.unique().tolist()) <= {0, 1, IGNORE}
    right = ((image[0] > image[1]) == (labels == 0)) | (labels == IGNORE)
    assert right.float().mean() > 0.95  # the rest is where the resized picture blends two colours


def test_scales_crops_and_flips_vary(plain):
    widths, left_is_first = set(), set()
    for seed in range(30):
        torch.manual_seed(seed)
        _, labels = plain(*scene())
        padded = (labels == IGNORE).all(0)
        widths.add(int((~padded).sum()))
        visible = labels[:, ~padded]
        middle = visible[visible.shape[0] // 3]
        if set(middle.tolist()) == {0, 1}:
            left_is_first.add(int(middle[0]))
    assert left_is_first == {0, 1}
    assert min(widths) < SIDE and max(widths) == SIDE  # halved pictures are padded, doubled ones cut


def test_padding_is_the_mean_colour_and_ignored(plain):
    for seed in range(30):
        torch.manual_seed(seed)
        image, labels = plain(*scene())
        rows = (labels == IGNORE).all(1).nonzero().flatten()
        if len(rows) and rows[-1] == SIDE - 1 and len(rows) > 3:
            assert normalise(image)[:, -1].abs().max() < 0.02
            return
    raise AssertionError("no crop was padded")


def test_crops_avoid_one_class_over_three_quarters(plain):
    """With a class in the right tenth of the picture, crops are drawn again until it is in."""
    image, labels = scene(100, 400)
    labels[:] = 0
    labels[:, 360:] = 1
    with_both = 0
    for seed in range(60):
        torch.manual_seed(seed)
        _, found = plain(image, labels)
        with_both += {0, 1} <= set(found.unique().tolist())
    first_crop_only = 0
    plain.TRIES = 1
    for seed in range(60):
        torch.manual_seed(seed)
        _, found = plain(image, labels)
        first_crop_only += {0, 1} <= set(found.unique().tolist())
    assert with_both > first_crop_only + 10


def test_colours_change_in_some_pictures_only():
    image = torch.full((3, SIDE, SIDE), 90, dtype=torch.uint8)
    labels = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    image[0] = 150
    changed, augment = 0, Augment(SIDE)
    augment.SCALES = (1.0, 1.0)
    for seed in range(40):
        torch.manual_seed(seed)
        out, _ = augment(image, labels)
        changed += not torch.equal(out, image)
    assert 20 < changed < 40


def test_the_same_seed_augments_alike():
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(Augment(SIDE)(*scene()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_test_pictures_get_the_working_size_and_labels_keep_theirs():
    image, labels = scene(90, 120)
    small, same = ToWorkingSize(48)(image, labels)
    assert small.shape == (3, *working_size(90, 120, 48)) == (3, 48, 64)
    assert same is labels
