"""Pictures with labels in COCO's files: panoptic ones (a JSON file and a folder of PNGs), and those of stuff or of
instances (a JSON file alone)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cascadeclip.data.folders import Found
from cascadeclip.data.labels import LabelMap, open_mask
from cascadeclip.data.names import inside
from cascadeclip.errors import InputError
from cascadeclip.files import is_file, parse_json_object, read_text

MOST_BYTES = 2**31  # of a JSON file
MOST_PIXELS = 2**28  # of a mask that is run-length coded
MOST_SIDE = 2**20  # px, that a corner of a polygon may lie away from the origin


@dataclass
class CocoMasks:
    """Labels out of COCO's annotations: reads what `LabelMap` reads, from the same kind of path.

    Attributes:
        label_map: from category numbers to class indices.
        segments: mask -> (segment number, category number) pairs; of masks that are PNG files in colours.
        shapes: mask -> (category number, segmentation) pairs; of masks that the JSON file holds.
        sizes: mask -> (height, width); of masks that the JSON file holds.
    """

    label_map: LabelMap
    segments: dict[Path, list[tuple[int, int]]] = field(default_factory=dict)
    shapes: dict[Path, list[tuple[int, object]]] = field(default_factory=dict)
    sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)

    @property
    def ignore(self) -> int:
        """The label of pixels that belong to no class."""
        return self.label_map.ignore

    def file_of(self, path: Path) -> Path:
        """The file that holds a mask: its PNG, or COCO's JSON file."""
        return path.parent if path in self.shapes else path

    def used(self) -> set[int]:
        """Numbers of the categories that annotations name."""
        of_segments = {category for parts in self.segments.values() for _, category in parts}
        return of_segments | {category for parts in self.shapes.values() for category, _ in parts}

    def read(self, path: Path) -> np.ndarray:
        """(H, W) int32: class indices; pixels of no segment, or of a category that is no class, are ignored.

        Raises:
            InputError: a mask that cannot be read, or one that does not fit its JSON file.
        """
        index: dict[object, int] = {value: position for position, value in enumerate(self.label_map.values)}
        if path in self.shapes:
            labels = np.full(self.sizes[path], self.ignore, dtype=np.int32)
            for category, shape in self.shapes[path]:
                labels[decoded(shape, *self.sizes[path], path)] = index.get(category, self.ignore)
            return labels
        red, green, blue = np.moveaxis(open_mask(path, colours=True).astype(np.int32), -1, 0)
        numbers = red | green << 8 | blue << 16
        found, inverse = np.unique(numbers, return_inverse=True)
        category_of: dict[int, int | None] = {**dict(self.segments[path]), 0: None}  # 0: of no segment
        strange = [number for number in found.tolist() if number not in category_of]
        if strange:
            raise InputError(f"{path} holds the segments {strange[:5]}, which its JSON file does not know")
        labels = np.array([index.get(category_of[number], self.ignore) for number in found.tolist()], dtype=np.int32)
        return labels[inverse].reshape(numbers.shape)


def pycocotools_mask() -> ModuleType:
    """`pycocotools.mask`; an `InputError` says how to get it."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError('masks inside a COCO file need pycocotools: pip install "cascadeclip[data]"') from error
    return mask


def decoded(shape: Any, height: int, width: int, path: Path) -> np.ndarray:
    """(H, W) bool of COCO's polygons or run lengths.

    Raises:
        InputError: a segmentation that is none, or that does not fill the picture; `path` is named.
    """
    mask = pycocotools_mask()
    try:
        if isinstance(shape, list):
            if not all(isinstance(polygon, list) and set(map(type, polygon)) <= {int, float} for polygon in shape):
                raise InputError("polygons must be lists of numbers")
            polygons = [polygon for polygon in shape if len(polygon) >= 6]
            if not polygons:
                return np.zeros((height, width), bool)
            _check_polygons(polygons, height, width)
            return mask.decode(mask.merge(mask.frPyObjects(polygons, height, width))).astype(bool)
        _check_runs(shape, height, width)
        coded = mask.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
        return mask.decode(coded).astype(bool)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # pycocotools raises anything
        raise InputError(f"{path}: a segmentation that is none ({error!r})") from error


def _check_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> None:
    """pycocotools reserves memory along every edge, and writes past it where its numbers overflow."""
    for polygon in polygons:
        points = np.array(polygon, dtype=float).reshape(-1, 2)
        edges = np.abs(points - np.roll(points, 1, axis=0)).max(1).sum()
        if not (
            np.abs(points).max() <= min(2 * max(height, width), MOST_SIDE) and edges <= 4 * (height + 1) * (width + 1)
        ):
            raise InputError(f"a polygon that does not belong into a picture of {width} x {height} px")


def _check_runs(shape: Mapping[str, Any], height: int, width: int) -> None:
    """pycocotools writes past its memory where the runs are longer than the picture."""
    if list(shape.get("size", ())) != [height, width]:
        raise InputError(f"run lengths of a mask of {shape.get('size')} in a picture of {[height, width]}")
    runs = shape["counts"]
    lengths = runs if isinstance(runs, list) else _unpacked(runs.encode() if isinstance(runs, str) else bytes(runs))
    if any(type(run) is not int or run < 0 for run in lengths) or sum(lengths) != height * width:
        raise InputError(f"run lengths that do not add up to the {height * width} pixels of the picture")


def _unpacked(text: bytes) -> list[int]:
    """Run lengths from COCO's letters: 5 bits each, the sixth says that more follow; from the third on differences."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise InputError("run lengths that are none")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def read_categories(path: str | Path) -> dict[int, str]:
    """Number -> word of a COCO file's categories, in its order; an `InputError` if one number has two words."""
    categories = _list(read_coco(path), "categories", path)
    return _by_number([(_whole(one, "id", path), _text(one, "name", path)) for one in categories], "categories", path)


