"""bfloat16 where the device computes in it, float32 elsewhere."""

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them autocast is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def autocast(device: torch.device, wanted: bool) -> torch.autocast:
    """Context that computes in bfloat16 if it is wanted and the device has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and has_bf16(device))
