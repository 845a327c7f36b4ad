"""Small data sets in the original formats: the archives that the data scripts read, and finished layouts."""

import io
import json
import math
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from cascadeclip.data import classes

# Values in the original files, by name, as the data sets' own documents have them.
VOC12_VALUES = {
    "aeroplane": 1, "bicycle": 2, "bird": 3, "boat": 4, "bottle": 5, "bus": 6, "car": 7, "cat": 8, "chair": 9,
    "cow": 10, "diningtable": 11, "dog": 12, "horse": 13, "motorbike": 14, "person": 15, "pottedplant": 16,
    "sheep": 17, "sofa": 18, "train": 19, "tvmonitor": 20,
}  # fmt: skip
CONTEXT_IDS = {
    "aeroplane": 2, "bag": 9, "bed": 18, "bedclothes": 19, "bench": 22, "bicycle": 23, "bird": 25, "boat": 31,
    "book": 33, "bottle": 34, "building": 44, "bus": 45, "cabinet": 46, "car": 59, "cat": 65, "ceiling": 68,
    "chair": 72, "cloth": 80, "computer": 85, "cow": 98, "cup": 104, "curtain": 105, "dog": 113, "door": 115,
    "fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189, "horse": 207,
    "keyboard": 220, "light": 232, "motorbike": 258, "mountain": 259, "mouse": 260, "person": 284, "plate": 295,
    "platform": 296, "pottedplant": 308, "road": 324, "rock": 326, "sheep": 347, "shelves": 349, "sidewalk": 354,
    "sign": 355, "sky": 360, "snow": 366, "sofa": 368, "table": 397, "track": 415, "train": 416, "tree": 420,
    "truck": 424, "tvmonitor": 427, "wall": 440, "water": 445, "window": 454, "wood": 458,
}  # fmt: skip
CONTEXT_OTHERS = {"accordion": 1, "bridge": 40, "plant": 293, "unknown": 431}  # of the 400 that are background
# The classes on either side of every id that COCO left out, and some kinds of stuff.
COCO_VALUES = {
    "person": 0, "fire hydrant": 10, "stop sign": 12, "cow": 20, "giraffe": 24, "backpack": 26, "umbrella": 27,
    "handbag": 30, "bottle": 43, "wine glass": 45, "bed": 64, "dining table": 66, "toilet": 69, "tv": 71, "sink": 80,
    "refrigerator": 81, "book": 83, "toothbrush": 89, "banner": 91, "blanket": 92, "flower": 118, "grass": 123,
    "road": 148, "sky-other": 156, "tree": 168, "wood": 181,
}  # fmt: skip

# What is drawn in every picture: size (height, width) and classes.
VOC12_PICTURES = {
    "train": {
        "2007_000032": (30, 40, ("aeroplane", "person", "bus")),
        "2009_001204": (40, 30, ("bicycle", "cat", "tvmonitor", "bird")),
    },
    "aug": {
        "2008_000002": (36, 44, ("sofa", "bottle")),
        "2008_000003": (30, 40, ("train", "person", "sheep", "cow", "dog")),
        "2011_003276": (50, 34, ("diningtable", "chair", "boat", "pottedplant")),
    },
    "val": {
        "2007_000033": (32, 48, ("aeroplane", "car", "horse", "motorbike", "person")),
        "2010_005860": (44, 30, ("tvmonitor", "train", "sofa")),
    },
}
CONTEXT59_PICTURES = {
    "train": {
        "2008_000008": (30, 40, ("aeroplane", "bag", "table", "accordion")),
        "2008_000015": (44, 36, ("bedclothes", "tvmonitor", "wood", "cloth", "bridge")),
        "2010_003947": (36, 30, ("pottedplant", "sky", "grass")),
    },
    "val": {
        "2008_000002": (40, 52, ("water", "window", "unknown", "train", "track")),
        "2009_000009": (30, 40, ("person", "plant", "mouse", "mountain", "keyboard", "shelves")),
    },
}
COCO_PICTURES = {
    "train": {
        "000000000009": (30, 40, ("person", "fire hydrant", "stop sign", "cow", "giraffe", "backpack", "umbrella")),
        "000000000025": (44, 36, ("handbag", "bottle", "wine glass", "bed", "dining table", "toilet")),
        "000000581929": (36, 60, ("tv", "sink", "refrigerator", "book", "toothbrush", "banner")),
    },
    "val": {
        "000000000139": (30, 42, ("blanket", "flower", "grass", "road")),
        "000000581781": (48, 40, ("sky-other", "tree", "wood", "person")),
    },
}

PALETTE = np.random.default_rng(7).integers(0, 256, (256, 3), dtype=np.uint8)
BORDER = 255


