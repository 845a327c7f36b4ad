"""Accelerate as training uses it, and what of a launcher's wishes it hears: processes and devices, nothing else."""

import logging
import os
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available, parse_flag_from_env

from cascadeclip.errors import InputError
from cascadeclip.processes import on_cpu
from cascadeclip.utf8 import is_utf8

logger = logging.getLogger(__name__)


def accelerator_for(out: Path | None, tensorboard: bool) -> Accelerator:
    """Processes and device as the launcher says; precision, accumulation and compiling as the settings say."""
    _hear_launcher()
    if tensorboard and (out is None or not is_tensorboard_available()):
        raise InputError("TensorBoard needs an output folder, and the package: pip install 'cascadeclip[train]'")
    if tensorboard and not is_utf8(str(out)):
        raise InputError(f"TensorBoard writes into no folder whose name is not UTF-8, {out}: choose another --out")
    how = {"log_with": "tensorboard", "project_dir": out} if tensorboard else {}
    try:
        accelerator = Accelerator(cpu=on_cpu(), mixed_precision="no", dynamo_backend="no", **how)
    except ValueError as error:  # it was set up otherwise in this process
        raise InputError(
            f"Accelerate was set up in this process before, with settings that training cannot take ({error}); train "
            "in a fresh process"
        ) from error
    if tensorboard:
        accelerator.init_trackers("tensorboard")
    return accelerator


def _hear_launcher() -> None:
    """Warn of what the launcher or its configuration file says in vain; refuse what training cannot do."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision != "no":
        logger.warning(
            "the launcher's mixed precision, %s, is not used: --precision (TrainConfig.precision) decides", precision
        )
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if parse_flag_from_env(f"ACCELERATE_USE_{name}"):
            raise InputError(
                f"the launcher asks for {name}; training only knows several processes that each hold the whole model: "
                "use `accelerate launch --multi_gpu`, or run `accelerate config` anew"
            )
