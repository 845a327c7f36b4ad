"""Pictures and label maps in folders: found, matched, and read. The benchmarks' layouts on disk, or anybody's own."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cascadeclip.data.images import read_image
from cascadeclip.data.names import inside
from cascadeclip.errors import InputError
from cascadeclip.files import check_folder, is_file, read_text, unreadable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
STEM = "{stem}"  # in the name of a mask: the picture's name without its suffix
SHOWN = 3  # files that are named per reason


class LabelReader(Protocol):
    """Reads the labels of a picture: a `LabelMap`, or what takes them out of a COCO file."""

    @property
    def ignore(self) -> int:
        """The label of pixels that belong to no class."""

    def read(self, path: Path) -> np.ndarray:
        """(H, W) int32: class indices, or the label of ignored pixels."""


@dataclass
class Found:
    """Pictures with their masks, and what was left out.

    Attributes:
        pairs: picture and mask, sorted.
        left: reason -> names of the files left out for it.
    """

    pairs: list[tuple[Path, Path]] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)

    def leave(self, reason: str, name: str) -> None:
        self.left.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        parts = [f"{len(self.pairs):,} pictures with masks"]
        for reason, names in self.left.items():
            more = ", ..." if len(names) > SHOWN else ""
            parts.append(f"{len(names):,} left out, {reason} ({', '.join(names[:SHOWN])}{more})")
        return "; ".join(parts)


class FolderDataset(Dataset[tuple[Tensor, ...]]):
    """Pictures with label maps.

    Args:
        pairs: picture and label map of every item, or what was found.
        label_map: reads a label map.
        transform: (picture (3, H, W) uint8, labels (H, W) int32) -> the same two kinds of tensors, and what else
            belongs to the item (`transforms.Augment`: the change of its colours); None leaves them.

    Raises:
        InputError: no pairs; when read: a damaged picture, or sizes that differ.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str | Path, str | Path]] | Found,
        label_map: LabelReader,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, ...]] | None = None,
    ):
        self.found = pairs if isinstance(pairs, Found) else Found([(Path(one), Path(other)) for one, other in pairs])
        if not self.found.pairs:
            raise InputError("a data set without a picture" + (f": {self.found}" if self.found.left else ""))
        self.pairs, self.label_map, self.transform = self.found.pairs, label_map, transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, labels = self.read(index)
        # Channels last, as they were read: resizing is three times as fast so, and gives the same numbers.
        item = torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.from_numpy(labels)
        return item if self.transform is None else self.transform(*item)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture (H, W, 3) uint8 and labels (H, W) int32 as they lie on disk."""
        picture, label_file = self.pairs[index]
        image, labels = read_image(picture), self.label_map.read(label_file)
        if image.shape[:2] != labels.shape:
            raise InputError(
                f"{picture} has {image.shape[1]} x {image.shape[0]} px, its label map {label_file} "
                f"{labels.shape[1]} x {labels.shape[0]}"
            )
        return image, labels

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """The files of every item: its picture, and that which holds its labels."""
        of_labels = getattr(self.label_map, "file_of", lambda path: path)
        return [(picture, of_labels(labels)) for picture, labels in self.pairs]

    def without(self, classes: Sequence[int]) -> "FolderDataset":
        """The pictures without a pixel of these classes, given by their indices. Reads every label map once: minutes
        for a hundred thousand.

        Raises:
            InputError: no picture is without them, or a damaged label map.
        """

        def kept(pair: tuple[Path, Path]) -> bool:
            return not np.isin(self.label_map.read(pair[1]), classes).any()

        with ThreadPoolExecutor() as pool:
            pairs = [pair for pair, keep in zip(self.pairs, pool.map(kept, self.pairs), strict=True) if keep]
        if not pairs:
            raise InputError(f"all {len(self)} pictures hold pixels of the classes to leave out: none is left")
        return FolderDataset(pairs, self.label_map, self.transform)

    def source(self, index: int) -> str:
        """What item `index` was read from, for messages and for naming results."""
        return str(self.pairs[index][0])


def files_of(data: object) -> Iterator[Path]:
    """The files that the pictures and labels of a data set are read from, if they are read from files."""
    if isinstance(data, FolderDataset):
        yield from (path for files in data.files for path in files)


def collate(items: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """A batch of pictures of one size: (B, 3, H, W) uint8, labels (B, H', W') int32, and what else the items hold."""
    return tuple(torch.stack(part) for part in zip(*items, strict=True))


def find_pairs(
    images: str | Path,
    masks: str | Path,
    *,
    mask_name: str = "{stem}.png",
    picture_name: str = STEM,
    deep: bool = True,
) -> Found:
    """Every picture of a folder with its mask; what has none, or is no picture, is left out and told of.

    Both may be one folder, if the masks' names tell them apart. Capitals in the masks' names do not count.

    Args:
        mask_name: of the mask of a picture, with `{stem}` for the picture's: "{stem}_mask.png".
        picture_name: what of a picture's name, without its suffix, is the stem: "{stem}_leftImg8bit".
        deep: in sub-folders, too; masks lie in those of the same names.

    Raises:
        InputError: a folder that is missing or cannot be read, a name without `{stem}`, or two pictures of one mask.
    """
    for what, pattern in (("mask", mask_name), ("picture", picture_name)):
        if pattern.count(STEM) != 1 or "/" in pattern or "\\" in pattern:
            raise InputError(f"{what} name {pattern!r}: it holds {STEM} once, and no folder: '{{stem}}_mask.png'")
    images, masks = Path(images), Path(masks)
    files, mask_files = _listed(images, deep), _listed(masks, deep)
    there = {_key(path, masks): path for path in reversed(mask_files)}
    there |= {str(path.relative_to(masks)): path for path in mask_files}  # the exact name goes first
    found, candidates = Found(), {}
    own_folder = masks != images and masks.is_relative_to(images)
    before, after = picture_name.split(STEM)
    for path in files:
        name, stem = str(path.relative_to(images)), path.stem
        if own_folder and path.is_relative_to(masks):
            continue
        if path.name.startswith("."):
            found.leave("hidden", name)
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            if masks != images or path not in mask_files:
                found.leave(f"of a suffix other than {' '.join(IMAGE_SUFFIXES)}", name)
        elif not (stem.startswith(before) and stem.endswith(after) and len(stem) > len(before) + len(after)):
            found.leave(f"not named {picture_name}", name)
        else:
            wanted = path.relative_to(images).with_name(
                mask_name.replace(STEM, stem.removeprefix(before).removesuffix(after))
            )
            candidates[path] = there.get(str(wanted)) or there.get(_key(masks / wanted, masks))
    of_others = {mask for path, mask in candidates.items() if mask is not None and mask != path}
    for path, mask in candidates.items():
        if path in of_others:
            continue
        if mask is None:
            found.leave("without a mask", str(path.relative_to(images)))
        elif mask == path:
            found.leave("which would be masks of themselves", str(path.relative_to(images)))
        else:
            found.pairs.append((path, mask))
    _refuse_shared(found)
    return found


def _refuse_shared(found: Found) -> None:
    """Two pictures of one mask are two pictures of one name; one of them would be learnt with the other's mask."""
    for mask, times in Counter(mask for _, mask in found.pairs).most_common(1):
        if times > 1:
            pictures = [str(picture) for picture, its_mask in found.pairs if its_mask == mask]
            raise InputError(f"{' and '.join(pictures)} both have the mask {mask}: give each a name of its own")


