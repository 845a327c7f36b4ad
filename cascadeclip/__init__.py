"""Cascade-CLIP: zero-shot semantic segmentation that aligns several layers of CLIP with text."""

from cascadeclip import checkpoint, evaluation, losses
from cascadeclip.cascade import CascadeCLIP, CascadeOutput
from cascadeclip.config import ModelConfig, TowerConfig, TrainConfig
from cascadeclip.errors import InputError
from cascadeclip.segmenter import Segmentation, Segmenter, load

__version__ = "0.1.0"

__all__ = [
    "CascadeCLIP",
    "CascadeOutput",
    "InputError",
    "ModelConfig",
    "Segmentation",
    "Segmenter",
    "TowerConfig",
    "TrainConfig",
    "checkpoint",
    "evaluation",
    "load",
    "losses",
]
