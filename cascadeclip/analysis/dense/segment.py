"""A picture segmented by words with a frozen CLIP, and everything between its patch tokens and scores at pixels.

Symbols: B images of H x W px, N = h * w patches, K words, C classes, E joint width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor

from cascadeclip.analysis.dense.last_block import Surgery
from cascadeclip.analysis.dense.registry import METHODS, check_settings, from_trunk
from cascadeclip.analysis.dense.second_path import class_token, feature_surgery
from cascadeclip.analysis.dense.trunk import Trunk, check_blocks
from cascadeclip.clip.load import MINI, Clip
from cascadeclip.clip.vocabulary import Vocabulary, read_vocabulary
from cascadeclip.data.images import read_image
from cascadeclip.data.transforms import IMAGE_MEAN, IMAGE_STD, normalise, resized, working_size
from cascadeclip.data.words import check_names
from cascadeclip.errors import InputError
from cascadeclip.evaluation.refine import pamr
from cascadeclip.evaluation.windows import WINDOWS_AT_ONCE, windows_over
from cascadeclip.model.resize import bilinear
from cascadeclip.processes import plain_torch
from cascadeclip.segmenter import PixelScores, Segmentation

SCALE = 40.0  # of similarities before the softmax over words, as in the code of SCLIP, NACLIP and SC-CLIP


@dataclass(frozen=True, eq=False)
class DenseReader:
    """A method with its settings on one CLIP: pictures in, similarities to words out.

    Attributes:
        method, blocks, settings: see `dense_features`.
        common_removed: take off what all words have in common in a patch (`feature_surgery`, as CLIP Surgery does);
            needs two words or more.
        scale: of the similarities before the softmax over the words.

    Raises:
        InputError: unknown methods, settings or blocks.
    """

    clip: Clip
    method: str | Surgery = "naclip"
    blocks: tuple[int, ...] | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    common_removed: bool = False
    scale: float = SCALE

    def __post_init__(self) -> None:
        if not isinstance(self.method, Surgery):
            check_settings(self.method, self.settings)
        if self.blocks is not None:
            object.__setattr__(self, "blocks", check_blocks(self.blocks, self.clip.tower.layers))
        if not self.scale > 0:
            raise InputError(f"scale={self.scale} must be positive")

    @property
    def name(self) -> str:
        """For people: the method, and its blocks if they are not the last one alone."""
        title = self.method if isinstance(self.method, str) else "surgery"
        return title if self.blocks is None else f"{title} on block {', '.join(map(str, self.blocks))}"

    @torch.inference_mode()
    def similarity(self, trunk: Trunk, text: Tensor) -> Tensor:
        """Cosine similarities (B, K, h, w) of a batch's patches and words, from (K, E) embeddings."""
        patches = from_trunk(trunk, self.method, blocks=self.blocks, **self.settings)
        text = text.to(patches)
        if self.common_removed:
            if len(text) < 2:
                raise InputError("one word has everything in common with itself: give two words or more")
            found = feature_surgery(patches, class_token(trunk, trunk.depth), text)
        else:
            found = patches @ text.T
        return found.transpose(1, 2).unflatten(2, trunk.grid)

    def at_pixels(self, images: Tensor, text: Tensor, window: int | None = None, stride: int | None = None) -> Tensor:
        """`at_pixels` of this reader alone."""
        return at_pixels([self], images, text, window, stride)[0]

    def scores(self, similarity: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Similarities of words (B, K, ...) -> scores of classes (B, C, ...): softmax over words, the class's best."""
        return vocabulary.per_class((self.scale * similarity).softmax(1))


@torch.inference_mode()
def at_pixels(
    readers: Sequence[DenseReader], images: Tensor, text: Tensor, window: int | None = None, stride: int | None = None
) -> list[Tensor]:
    """Similarities (B, K, H, W) float32 of every reader: at the pixels bilinearly, averaged where windows overlap.

    Args:
        readers: of one CLIP; the blocks that they share run once.
        images: (B, 3, H, W) float, normalised.
        text: (K, E) float, L2-normed.
        window, stride: px, as in `evaluation.predict`.
    """
    height, width = images.shape[2:]
    shape = (len(images), len(text), height, width)
    totals = [images.new_zeros(shape, dtype=torch.float32) for _ in readers]
    visits = images.new_zeros((height, width), dtype=torch.float32)
    views = windows_over(height, width, window, stride)
    for start in range(0, len(views), WINDOWS_AT_ONCE):
        some = views[start : start + WINDOWS_AT_ONCE]
        trunk = Trunk(readers[0].clip.visual, torch.cat([images[(..., *view)] for view in some]))
        for view in some:
            visits[view] += 1
        for reader, total in zip(readers, totals, strict=True):
            found = reader.similarity(trunk, text).float().split(len(images))
            for view, own in zip(some, found, strict=True):
                total[(..., *view)] += bilinear(own, visits[view].shape)
    return [total.div_(visits) for total in totals]


@dataclass(frozen=True)
class Protocol:
    """At which size a picture is read, in px: its short side, and square windows with their stride, or None: whole."""

    side: int
    window: int | None = None
    stride: int | None = None


def usual_protocol(clip: Clip) -> Protocol:
    """Mini-CLIP reads its small pictures whole; other CLIPs as the field does: 336 px in windows of 224, stride 112."""
    side = clip.tower.image_size
    return Protocol(side) if clip.name == MINI else Protocol(side * 3 // 2, side, side // 2)


def normalised(images: Tensor, clip: Clip) -> Tensor:
    """(..., 3, H, W) uint8 or float 0..255 -> float32 as the CLIP was trained: OpenAI's mean and deviation, or its own.

    Mini-CLIP's are ImageNet's, as the rest of the package uses them.
    """
    own = getattr(clip.visual, "preprocess_cfg", None) or {}
    mean, std = own.get("mean", open_clip.OPENAI_DATASET_MEAN), own.get("std", open_clip.OPENAI_DATASET_STD)
    if clip.name == MINI:
        mean, std = IMAGE_MEAN, IMAGE_STD
    return normalise(images, mean, std)


def segment_training_free(
    clip: Clip,
    image: str | Path | Image.Image | np.ndarray,
    words: str | Sequence[str],
    method: str | Surgery = "naclip",
    *,
    blocks: Sequence[int] | None = None,
    templates: str | Sequence[str] | None = None,
    synonyms: str = "best",
    background: float | Sequence[str] | None = None,
    pamr: int = 0,
    protocol: Protocol | None = None,
    common_removed: bool = False,
    scale: float = SCALE,
    **settings: object,
) -> Segmentation:
    """Give every pixel the best of the words, by a frozen CLIP alone.

    Args:
        clip: any that `load_clip` gives.
        image: path, PIL image, or (H, W, 3) uint8 RGB array.
        words: one or several; `sofa|couch` is one class with two words.
        method, blocks, settings: as in `dense_features`.
        templates, synonyms: as in `read_vocabulary`.
        background: pixels where no word's score reaches this threshold belong to none of them; or words for what
            should win pixels for none. Scores are a softmax over the words: with C of them the best is never below
            1 / C, so that few words need words for the background rather than a threshold.
        pamr: how many times the similarities are refined along the picture's edges; 0: not at all.
        protocol: how large the picture is read; `usual_protocol` by default.
        common_removed, scale: as in `DenseReader`.

    Returns:
        scores are of classes, from 0 to 1; the background, if asked for, comes last. Nothing counts as seen.

    Raises:
        InputError: whatever of these does not fit, in one line.

    Example:
        >>> segment_training_free(load_clip("ViT-B-16", "openai"), "photo.jpg", ["dog", "sofa|couch", "wall"],
        ...                       background=0.4)  # doctest: +SKIP
    """
    reader = DenseReader(clip, method, None if blocks is None else tuple(blocks), settings, common_removed, scale)
    return _segment(
        [reader], image, words, templates=templates, synonyms=synonyms, background=background, iterations=pamr,
        protocol=protocol,
    )[0]  # fmt: skip


def segment_by_methods(
    clip: Clip,
    image: str | Path | Image.Image | np.ndarray,
    words: str | Sequence[str],
    methods: Sequence[str] = tuple(METHODS),
    *,
    blocks: Sequence[int] | None = None,
    templates: str | Sequence[str] | None = None,
    synonyms: str = "best",
    background: float | Sequence[str] | None = None,
    pamr: int = 0,
    protocol: Protocol | None = None,
) -> dict[str, Segmentation]:
    """`segment_training_free` by several methods, each with its own defaults; shared blocks run once.

    Returns:
        method -> segmentation.
    """
    some = None if blocks is None else tuple(blocks)
    readers = [DenseReader(clip, method, some) for method in methods]
    found = _segment(
        readers, image, words, templates=templates, synonyms=synonyms, background=background, iterations=pamr,
        protocol=protocol,
    )  # fmt: skip
    return dict(zip(methods, found, strict=True))


@plain_torch()
@torch.inference_mode()
def _segment(
    readers: Sequence[DenseReader], image: str | Path | Image.Image | np.ndarray, words: str | Sequence[str], *,
    templates: str | Sequence[str] | None, synonyms: str, background: float | Sequence[str] | None, iterations: int,
    protocol: Protocol | None,
) -> list[Segmentation]:  # fmt: skip
    pixels, names, clip = read_image(image), check_names(words), readers[0].clip
    vocabulary = read_vocabulary(clip, names, templates, synonyms=synonyms, background=background)
    how, patch = protocol or usual_protocol(clip), clip.visual.patch_size[0]
    size = working_size(pixels.shape[0], pixels.shape[1], how.side)
    rows, columns = (max(1, round(length / patch)) * patch for length in size)
    images, result = normalised(resized(pixels, rows, columns).to(clip.visual.proj.device), clip), []
    found = at_pixels(readers, images, vocabulary.embeddings, how.window, how.stride)
    for reader in readers:
        similarity = found.pop(0)  # large for large pictures: not kept on the device once its labels are there
        if iterations:
            similarity = pamr(images, similarity, iterations)
        scores = PixelScores(similarity, pixels.shape[:2], partial(reader.scores, vocabulary=vocabulary))
        result.append(Segmentation(
            labels=scores.labels(), pixel_scores=replace(scores, coarse=similarity.cpu()), names=vocabulary.names,
            image=pixels, seen=(), background=vocabulary.background, method=reader.name,
        ))  # fmt: skip
    return result
