"""Anybody's own pictures and masks, in the ways people have them: where they lie, what their numbers mean, how they are
split."""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from cascadeclip.data.coco import check_same_categories, coco_pairs, read_categories
from cascadeclip.data.folders import STEM, Found, LabelReader, find_pairs
from cascadeclip.data.labels import LabelMap, parsed_values
from cascadeclip.data.names import inside
from cascadeclip.data.words import check_names, shortened
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.files import is_file, parse_json, read_text
from cascadeclip.schema import check_fields

OTHERS = "others"  # as `ignored`: everything that is no class
PICTURE_KEYS, MASK_KEYS = ("picture", "image", "img"), ("mask", "label", "labels", "annotation")


@dataclass(frozen=True)
class OwnData:
    """Where own pictures and masks lie and what the masks' numbers mean; the keys of `own.json`.

    Attributes:
        images, masks: folders to train on, searched with their sub-folders; pictures without a mask are left out. They
            may be one folder, where `mask_name` tells masks from pictures.
        names: class words; their order is the order of the numbers, from `first` on.
        values: instead of `names`: the number or the colour of each class -> its word, as {"1": "person", "25":
            "giraffe"}, {"128 0 0": "aeroplane"}, or pairs of the two.
        unseen: words whose masks training must not see.
        val_images, val_masks: folders to evaluate on; without them a share of the pictures is.
        val_share: that share, between 0 and 1.
        mask_name: of a picture's mask, `{stem}` for the picture's name without its suffix.
        picture_name: what of that name is the stem, as in "{stem}_leftImg8bit".
        first: number of the first of `names`; 1 where 0 is a background that counts for nothing.
        ignored: numbers that belong to no class, or "others" for all that is none; 255 and 65,535 if they are none.
        pairs, val_pairs: a CSV or JSON list of picture and mask, in `images` and `masks` or else beside the list.
        coco, val_coco: a panoptic, stuff or instances file of COCO's; `masks` is the folder of a panoptic one's PNGs.
            The words are its categories, unless `values` or `names` choose some. Where none were chosen, an annotation
            of a category without a word is an error, unless the number is `ignored`.
    """

    images: str | Path | None = None
    masks: str | Path | None = None
    names: str | Sequence[str] | None = None
    unseen: str | Sequence[str] = ()
    values: Mapping[object, str] | Sequence[Sequence[object]] | None = None
    val_images: str | Path | None = None
    val_masks: str | Path | None = None
    val_share: float = 0.1
    mask_name: str = "{stem}.png"
    picture_name: str = STEM
    first: int = 0
    ignored: Sequence[int] | str | None = None
    pairs: str | Path | None = None
    val_pairs: str | Path | None = None
    coco: str | Path | None = None
    val_coco: str | Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.ignored, str) and self.ignored != OTHERS:
            raise InputError(f'ignored={self.ignored!r} must be a list of whole numbers, or "{OTHERS}"')
        if not 0 < self.val_share < 1:
            raise InputError(f"val_share={self.val_share}: the share to evaluate on is between 0 and 1")
        if self.pairs is not None and self.coco is not None:
            raise InputError("both pairs and coco: give one list of pictures")
        if self.pairs is None and self.images is None:
            raise InputError("no pictures: give the folders images and masks, or a list as pairs")
        if self.pairs is None and self.coco is None and self.masks is None:
            raise InputError("no masks: give their folder as masks, or a file of COCO's as coco")
        if self.names is not None and self.values is not None:
            raise InputError("both names and values: values holds the words already")
        self.label_map  # noqa: B018 (built here so that what does not fit together is told of at once)

    @cached_property
    def _meaning(self) -> tuple[Sequence[str], dict[str, Any]]:
        """Words, and what a `LabelMap` needs to know of their numbers."""
        if self.values is not None:
            return parsed_values(self.values)
        if self.coco is not None:
            categories = read_categories(Path(self.coco))
            if self.names is None:
                return list(categories.values()), {"numbers": tuple(categories)}
            number_of = {word: number for number, word in categories.items()}
            strange = [word for word in check_names(self.names) if word not in number_of]
            if strange:
                raise InputError(f"names that are no category of {self.coco}: {', '.join(map(shortened, strange))}")
            return self.names, {"numbers": tuple(number_of[word] for word in check_names(self.names))}
        if self.names is None:
            raise InputError("no class words: give names, or values for numbers that do not simply count up")
        return self.names, {}

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Class words in the order of the class indices."""
        return check_names(self._meaning[0])

    @cached_property
    def label_map(self) -> LabelMap:
        """From the masks' numbers to class indices."""
        others = self.ignored == OTHERS
        ignored = None if others or self.ignored is None else cast(tuple[int, ...], tuple(self.ignored))
        return LabelMap(len(self.words), self.first, ignored, others_ignored=others, **self._meaning[1])

    @property
    def is_split_by_share(self) -> bool:
        """Whether the pictures to evaluate on are a share of those that there are."""
        return self.val_images is None and self.val_pairs is None and self.val_coco is None

    def find(self, split: str) -> tuple[Found, LabelReader]:
        """The pictures of a split, `train` or `val`, with their masks, and what reads these.

        Raises:
            InputError: another split; folders or files that are missing or do not fit; no picture with a mask.
        """
        if split not in ("train", "val"):
            raise InputError(f"no split {split!r}; choose from train, val")
        if split == "train" or self.is_split_by_share:
            where = (self.pairs, self.coco, self.images, self.masks)
        else:
            where = (self.val_pairs, self.val_coco, self.val_images or self.images, self.val_masks or self.masks)
        listing, coco, images, masks = (None if path is None else Path(path) for path in where)
        found, reader = self._found(listing, coco, images, masks)
        if not found.pairs:
            raise InputError(f"no picture with a mask: {found}; `cascadeclip data check` looks at own data")
        if self.is_split_by_share:
            root = images if images is not None else cast(Path, listing).parent
            found = Found(_share(found.pairs, root, self.val_share, split), found.left)
        return found, reader

    def _found(
        self, listing: Path | None, coco: Path | None, images: Path | None, masks: Path | None
    ) -> tuple[Found, LabelReader]:
        if coco is not None:
            if self.coco is not None and coco != Path(self.coco):
                check_same_categories(Path(self.coco), coco, self.label_map.values)
            found, reader = coco_pairs(coco, cast(Path, images), masks, self.label_map)
            if self.names is None and self.values is None and self.ignored != OTHERS:
                self._check_known(reader.used(), coco)
            return found, reader
        if listing is not None:
            return read_pairs(listing, images or listing.parent, masks or listing.parent), self.label_map
        if images is None or masks is None:
            raise InputError("no masks of the pictures to evaluate on: give their folder as val_masks")
        pairs = find_pairs(images, masks, mask_name=self.mask_name, picture_name=self.picture_name)
        return pairs, self.label_map

    def _check_known(self, used: set[int], path: Path) -> None:
        """Pixels of a category that is no class and that nobody left out would count for nothing."""
        if strange := sorted(used - {*self.label_map.values, *cast(Sequence[int], self.ignored or ())}):
            raise InputError(
                f"{path}: annotations of category {', '.join(map(str, strange[:5]))}, of which {self.coco} holds no "
                'word; add it to the categories there, or leave such pixels out with the key ignored as "others"'
            )


