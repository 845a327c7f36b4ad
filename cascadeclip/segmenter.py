"""Image + words -> segmentation, for people."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascadeclip.checkpoints.own import TRAINED, CheckpointInfo, clip_of, load_any
from cascadeclip.clip.load import Clip, load_clip
from cascadeclip.clip.vocabulary import read_vocabulary
from cascadeclip.data.emojiscenes import CAPTIONS
from cascadeclip.data.images import read_image
from cascadeclip.data.transforms import normalise, resized, working_size
from cascadeclip.data.words import check_names, check_templates, check_words
from cascadeclip.errors import InputError
from cascadeclip.evaluation.bands import bands_at
from cascadeclip.evaluation.refine import pamr as refine
from cascadeclip.evaluation.scores import predict
from cascadeclip.files import exists, is_folder
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import Preset
from cascadeclip.processes import physical_memory, plain_torch
from cascadeclip.sharing.hub import HubMixin

if TYPE_CHECKING:
    from cascadeclip.plots.figure import Figure

logger = logging.getLogger(__name__)

RECOMMENDED = "mini/concat"  # best hIoU with seen classes held out, see notebooks/results/why.md
SHIPPED = {  # the rows of the comparison `fusion`, and a cascade with prompt tokens
    f"mini/{name}": f"{name}.safetensors" for name in ("last-layer", "sum", "concat", "cascade", "cascade-prompts")
}


def _unchanged(scores: Tensor) -> Tensor:
    return scores


@dataclass(frozen=True, eq=False)
class PixelScores:
    """Scores of every class at every pixel of a picture, made when they are asked for: for a large picture and many
    words they are gigabytes.

    Attributes:
        coarse: (1, K, h, w) float32, at the size that the model read the picture at.
        size: (H, W), the picture's.
        finish: what is done to (1, K, rows, W) at the picture's size to make scores of classes, (1, C, rows, W).
    """

    coarse: Tensor
    size: tuple[int, int]
    finish: Callable[[Tensor], Tensor] = _unchanged

    @torch.inference_mode()
    def bands(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Which rows, and their scores (C, rows, W) float32, from top to bottom; about 128 MB at once."""
        for rows, part in bands_at(self.coarse, self.size):
            yield rows, self.finish(part)[0].cpu().numpy()

    @torch.inference_mode()
    def labels(self) -> np.ndarray:
        """(H, W) int32: the class of the highest score."""
        found = np.empty(self.size, dtype=np.int32)
        for rows, part in bands_at(self.coarse, self.size):
            found[rows] = self.finish(part)[0].argmax(0).cpu().numpy()
        return found

    def whole(self) -> np.ndarray:
        """(C, H, W) float32; an `InputError` if the machine's memory cannot hold so much."""
        classes = self.finish(self.coarse[:, :, :1, :1]).shape[1]
        size = 4 * classes * self.size[0] * self.size[1]
        if size > (memory := physical_memory()):
            raise InputError(
                f"the scores of {classes} words at {self.size[1]} x {self.size[0]} px take {size / 2**30:.0f} GiB, and "
                f"this machine has {memory / 2**30:.0f}: read them in bands, `for rows, scores in result.score_bands()`"
            )
        found = np.empty((classes, *self.size), dtype=np.float32)
        for rows, part in self.bands():
            found[:, rows] = part
        return found


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A picture segmented into the words given.

    Attributes:
        labels: (H, W) int32, indices into `names`.
        pixel_scores: what makes `scores`.
        names: the C words.
        image: (H, W, 3) uint8, the picture.
        seen: those of `names` that had mask labels in training, under any of their words.
        background: the name of pixels that belong to none of the words, the last of `names`; None without any.
        method: the training-free method that made it; None for a trained model.
    """

    labels: np.ndarray
    pixel_scores: PixelScores
    names: tuple[str, ...]
    image: np.ndarray
    seen: tuple[str, ...]
    background: str | None = None
    method: str | None = None

    @property
    def scores(self) -> np.ndarray:
        """(C, H, W) float32, score of each word at each pixel; their argmax is `labels`. Computed at every use: keep
        it, or read `score_bands` where it is too large."""
        return self.pixel_scores.whole()

    def score_bands(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The same by bands of rows: which rows, and their scores (C, rows, W)."""
        return self.pixel_scores.bands()

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares().items())
        return f"Segmentation({width} x {height} px: {shares})"

    def shares(self) -> dict[str, float]:
        """Share of the picture that each word has, from 0 to 1."""
        counts = np.zeros(len(self.names), dtype=np.int64)
        for row in self.labels:  # a row at a time: no copy of a large picture
            counts += np.bincount(row, minlength=len(self.names))
        return {name: float(count / self.labels.size) for name, count in zip(self.names, counts, strict=True)}

    def called(self, name: str) -> str:
        """A name as figures and tables show it: a word that a trained model had no masks of is marked."""
        marked = self.method is None and name not in self.seen and name != self.background
        return f"{name} (unseen)" if marked else name

    def plot(self) -> "Figure":
        """Picture beside its segmentation, words that had no mask label marked; returns the matplotlib figure."""
        from cascadeclip.plots.segmentation import plot_segmentation  # upward: drawn on request, so loaded then

        return plot_segmentation(self)


