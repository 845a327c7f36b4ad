"""How a training moves its weights: AdamW, float16's loss scaling, and not at all by a gradient that is no number."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cascadeclip.config import TrainConfig
from cascadeclip.processes import number_format


class Optimiser:
    """AdamW behind the scaling of losses that float16 needs, which is idle in other formats.

    Args:
        parameters: that are moved.
        config: rate, decay, clipping, precision.
        device: of the parameters.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], config: TrainConfig, device: torch.device):
        self.parameters, self.clip_norm = parameters, config.clip_norm
        self.adamw = adamw(parameters, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=needs_scaling(device, config.precision))

    @property
    def scales(self) -> bool:
        """Whether losses are scaled: a bad gradient now and then is then no fault but how the scale is found."""
        return self.scaler.is_enabled()

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        for group in self.adamw.param_groups:
            group["lr"] = rate

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a loss () to what there is."""
        self.scaler.scale(loss).backward()

    def step(self) -> Tensor:
        """Move the weights, unless the gradient is no number, which is decided on the device; returns its norm ()."""
        self.scaler.unscale_(self.adamw)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        if not self.scales:  # the scaler does the same
            self.adamw.found_inf = 1 - norm.isfinite().float()  # type: ignore[attr-defined]  # PyTorch's scaler sets it
        self.scaler.step(self.adamw)
        self.scaler.update()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def load(self, moments: dict[str, Any], scaler: dict[str, Any]) -> None:
        """Go on from the states that the two had; an empty one of the scaler is of a format that needs none."""
        self.adamw.load_state_dict(moments)
        if scaler:
            self.scaler.load_state_dict(scaler)


def needs_scaling(device: torch.device, precision: str) -> bool:
    """Whether gradients would vanish in the format that is computed in."""
    return number_format(device, precision) == torch.float16


def adamw(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of a training, in one pass over all tensors."""
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
