"""Dense CLIP without training: patch tokens read from a frozen tower in eight ways (`registry`), pictures segmented
with them (`segment`), scores on a preset's pictures (`scoring`), and the table method x block (`table`).

One file a family: the last block changed (`last_block`), a second path beside CLIP's own (`second_path`), CLIP
calibrated by its middle blocks (`calibrated`, with `outliers`); what they share is in `trunk`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.analysis.dense.last_block import Surgery
    from cascadeclip.analysis.dense.registry import METHODS, dense_features, from_trunk, many_features
    from cascadeclip.analysis.dense.scoring import score_training_free
    from cascadeclip.analysis.dense.second_path import class_token, feature_surgery
    from cascadeclip.analysis.dense.segment import (
        DenseReader,
        Protocol,
        segment_by_methods,
        segment_training_free,
        usual_protocol,
    )
    from cascadeclip.analysis.dense.table import MEASURES, Judge, Row, as_markdown, method_table
    from cascadeclip.analysis.dense.trunk import Trunk
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "MEASURES",
    "METHODS",
    "DenseReader",
    "Judge",
    "Protocol",
    "Row",
    "Surgery",
    "Trunk",
    "as_markdown",
    "class_token",
    "dense_features",
    "feature_surgery",
    "from_trunk",
    "many_features",
    "method_table",
    "score_training_free",
    "segment_by_methods",
    "segment_training_free",
    "usual_protocol",
]
