"""Segmentations in files, each of which says which evaluation it is of."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor
from torch.utils.data import Dataset

from cascadeclip.colours import class_colours
from cascadeclip.data.folders import files_of
from cascadeclip.data.images import check_own_png
from cascadeclip.data.labels import IGNORE
from cascadeclip.files import check_apart, check_writable, listed, replace_file

logger = logging.getLogger(__name__)

OF = "cascadeclip evaluation"  # the text of a PNG file that says which


class Predictions:
    """A folder of segmentations as PNGs with a palette: class numbers that look like colours, up to 256 classes;
    beyond, 16-bit greys.

    Args:
        folder: made if it is missing.
        data: whose pictures' names the files take.
        wanted: indices of the pictures.
        names: class words.
        identity: of the evaluation, which tells its files from those that another one left there.

    Raises:
        InputError: a folder that cannot be written, or in place of a file a folder, a file of somebody else's, or a
            picture or mask of `data`.
    """

    def __init__(self, folder: Path, data: Dataset[Any], wanted: range, names: Sequence[str], identity: str):
        self.folder, self.wanted, self.names, self.identity = folder, wanted, names, identity
        self.name = _file_names(data, wanted)
        check_writable(folder)
        own = [folder / name for name in self.own_names()]
        for path in own:
            check_own_png(path, OF)
        check_apart(own, files_of(data))  # segmentations of another evaluation may be this one's masks

    def own_names(self) -> set[str]:
        """The names of all its files."""
        return {self.name(index) for index in self.wanted}

    def has(self, index: int) -> bool:
        """Whether the segmentation of a picture is there, whole and of this evaluation."""
        try:
            with Image.open(self.folder / self.name(index)) as picture:
                picture.load()
                return picture.info.get(OF) == self.identity
        except (OSError, SyntaxError, ValueError):
            return False

    def save(self, index: int, labels: Tensor) -> None:
        """Write the segmentation (H, W) of a picture."""
        if len(self.names) > IGNORE + 1:  # a palette has no more colours
            picture = Image.fromarray(labels.cpu().numpy().astype(np.uint16))
        else:
            picture = Image.fromarray(labels.cpu().numpy().astype(np.uint8))
            colours = np.zeros((IGNORE + 1, 3), dtype=np.uint8)
            colours[: len(self.names)] = (255 * class_colours(self.names)).round()
            picture.putpalette(colours.flatten().tolist())
        said = PngImagePlugin.PngInfo()
        said.add_text(OF, self.identity)
        path = self.folder / self.name(index)
        replace_file(path, lambda scratch: picture.save(scratch, format="PNG", pnginfo=said), sync=False)

    def warn_of_others(self) -> None:
        """Log a warning of files that lie between those of this evaluation and are not of it."""
        own = self.own_names()
        others = [path.name for path in listed(self.folder) if path.suffix == ".png" and path.name not in own]
        if others:
            logger.warning(
                "%s also holds %d segmentations of other evaluations (%s, ...): %d are of this one",
                *(self.folder, len(others), others[0], len(own)),
            )  # fmt: skip


def _file_names(data: Dataset[Any], wanted: range) -> Callable[[int], str]:
    """Picture's index -> file name: that of the picture, numbered where two pictures have the same."""
    source = getattr(data, "source", None)
    if source is None:
        return "{}.png".format
    stems = {index: Path(source(index)).stem for index in wanted}
    if len(set(stems.values())) == len(stems):
        return lambda index: f"{stems[index]}.png"
    return lambda index: f"{index:06}-{stems[index]}.png"
