"""Which picture comes when: a function of seed and position, however the work is shared."""

import os
import signal
from itertools import islice

import pytest
import torch

from cascadeclip.data.streams import Batches, CheckedCollate, Endless, Shares, read_batch, stream, whole
from cascadeclip.errors import DamagedFile, InputError
from tests.support.noise import Noise, collate


class Numbers(torch.utils.data.Dataset):
    """Item i is i and a random number."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return index, torch.rand(()).item()


def test_every_pass_is_a_permutation_of_its_own():
    data = Endless(Numbers(), seed=1)
    passes = [[data.index_at(7 * number + place) for place in range(7)] for number in range(3)]
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] == torch.randperm(7, generator=torch.Generator().manual_seed(1)).tolist()


def test_draws_depend_on_seed_and_position_alone_and_leave_the_global_state():
    data = Endless(Numbers(), seed=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, later = data[3], data[10]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert data[3] == first and data[10] == later
    assert first[1] != later[1]
    assert Endless(Numbers(), seed=2)[3] != first


@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 1)])
def test_a_step_holds_the_same_pictures_however_it_is_shared(processes, parts):
    steps = [[] for _ in range(3)]
    for rank in range(processes):
        shares = Shares(8, parts=parts, rank=rank, processes=processes, start=2)
        for number, positions in enumerate(islice(shares, 3 * parts)):
            assert len(positions) == 8 // (processes * parts)
            steps[number // parts] += positions
    assert [sorted(positions) for positions in steps] == [list(range(8 * s, 8 * s + 8)) for s in (2, 3, 4)]


def test_workers_read_the_same_batches():
    alone, helped = (
        list(islice(stream(Endless(Noise(), 3), Shares(4, start=1), collate, workers), 3)) for workers in (0, 2)
    )
    for (images, labels), (same_images, same_labels) in zip(alone, helped, strict=True):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)


class Broken(Noise):
    """Noise whose sixth picture cannot be had; by default, its file is cut."""

    def __init__(self, fault=None):
        self.fault = fault or DamagedFile("picture 5.png is cut short; copy it again")

    def __getitem__(self, index):
        if index == 5 and self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 5:
            raise self.fault
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", [InputError("no picture 5"), None, PermissionError(13, "denied", "5.png"),
                                   MemoryError("too large")], ids=lambda fault: type(fault).__name__)  # fmt: skip
def test_an_error_of_a_reading_process_is_the_users_one_line(workers, fault):
    data, read = Broken(fault), []
    with pytest.raises(type(data.fault)) as caught:
        read += Batches(data, collate, workers, batch_size=2)
    assert type(caught.value) is type(data.fault) and str(caught.value) == str(data.fault)
    with pytest.raises(type(data.fault)) as caught:
        list(islice(stream(Endless(data, 0), Shares(4), collate, workers), 3))
    assert str(caught.value) == str(data.fault)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_collate_function_is_the_users_one_line(workers):
    with pytest.raises(InputError, match=r"^item 0: labels differ in size$"):
        list(Batches(Noise(), uneven, workers, batch_size=2))


def uneven(items):
    raise InputError("labels differ in size")


def test_a_reading_process_that_is_killed_is_told_in_one_line():
    with pytest.raises(InputError, match=r"ended before its time, perhaps for want of memory.*--workers$"):
        list(Batches(Broken("killed"), collate, 2, batch_size=2))


def test_a_mistake_of_the_package_keeps_its_traceback():
    with pytest.raises(KeyError, match="Traceback"):
        list(Batches(Broken(KeyError("mistake")), collate, 1, batch_size=2))


# --- items of no use --------------------------------------------------------------------------------------------------


class Odd(Noise):
    """Noise whose sixth item is what `make` makes of it."""

    def __init__(self, make):
        self.make = make

    def __getitem__(self, index):
        image, labels = super().__getitem__(index)
        return self.make(image, labels) if index == 5 else (image, labels)


def ending(image, labels):
    raise StopIteration


ODD = {
    "StopIteration": (ending, "cannot be read: the data set raised StopIteration"),
    "one part": (lambda image, labels: (image,), "makes no batch"),
    "three parts": (lambda image, labels: (image, labels, labels), "makes no batch"),
    "None": (lambda image, labels: None, "makes no batch"),
    "no tensor": (lambda image, labels: (image.numpy(), labels), "makes no batch"),
    "labels of floats": (
        lambda image, labels: (image, labels.float()),
        r"labels of \(1, 16, 16\) torch.float32 beside",
    ),
    "labels of a row": (lambda image, labels: (image, labels[0]), r"labels of \(1, 16\) torch.int64 beside"),
    "unknown labels": (lambda image, labels: (image, labels + 7), r"labels hold \[.*\]; expected 0..2"),
    "four channels": (
        lambda image, labels: (image[[0, 1, 2, 0]], labels),
        r"images of \(1, 4, 16, 16\) torch.uint8: exp",
    ),
    "a grey picture": (lambda image, labels: (image[0], labels), r"images of \(1, 16, 16\) torch.uint8: expected"),
    "a float picture": (lambda image, labels: (image / 255, labels), r"images of .* torch.float32: expected uint8"),
    "another size": (lambda image, labels: (image[:, :8], labels[:8]), r"beside item \d: this item makes no batch"),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("odd", ODD)
def test_an_item_of_no_use_is_named(odd, workers):
    """In an evaluation and in a training; a StopIteration would end the one early, with scores of what came before."""
    make, said = ODD[odd]
    for training in (False, True):
        checked = CheckedCollate(collate, 3, training=training)
        with pytest.raises(InputError, match=f"^item 5.*{said}") as caught:
            list(Batches(torch.utils.data.Subset(Odd(make), [0, 3, 5, 6]), checked, workers, batch_size=4))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"^item 5.*{said}"):
        list(islice(stream(Endless(Odd(make), 0), Shares(4), checked, workers), 2))


def test_in_training_labels_are_of_the_pictures_size():
    data = Odd(lambda image, labels: (image, labels[:8]))
    with pytest.raises(InputError, match=r"^item 5: labels of \(1, 8, 16\) .* beside images of \(1, 3, 16, 16\)"):
        read_batch(data, [5], CheckedCollate(collate, 3, training=True))
    assert read_batch(data, [5], CheckedCollate(collate, 3, training=False))[1].shape == (1, 8, 16)


def test_items_that_come_from_files_are_named_by_them():
    data = Odd(lambda image, labels: (image, labels.float()))
    data.source = "picture {}.png".format
    with pytest.raises(InputError, match=r"^picture 5.png: labels of"):
        read_batch(Endless(data, 0), range(8), CheckedCollate(collate, 3, training=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_of_anybodys_that_ends_early_is_an_error(workers):
    loader = torch.utils.data.DataLoader(Odd(ending), 2, collate_fn=collate, num_workers=workers)
    with pytest.raises(InputError, match="the data ended after 2 of 4 batches"):
        list(whole(loader))
    assert len(list(whole(torch.utils.data.DataLoader(Noise(), 2, collate_fn=collate)))) == 4
    assert list(whole(iter([1, 2]))) == [1, 2]
