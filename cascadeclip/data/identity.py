"""What kept work depends on: a data set told from another, and from itself after its files were changed."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Dataset

from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.folders import FolderDataset, LabelReader
from cascadeclip.data.labels import LabelMap
from cascadeclip.data.streams import read_batch
from cascadeclip.files import check_file, open_file, unreadable
from cascadeclip.processes import own_draws

logger = logging.getLogger(__name__)

SAMPLED = 32  # files or items whose contents are looked at
MOST_READ = 2_000  # items of other data than files and drawn scenes, all of which are read where every change counts


def data_identity(
    data: Dataset[Any],
    collate: Callable[[list[Any]], tuple[Tensor, ...]],
    *,
    every: Literal["time", "content"] | None = None,
) -> dict[str, object]:
    """What a data set is, in values of JSON under names for people: its pictures and masks in their order, and how
    label numbers are read.

    Of files: names, sizes and what some of them hold, so that a folder may move. Of a data set that is drawn: its
    settings. Of any other: some of its items.

    Args:
        data: map-style.
        collate: makes tensors of items.
        every: find every change of files: by the `time` when each was changed last, so that a copy of them is another
            set, or by each one's `content`, all of which is read. Of data that are neither files nor drawn either reads
            all items; if they are more than `MOST_READ`, only some, with a warning.

    Raises:
        InputError: a file or an item that cannot be read.
    """
    told: dict[str, object] = {"kind": type(data).__qualname__, "items": len(data)}  # type: ignore[arg-type]
    numbers = None
    if isinstance(data, FolderDataset):
        told["files"], numbers = _files(data.files, every), _numbers(data.label_map)
    elif isinstance(data, EmojiScenes):
        told |= {"options": _plain(data.options), "seed": data.seed}
    else:  # whatever it calls its parts, they may mean anything
        length = len(data)  # type: ignore[arg-type]
        sample = _items(data, collate, _sample(length))
        told["sample"] = tensor_digest({name: part for item in sample for name, part in item.items()})
        if every and length <= MOST_READ:
            told["content"] = [tensor_digest(item) for item in _items(data, collate, range(length))]
        elif every:
            _warn_of_sample(type(data).__qualname__, length)
    return {"pictures and masks": digest_of(told), "label numbers": numbers}


def digest_of(values: object) -> str:
    """SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name, as float32 where they are floating-point."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update((tensor.float() if tensor.is_floating_point() else tensor).numpy().tobytes())
    return digest.hexdigest()


def _sample(length: int) -> list[int]:
    """Indices spread evenly over a set, its first and last among them."""
    few = min(length, SAMPLED)
    return sorted({index * (length - 1) // max(few - 1, 1) for index in range(few)})


def _files(pairs: Sequence[tuple[Path, Path]], every: str | None) -> str:
    digest = hashlib.sha256()
    try:
        for path in (check_file(path, "picture or mask") for pair in pairs for path in pair):
            found = path.stat()
            told = [path.name, found.st_size] + ([found.st_mtime_ns] if every == "time" else [])
            if every == "content":
                told.append(_content(path, found.st_size, found.st_mtime_ns))
            digest.update(json.dumps(told).encode())
        for index in _sample(len(pairs)):
            for path in pairs[index]:
                with open_file(path, "picture or mask") as file:
                    digest.update(file.read(2**16))
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


@lru_cache(maxsize=2**20)  # the seeds and variants of a comparison ask for the same files
def _content(path: Path, size: int, changed: int) -> str:
    with open_file(path, "picture or mask") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _numbers(reader: LabelReader) -> Any:
    """What numbers mean; of a reader that knows every picture's labels, a digest of all that it knows."""
    return _plain(reader) if isinstance(reader, LabelMap) else digest_of(_plain(reader))


@lru_cache  # once is enough
def _warn_of_sample(kind: str, length: int) -> None:
    logger.warning(
        "of the %d items of %s only %d are looked at: what was kept of this data would be taken although others were "
        "changed; give another output folder after a change", length, kind, SAMPLED,
    )  # fmt: skip


def _items(
    data: Dataset[Any], collate: Callable[[list[Any]], tuple[Tensor, ...]], indices: Sequence[int]
) -> Iterator[dict[str, Tensor]]:
    for index in indices:
        with own_draws(0):
            images, labels, *_ = read_batch(data, [index], collate)
        yield {f"{index} image": images, f"{index} labels": labels}


def _plain(value: object) -> Any:
    """A value in words of JSON; of an object without fields, its kind."""
    if is_dataclass(value) and not isinstance(value, type):
        return [
            type(value).__qualname__,
            *((field.name, _plain(getattr(value, field.name))) for field in fields(value)),
        ]
    if isinstance(value, PurePath):
        return value.name  # a folder may move
    if isinstance(value, Mapping):
        pairs = ([repr(_plain(key)), _plain(inner)] for key, inner in value.items())
        return sorted(pairs, key=lambda pair: str(pair[0]))
    if isinstance(value, set | frozenset):  # whose order is another one in every process
        return sorted((_plain(inner) for inner in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__qualname__
