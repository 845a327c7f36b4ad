"""The process this is, among those that `accelerate launch` or `torchrun` may have started."""

import os

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def on_cpu() -> bool:
    """Whether Accelerate has to be told to use the CPU: it then joins several CPU processes, which it else does not."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or ("LOCAL_RANK" in os.environ and not torch.cuda.is_available())


def this_process() -> PartialState:
    """Rank, number of processes and device; the first call joins the other processes."""
    return PartialState(cpu=on_cpu())
