"""The process this is, among those that `accelerate launch` or `torchrun` may have started, its device, and the number
format to compute in: bfloat16 or float16 where it is asked for and the device has it."""

import os
import sys

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from cascadeclip.config import PRECISIONS
from cascadeclip.errors import InputError


def on_cpu() -> bool:
    """Whether Accelerate has to be told to use the CPU: it then joins several CPU processes, which it else does not."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or ("LOCAL_RANK" in os.environ and not torch.cuda.is_available())


def this_process() -> PartialState:
    """Rank, number of processes and device; the first call joins the other processes."""
    return PartialState(cpu=on_cpu())


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them autocast is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context that computes in `precision`; `bf16` is float32 on a device that has no bfloat16.

    Raises:
        InputError: an unknown precision, or `fp16` on a device other than CUDA.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r}: choose from {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise InputError(f"fp16 needs a CUDA device, this is {device.type}; use bf16 or fp32")
    if precision == "fp16":
        return torch.autocast(device.type, torch.float16)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and has_bf16(device))


def physical_memory() -> int:
    """Bytes of memory that this machine has; without an end where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return sys.maxsize
