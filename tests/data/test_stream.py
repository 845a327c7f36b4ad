"""Which picture comes when: a function of seed and position, however the work is shared."""

import os
import signal
from itertools import islice

import pytest
import torch

from cascadeclip.data.streams import Batches, Endless, Shares, stream
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
    with pytest.raises(InputError, match=r"^labels differ in size$"):
        list(Batches(Noise(), uneven, workers, batch_size=2))


def uneven(items):
    raise InputError("labels differ in size")


def test_a_reading_process_that_is_killed_is_told_in_one_line():
    with pytest.raises(InputError, match=r"ended before its time, perhaps for want of memory.*--workers$"):
        list(Batches(Broken("killed"), collate, 2, batch_size=2))


def test_a_mistake_of_the_package_keeps_its_traceback():
    with pytest.raises(KeyError, match="Traceback"):
        list(Batches(Broken(KeyError("mistake")), collate, 1, batch_size=2))