def paint(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """(H, W) label values -> (H, W, 3) uint8 picture in which every value has a colour, with a little noise."""
    noise = np.random.default_rng(seed).integers(-12, 13, (*values.shape, 3))
    return (PALETTE[values].astype(int) + noise).clip(0, 255).astype(np.uint8)


def blocks(values: list[int], height: int, width: int) -> np.ndarray:
    """(H, W) uint8: a grid of rectangles, one per value, each with a border of 255 and a margin of 0 around it."""
    side = math.ceil(math.sqrt(len(values)))
    map_ = np.zeros((height, width), dtype=np.uint8)
    for place in range(side * side):
        row, column = divmod(place, side)
        top, bottom = (1 + (row + i) * (height - 1) // side for i in (0, 1))
        left, right = (1 + (column + i) * (width - 1) // side for i in (0, 1))
        map_[top : bottom - 1, left : right - 1] = BORDER
        map_[top + 1 : bottom - 2, left + 1 : right - 2] = values[place % len(values)]
    return map_


def save_palette(values: np.ndarray, path: Path) -> None:
    """A label map as VOC has them: 8 bits per pixel with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    picture.putpalette(PALETTE.tobytes())
    picture.save(path)


def save_picture(values: np.ndarray, path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(paint(values, seed)).save(path, quality=95)


def voc_tree(root: Path, pictures: int = 6, side: int = 64) -> Path:
    """A finished VOC 2012 layout under `root`; returns its folder.

    Each split has `pictures` pictures of `side` rows and `side` to `side` + 16 columns; together they show all 20
    classes. Of the training pictures the first half is VOC's own, the others have their map in SegmentationClassAug.
    """
    folder, own = Path(root) / "VOCdevkit" / "VOC2012", max(1, pictures // 2)
    count = max(4, math.ceil(len(classes.VOC12) / pictures))  # of classes per picture
    stems = {"train": [], "aug": [], "val": []}
    for number in range(2 * pictures):
        is_val, index = divmod(number, pictures)
        split = "val" if is_val else "train" if index < own else "aug"
        values = [1 + (index * count + place) % len(classes.VOC12) for place in range(count)]
        map_ = blocks(values, side, side + 8 * (number % 3))
        stem = f"{2007 + number % 5}_{number:06d}"
        stems[split].append(stem)
        save_picture(map_, folder / "JPEGImages" / f"{stem}.jpg", seed=number)
        save_palette(map_, folder / f"SegmentationClass{'Aug' if split == 'aug' else ''}" / f"{stem}.png")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, members in (stems | {"trainaug": sorted(stems["train"] + stems["aug"])}).items():
        (lists / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in members))
    return folder


def _png(values: np.ndarray, palette: bool = False) -> bytes:
    picture, file = Image.fromarray(values), io.BytesIO()
    if palette:
        picture.putpalette(PALETTE.tobytes())
    picture.save(file, format="PNG")
    return file.getvalue()


def _jpg(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(paint(values.astype(np.uint8))).save(file, format="JPEG")
    return file.getvalue()


def _mat(content: dict) -> bytes:
    file = io.BytesIO()
    savemat(file, content, do_compression=True)
    return file.getvalue()


def _lines(stems) -> bytes:
    return "".join(f"{stem}\n" for stem in stems).encode()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def drawn(picture: tuple[int, int, tuple[str, ...]], values: dict[str, int], around: int = 0) -> np.ndarray:
    """(H, W) int64: the original label map of a picture of the tables above, with 255 along the borders."""
    height, width, names = picture
    places, table = blocks(list(range(1, len(names) + 1)), height, width), np.zeros(256, dtype=np.int64)
    table[0], table[BORDER] = around, BORDER
    table[1 : len(names) + 1] = [values[name] for name in names]
    return table[places]


def make_voc12(folder: Path) -> list[Path]:
    """VOC 2012 as a tar file, SBD as a compressed one."""
    root, members = "VOCdevkit/VOC2012", {}
    parts = {split: list(pictures) for split, pictures in VOC12_PICTURES.items()}
    for split, pictures in VOC12_PICTURES.items():
        for stem, picture in pictures.items():
            values = drawn(picture, VOC12_VALUES).astype(np.uint8)
            members[f"{root}/Annotations/{stem}.xml"] = b"<annotation/>"
            members[f"{root}/JPEGImages/{stem}.jpg"] = _jpg(values)
            if split != "aug":
                members[f"{root}/SegmentationClass/{stem}.png"] = _png(values, palette=True)
                members[f"{root}/SegmentationObject/{stem}.png"] = _png(values, palette=True)
    lists = {"train": parts["train"], "val": parts["val"], "trainval": sorted(parts["train"] + parts["val"])}
    for name, stems in lists.items():
        members[f"{root}/ImageSets/Segmentation/{name}.txt"] = _lines(stems)
    # SBD divides the pictures otherwise than VOC does, and has some of both of VOC's parts.
    sbd = {
        "train": [parts["aug"][0], parts["val"][0], parts["train"][0]],
        "val": [parts["aug"][2], parts["train"][1], parts["aug"][1]],
    }
    base = "benchmark_RELEASE/dataset"
    labels = {f"{base}/{name}.txt": _lines(stems) for name, stems in sbd.items()}
    every = {stem: picture for pictures in VOC12_PICTURES.values() for stem, picture in pictures.items()}
    for stem in (stem for stems in sbd.values() for stem in stems):
        values = drawn(every[stem], VOC12_VALUES).astype(np.uint8)
        values[values == BORDER] = 0
        labels[f"{base}/cls/{stem}.mat"] = _mat({"GTcls": {"Segmentation": values, "Boundaries": np.zeros((20, 1))}})
        labels[f"{base}/inst/{stem}.mat"] = _mat({"GTinst": {"Segmentation": values}})
        labels[f"{base}/img/{stem}.jpg"] = _jpg(values)
    return [
        write_tar(folder / "VOCtrainval_11-May-2012.tar", members),
        write_tar(folder / "benchmark.tgz", labels),
    ]


def make_context59(folder: Path, form: str) -> list[Path]:
    """VOC 2010 as a tar file, the labels of Pascal Context as one JSON file (`json`) or as .mat files (`mat`)."""
    root, members, maps = "VOCdevkit/VOC2010", {}, {}
    for split, pictures in CONTEXT59_PICTURES.items():
        for stem, picture in pictures.items():
            maps[stem] = drawn(picture, CONTEXT_IDS | CONTEXT_OTHERS).astype(np.uint16)
            maps[stem][maps[stem] == BORDER] = 0
            members[f"{root}/JPEGImages/{stem}.jpg"] = _jpg(maps[stem])
        # VOC has more pictures than were drawn, and lists of single classes with a second column.
        members[f"{root}/ImageSets/Main/{split}.txt"] = _lines([*pictures, f"2007_00{len(split)}000"])
        members[f"{root}/ImageSets/Main/cow_{split}.txt"] = _lines(f"{stem}  1" for stem in pictures)
    voc = write_tar(folder / "VOCtrainval_03-May-2010.tar", members)
    if form == "mat":
        names = sorted((CONTEXT_IDS | CONTEXT_OTHERS).items(), key=lambda item: item[1])
        labels = {"labels.txt": _lines(f"{id_}: {name}" for name, id_ in names)}
        labels |= {f"trainval/{stem}.mat": _mat({"LabelMap": values}) for stem, values in maps.items()}
        return [voc, write_tar(folder / "trainval.tar.gz", labels)]
    path = folder / "trainval_merged.json"
    path.write_text(json.dumps(_context_json(maps)))
    return [voc, path]


def _context_json(maps: dict[str, np.ndarray]) -> dict:
    from pycocotools import mask as coco_mask

    images, shapes = [], []
    for split, pictures in (*CONTEXT59_PICTURES.items(), ("test", {"2008_000001": (30, 40, ())})):
        for stem, (height, width, _) in pictures.items():
            number, file_name = int(stem.replace("_", "")), f"{stem}.jpg"
            images.append(dict(image_id=number, file_name=file_name, phase=split, height=height, width=width))
            for id_ in np.unique(maps.get(stem, 0)).tolist():
                if id_:
                    coded = coco_mask.encode(np.asfortranarray(maps[stem] == id_, dtype=np.uint8))
                    coded["counts"] = coded["counts"].decode()
                    shapes.append(dict(id=len(shapes), image_id=number, category_id=id_, segmentation=coded))
    names = {id_: name for name, id_ in (CONTEXT_IDS | CONTEXT_OTHERS).items()} | {397: "diningtable"}
    categories = [dict(category_id=id_, name=name, onlysemantic=0) for id_, name in names.items()]
    return {"info": {}, "images": images, "annos_segmentation": shapes, "categories": categories}


def make_coco_stuff(folder: Path) -> list[Path]:
    """COCO's two zip files of pictures, and the one of label maps."""
    archives, labels = [], {}
    for split, pictures in COCO_PICTURES.items():
        members = {f"{split}2017/": b""}
        for stem, picture in pictures.items():
            values = drawn(picture, COCO_VALUES, around=BORDER).astype(np.uint8)
            members[f"{split}2017/{stem}.jpg"] = _jpg(values)
            labels[f"{split}2017/{stem}.png"] = _png(values)
        archives.append(write_zip(folder / f"{split}2017.zip", members))
    labels |= {f"__MACOSX/{name.replace('/', '/._')}": b"" for name in labels}
    return [*archives, write_zip(folder / "stuffthingmaps_trainval2017.zip", labels)]
