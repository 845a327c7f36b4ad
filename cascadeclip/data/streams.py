"""Training data without end: which picture comes when is a function of the seed and the step, and of nothing else.

So a run that was killed goes on with the very pictures, crops and colours that it would have seen, and several
processes share one stream between them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import length_hint
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from cascadeclip.data.labels import ignored_label, wide_labels
from cascadeclip.errors import InputError
from cascadeclip.processes import device, own_draws, told_of_ended
from cascadeclip.schema import Count, Natural, checked

# Items of a data set -> images, labels and, where colours are to be distorted, `distortion.draw_change` of each.
Collate = Callable[[list[Any]], tuple[torch.Tensor, ...]]
Batch = TypeVar("Batch")


class Endless(Dataset[Any]):
    """Pass after pass over a data set, each in an order of its own; items are numbered by their position.

    What an item draws from torch's random numbers (crops, colours) depends on seed and position alone.
    """

    @checked(seed=Natural)
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

    @checked(batch=Count, parts=Count, rank=Natural, processes=Count, start=Natural)
    def __init__(self, batch: int, *, parts: int = 1, rank: int = 0, processes: int = 1, start: int = 0):
        self.batch, self.parts, self.rank, self.processes, self.start = batch, parts, rank, processes, start

    def __iter__(self) -> Iterator[list[int]]:
        size, step = self.batch // (self.parts * self.processes), self.start
        while True:
            for part in range(self.parts):
                first = step * self.batch + (part * self.processes + self.rank) * size
                yield list(range(first, first + size))
            step += 1


def item_name(data: Dataset[Any], index: int) -> str:
    """What an item of a data set is called in messages: the file it was read from, or its number."""
    if isinstance(data, Endless):
        return item_name(data.data, data.index_at(index))
    if isinstance(data, Subset):
        return item_name(data.dataset, data.indices[index])
    return str(getattr(data, "source", "item {}".format)(index))


class CheckedCollate:
    """A collate function, and a look at what it gives, in the process that read the pictures.

    Args:
        collate: makes a batch of items.
        classes: how many there are.
        training: labels are of the pictures' size, and changes of colours may come third.

    Raises (when called):
        InputError: images that are not uint8 (B, 3, H, W), or labels that are not integers of (B, H, W) below
            `classes`, or `ignored_label` of so many.
    """

    def __init__(self, collate: Collate, classes: int, *, training: bool):
        self.collate, self.classes, self.training = collate, classes, training

    def __call__(self, items: list[Any]) -> tuple[torch.Tensor, ...]:
        batch = self.collate(items)
        self._check_parts(batch, len(items))
        images, labels, *changes = batch
        ignored, found = ignored_label(self.classes), wide_labels(labels)
        wrong = found[((found < 0) | (found >= self.classes)) & (found != ignored)]
        if len(wrong):
            raise InputError(
                f"labels hold {wrong.unique().tolist()[:10]}; expected 0..{self.classes - 1}, or {ignored} for ignored "
                "pixels"
            )
        return images, labels, *changes

    def _check_parts(self, batch: object, items: int) -> None:
        parts = batch if isinstance(batch, list | tuple) else ()
        least, most = 2, 3 if self.training else 2
        if not least <= len(parts) <= most or not all(isinstance(part, torch.Tensor) for part in parts):
            raise InputError(f"a batch of {len(parts) or type(batch).__name__} is none of images and labels")
        images, labels = parts[:2]
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or len(images) != items:
            raise InputError(f"images of {tuple(images.shape)} {images.dtype}: expected uint8, ({items}, 3, H, W)")
        size = tuple(images.shape[2:]) if self.training else tuple(labels.shape[1:])
        if labels.ndim != 3 or labels.is_floating_point() or tuple(labels.shape) != (items, *size):
            raise InputError(
                f"labels of {tuple(labels.shape)} {labels.dtype} beside images of {tuple(images.shape)}: expected "
                "integers, (B, H, W)"
            )


@dataclass(frozen=True)
class _Failed:
    """What comes in place of a picture or a batch that cannot be had: PyTorch would make a traceback of the error."""

    error: Exception


class _Tried(Dataset[Any]):
    """A data set; its items come with their indices, and one that cannot be read is a `_Failed`."""

    def __init__(self, data: Dataset[Any]):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # PyTorch's class does not promise a length

    def __getitem__(self, index: Any) -> Any:
        try:
            return index, self.data[index]
        except (InputError, OSError, MemoryError) as error:
            return _Failed(error)
        except StopIteration:  # to a loop over batches it would mean that there are no more
            return _Failed(
                InputError(f"{item_name(self.data, index)} cannot be read: the data set raised StopIteration")
            )


class _TriedCollate:
    """A collate function; a batch with a `_Failed` among its items is that one, and what is wrong with an item is said
    with its name."""

    def __init__(self, data: Dataset[Any], collate: Collate):
        self.data, self.collate = data, collate

    def __call__(self, items: list[Any]) -> Any:
        if failed := [item for item in items if isinstance(item, _Failed)]:
            return failed[0]
        try:
            return self.collate([item for _, item in items])
        except (OSError, MemoryError) as error:
            return _Failed(error)
        except Exception as error:  # whatever a collate function makes of items that are of no use to it
            return _Failed(self._blamed(items, error))

    def _blamed(self, items: list[tuple[int, Any]], error: Exception) -> InputError:
        """The error of the first item that brings it about alone, or else beside the first one."""
        (first_index, first), *_ = items
        for index, item in items:
            if found := self._error_of([item]):
                return InputError(f"{item_name(self.data, index)}: {_reason(found)}")
        for index, item in items[1:]:
            if found := self._error_of([first, item]):
                names = f"{item_name(self.data, index)} beside {item_name(self.data, first_index)}"
                return InputError(f"{names}: {_reason(found)}")
        return InputError(_reason(error))

    def _error_of(self, items: list[Any]) -> Exception | None:
        try:
            self.collate(items)
        except Exception as error:
            return error
        return None


def _reason(error: Exception) -> str:
    """One line of an error; of one that is not for people, also what kind it is."""
    if isinstance(error, InputError):
        return str(error)
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"this item makes no batch of images and labels ({type(error).__name__}: {said:.200})"


def read_batch(data: Dataset[Any], indices: Sequence[int], collate: Collate) -> tuple[torch.Tensor, ...]:
    """Some items of a data set as one batch; raises as `Batches` does."""
    tried = _Tried(data)
    batch = _TriedCollate(data, collate)([tried[index] for index in indices])
    if isinstance(batch, _Failed):
        raise batch.error
    return batch


class Batches(DataLoader[Any]):
    """Batches of a data set, read by `workers` processes (0: by this one), whose errors are those of this process.

    Args:
        data: map-style.
        collate: makes tensors of items.
        how: as `DataLoader` takes it: `batch_size` or `batch_sampler`, ...

    Raises (when read):
        InputError: what the data set and `collate` raise, with the item's name where an item is of no use, or a process
            that ended.
    """

    def __init__(self, data: Dataset[Any], collate: Collate, workers: int, **how: Any):
        super().__init__(
            _Tried(data), collate_fn=_TriedCollate(data, collate), num_workers=workers,
            pin_memory=device().type == "cuda", **how,  # so that an upload need not be waited for
        )  # fmt: skip

    def __iter__(self) -> Any:
        with told_of_ended("--workers"):
            for batch in super().__iter__():
                if isinstance(batch, _Failed):
                    raise batch.error
                yield batch


@checked(workers=Natural)
def stream(data: Endless, shares: Shares, collate: Collate, workers: int = 0) -> Batches:
    """Batches without end, read by `workers` processes (0: by this one)."""
    # With a generator of its own the loader leaves the global random state alone.
    return Batches(data, collate, workers, batch_sampler=shares, generator=torch.Generator().manual_seed(0))


def whole(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of anything.

    Raises:
        InputError: a loader of PyTorch's ends before its time, as a data set that raises StopIteration makes it do.
    """
    read = 0
    for read, batch in enumerate(batches, start=1):  # noqa: B007
        yield batch
    if isinstance(batches, DataLoader) and read < (promised := length_hint(batches)):
        raise InputError(f"the data ended after {read} of {promised} batches: the next item cannot be read")
