"""Is a benchmark on disk whole? Counts, sizes and classes of every label map, and all that is wrong."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from cascadeclip.data.benchmarks import Benchmark, Split
from cascadeclip.data.folders import IMAGE_SUFFIXES, listed_stems
from cascadeclip.data.images import read_image
from cascadeclip.data.labels import LabelMap
from cascadeclip.errors import InputError
from cascadeclip.files import exists, is_file, is_folder, listed, size_of

# Lists of Pascal Context made with its "Detail" API lack two and one pictures; most layouts on disk have those.
SHORTER_LISTS = {("context59", "train"): 4996, ("context59", "val"): 5104}
SHOWN = 5  # files named per kind of problem

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class SplitReport:
    """What was found of one split.

    Attributes:
        expected: pictures of the whole split.
        listed: pictures that the split's list names, or that lie in its folder.
        pictures, maps: files found.
        size: bytes of both.
        missing: files that are not there.
        damaged: what is wrong with files that are there: not readable, or values that are no class.
        mismatched: pictures whose size is not their label map's.
        pixels, maps_with: (C,) int64, per class: its pixels, and the label maps it occurs in.
        names: C class words.
        enough: numbers of pictures that count as the whole split.
    """

    names: tuple[str, ...]
    expected: int
    enough: tuple[int, ...]
    listed: int = 0
    pictures: int = 0
    maps: int = 0
    size: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    pixels: np.ndarray = field(init=False)
    maps_with: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.pixels, self.maps_with = (np.zeros(len(self.names), dtype=np.int64) for _ in range(2))

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that occur in no label map."""
        return tuple(name for name, count in zip(self.names, self.maps_with, strict=True) if not count)

    @property
    def problems(self) -> list[str]:
        """One line per kind of problem, with the first few files."""
        kinds = (("missing", self.missing), ("damaged", self.damaged), ("of different sizes", self.mismatched))
        return [f"{len(found)} {kind}: {_first(found)}" for kind, found in kinds if found]

    @property
    def warnings(self) -> list[str]:
        """What may be meant: another number of pictures, classes that never occur."""
        lines = []
        if not self.is_whole:
            lines.append(f"{self.listed:,} pictures; the whole split has {self.expected:,}")
        if self.absent and self.maps:
            lines.append(f"{len(self.absent)} classes in no label map: {_first(self.absent)}")
        return lines

    @property
    def is_whole(self) -> bool:
        return self.listed in self.enough

    def add(self, found: "_Found") -> None:
        self.pictures += found.picture
        self.maps += found.map
        self.size += found.size
        for name in ("missing", "damaged", "mismatched"):
            getattr(self, name).extend(getattr(found, name))
        if found.pixels is not None:
            self.pixels += found.pixels
            self.maps_with += found.pixels > 0


@dataclass
class Report:
    """What was found of a benchmark; `str()` is a table for people.

    Attributes:
        benchmark, folder: its name, and where it lies.
        splits: by name.
    """

    benchmark: str
    folder: Path
    splits: dict[str, SplitReport]

    @property
    def problems(self) -> list[str]:
        return [f"{name}: {line}" for name, split in self.splits.items() for line in split.problems]

    @property
    def warnings(self) -> list[str]:
        return [f"{name}: {line}" for name, split in self.splits.items() for line in split.warnings]

    @property
    def is_sound(self) -> bool:
        """Whether every file is there and can be read."""
        return not self.problems

    @property
    def is_whole(self) -> bool:
        """Whether every split has all the pictures that the benchmark has."""
        return all(split.is_whole for split in self.splits.values())

    def __str__(self) -> str:
        lines = [f"{self.benchmark} in {self.folder}", ""]
        lines.append(f"{'split':<22}{'pictures':>22}{'label maps':>14}{'bytes':>18}")
        for name, split in self.splits.items():
            pictures = f"{split.pictures:,} of {split.expected:,}"
            lines.append(f"{name:<22}{pictures:>22}{split.maps:>14,}{split.size:>18,}")
        lines += ["", f"{'class':<22}" + "".join(f"{name + ' maps':>14}{'pixels':>18}" for name in self.splits)]
        splits = list(self.splits.values())
        for index, name in enumerate(splits[0].names):
            counts = "".join(f"{split.maps_with[index]:>14,}{split.pixels[index]:>18,}" for split in splits)
            lines.append(f"{name:<22}{counts}")
        lines += ["", *(f"WARNING {line}" for line in self.warnings), *(f"PROBLEM {line}" for line in self.problems)]
        advice = "; delete what is damaged, then prepare it again" if self.problems else ""
        lines.append(("not whole" if self.problems else "every file is there and sound") + advice)
        return "\n".join(lines)


