"""Training data without end: which picture comes when is a function of the seed and the step, and of nothing else.

So a run that was killed goes on with the very pictures, crops and colours that it would have seen, and several
processes share one stream between them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cascadeclip.data.labels import ignored_label
from cascadeclip.errors import InputError
from cascadeclip.processes import device, own_draws, told_of_ended

# Items of a data set -> images, labels and, where colours are to be distorted, `distortion.draw_change` of each.
Collate = Callable[[list[Any]], tuple[torch.Tensor, ...]]


class Endless(Dataset[Any]):
    """Pass after pass over a data set, each in an order of its own; items are numbered by their position.

    What an item draws from torch's random numbers (crops, colours) depends on seed and position alone.
    """

    def __init__(self, data: Dataset[Any], seed: int):
        self.data, self.seed = data, seed

    def index_at(self, position: int) -> int:
        """Index into the data of the item at a position, counted from 0 over all passes."""
        length = len(self.data)  # type: ignore[arg-type]  # PyTorch's class does not promise a length
        number, offset = divmod(position, length)
        return int(_order(length, self.seed + number)[offset])

    def __getitem__(self, position: int) -> Any:
        with own_draws((self.seed << 40) + position):
            return self.data[self.index_at(position)]


@lru_cache(maxsize=2)
def _order(length: int, seed: int) -> torch.Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


class Shares(Sampler[list[int]]):
    """Micro-batches of positions for one of several processes, from step `start` on.

    Every step takes the next `batch` positions; each is cut into `parts` micro-batches per process, one after the
    other, so that the pictures of a step do not depend on how many processes and parts there are.
    """

    def __init__(self, batch: int, *, parts: int = 1, rank: int = 0, processes: int = 1, start: int = 0):
        self.batch, self.parts, self.rank, self.processes, self.start = batch, parts, rank, processes, start

    def __iter__(self) -> Iterator[list[int]]:
        size, step = self.batch // (self.parts * self.processes), self.start
        while True:
            for part in range(self.parts):
                first = step * self.batch + (part * self.processes + self.rank) * size
                yield list(range(first, first + size))
            step += 1


class CheckedCollate:
    """A collate function, and a look at the labels it gives, in the process that read the pictures.

    Raises (when called):
        InputError: labels that are not integers of (B, H, W) below `classes`, or `ignored_label` of so many.
    """

    def __init__(self, collate: Collate, classes: int):
        self.collate, self.classes = collate, classes

    def __call__(self, items: list[Any]) -> tuple[torch.Tensor, ...]:
        images, labels, *changes = self.collate(items)
        if labels.ndim != 3 or labels.is_floating_point() or len(labels) != len(images):
            raise InputError(
                f"labels of {tuple(labels.shape)} {labels.dtype} beside images of {tuple(images.shape)}: expected "
                "integers, (B, H, W)"
            )
        ignored = ignored_label(self.classes)
        wrong = labels[((labels < 0) | (labels >= self.classes)) & (labels != ignored)]
        if len(wrong):
            raise InputError(
                f"labels hold {wrong.unique().tolist()[:10]}; expected 0..{self.classes - 1}, or {ignored} for ignored "
                "pixels"
            )
        return images, labels, *changes


@dataclass(frozen=True)
class _Failed:
    """What comes in place of a picture or a batch that cannot be had: PyTorch would make a traceback of the error."""

    error: Exception


def _tried(function: Callable[[Any], Any], argument: object) -> Any:
    try:
        return function(argument)
    except (InputError, OSError, MemoryError) as error:
        return _Failed(error)


class _Tried(Dataset[Any]):
    """A data set; an item that cannot be read is a `_Failed`."""

    def __init__(self, data: Dataset[Any]):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # PyTorch's class does not promise a length

    def __getitem__(self, index: Any) -> Any:
        return _tried(self.data.__getitem__, index)


class _TriedCollate:
    """A collate function; a batch with a `_Failed` among its items is that one."""

    def __init__(self, collate: Collate):
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        failed = [item for item in items if isinstance(item, _Failed)]
        return failed[0] if failed else _tried(self.collate, items)


class Batches(DataLoader[Any]):
    """Batches of a data set, read by `workers` processes (0: by this one), whose errors are those of this process.

    Args:
        data: map-style.
        collate: makes tensors of items.
        how: as `DataLoader` takes it: `batch_size` or `batch_sampler`, ...

    Raises (when read):
        InputError: what the data set and `collate` raise, or a process that ended.
    """

    def __init__(self, data: Dataset[Any], collate: Collate, workers: int, **how: Any):
        super().__init__(
            _Tried(data), collate_fn=_TriedCollate(collate), num_workers=workers,
            pin_memory=device().type == "cuda", **how,  # so that an upload need not be waited for
        )  # fmt: skip

    def __iter__(self) -> Any:
        with told_of_ended("--workers"):
            for batch in super().__iter__():
                if isinstance(batch, _Failed):
                    raise batch.error
                yield batch


def stream(data: Endless, shares: Shares, collate: Collate, workers: int = 0) -> Batches:
    """Batches without end, read by `workers` processes (0: by this one)."""
    # With a generator of its own the loader leaves the global random state alone.
    return Batches(data, collate, workers, batch_sampler=shares, generator=torch.Generator().manual_seed(0))
