"""Bring VOC 2012 and the labels of SBD into the layout that mmsegmentation uses: 20 classes, 10,582 + 1,449 pictures.

    python data_scripts/prepare_voc12.py --root data
    python data_scripts/prepare_voc12.py --root data --archive VOCtrainval_11-May-2012.tar --archive benchmark.tgz
    python data_scripts/prepare_voc12.py --root data --verify

Needs 2 GB for VOC 2012 and 1.4 GB for SBD to download, and as much again on disk. What is there already is used as it
is; a stopped run goes on when the command is given again. The archives may be deleted afterwards (`downloads` under
the root).
"""

import sys
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from cascadeclip.data.benchmarks import VOC12
from cascadeclip.data.prepare.originals import Job, Source, all_there, demand, main, read_list, write_list
from cascadeclip.errors import InputError

VOC = Source(
    name="VOC 2012 (VOCtrainval_11-May-2012.tar)",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    md5="6cd6e144f989b92b3379bac3b3de84fd",
    member=r"(?:.*/)?VOC2012/(JPEGImages/[^/.]+\.jpg|SegmentationClass/[^/.]+\.png|ImageSets/Segmentation/[^/.]+\.txt)",
)
SBD = Source(
    name="SBD (benchmark.tgz)",
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contour/benchmark.tgz",
    md5="82b4d87ceb2ed10f6038a1cba92111cb",
    member=r"(?:.*/)?dataset/(cls/[^/.]+\.mat|(?:train|val)\.txt)",
)
WHOLE = {"trainaug": 10_582, "aug": 9118}


def prepare(job: Job) -> None:
    lists, sbd = job.folder / "ImageSets" / "Segmentation", job.root / "VOCdevkit" / "VOCaug" / "dataset"
    if not voc_is_there(job.folder):
        job.extract(VOC, job.folder)
    train, val = (read_list(lists / f"{split}.txt") for split in ("train", "val"))
    for split, stems in (("train", train), ("val", val)):
        if not stems:
            raise InputError(
                f"{lists / split}.txt is missing or empty, and {VOC.name} holds none: give the whole archive"
            )
        demand(job.folder / "SegmentationClass", stems, ".png", VOC)

    trainaug = read_list(lists / "trainaug.txt")
    if not trainaug:
        extract_sbd(job, sbd)
        trainaug = sorted({*train, *read_list(sbd / "train.txt"), *read_list(sbd / "val.txt")} - set(val))
    aug = sorted(set(trainaug) - set(train))
    if not all_there(job.folder / "JPEGImages", [*trainaug, *val], ".jpg"):
        job.extract(VOC, job.folder)
        demand(job.folder / "JPEGImages", [*trainaug, *val], ".jpg", VOC)

    target = job.folder / "SegmentationClassAug"
    if not all_there(target, aug, ".png"):
        if not all_there(sbd / "cls", [stem for stem in aug if not (target / f"{stem}.png").is_file()], ".mat"):
            extract_sbd(job, sbd)
        job.convert(lambda stem: read_sbd(sbd / "cls" / f"{stem}.mat"), aug, lambda stem: target / f"{stem}.png")
    for name, stems in (("trainaug", trainaug), ("aug", aug)):
        if not (lists / f"{name}.txt").is_file():
            write_list(lists / f"{name}.txt", stems)
        if len(stems) != WHOLE[name]:
            print(f"WARNING {name} has {len(stems):,} pictures; from the whole archives it has {WHOLE[name]:,}")


def voc_is_there(folder: Path) -> bool:
    """Whether what VOC's own lists name lies in the layout."""
    lists = [read_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt") for split in ("train", "val")]
    stems = [stem for stems in lists for stem in stems]
    return (
        all(lists)
        and all_there(folder / "JPEGImages", stems, ".jpg")
        and all_there(folder / "SegmentationClass", stems, ".png")
    )


def extract_sbd(job: Job, target: Path) -> None:
    lists = [read_list(target / f"{split}.txt") for split in ("train", "val")]
    stems = [stem for stems in lists for stem in stems]
    if not (all(lists) and all_there(target / "cls", stems, ".mat")):
        job.extract(SBD, target)
        demand(target, ["train", "val"], ".txt", SBD)
        demand(
            target / "cls", [s for split in ("train", "val") for s in read_list(target / f"{split}.txt")], ".mat", SBD
        )


def read_sbd(path: Path) -> np.ndarray:
    """(H, W) uint8, 0..20, of one .mat file of SBD."""
    try:
        values = np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # scipy raises many kinds on damaged files
        raise InputError(f"{path} holds no GTcls.Segmentation ({error!r}): delete it and run this again") from error
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise InputError(f"{path}: expected (H, W) integers, found {values.shape} {values.dtype}")
    VOC12.label_map.convert(values, str(path))  # complains about values that are no class
    return values.astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main(VOC12, (VOC, SBD), prepare, __doc__))