class Segmenter(HubMixin):
    """A trained model with its CLIP, ready for pictures and words.

    Args:
        model: the cascade.
        clip: the CLIP it was trained on.
        seen: words that had mask labels in training; only those, and means with one of them, are lowered by
            `seen_offset`.
        seen_offset: see `evaluation.predict`.
        templates: sentences that the words are put into.
        origins: for people: which of the model's tensors came from where.
    """

    def __init__(
        self,
        model: CascadeCLIP,
        clip: Clip,
        seen: Sequence[str],
        *,
        seen_offset: float = 0.1,
        templates: Sequence[str] = CAPTIONS,
        origins: Sequence[str] = (),
    ):
        self.model, self.clip, self.origins = model.eval(), clip, tuple(origins)
        self.seen, self.seen_offset = check_words(seen, "seen words"), seen_offset
        self.templates = check_templates(templates)

    def __repr__(self) -> str:
        stages = [list(stage) for stage in self.model.config.stages]
        return f"Segmenter(clip={self.clip.name!r}, stages={stages}, {len(self.seen)} seen words)"

    @plain_torch()
    def segment(
        self,
        image: str | Path | Image.Image | np.ndarray,
        names: str | Sequence[str],
        *,
        synonyms: str = "best",
        background: float | Sequence[str] | None = None,
        pamr: int = 0,
    ) -> Segmentation:
        """Give every pixel the best of the words.

        The picture's short side is brought to the size the model was trained at; longer pictures are read in
        overlapping windows. Scores come back at the picture's own size.

        Args:
            image: path, PIL image, or (H, W, 3) uint8 RGB array.
            names: one word or several; `sofa|couch` is one class with two words.
            synonyms: whether a class has the `best` score of its words, or that of their `mean` embedding.
            background: pixels where no word scores this much (0 to 1) belong to none of them; or words for what should
                win pixels for none. None: every pixel gets one of the words.
            pamr: how many times the scores are refined along the picture's edges (`evaluation.refine`); 0: not at all.

        Raises:
            InputError: an image that cannot be read or has another shape or type; no, empty or repeated words; a word
                that the model's CLIP does not know.

        Example:
            >>> import cascadeclip
            >>> result = cascadeclip.load("mini").segment("scene.png", ["tiger", "grass"])  # doctest: +SKIP
        """
        pixels, names = read_image(image), check_names(names)
        vocabulary = read_vocabulary(self.clip, names, self.templates, synonyms=synonyms, background=background)
        lowered, seen = vocabulary.seen_among(self.seen)
        height, width = pixels.shape[:2]
        side = self.model.config.tower.image_size
        rows, columns = working_size(height, width, side)
        device = next(self.model.parameters()).device
        batch = normalise(resized(pixels, rows, columns)).to(device)
        with torch.inference_mode():
            text = vocabulary.embeddings.to(device)
            scores = predict(self.model, batch, text, lowered, self.seen_offset, window=side)
            scores = vocabulary.per_class(refine(batch, scores, pamr) if pamr else scores)
        found = PixelScores(scores, (height, width))
        return Segmentation(
            labels=found.labels(),
            pixel_scores=replace(found, coarse=scores.cpu()),
            names=vocabulary.names,
            image=pixels,
            seen=seen,
            background=vocabulary.background,
        )


