"""Training: the loop over batches (`loop`; its labels come from `labels`, its processes from `launcher`, it moves the
weights by an `optimiser`, and it resumes from a `state`), the training of a preset in a folder, which goes on where it
was stopped (`run`), its scores on the way (`validation`), tokens of a frozen tower kept on disk (`recall`), and a seen
offset chosen on held-out classes (`calibrate`).

It may import all rooms from `model` to `evaluation`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.training.calibrate import calibrated_offset, held_out
    from cascadeclip.training.labels import pseudo_labels, reduce_labels, seen_only
    from cascadeclip.training.loop import train
    from cascadeclip.training.optimiser import adamw
    from cascadeclip.training.recall import recallable, recalling
    from cascadeclip.training.run import fit, last_layer_only, on_tower_of, open_clip_of
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "adamw",
    "calibrated_offset",
    "fit",
    "held_out",
    "last_layer_only",
    "on_tower_of",
    "open_clip_of",
    "pseudo_labels",
    "recallable",
    "recalling",
    "reduce_labels",
    "seen_only",
    "train",
]
