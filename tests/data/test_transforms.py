"""What training and test pictures go through before the model."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from cascadeclip.data.distortion import draw_change
from cascadeclip.data.labels import IGNORE
from cascadeclip.data.transforms import MEAN_COLOUR, Augment, ToWorkingSize, normalise, working_size

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
    """Augmentation as far as it goes before colours are changed: picture and labels."""

    class Plain(Augment):
        def __call__(self, image, labels):
            return super().__call__(image, labels)[:2]

    return Plain(SIDE, IGNORE)


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


def slowly(augment, image, labels):
    """The same, as it is described: the picture and all its labels resized first, then cropped, mirrored and padded."""
    size = list(augment._size(*image.shape[1:]))
    image = F.resize(image.contiguous(), size, antialias=False)
    labels = F.resize(labels[None], size, interpolation=v2.InterpolationMode.NEAREST)[0]
    for _ in range(augment.TRIES):
        top, left = (int(torch.randint(max(length - SIDE, 0) + 1, ())) for length in size)
        part = labels[top : top + SIDE, left : left + SIDE]
        counts = torch.bincount(part[part != IGNORE].flatten().long())
        if (counts > 0).sum() > 1 and counts.max() < 0.75 * counts.sum():
            break
    image = image[:, top : top + SIDE, left : left + SIDE]
    change = draw_change(*part.shape)
    if torch.rand(()) < 0.5:
        image, part = image.flip(2), part.flip(1)
    whole = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None].repeat(1, SIDE, SIDE)
    whole[:, : image.shape[1], : image.shape[2]] = image
    padded = torch.full((SIDE, SIDE), IGNORE, dtype=labels.dtype)
    padded[: part.shape[0], : part.shape[1]] = part
    return whole, padded, change


@pytest.mark.parametrize("seed", range(25))
def test_only_the_crop_is_computed_and_is_that_of_the_whole(seed):
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(20, 150, (2,), generator=generator).tolist()
    image = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).permute(2, 0, 1)
    labels = torch.randint(0, 4, (height // 4 + 1, width // 4 + 1), generator=generator, dtype=torch.int32)
    labels = labels.repeat_interleave(4, 0).repeat_interleave(4, 1)[:height, :width].contiguous()
    labels[:3] = IGNORE
    torch.manual_seed(seed)
    found = Augment(SIDE, IGNORE)(image, labels)
    torch.manual_seed(seed)
    for one, other in zip(found, slowly(Augment(SIDE, IGNORE), image, labels), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_the_change_of_colours_is_for_the_picture_without_its_padding():
    augment, sizes = Augment(SIDE, IGNORE), set()
    for seed in range(30):
        torch.manual_seed(seed)
        image, _, change = augment(*scene())
        rows, columns = map(int, change[4:])
        padding = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None]
        assert (image[:, rows:] == padding).all() and (image[:, :, columns:] == padding).all()
        assert (image[2, :rows, :columns] == 100).all()
        sizes.add((rows, columns))
    assert len(sizes) > 5 and max(sizes) == (SIDE, SIDE)


def test_the_same_seed_augments_alike():
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(Augment(SIDE, IGNORE)(*scene()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_test_pictures_get_the_working_size_and_labels_keep_theirs():
    image, labels = scene(90, 120)
    small, same = ToWorkingSize(48)(image, labels)
    assert small.shape == (3, *working_size(90, 120, 48)) == (3, 48, 64)
    assert same is labels