def verify(benchmark: Benchmark, data_root: str | Path, jobs: int = 1) -> Report:
    """Read every picture and label map of a benchmark, on `jobs` threads; whatever is wrong goes into the report."""
    folder, splits = Path(data_root) / benchmark.folder, {}
    for name, split in benchmark.splits.items():
        enough = {split.size, SHORTER_LISTS.get((benchmark.name, name), split.size)}
        report = SplitReport(benchmark.names, split.size, tuple(sorted(enough)))
        pairs, missing = _pairs(folder, split, benchmark.label_suffix)
        report.listed, report.missing = len(pairs), missing
        for found in in_parallel(partial(_check, benchmark.label_map), pairs, jobs, f"verifying {name}"):
            report.add(found)
        splits[name] = report
    return Report(benchmark.name, folder, splits)


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int, description: str
) -> Iterator[Result]:
    """`function` of every item, in their order, with a progress bar; an error or Ctrl-C leaves the rest undone.

    Threads do: the time goes into coding and decoding pictures, which happens outside Python's lock.
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from tqdm(pool.map(function, items), desc=description, total=len(items), disable=None)
    finally:
        pool.shutdown(cancel_futures=True)


def _first(lines: Sequence[str]) -> str:
    return "; ".join(lines[:SHOWN]) + (f" and {len(lines) - SHOWN:,} more" if len(lines) > SHOWN else "")


def _pairs(folder: Path, split: Split, suffix: str) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Where every picture of a split and its label map should lie, and the lists and folders that are not there."""
    images, labels = folder / split.images, [folder / path for path in split.labels]
    if split.listing is not None:
        listing = folder / split.listing
        if not is_file(listing):
            return [], [str(listing)]
        stems, pictures = listed_stems(listing, empty_allowed=True), {}
    else:
        absent = [str(path) for path in (images, labels[0]) if not is_folder(path)]
        if absent:
            return [], absent
        pictures = {path.stem: path for path in listed(images) if path.suffix.lower() in IMAGE_SUFFIXES}
        mapped = {path.name.removesuffix(suffix) for path in listed(labels[0]) if path.name.endswith(suffix)}
        stems = sorted(pictures.keys() | mapped)
    if not stems:
        return [], [f"every picture ({folder / (split.listing or split.images)} names or holds none)"]
    pairs = []
    for stem in stems:
        maps = [path / f"{stem}{suffix}" for path in labels]
        map_ = next((path for path in maps if _is_there(path)), maps[-1])  # the last folder holds what we make
        pairs.append((pictures.get(stem, images / f"{stem}.jpg"), map_))
    return pairs, []


def _is_there(path: Path) -> bool:
    """Whether there is anything to be read, or to be told of as damaged."""
    try:
        return exists(path)
    except InputError:
        return True


@dataclass
class _Found:
    """What was found of one picture and its label map."""

    picture: bool = False
    map: bool = False
    size: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    pixels: np.ndarray | None = None


def _check(label_map: LabelMap, pair: tuple[Path, Path]) -> _Found:
    found = _Found()
    image, labels = _read(read_image, pair[0], found), _read(label_map.read, pair[1], found)
    found.picture, found.map = (str(path) not in found.missing for path in pair)
    if labels is not None:
        found.pixels = np.bincount(labels[labels != label_map.ignore], minlength=label_map.classes)
    if image is not None and labels is not None and image.shape[:2] != labels.shape:
        sizes = " and ".join(f"{array.shape[1]} x {array.shape[0]}" for array in (image, labels))
        found.mismatched.append(f"{pair[0]} ({sizes})")
    return found


def _read(reader: Callable[[Path], np.ndarray], path: Path, found: _Found) -> np.ndarray | None:
    try:
        if not exists(path):
            found.missing.append(str(path))
            return None
        found.size += size_of(path, "picture or label map")
        return reader(path)
    except InputError as error:
        found.damaged.append(str(error))
        return None