@plain_torch()
def load(
    name_or_path: str | Path = "mini",
    *,
    preset: Preset | None = None,
    device: str | torch.device = "cpu",
    clip: str | None = None,
    clip_weights: str | Path | None = None,
) -> Segmenter:
    """A segmenter from a shipped checkpoint or from a checkpoint file, of this package or of the authors.

    Args:
        name_or_path: "mini" (the recommended one of those that are shipped), the name of another one, a file, or a
            folder that training wrote `model.safetensors` into.
        preset: what a checkpoint in the authors' layout leaves open: the CLIP of its text tower, the number of heads,
            the seen classes, templates and offset. A checkpoint of this package holds its own, which count; the
            preset's templates stand in where it names none.
        device: where the model computes.
        clip: name of the CLIP that the checkpoint must have been trained on; of whatever it names by default.
        clip_weights: weights of that CLIP, where they lie elsewhere here, as `load_clip` takes them.

    Raises:
        InputError: neither of them, or a checkpoint that is damaged, does not fit its CLIP, or needs a preset.
    """
    path, named = Path(name_or_path), partial(clip_of, name=clip, weights=clip_weights)
    name = RECOMMENDED if str(name_or_path) == "mini" else str(name_or_path)
    if name in SHIPPED:
        with as_file(files("cascadeclip") / "assets" / "mini" / SHIPPED[name]) as shipped:
            loaded = load_any(shipped, named)
    elif exists(path):
        path = path / TRAINED if is_folder(path) else path
        loaded = load_any(path, named, **({} if preset is None else _sizes(preset)))
    else:
        raise InputError(
            f"{name_or_path!s} is neither a file nor one of the shipped models: mini, {', '.join(SHIPPED)}"
        )
    left_open = preset.templates if preset is not None else CAPTIONS
    settings: Preset | CheckpointInfo
    if loaded.info is not None and loaded.clip is not None:
        built_on, seen, settings = loaded.clip, loaded.info.seen, loaded.info
    elif preset is not None:
        built_on = load_clip(**_clip_given(preset, clip, clip_weights))
        _check_belongs(built_on, loaded.model, path)
        seen, settings = preset.seen, preset
    else:
        raise InputError(f"{path} is in the authors' layout, which names no classes and no CLIP: give a preset")
    return Segmenter(
        loaded.model.to(device), built_on, seen, seen_offset=settings.seen_offset,
        templates=settings.templates or left_open, origins=loaded.lines,
    )  # fmt: skip


def _clip_given(preset: Preset, name: str | None, weights: str | Path | None) -> dict[str, Any]:
    """The preset's CLIP, with what is said otherwise."""
    said = {"name": name, "pretrained": weights}
    return {**preset.clip, **{key: value for key, value in said.items() if value is not None}}


def _check_belongs(clip: Clip, model: CascadeCLIP, path: Path) -> None:
    """An `InputError`, or a warning, if words are to be read by another CLIP than the checkpoint's tower is of."""
    found, wanted = clip.tower.embed_dim, model.config.tower.embed_dim
    of, remedy = f"CLIP {clip.name!r}", "give the preset, or the CLIP and its weights, that it was trained with"
    if found != wanted:
        raise InputError(f"the embeddings of {path} have {wanted} numbers, those of {of} have {found}: {remedy}")
    ours, its = (visual.state_dict() for visual in (clip.visual, model.encoder.visual))
    others = its.keys() - {"positional_embedding"}  # may have been resized
    if not all(_nearly_same(its[name], ours.get(name)) for name in others):
        said = "the tower of %s is not that of %s (%s), whose words it may not know: %s"
        logger.warning(said, path, of, clip.weights, remedy)


def _nearly_same(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are the same but for what half precision leaves."""
    if other is None or one.shape != other.shape:
        return False
    return torch.allclose(one.cpu().float(), other.cpu().float(), rtol=1e-2, atol=1e-3)


def _sizes(preset: Preset) -> dict[str, Any]:
    """What no tensor of the authors' layout tells."""
    model = preset.model
    return dict(heads=model.tower.heads, decoder_heads=model.decoder_heads, quick_gelu=model.tower.quick_gelu)
