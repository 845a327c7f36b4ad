"""Colours of a batch against torchvision's `ColorJitter` on one picture after another: each change, and all that comes
of many."""

import pytest
import torch
from scipy.stats import wasserstein_distance
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from cascadeclip.data.distortion import UNCHANGED, distort, draw_change

CHANGES = {"brightness": dict(brightness=32 / 255), "contrast": dict(contrast=0.5)}
CHANGES |= {"saturation": dict(saturation=0.5), "hue": dict(hue=0.1)}
ADJUST = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]


def pictures(number: int = 6, height: int = 24, width: int = 30) -> torch.Tensor:
    """Noise, a grey, and colours at their ends."""
    images = torch.randint(0, 256, (number, 3, height, width), generator=torch.Generator().manual_seed(0))
    images[1] = 77
    images[2] = 255 * (images[2] > 127)
    images[3, :2] = images[3, 2]
    return images.to(torch.uint8)


def change(rows: int = 24, columns: int = 30, **values: float) -> torch.Tensor:
    names = dict(zip(CHANGES, UNCHANGED, strict=True)) | values
    return torch.tensor([*names.values(), rows, columns])


def apart(found: torch.Tensor, wanted: torch.Tensor) -> int:
    return int((found.int() - wanted.int()).abs().max())


@pytest.mark.parametrize(("place", "name"), list(enumerate(CHANGES)))
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_each_change_is_torchvisions(place, name, part):
    low, high = getattr(v2.ColorJitter(**CHANGES[name]), name)
    value, images = low + part * (high - low), pictures()
    found = distort(images, change(**{name: value}).expand(len(images), -1))
    wanted = torch.stack([ADJUST[place](image, value) for image in images])
    assert found.dtype == torch.uint8 and apart(found, wanted) <= 1
    assert place == 0 or part == 0.5 or apart(found, images) > 5


def test_pictures_of_a_batch_have_changes_of_their_own():
    images = pictures()
    torch.manual_seed(1)
    changes = torch.stack([draw_change(24, 30) for _ in images])
    found = distort(images, changes)
    for image, own, one in zip(images, changes, found, strict=True):
        assert torch.equal(distort(image[None], own[None])[0], one)
        for adjust, value in zip(ADJUST, own[:4].tolist(), strict=True):
            image = adjust(image, value)
        assert apart(one, image) <= 4  # torchvision rounds in between


def test_what_is_not_changed_stays_as_it_is():
    images = pictures()
    assert torch.equal(distort(images, change().expand(len(images), -1)), images)


def test_padding_stays_and_does_not_count():
    """Contrast is about the mean of the picture; a distortion before padding must give the same."""
    images, own = pictures(), dict(brightness=0.9, contrast=1.4, saturation=0.6, hue=0.07)
    images[:, :, 17:] = images[:, :, :, 20:] = 124
    found = distort(images, change(17, 20, **own).expand(len(images), -1))
    inner = distort(images[:, :, :17, :20], change(17, 20, **own).expand(len(images), -1))
    assert torch.equal(found[:, :, :17, :20], inner) and not torch.equal(inner, images[:, :, :17, :20])
    assert (found[:, :, 17:] == 124).all() and (found[:, :, :, 20:] == 124).all()


def draws(number: int = 4000) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.stack([draw_change(3, 5) for _ in range(number)])


@pytest.mark.parametrize(("place", "name"), list(enumerate(CHANGES)))
def test_each_is_drawn_in_one_half_of_the_cases_evenly_from_its_range(place, name):
    values = draws()[:, place]
    low, high = getattr(v2.ColorJitter(**CHANGES[name]), name)
    drawn = values[values != UNCHANGED[place]]
    assert len(drawn) / len(values) == pytest.approx(0.5, abs=0.04)  # five deviations
    assert low <= drawn.min() and drawn.max() <= high
    quartiles = torch.quantile((drawn - low) / (high - low), torch.tensor([0.25, 0.5, 0.75])).tolist()
    assert quartiles == pytest.approx([0.25, 0.5, 0.75], abs=0.06)


def test_they_are_drawn_independently():
    changed = (draws()[:, :4] != torch.tensor(UNCHANGED)).float()
    assert (torch.corrcoef(changed.T) - torch.eye(4)).abs().max() < 0.08
    assert (draws(3)[:, 4:] == torch.tensor([3.0, 5.0])).all()


def test_many_pictures_are_distributed_as_those_of_torchvision():
    """Of many versions of a picture: mean, spread, distance from grey, share of red. How far one lot is to be moved to
    become the other, in deviations: two lots of torchvision's own are up to 0.06 apart."""
    image, number = pictures()[0, :, :6, :6] // 2 + torch.tensor([90, 40, 10], dtype=torch.uint8)[:, None, None], 1200
    one_by_one = v2.Compose([v2.RandomApply([v2.ColorJitter(**how)], p=0.5) for how in CHANGES.values()])
    torch.manual_seed(0)
    wanted = described(torch.stack([255 * one_by_one(image / 255) for _ in range(number)]))  # of bytes it rounds down
    changes = torch.stack([draw_change(6, 6) for _ in range(number)])
    found = described(distort(image.expand(number, -1, -1, -1), changes))
    for ours, theirs in zip(found, wanted, strict=True):
        assert wasserstein_distance(ours, theirs) < 0.1 * theirs.std()


def described(images: torch.Tensor) -> torch.Tensor:
    """(4, B)."""
    images = images.float()
    grey = images.mean(1, keepdim=True)
    red = images[:, 0].mean((1, 2)) / images.sum(1).mean((1, 2))
    return torch.stack([images.mean((1, 2, 3)), grey.std((1, 2, 3)), (images - grey).abs().mean((1, 2, 3)), red])
