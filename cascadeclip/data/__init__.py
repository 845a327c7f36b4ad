"""Pictures and their labels: the drawn world EmojiScenes (`emojiscenes`, `textures`), the benchmarks and their class
words (`benchmarks`, `classes`), folders of pictures and masks (`folders`, `images`, `labels`), anybody's own data
(`own`, `coco`), which is described (`look`) and checked (`check`) before use, what is done to a picture before a model
reads it (`transforms`, `distortion`), and the order that training reads pictures in (`streams`). Words, file names and
data sets are checked and told apart by `words`, `names` and `identity`. `prepare` lays the benchmarks' folders out.

It imports no other room.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.data.benchmarks import BENCHMARKS, Benchmark, Split
    from cascadeclip.data.distortion import distort, draw_change
    from cascadeclip.data.emojiscenes import CAPTIONS, CLASSES, SEEN, STUFF, STYLES, THINGS, UNSEEN, EmojiScenes, Scene
    from cascadeclip.data.folders import FolderDataset, Found, find_pairs, listed_pairs, matching_pairs
    from cascadeclip.data.images import read_image
    from cascadeclip.data.labels import IGNORE, LabelMap, ignored_label
    from cascadeclip.data.own import OwnData
    from cascadeclip.data.streams import Endless, Shares, stream
    from cascadeclip.data.transforms import Augment, ToWorkingSize, normalise, to_tensor, working_size
    from cascadeclip.data.words import check_names, check_templates
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "BENCHMARKS",
    "CAPTIONS",
    "CLASSES",
    "IGNORE",
    "SEEN",
    "STUFF",
    "STYLES",
    "THINGS",
    "UNSEEN",
    "Augment",
    "Benchmark",
    "EmojiScenes",
    "Endless",
    "FolderDataset",
    "Found",
    "LabelMap",
    "OwnData",
    "Scene",
    "Shares",
    "Split",
    "ToWorkingSize",
    "check_names",
    "check_templates",
    "distort",
    "draw_change",
    "find_pairs",
    "ignored_label",
    "listed_pairs",
    "matching_pairs",
    "normalise",
    "read_image",
    "stream",
    "to_tensor",
    "working_size",
]
