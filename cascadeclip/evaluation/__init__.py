"""Judging a model: predictions, the confusion matrix and the means over seen and unseen classes (`scores`), windows
that slide over large pictures (`windows`), scores read at the size of labels (`bands`), a whole evaluation that can
be stopped and shared among processes (`run`), its segmentations in files (`predictions`), where a model fails
(`diagnostics`, `contours`), how sure a number is (`resampling`), and scores refined along edges (`refine`).

Of other rooms it may import all from `model` to `checkpoints`, and `presets`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.evaluation.bands import argmax_at
    from cascadeclip.evaluation.contours import boundary_width, rim
    from cascadeclip.evaluation.diagnostics import (
        OneStage,
        Readout,
        bootstrap_scores,
        boundary_counts,
        class_iou,
        confusion_of,
        error_kinds,
        masks_and_rims,
        mean_scores,
        picture_counts,
        read_out,
        right_unseen_names,
        scores_at,
        sweep_offsets,
        through_grid,
        top_confusions,
    )
    from cascadeclip.evaluation.resampling import OverRuns, Resampled, bootstrap
    from cascadeclip.evaluation.run import score, summarise, table
    from cascadeclip.evaluation.scores import (
        ConfusionMatrix,
        Scores,
        count,
        evaluate,
        harmonic_mean,
        iou_of_counts,
        predict,
        predict_batches,
    )
    from cascadeclip.evaluation.windows import window_starts
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "ConfusionMatrix",
    "OneStage",
    "OverRuns",
    "Readout",
    "Resampled",
    "Scores",
    "argmax_at",
    "bootstrap",
    "bootstrap_scores",
    "boundary_counts",
    "boundary_width",
    "class_iou",
    "confusion_of",
    "count",
    "error_kinds",
    "evaluate",
    "harmonic_mean",
    "iou_of_counts",
    "masks_and_rims",
    "mean_scores",
    "picture_counts",
    "predict",
    "predict_batches",
    "read_out",
    "right_unseen_names",
    "rim",
    "score",
    "scores_at",
    "summarise",
    "sweep_offsets",
    "table",
    "through_grid",
    "top_confusions",
    "window_starts",
]
