"""The benchmarks: where their pictures and label maps lie under a data root, as users of mmsegmentation have them."""

from dataclasses import dataclass
from pathlib import Path

from cascadeclip.data import classes
from cascadeclip.data.folders import listed_pairs, matching_pairs
from cascadeclip.data.labels import LabelMap
from cascadeclip.errors import InputError


@dataclass(frozen=True)
class Split:
    """One split of a benchmark; all paths are relative to the benchmark's folder.

    Attributes:
        images: folder of pictures.
        labels: folders of label maps; the first one that has a picture's map counts.
        listing: text file that names the pictures; None takes every picture of the folder.
        size: number of pictures of the whole split.
    """

    images: str
    labels: tuple[str, ...]
    listing: str | None
    size: int


@dataclass(frozen=True)
class Benchmark:
    """A data set on disk.

    Attributes:
        name: as on the command line.
        folder: under the data root.
        names: class words, in the order of the label maps.
        unseen: those without mask labels in training.
        templates: sentences for the text embeddings.
        label_map: from values on disk to class indices.
        label_suffix: end of a label map's file name, after the picture's stem.
        splits: `train` and `val`.
        script: makes the layout from the original archives.
    """

    name: str
    folder: str
    names: tuple[str, ...]
    unseen: tuple[str, ...]
    templates: tuple[str, ...]
    label_map: LabelMap
    splits: dict[str, Split]
    script: str
    label_suffix: str = ".png"

    def pairs(self, data_root: str | Path, split: str) -> list[tuple[Path, Path]]:
        """Picture and label map of every item of a split.

        Raises:
            InputError: an unknown split, or files that are missing; says how to get them.
        """
        if split not in self.splits:
            raise InputError(f"{self.name} has no split {split!r}; choose from {', '.join(self.splits)}")
        part, folder = self.splits[split], Path(data_root) / self.folder
        images, labels = folder / part.images, [folder / path for path in part.labels]
        try:
            if part.listing is None:
                return matching_pairs(images, labels[0], self.label_suffix)
            return listed_pairs(folder / part.listing, images, labels, self.label_suffix)
        except InputError as error:
            raise InputError(
                f"{self.name}, split {split}: {error}; `python data_scripts/{self.script} --root {data_root}` "
                "makes what is missing"
            ) from error


def _pick(names: tuple[str, ...], indices: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(names[index] for index in indices)


VOC12 = Benchmark(
    name="voc12",
    folder="VOCdevkit/VOC2012",
    names=classes.VOC12,
    unseen=_pick(classes.VOC12, classes.VOC12_UNSEEN),
    templates=classes.ONE_TEMPLATE,
    label_map=LabelMap(classes=20, first=1, ignored=(0, 255)),
    splits={
        "train": Split(
            images="JPEGImages",
            labels=("SegmentationClass", "SegmentationClassAug"),
            listing="ImageSets/Segmentation/trainaug.txt",
            size=10_582,
        ),
        "val": Split(
            images="JPEGImages", labels=("SegmentationClass",), listing="ImageSets/Segmentation/val.txt", size=1449
        ),
    },
    script="prepare_voc12.py",
)

CONTEXT59 = Benchmark(
    name="context59",
    folder="VOCdevkit/VOC2010",
    names=classes.CONTEXT59,
    unseen=_pick(classes.CONTEXT59, classes.CONTEXT59_UNSEEN),
    templates=classes.TEMPLATES,
    label_map=LabelMap(classes=59, first=1, ignored=(0, 255)),
    splits={
        split: Split(
            images="JPEGImages",
            labels=("SegmentationClassContext",),
            listing=f"ImageSets/SegmentationContext/{split}.txt",
            size=size,
        )
        for split, size in (("train", 4998), ("val", 5105))
    },
    script="prepare_context59.py",
)

COCO_STUFF = Benchmark(
    name="coco-stuff",
    folder="coco_stuff164k",
    names=classes.COCO_STUFF,
    unseen=_pick(classes.COCO_STUFF, classes.COCO_STUFF_UNSEEN),
    templates=classes.TEMPLATES,
    label_map=LabelMap(classes=171),
    splits={
        split: Split(images=f"images/{folder}", labels=(f"annotations/{folder}",), listing=None, size=size)
        for split, folder, size in (("train", "train2017", 118_287), ("val", "val2017", 5000))
    },
    script="prepare_coco_stuff.py",
    label_suffix="_labelTrainIds.png",
)

BENCHMARKS = {benchmark.name: benchmark for benchmark in (VOC12, CONTEXT59, COCO_STUFF)}