def check_same_categories(first: str | Path, other: str | Path, classes: Sequence[int]) -> None:
    """An `InputError` unless the numbers that are classes stand for the same words in both COCO files, as far as the
    other has these numbers and words."""
    words, others = read_categories(first), read_categories(other)
    numbers = {word: number for number, word in others.items()}
    for number in (number for number in classes if number in words):
        word = words[number]
        if others.get(number, word) != word or numbers.get(word, number) != number:
            found = f"{number} is {others[number]!r:.60}" if number in others else f"it is {numbers[word]}"
            raise InputError(
                f"the COCO files do not fit together: {number} is {word!r:.60} in {first}, and in {other} {found}; "
                "number the categories of both alike"
            )


def read_coco(path: str | Path) -> dict[str, Any]:
    """The content of a COCO file."""
    return parse_json_object(read_text(path, "COCO file", MOST_BYTES), str(path))


def coco_pairs(
    path: str | Path, images: str | Path, masks: str | Path | None, label_map: LabelMap
) -> tuple[Found, CocoMasks]:
    """The pictures of a COCO file with their labels.

    Args:
        path: `panoptic_val2017.json`, `stuff_val2017.json` or `instances_val2017.json`, or one made like these.
        images: folder of the pictures.
        masks: folder of a panoptic file's PNGs; None for the others.
        label_map: whose `numbers` are category numbers.

    Raises:
        InputError: a file of another kind, names that lead out of the folders, or masks too large to be meant.
    """
    path, images = Path(path), Path(images)
    content, reader, found = read_coco(path), CocoMasks(label_map), Found()
    pictures = _by_number([(_whole(one, "id", path), one) for one in _list(content, "images", path)], "images", path)
    annotations = _list(content, "annotations", path)
    panoptic = any("segments_info" in one for one in annotations)
    if panoptic and masks is None:
        raise InputError(f"{path} is a panoptic file, whose labels are PNGs: name their folder as masks")
    folder = Path(masks or path.parent)  # of a panoptic file's PNGs
    with_labels, taken = set(), set()
    for one in annotations:
        number = _whole(one, "image_id", path)
        if number not in pictures:
            raise InputError(f"{path}: an annotation of picture {number}, which the file does not have")
        if panoptic:
            mask = folder / inside(_text(one, "file_name", path), path)
            if number in with_labels or mask in reader.segments:
                raise InputError(f"{path}: picture {number} or its mask {mask.name} has two annotations; give one")
            segments = [
                (_whole(s, "id", path), _whole(s, "category_id", path)) for s in _list(one, "segments_info", path)
            ]
            reader.segments[mask] = list(_by_number(segments, f"segments of {mask.name}", path).items())
        else:
            mask = path / str(number)  # no file: what messages call it
            reader.shapes.setdefault(mask, []).append((_whole(one, "category_id", path), one.get("segmentation")))
            reader.sizes[mask] = picture_size(pictures[number], path)
        if number not in with_labels:
            with_labels.add(number)
            picture = images / inside(_text(pictures[number], "file_name", path), path)
            if picture in taken:
                raise InputError(f"{path}: two of its pictures are {picture.name}, each with a part of the annotations")
            taken.add(picture)
            if not is_file(picture):
                found.leave("whose picture is missing", picture.name)
            elif panoptic and not is_file(mask):
                found.leave("without a mask", picture.name)
            else:
                found.pairs.append((picture, mask))
    for number in pictures.keys() - with_labels:
        found.leave("without a mask", _text(pictures[number], "file_name", path))
    found.pairs.sort()
    return found, reader


def picture_size(picture: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Height and width that a COCO file gives a picture; an `InputError` if they cannot be meant."""
    height, width = (_whole(picture, side, path) for side in ("height", "width"))
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise InputError(f"{path}: a picture of {width} x {height} px; at most {MOST_PIXELS:,} pixels are read")
    return height, width


def _by_number(pairs: Sequence[tuple[int, Any]], what: str, path: str | Path) -> dict[int, Any]:
    """Number -> what has it; an `InputError` for a number that two have: the labels of one would be the other's."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(number for number, _ in pairs).most_common(1)[0][0]
        raise InputError(f"{path}: two of the COCO file's {what} have the number {twice}; give each its own")
    return found


def _list(values: Mapping[str, Any], key: str, path: str | Path) -> Sequence[Mapping[str, Any]]:
    found = values.get(key)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"{path} is no COCO file: it has no list of {key}")
    return found


def _whole(values: Mapping[str, Any], key: str, path: str | Path) -> int:
    if type(values.get(key)) is not int:
        raise InputError(f"{path}: {key} is {values.get(key)!r}, expected a whole number")
    return values[key]


def _text(values: Mapping[str, Any], key: str, path: str | Path) -> str:
    if not isinstance(values.get(key), str):
        raise InputError(f"{path}: {key} is {values.get(key)!r}, expected text")
    return values[key]
