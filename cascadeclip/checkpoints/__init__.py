"""Models in files: the package's own checkpoints (`own`) and those in the layout of Cascade-CLIP's and ZegCLIP's
authors (`authors`). `load_any` reads either. `sizes` holds what they say against what they have.

Of other rooms it may import `model`, `data` and `clip`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.checkpoints.authors import from_authors, read_authors, save_authors, to_authors
    from cascadeclip.checkpoints.own import (
        CheckpointInfo,
        Loaded,
        build_model,
        fingerprint,
        load_any,
        load_own_state,
        own_state,
        read_checkpoint,
        save_checkpoint,
    )
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "CheckpointInfo",
    "Loaded",
    "build_model",
    "fingerprint",
    "from_authors",
    "load_any",
    "load_own_state",
    "own_state",
    "read_authors",
    "read_checkpoint",
    "save_authors",
    "save_checkpoint",
    "to_authors",
]
