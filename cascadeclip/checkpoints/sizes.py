"""What a checkpoint says of a model, held against the tensors that it has, before memory is reserved for the model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cascadeclip.config import ModelConfig
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.tensors import TOWER, matched


def check_sizes(config: ModelConfig, tensors: Mapping[str, Tensor], *, tower: bool) -> None:
    """An `InputError` if settings and tensors do not fit each other.

    Args:
        tower: whether the tower's tensors have to be among them.
    """
    projections = 1 if config.shared_projection else len(config.stages)
    layers = config.decoder_layers * (1 if config.shared_decoder else len(config.stages))
    if projections + layers > len(tensors):  # each of them has several; so many modules take minutes to make
        raise InputError(
            f"the checkpoint does not fit the model: missing decoders: {len(tensors)} tensors are too few for "
            f"{projections} projections and {layers} decoder layers"
        )
    with torch.device("meta"):
        wanted = CascadeCLIP(config).state_dict()
    wanted = {name: tensor for name, tensor in wanted.items() if tower or not name.startswith(TOWER)}
    matched(wanted, {name: tensor.to("meta") for name, tensor in tensors.items()})
