"""Cascade-CLIP: zero-shot semantic segmentation that aligns several layers of CLIP with text.

`load` gives a segmenter; the rest is in the package's rooms (`ARCHITECTURE.md` is the map). Nothing heavy is imported
before a name is used.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use
from cascadeclip._version import __version__

if TYPE_CHECKING:
    from cascadeclip import (
        analysis,
        checkpoints,
        clip,
        data,
        evaluation,
        exercises,
        experiments,
        explorers,
        model,
        plots,
        presets,
        sharing,
        training,
    )
    from cascadeclip.config import ModelConfig, TowerConfig, TrainConfig
    from cascadeclip.errors import InputError
    from cascadeclip.model.cascade import CascadeCLIP, CascadeOutput
    from cascadeclip.processes import device
    from cascadeclip.segmenter import Segmentation, Segmenter, load
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "CascadeCLIP",
    "CascadeOutput",
    "InputError",
    "ModelConfig",
    "Segmentation",
    "Segmenter",
    "TowerConfig",
    "TrainConfig",
    "__version__",
    "analysis",
    "checkpoints",
    "clip",
    "data",
    "device",
    "evaluation",
    "exercises",
    "experiments",
    "explorers",
    "load",
    "model",
    "plots",
    "presets",
    "sharing",
    "training",
]
