"""A segmenter's model as an ONNX file, for programs without PyTorch; `pip install 'cascadeclip[export]'` goes before.

Text is encoded where PyTorch is (`Clip.class_embeddings`); the file takes the embeddings, and any number of them.
"""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascadeclip.data.transforms import IMAGE_MEAN, IMAGE_STD
from cascadeclip.errors import InputError
from cascadeclip.files import check_apart, check_file, replace_together
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.utf8 import is_utf8

if TYPE_CHECKING:
    from cascadeclip.segmenter import Segmenter

OUTPUTS = ("probabilities", "logits")
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
CHECKED = ((1, 5), (3, 2))  # numbers of pictures and classes, other than those of the export
ONE_FILE = 2**31 - 2**26  # bytes of weights that one ONNX file takes, whose format ends at 2 GiB
TOLERANCE = 1e-4  # largest difference from PyTorch that a file may show


class Masks(nn.Module):
    """What the file computes: masks of every class at a fixed size, as `evaluation.predict` brings them there.

    Args:
        model: the cascade.
        size: px; side of the masks.
        output: `probabilities`, or `logits` before the sigmoid.
    """

    def __init__(self, model: CascadeCLIP, size: int, output: str):
        super().__init__()
        self.model, self.size, self.output = model, size, output

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """images (B, 3, H, W) float32, normalised, and text (C, E) float32 -> (B, C, size, size) float32."""
        masks = self.model(images, text).mask_logits
        if self.output == "logits":
            return self._resize(masks, self.size)
        if self.model.config.upsample_through_training_size:
            masks = self._resize(masks, self.model.config.tower.image_size)
            return self._resize(masks.sigmoid(), self.size)
        return self._resize(masks, self.size).sigmoid()

    @staticmethod
    def _resize(masks: Tensor, side: int) -> Tensor:
        return F.interpolate(masks, (side, side), mode="bilinear", align_corners=False)


def export_onnx(
    segmenter: "Segmenter",
    path: str | Path,
    *,
    image_size: int | None = None,
    size: int | None = None,
    output: str = "probabilities",
) -> float:
    """Write an ONNX file and check it against PyTorch, at two other numbers of pictures and classes.

    Inputs: `images` (batch, 3, image_size, image_size), normalised by the metadata's `mean` and `std`, and `text`
    (classes, E), L2-normed. Output, named as `output`: (batch, classes, size, size). Scores as `Segmenter.segment` has
    them are probabilities less the metadata's `seen_offset` for its `seen` classes.

    Args:
        segmenter: its model is exported, in float32.
        path: ends in `.onnx`; weights that are too many for one such file lie beside it, in `<path>.data`.
        image_size: px; side of the pictures, those of training by default.
        size: px; side of the masks, `image_size` by default.
        output: `probabilities` or `logits`.

    Returns:
        The largest difference from PyTorch that the check saw, at most `TOLERANCE`.

    Raises:
        InputError: missing packages, unfit sizes or names, an unwritable place, or one that CLIP's weights lie in,
            a file that computes something else.
    """
    path, tower = Path(path), segmenter.model.config.tower
    image_size = tower.image_size if image_size is None else image_size
    size = image_size if size is None else size
    _check(path, image_size, size, output, tower.patch_size)
    check_apart((path, f"{path}.data"), (segmenter.clip.pretrained,))
    device = next(segmenter.model.parameters()).device
    masks = Masks(segmenter.model, size, output).float().cpu().eval()
    differences: list[float] = []

    def write(scratch: Path) -> None:
        _export(
            masks, _inputs(2, 3, image_size, tower.embed_dim), scratch, output, _metadata(segmenter, image_size, size)
        )
        differences.extend(
            difference(scratch, masks, *_inputs(batch, classes, image_size, tower.embed_dim))
            for batch, classes in CHECKED
        )
        if not max(differences) <= TOLERANCE:
            raise InputError(f"the ONNX file differs from PyTorch by {max(differences):.1e}; it was not kept")

    try:
        replace_together(path, write)
        moved = difference(path, masks, *_inputs(*CHECKED[0], image_size, tower.embed_dim))
        if not moved <= TOLERANCE:
            raise InputError(f"{path} differs from PyTorch by {moved:.1e} where it lies now: do not use it")
    finally:
        segmenter.model.to(device)
    return max(differences)


def difference(path: str | Path, masks: Masks, images: Tensor, text: Tensor) -> float:
    """Largest absolute difference between the file, in onnxruntime, and PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(check_file(path, "ONNX file")), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy(), "text": text.numpy()})
    with torch.inference_mode():
        wanted = masks(images, text)
    if found.shape != tuple(wanted.shape):
        return float("inf")
    return (torch.from_numpy(found) - wanted).abs().max().item()


def _check(path: Path, image_size: int, size: int, output: str, patch: int) -> None:
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(f"export needs {', '.join(missing)}: pip install 'cascadeclip[export]'")
    if path.suffix != ".onnx":
        raise InputError(f"{path}: the result is an ONNX file, give a name that ends in .onnx")
    if not is_utf8(str(path)):
        raise InputError(f"{path}: onnxruntime opens no file whose name is not UTF-8; choose another name or folder")
    if output not in OUTPUTS:
        raise InputError(f"output={output!r}: choose from {', '.join(OUTPUTS)}")
    if image_size < patch or image_size % patch:
        raise InputError(f"image_size={image_size} must be a multiple of the patch size, {patch} px")
    if size < 1:
        raise InputError(f"size={size} must be at least 1")


def _inputs(batch: int, classes: int, side: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    images = torch.randn(batch, 3, side, side, generator=generator)
    return images, F.normalize(torch.randn(classes, width, generator=generator), dim=-1)


def _metadata(segmenter: "Segmenter", image_size: int, size: int) -> dict[str, str]:
    """What a program needs besides the file."""
    values = {
        "image_size": image_size,
        "size": size,
        "mean": list(IMAGE_MEAN),
        "std": list(IMAGE_STD),
        "seen": segmenter.seen,
        "seen_offset": segmenter.seen_offset,
        "templates": segmenter.templates,
        "clip": {"name": segmenter.clip.name},
    }
    return {f"cascadeclip.{name}": json.dumps(value) for name, value in values.items()}


def _export(masks: Masks, inputs: tuple[Tensor, Tensor], path: Path, output: str, metadata: dict[str, str]) -> None:
    shapes = {"images": {0: torch.export.Dim("batch")}, "text": {0: torch.export.Dim("classes")}}
    # strict: without it, `len(tensor)` in the model would fix the number of pictures and classes
    program = torch.export.export(masks, inputs, dynamic_shapes=shapes, strict=True)
    exported = torch.onnx.export(
        program,
        inputs,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=list(shapes),
        output_names=[output],
        verbose=False,
    )
    assert exported is not None  # it is only None without `dynamo`
    exported.model.metadata_props.update(metadata)
    size = sum(tensor.nbytes for tensor in masks.state_dict().values())
    exported.save(path, external_data=size > ONE_FILE)  # beyond, weights go into a file beside it, `<name>.data`
