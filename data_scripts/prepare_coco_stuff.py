"""Bring COCO-Stuff 164K into the layout that mmsegmentation uses: 171 classes, 118,287 + 5,000 pictures.

    python data_scripts/prepare_coco_stuff.py --root data
    python data_scripts/prepare_coco_stuff.py --root data --archive train2017.zip --archive val2017.zip \\
        --archive stuffthingmaps_trainval2017.zip
    python data_scripts/prepare_coco_stuff.py --root data --verify

Needs 20 GB to download and as much again on disk. What is there already is used as it is; a stopped run goes on when
the command is given again. The archives may be deleted afterwards (`downloads` under the root).
"""

import sys
from pathlib import Path

import numpy as np

from cascadeclip.data.benchmarks import COCO_STUFF
from cascadeclip.data.labels import IGNORE, LabelMap
from cascadeclip.data.prepare.originals import Job, Source, all_there, demand, main
from cascadeclip.errors import InputError

PICTURES = {
    "train": Source(
        name="COCO's training pictures (train2017.zip)",
        url="http://images.cocodataset.org/zips/train2017.zip",
        md5="cced6f7f71b7629ddf16f17bbcfab6b2",
        member=r"(?:.*/)?(train2017/[^/.]+\.jpg)",
    ),
    "val": Source(
        name="COCO's validation pictures (val2017.zip)",
        url="http://images.cocodataset.org/zips/val2017.zip",
        md5="442b8da7639aecaf257c1dceb8ba8c80",
        member=r"(?:.*/)?(val2017/[^/.]+\.jpg)",
    ),
}
MAPS = Source(
    name="the label maps (stuffthingmaps_trainval2017.zip)",
    url="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
    member=r"(?:.*/)?((?:train|val)2017/[^/.]+\.png)",
)

# Things 0..90 and stuff 91..181, minus the eleven ids that COCO never gave to a thing.
ORIGINAL = LabelMap(classes=182)
UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
USED = tuple(value for value in range(ORIGINAL.classes) if value not in UNUSED)


def prepare(job: Job) -> None:
    stems = {}
    for name, split in COCO_STUFF.splits.items():
        images = job.folder / split.images
        if len(jpegs(images)) < split.size:
            job.extract(PICTURES[name], images.parent)
        stems[name] = jpegs(images)
        if not stems[name]:
            raise InputError(f"no picture in {images}, and {PICTURES[name].name} holds none: give the whole archive")
    for name, split in COCO_STUFF.splits.items():
        convert(job, job.folder / split.labels[0], stems[name])


def jpegs(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.jpg"))


def convert(job: Job, labels: Path, stems: list[str]) -> None:
    """Original maps beside converted ones, as mmsegmentation has them."""

    def target(stem: str) -> Path:
        return labels / f"{stem}{COCO_STUFF.label_suffix}"

    todo = [stem for stem in stems if not target(stem).is_file()]
    if not all_there(labels, todo, ".png"):
        needed = {f"{labels.name}/{stem}.png" for stem in todo}
        job.extract(MAPS, labels.parent, needed.__contains__)
        demand(labels, todo, ".png", MAPS)
    job.convert(lambda stem: close_gaps(labels / f"{stem}.png"), todo, target)


def close_gaps(path: Path) -> np.ndarray:
    """(H, W) uint8, 0..170 or 255, of an original label map."""
    values = ORIGINAL.read(path)
    table = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
    table[list(USED)] = np.arange(len(USED))
    if strange := np.intersect1d(values, UNUSED).tolist():
        raise InputError(f"{path} holds the values {strange}, which are no class of COCO: delete it and run this again")
    return table[values]


if __name__ == "__main__":
    sys.exit(main(COCO_STUFF, (*PICTURES.values(), MAPS), prepare, __doc__))