def _listed(folder: Path, deep: bool) -> list[Path]:
    """All files of a folder, sorted."""
    return sorted(path for _, files in walked(folder, deep=deep) for path in files)


def walked(folder: str | Path, *, deep: bool = True) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and, if `deep`, those below it, each with its files; linked folders are followed, once each, and hidden
    ones left out.

    Raises:
        InputError: no folder, or one that cannot be read.
    """
    visited = set()

    def fail(error: OSError) -> None:
        raise unreadable(error.filename, error) from error

    for where, folders, names in os.walk(check_folder(folder), onerror=fail, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = [] if real in visited or not deep else sorted(f for f in folders if not f.startswith("."))
        if real not in visited:
            yield Path(where), [Path(where, name) for name in names]
        visited.add(real)


def _key(path: Path, folder: Path) -> str:
    """A name as file systems that know no capitals, and those that store accents apart, see it."""
    return unicodedata.normalize("NFC", str(path.relative_to(folder))).casefold()


def matching_pairs(images: str | Path, labels: str | Path, label_suffix: str = ".png") -> list[tuple[Path, Path]]:
    """Every picture of a folder with the label map of the same name; sorted.

    Raises:
        InputError: a folder that is missing or holds no picture, or a picture without a label map.
    """
    found = find_pairs(images, labels, mask_name=STEM + label_suffix, deep=False)
    missing = found.left.get("without a mask", [])
    if missing:
        raise _missing([str(Path(labels) / f"{Path(name).stem}{label_suffix}") for name in missing])
    if not found.pairs:
        raise InputError(f"no picture ({', '.join(IMAGE_SUFFIXES)}) in {images}")
    return found.pairs


def listed_pairs(
    listing: str | Path, images: str | Path, labels: Sequence[str | Path], label_suffix: str = ".png"
) -> list[tuple[Path, Path]]:
    """The pictures that a text file names, one stem per line; each label map from the first folder that has it.

    Raises:
        InputError: a missing or empty list, a line that leads out of the folders, or a missing picture or label map.
    """
    pairs = []
    for stem in listed_stems(listing):
        candidates = [Path(folder) / f"{stem}{label_suffix}" for folder in labels]
        labelled = next((path for path in candidates if is_file(path)), candidates[0])
        pairs.append((Path(images) / f"{stem}.jpg", labelled))
    missing = [str(path) for pair in pairs for path in pair if not is_file(path)]
    if missing:
        raise _missing(missing)
    return pairs


def listed_stems(listing: str | Path, *, empty_allowed: bool = False) -> list[str]:
    """The first word of every line of a list of pictures, as it may become a path.

    Raises:
        InputError: a missing or empty list, or a line that leads out of the folder of pictures.
    """
    lines = read_text(listing, "list of pictures").splitlines()
    stems = [inside(line.split()[0], listing) for line in lines if line.strip()]
    if not stems and not empty_allowed:
        raise InputError(f"{listing} names no picture")
    return stems


def _missing(paths: list[str]) -> InputError:
    return InputError(f"{len(paths)} files are missing, the first of them {', '.join(paths[:3])}")
