"""Bring Pascal Context into the layout that mmsegmentation uses: 59 classes, 4,998 + 5,105 pictures.

    python data_scripts/prepare_context59.py --root data
    python data_scripts/prepare_context59.py --root data --archive VOCtrainval_03-May-2010.tar \\
        --archive trainval_merged.json
    python data_scripts/prepare_context59.py --root data --verify

The labels come from `trainval_merged.json` (needs `pip install "cascadeclip[data]"`), or from the original .mat files:
give `trainval.tar.gz` of the data set's page, https://cs.stanford.edu/~roozbeh/pascal-context/, with --archive. Needs
1.3 GB for VOC 2010 to download, and as much again on disk. What is there already is used as it is; a stopped run goes
on when the command is given again. The archives may be deleted afterwards (`downloads` under the root).
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from cascadeclip.data.benchmarks import CONTEXT59
from cascadeclip.data.coco import decoded, picture_size, pycocotools_mask, read_coco
from cascadeclip.data.prepare.originals import Job, Source, all_there, demand, main, read_list, write_list
from cascadeclip.errors import InputError
from cascadeclip.files import read_text

VOC = Source(
    name="VOC 2010 (VOCtrainval_03-May-2010.tar)",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
    md5="da459979d0c395079b5c75ee67908abb",
    member=r"(?:.*/)?VOC2010/(JPEGImages/[^/.]+\.jpg|ImageSets/Main/(?:train|val)\.txt)",
)
JSON = Source(
    name="the labels as JSON (trainval_merged.json)",
    url="https://codalabuser.blob.core.windows.net/public/trainval_merged.json",
    md5="3c2d0c0656b7be9eb61928ffe885d8ce",
)
MATS = Source(
    name="the labels as .mat files (trainval.tar.gz)",
    url=None,
    member=r"(?:.*/)?(trainval/\d{4}_\d{6}\.mat|labels\.txt)",
)

# Of the 459 classes that were drawn, the ids of the 59; everything else is background, 0.
LARGEST = 459
IDS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159,
    162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397,
    415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
VALUES = {id_: value for value, id_ in enumerate(IDS, start=1)}
# Some of the original files call them otherwise.
ALSO_CALLED = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}


def prepare(job: Job) -> None:
    lists = {name: job.folder / split.listing for name, split in CONTEXT59.splits.items()}
    target = job.folder / CONTEXT59.splits["train"].labels[0]
    stems = {name: read_list(path) for name, path in lists.items()}
    if not (all(stems.values()) and all(all_there(target, names, ".png") for names in stems.values())):
        found, read = find_labels(job)
        stems = {name: stems[name] or found[name] for name in lists}
        job.convert(read, [stem for names in stems.values() for stem in names], lambda stem: target / f"{stem}.png")
    every = [stem for names in stems.values() for stem in names]
    if not all_there(job.folder / "JPEGImages", every, ".jpg"):
        job.extract(VOC, job.folder)
        demand(job.folder / "JPEGImages", every, ".jpg", VOC)
    for name, path in lists.items():
        if not path.is_file():
            write_list(path, stems[name])


def find_labels(job: Job) -> tuple[dict[str, list[str]], Callable[[str], np.ndarray]]:
    """Names of each split's pictures, and what makes a picture's label map: (H, W) uint8, 0..59."""
    in_layout = job.folder / "trainval_merged.json"
    if MATS in job.given:
        return from_mats(job)
    if JSON in job.given:
        return from_json(job.given[JSON])
    if in_layout.is_file():
        return from_json(in_layout)
    if mats_are_whole(job):
        return from_mats(job)
    try:
        return from_json(job.obtain(JSON))
    except InputError as error:
        raise InputError(f"{error}. {MATS.name}, of the data set's page, will do as well: --archive") from error


def check_names(names: dict[int, str], path: Path) -> None:
    """Complain if an id does not mean the class that we take it for."""
    for name, id_ in zip(CONTEXT59.names, IDS, strict=True):
        said = re.sub(r"[^a-z]", "", names.get(id_, name).lower())
        if said not in (name, ALSO_CALLED.get(name)):
            raise InputError(f"{path} calls class {id_} {names[id_]!r} instead of {name!r}: not Pascal Context's file")


def from_json(path: Path) -> tuple[dict[str, list[str]], Callable[[str], np.ndarray]]:
    pycocotools_mask()  # before anything is read
    try:
        content = read_coco(path)
        names = {entry["category_id"]: str(entry["name"]) for entry in content["categories"]}
        images = {Path(image["file_name"]).stem: image for image in content["images"]}
        shapes = defaultdict(list)
        for shape in content["annos_segmentation"]:
            shapes[shape["image_id"]].append((shape["category_id"], shape["segmentation"]))
        lists = {
            split: sorted(stem for stem, image in images.items() if image["phase"] == split)
            for split in CONTEXT59.splits
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is cut short or not Pascal Context's file ({error!r}): get it again") from error

    check_names(names, path)

    def read(stem: str) -> np.ndarray:
        try:
            image = images[stem]
            size = picture_size(image, path)
            values = np.zeros(size, dtype=np.uint8)
            for id_, coded in shapes[image["image_id"]]:  # later shapes lie on earlier ones
                values[decoded(coded, *size, path)] = VALUES.get(id_, 0)
        except (ValueError, KeyError, TypeError, IndexError) as error:  # an InputError is a ValueError, too
            raise InputError(f"{path} has no readable labels of {stem} ({error!r}): get it again") from error
        return values

    return lists, read


def mats_are_whole(job: Job) -> bool:
    return len(list((job.folder / "trainval").glob("*.mat"))) >= sum(split.size for split in CONTEXT59.splits.values())


def from_mats(job: Job) -> tuple[dict[str, list[str]], Callable[[str], np.ndarray]]:
    mats, names = job.folder / "trainval", job.folder / "labels.txt"
    if not mats_are_whole(job):
        job.extract(MATS, job.folder)
    if names.is_file():
        lines = re.findall(r"^\s*(\d+)\s*:\s*(.+?)\s*$", read_text(names), flags=re.MULTILINE)
        check_names({int(id_): name for id_, name in lines}, names)
    main_lists = {split: job.folder / "ImageSets" / "Main" / f"{split}.txt" for split in CONTEXT59.splits}
    if not all(path.is_file() for path in main_lists.values()):
        job.extract(VOC, job.folder)
        demand(job.folder / "ImageSets" / "Main", list(main_lists), ".txt", VOC)
    drawn = {path.stem for path in mats.glob("*.mat")}
    lists = {split: [stem for stem in read_list(path) if stem in drawn] for split, path in main_lists.items()}
    return lists, lambda stem: read_mat(mats / f"{stem}.mat")


def read_mat(path: Path) -> np.ndarray:
    """(H, W) uint8, 0..59, of one .mat file with the 459 classes."""
    try:
        ids = np.asarray(loadmat(path)["LabelMap"])
    except Exception as error:  # scipy raises many kinds on damaged files
        raise InputError(f"{path} holds no LabelMap ({error!r}): delete it and run this again") from error
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise InputError(f"{path}: expected (H, W) integers, found {ids.shape} {ids.dtype}")
    if strange := np.setdiff1d(ids, np.arange(LARGEST + 1)).tolist():
        raise InputError(f"{path} holds the ids {strange[:10]}; expected 0..{LARGEST}")
    table = np.zeros(LARGEST + 1, dtype=np.uint8)
    table[list(IDS)] = np.arange(1, len(IDS) + 1)
    return table[ids]


if __name__ == "__main__":
    sys.exit(main(CONTEXT59, (VOC, JSON, MATS), prepare, __doc__))
