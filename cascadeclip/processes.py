"""The process this is, among those that `accelerate launch` or `torchrun` may have started: its device, the number
format to compute in there, and its random numbers."""

import logging
import os
import platform
import sys
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from cascadeclip.config import PRECISIONS
from cascadeclip.errors import InputError
from cascadeclip.files import exists

logger = logging.getLogger(__name__)

MOST_READERS = 16  # keep up with any card, and each holds some hundred MB


def on_cpu() -> bool:
    """Whether Accelerate has to be told to use the CPU: it then joins several CPU processes, which it else does not."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or ("LOCAL_RANK" in os.environ and not torch.cuda.is_available())


_joining = threading.RLock()


def this_process() -> PartialState:
    """Rank, number of processes and device; the first call joins the other processes."""
    with _joining:  # Accelerate shares a state that another thread has only begun to fill
        return PartialState(cpu=on_cpu())


def device() -> torch.device:
    """Where training, scoring, the command line and the notebooks compute: this process's GPU if there is one.

    `ACCELERATE_USE_CPU=1` in the environment makes it the CPU.

    Example:
        >>> cascadeclip.load("mini", device=cascadeclip.device())  # doctest: +SKIP
    """
    return this_process().device


def readers(asked: int | None) -> int:
    """How many processes read pictures for this one: as many as are asked for, or, for None, one for every core of its
    share but one, at least 1 and at most `MOST_READERS`.

    The share is what the processes of a launcher on this machine have each.
    """
    if asked is not None:
        return asked
    allowed = getattr(os, "sched_getaffinity", None)  # Linux: the cores that this process may use
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(share - 1, MOST_READERS))


@contextmanager
def told_of_ended(option: str) -> Iterator[None]:
    """A process of ours that ends in here before its work is done, killed by the system, becomes an `InputError`.

    Args:
        option: with which such processes are asked for.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, BrokenProcessPool) and "DataLoader worker (pid" not in str(error):  # raised in one
            raise
        raise InputError(
            "a process that was started for a part of the work ended before its time, perhaps for want of memory; "
            f"ask for less with {option}"
        ) from error


# --- number formats -------------------------------------------------------------------------------------------------


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them autocast is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def number_format(device: torch.device, precision: str) -> torch.dtype:
    """What `precision` is computed in on a device: `bf16` is float16 on a CUDA device without bfloat16 (a T4), and
    float32 on any other device without it.

    `fp32` is float32 throughout; `torch.set_float32_matmul_precision("high")` allows TF32 for all of it, which is
    faster and as coarse as float16.

    Raises:
        InputError: an unknown precision, or `fp16` on a device other than CUDA.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r}: choose from {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise InputError(f"fp16 needs a CUDA device, this is {device.type}; use bf16 or fp32")
    if precision == "bf16" and not has_bf16(device):
        if device.type != "cuda":
            return torch.float32
        _say_once("this GPU has no bfloat16: computing in float16 instead (with loss scaling in training)")
        return torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context that computes in `number_format(device, precision)`, and raises as that does."""
    dtype = number_format(device, precision)
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype)


@lru_cache
def _say_once(message: str) -> None:
    logger.warning(message)


# --- random numbers -------------------------------------------------------------------------------------------------


def seed_draws(seed: int, device: torch.device) -> None:
    """Start the generators of the CPU and of one device from a seed; `torch.manual_seed` reseeds every device."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


@contextmanager
def own_draws(seed: int, device: torch.device = torch.device("cpu")) -> Iterator[None]:  # noqa: B008
    """In here, random numbers come from `seed`; afterwards the caller's generators are as they were."""
    kind = None if device.type == "cpu" else getattr(torch, device.type)
    kept = torch.get_rng_state(), kind and kind.get_rng_state()
    seed_draws(seed, device)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        if kind is not None:
            kind.set_rng_state(kept[1])


# --- the compiler ---------------------------------------------------------------------------------------------------


@contextmanager
def told_of_compiler() -> Iterator[None]:
    """What `torch.compile` raises in here, at whatever call it first compiles, becomes an `InputError`."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            f"torch.compile cannot compile the model here ({reason}); leave out --compile, or install a C++ compiler "
            "and Python's headers (Debian and Ubuntu: g++ python3-dev)"
        ) from error


# --- the caller's settings of PyTorch --------------------------------------------------------------------------------


@contextmanager
def plain_torch() -> Iterator[None]:
    """Computes as PyTorch does by default, whatever default dtype, default device, autocast and mode of gradients the
    caller has set.

    Also a decorator. What is built and kept (towers, text embeddings) would else be of the caller's dtype for good, or
    could not be trained.
    """
    with ExitStack() as contexts:
        contexts.enter_context(_float32.meant())
        if torch.get_default_device().type != "cpu":
            contexts.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                contexts.enter_context(torch.autocast(kind, enabled=False))
        contexts.enter_context(torch.inference_mode(False))
        contexts.enter_context(torch.enable_grad())
        yield


class _Float32:
    """The default dtype while threads need float32. All of a process share it: the last of them, which need not be the
    first, puts the caller's back."""

    def __init__(self) -> None:
        self.lock, self.users, self.callers = threading.Lock(), 0, torch.float32

    @contextmanager
    def meant(self) -> Iterator[None]:
        with self.lock:
            if not self.users:
                self.callers = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    torch.set_default_dtype(self.callers)


_float32 = _Float32()


def _in_forked_child() -> None:
    """A forked process has the memory of its parent's other threads and not the threads: it would wait for them for
    ever, as for those that compute."""
    global _joining
    torch.set_num_threads(1)
    _float32.lock, _joining = threading.Lock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


def physical_memory() -> int:
    """Bytes of memory that this machine has; without an end where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return sys.maxsize


def processor() -> str:
    """Name of the CPU and how many cores it has, for reports."""
    info = Path("/proc/cpuinfo")  # Linux alone has it
    lines = info.read_text(encoding="utf-8").splitlines() if exists(info) else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"
