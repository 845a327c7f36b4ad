"""Figures, as matplotlib draws them: of pictures and their segmentations (`segmentation`, `dense`), of panels side by
side (`panels`), of CLIP's layers (`layers`), of the cascade as a diagram (`architecture`), at work (`decoders`) and
taken apart (`ablations`), and of evaluations (`evaluation`, `trades`, with `axes`). Every one returns a `figure`; none
shows or saves it (`save_figure` does). What they are given is looked at by `given`.

It may import all rooms from `model` to `analysis`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.plots.ablations import plot_ablations, plot_groups
    from cascadeclip.plots.architecture import plot_architecture
    from cascadeclip.plots.decoders import (
        TrainingWatch,
        attention_by_layer,
        auroc_against,
        plot_attention,
        plot_mask_history,
        plot_stage_masks,
    )
    from cascadeclip.plots.dense import plot_method_blocks, plot_method_scores, plot_methods
    from cascadeclip.plots.evaluation import (
        plot_bars,
        plot_class_iou,
        plot_class_table,
        plot_confusion,
        plot_error_kinds,
        plot_masks_and_rims,
    )
    from cascadeclip.plots.figure import Figure, save_figure
    from cascadeclip.plots.layers import (
        best_first,
        plot_classes_over_blocks,
        plot_lines,
        plot_matrices,
        plot_over_blocks,
    )
    from cascadeclip.plots.panels import in_colours, plot_panels
    from cascadeclip.plots.segmentation import plot_predictions, plot_scores, plot_segmentation
    from cascadeclip.plots.trades import plot_trades
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "Figure",
    "TrainingWatch",
    "attention_by_layer",
    "auroc_against",
    "best_first",
    "in_colours",
    "plot_ablations",
    "plot_architecture",
    "plot_attention",
    "plot_bars",
    "plot_class_iou",
    "plot_class_table",
    "plot_classes_over_blocks",
    "plot_confusion",
    "plot_error_kinds",
    "plot_groups",
    "plot_lines",
    "plot_mask_history",
    "plot_masks_and_rims",
    "plot_matrices",
    "plot_method_blocks",
    "plot_method_scores",
    "plot_methods",
    "plot_over_blocks",
    "plot_panels",
    "plot_predictions",
    "plot_scores",
    "plot_segmentation",
    "plot_stage_masks",
    "plot_trades",
    "save_figure",
]