def _share(pairs: list[tuple[Path, Path]], root: Path, share: float, split: str) -> list[tuple[Path, Path]]:
    """One side of a split that depends on the pictures' names below `root` alone: pictures that are added, in whatever
    sub-folder, move few others."""
    if len(pairs) < 2:
        raise InputError("one picture cannot be split into some to train and some to evaluate on; give val_images")

    def place(pair: tuple[Path, Path]) -> bytes:
        return hashlib.sha256(pair[0].relative_to(root).as_posix().encode("utf-8", "surrogateescape")).digest()

    count = min(max(round(share * len(pairs)), 1), len(pairs) - 1)
    chosen = set(sorted(pairs, key=place)[:count])
    return [pair for pair in pairs if (pair in chosen) == (split == "val")]


def read_pairs(listing: str | Path, images: str | Path, masks: str | Path) -> Found:
    """The pictures and masks that a list names.

    Args:
        listing: CSV (commas, semicolons or tabs; a line of titles may stand first, `picture` and `mask` then say which
            columns are meant) or JSON (a list of pairs, or of {"picture": ..., "mask": ...}).
        images, masks: folders that the names are in.

    Raises:
        InputError: no list, a line that holds no two names, a picture as its own mask, or a name that leads out of the
            folders.
    """
    listing, images, masks = Path(listing), Path(images), Path(masks)
    text, found, taken = read_text(listing, "list of pictures"), Found(), set()
    rows = _json_rows(text, listing) if listing.suffix.lower() == ".json" else _csv_rows(text, listing)
    for number, row in rows:
        if len(row) < 2 or not all(isinstance(name, str) and name.strip() for name in row[:2]):
            raise InputError(f"{listing}, entry {number}: {row!r} names no picture and mask")
        picture, mask = (folder / inside(name.strip(), listing) for folder, name in zip((images, masks), row[:2],
                                                                                         strict=True))  # fmt: skip
        if picture == mask:
            raise InputError(f"{listing}, entry {number}: {picture.name} is named as its own mask")
        if picture in taken:
            found.leave("named twice", picture.name)
        elif not is_file(picture):
            found.leave("whose picture is missing", picture.name)
        elif not is_file(mask):
            found.leave("without a mask", picture.name)
        else:
            found.pairs.append((picture, mask))
        taken.add(picture)
    return found


def _csv_rows(text: str, listing: Path) -> list[tuple[int, list[str]]]:
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=separator)
    try:
        rows = [(number, row) for number, row in enumerate(reader, start=1) if any(row)]
    except csv.Error as error:
        raise DamagedFile(
            f"{listing} is damaged, no CSV list of pictures ({error}): is a quotation mark open?"
        ) from error
    titles = [title.strip().lower() for title in rows[0][1]] if rows else []
    columns = [next((titles.index(key) for key in keys if key in titles), None) for keys in (PICTURE_KEYS, MASK_KEYS)]
    if None not in columns:
        return [(number, [(row[c : c + 1] or [""])[0] for c in columns if c is not None]) for number, row in rows[1:]]
    return rows[1:] if titles and titles[0] in PICTURE_KEYS else rows


def _json_rows(text: str, listing: Path) -> list[tuple[int, list[Any]]]:
    entries = parse_json(text, str(listing))
    if not isinstance(entries, list):
        raise InputError(f"{listing} must hold a list of pairs, [...], not {type(entries).__name__}")

    def row(entry: object) -> list[Any]:
        if isinstance(entry, dict):
            return [next((entry[key] for key in keys if key in entry), None) for keys in (PICTURE_KEYS, MASK_KEYS)]
        return entry if isinstance(entry, list) else [entry]

    return [(number, row(entry)) for number, entry in enumerate(entries, start=1)]
