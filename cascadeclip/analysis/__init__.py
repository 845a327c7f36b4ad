"""Looking into CLIP: its tokens block by block (`lenses`), what they resemble and what can be read from them
(`layers`), where they stand toward the text (`alignment`), changes to the last block (`surgery`), methods that segment
with them without training (`dense`), and pictures to look at (`pictures`).

It may import all from `model` to `segmenter`, and draws nothing.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.analysis import dense
    from cascadeclip.analysis.alignment import Localisation, curves_of, localise, loss_along_gap, modality_gap
    from cascadeclip.analysis.layers import (
        CKA,
        FeatureColours,
        ProbeResult,
        attention_distance,
        boundary_patches,
        fit_ridge,
        patch_labels,
        probe,
    )
    from cascadeclip.analysis.lenses import (
        Tower,
        attention_maps,
        block_inputs,
        block_tokens,
        last_layer_tokens,
        raw_lens,
        value_path_tokens,
    )
    from cascadeclip.analysis.pictures import Picture, grid_of, one_batch, picture_from_file, scene_pictures, to_batch
    from cascadeclip.analysis.surgery import (
        ATTENTIONS,
        Surgery,
        attention_weights,
        last_block,
        operate,
        repair_outliers,
    )
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "ATTENTIONS",
    "CKA",
    "FeatureColours",
    "Localisation",
    "Picture",
    "ProbeResult",
    "Surgery",
    "Tower",
    "attention_distance",
    "attention_maps",
    "attention_weights",
    "block_inputs",
    "block_tokens",
    "boundary_patches",
    "curves_of",
    "dense",
    "fit_ridge",
    "grid_of",
    "last_block",
    "last_layer_tokens",
    "localise",
    "loss_along_gap",
    "modality_gap",
    "one_batch",
    "operate",
    "patch_labels",
    "picture_from_file",
    "probe",
    "raw_lens",
    "repair_outliers",
    "scene_pictures",
    "to_batch",
    "value_path_tokens",
]
