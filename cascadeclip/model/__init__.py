"""The network, and all that a reader needs to change the method: CLIP's tower run with prompt tokens (`tower`,
`encoder`, `spectral`), the cascade of decoders on top of it (`cascade`), the loss that trains it (`losses`), and how
masks are brought to another size (`resize`).

It imports no other room, only `config` and `errors`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.model.cascade import (
        Aggregation,
        CascadeCLIP,
        CascadeOutput,
        DecoderLayer,
        MaskLayer,
        RelationshipDescriptor,
        TextImageDecoder,
        nga_weights,
        weighted_sum,
    )
    from cascadeclip.model.encoder import EncoderOutput, PromptedEncoder
    from cascadeclip.model.losses import mean_over_ranks, present_pairs, segmentation_loss
    from cascadeclip.model.resize import bilinear, bilinear_matrix
    from cascadeclip.model.spectral import SpectralPrompt
    from cascadeclip.model.tower import (
        attend,
        build_tower,
        embed,
        frozen_twin,
        position_embedding,
        run_block,
        tower_config,
    )
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "Aggregation",
    "CascadeCLIP",
    "CascadeOutput",
    "DecoderLayer",
    "EncoderOutput",
    "MaskLayer",
    "PromptedEncoder",
    "RelationshipDescriptor",
    "SpectralPrompt",
    "TextImageDecoder",
    "attend",
    "bilinear",
    "bilinear_matrix",
    "build_tower",
    "embed",
    "frozen_twin",
    "mean_over_ranks",
    "nga_weights",
    "position_embedding",
    "present_pairs",
    "run_block",
    "segmentation_loss",
    "tower_config",
    "weighted_sum",
]
