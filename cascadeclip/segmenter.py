"""Image + words -> segmentation, for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn import functional as F

from cascadeclip.cascade import CascadeCLIP
from cascadeclip.checkpoint import build_model, read_checkpoint
from cascadeclip.clip import Clip, load_clip
from cascadeclip.data.emojiscenes import CAPTIONS
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.errors import InputError
from cascadeclip.evaluation import predict

SHIPPED = {"mini": "mini_cascade.safetensors"}
LONGEST = 4  # a picture's long side goes through the model at most this many times as long as its short side


@dataclass(frozen=True)
class Segmentation:
    """A picture segmented into the words given.

    Attributes:
        labels: (H, W) int64, indices into `names`.
        scores: (C, H, W) float32, score of each word at each pixel; their argmax is `labels`.
        names: the C words.
        image: (H, W, 3) uint8, the picture.
        seen: those of `names` that had mask labels in training.
    """

    labels: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    image: np.ndarray
    seen: tuple[str, ...]

    def plot(self):
        """Picture beside its segmentation, words that had no mask label marked; returns the matplotlib figure."""
        from cascadeclip.plots import plot_segmentation

        return plot_segmentation(self)


class Segmenter:
    """A trained model with its CLIP, ready for pictures and words.

    Args:
        model: the cascade.
        clip: the CLIP it was trained on.
        seen: words that had mask labels in training; only those are lowered by `seen_offset`.
        seen_offset: see `evaluation.predict`.
        templates: sentences that the words are put into.
    """

    def __init__(
        self,
        model: CascadeCLIP,
        clip: Clip,
        seen: Sequence[str],
        *,
        seen_offset: float = 0.1,
        templates: Sequence[str] = CAPTIONS,
    ):
        self.model, self.clip = model.eval(), clip
        self.seen, self.seen_offset, self.templates = tuple(seen), seen_offset, tuple(templates)

    def segment(self, image: str | Path | Image.Image | np.ndarray, names: str | Sequence[str]) -> Segmentation:
        """Give every pixel the best of the words.

        The picture's short side is brought to the size the model was trained at; longer pictures are read in
        overlapping windows. Scores come back at the picture's own size.

        Args:
            image: path, PIL image, or (H, W, 3) uint8 RGB array.
            names: one word or several.

        Raises:
            InputError: an image that cannot be read or has another shape or type; no, empty or repeated words; a word
                that the model's CLIP does not know.

        Example:
            >>> import cascadeclip
            >>> result = cascadeclip.load("mini").segment("scene.png", ["tiger", "grass"])  # doctest: +SKIP
        """
        pixels, names = read_image(image), check_names(names)
        text = self.clip.class_embeddings(names, self.templates)
        seen = [position for position, name in enumerate(names) if name in self.seen]
        height, width = pixels.shape[:2]
        side = self.model.config.tower.image_size
        rows, columns = working_size(height, width, side)
        device = next(self.model.parameters()).device
        tensor = F.interpolate(
            to_tensor(pixels)[None].float(), (rows, columns), mode="bilinear", align_corners=False, antialias=True
        )
        batch = normalise(tensor).to(device)
        with torch.inference_mode():
            scores = predict(self.model, batch, text.to(device), seen, self.seen_offset, window=side)
            scores = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)[0]
        return Segmentation(
            labels=scores.argmax(0).cpu().numpy(),
            scores=scores.cpu().numpy(),
            names=names,
            image=pixels,
            seen=tuple(names[position] for position in seen),
        )


def load(name_or_path: str | Path = "mini") -> Segmenter:
    """A segmenter from a shipped checkpoint (`"mini"`) or from a checkpoint file of this package.

    Raises:
        InputError: neither of them, or a checkpoint that is damaged or does not fit its CLIP.
    """
    if str(name_or_path) in SHIPPED:
        with as_file(files("cascadeclip") / "assets" / SHIPPED[str(name_or_path)]) as path:
            info, tensors = read_checkpoint(path)
    elif Path(name_or_path).exists():
        info, tensors = read_checkpoint(name_or_path)
    else:
        raise InputError(f"{name_or_path!s} is neither a file nor one of the shipped models: {', '.join(SHIPPED)}")
    clip = load_clip(**info.clip, image_size=info.model.tower.image_size)
    return Segmenter(build_model(info, tensors, clip.visual), clip, info.seen)


def working_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns at which a picture goes through the model: short side = `side`, long side at most LONGEST x."""
    scale = side / min(height, width)
    longest = LONGEST * side
    return tuple(max(side, min(round(length * scale), longest)) for length in (height, width))


def read_image(image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Any accepted image as (H, W, 3) uint8 RGB, turned as its EXIF says; transparency lies on white."""
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file():
            raise InputError(f"no image at {path}")
        try:
            with Image.open(path) as file:
                file.load()
                return _rgb(file)
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path} is no image or a damaged one ({error}); convert it to PNG or JPEG") from error
    if isinstance(image, Image.Image):
        return _rgb(image)
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"an image array must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; "
            "for floats in 0..1 use (255 * array).round().astype('uint8')"
        )
    return image


def _rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and float greys
        grey = np.asarray(image, dtype=np.float64)
        top = 65535 if grey.max() > 255 else 255
        image = Image.fromarray((grey / top * 255).clip(0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def check_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The words as a tuple; an `InputError` for none, empty, repeated or non-text ones."""
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise InputError("no words given: name at least one thing to look for, for example ['cat', 'grass']")
    strange = [name for name in names if not isinstance(name, str) or not name.strip()]
    if strange:
        raise InputError(f"words must be text that is not empty, not {strange[0]!r}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"words given twice: {', '.join(repeated)}; give each once")
    return names
