"""Explorers to play with in a notebook (`widgets`, on `base` and `clickable`): what they compute (`compute`, `surgery`)
and how it is drawn (`draw`, on `canvas`). Needs the extra `notebooks`.

It may import all rooms from `model` to `analysis`, but not `plots`: it draws by itself, quickly.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.explorers.base import Explorer
    from cascadeclip.explorers.canvas import Drawing
    from cascadeclip.explorers.widgets import CascadeExplorer, LayerScrubber, SurgeryBench, WordExplorer
else:
    __getattr__, __dir__ = on_first_use(__name__, extra="notebooks")

__all__ = [
    "CascadeExplorer",
    "Drawing",
    "Explorer",
    "LayerScrubber",
    "SurgeryBench",
    "WordExplorer",
]
