"""Segmenters for others: as folders and on the Hugging Face Hub (`hub`), and as ONNX files (`onnx`).

Of other rooms it may import all from `model` to `checkpoints`; the segmenter itself builds on `hub`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.sharing.hub import HubMixin
    from cascadeclip.sharing.onnx import export_onnx
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "HubMixin",
    "export_onnx",
]
