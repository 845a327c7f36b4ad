"""Scores on a validation set while a model trains: looked at before the first step, and never the end of a training."""

import logging
from dataclasses import replace

import torch
from tqdm import tqdm

from cascadeclip.clip.load import Clip
from cascadeclip.config import TrainConfig
from cascadeclip.data.folders import FolderDataset
from cascadeclip.data.prepare.verifying import in_parallel
from cascadeclip.errors import InputError
from cascadeclip.evaluation.run import score, summarise
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import Preset
from cascadeclip.processes import this_process

logger = logging.getLogger(__name__)

THREADS = 4
SPLIT = "val"


class Validation:
    """Scores a model on the preset's validation set.

    Args:
        preset: whose data and classes.
        clip: of the text embeddings.
        training: in the same precision, by as many workers.
        limit: the first pictures only.
        progress: say beforehand how long it is, and show a bar with the time left.

    Raises:
        InputError: a list, folder or file that is missing, or a picture or mask that cannot be read.
    """

    def __init__(self, preset: Preset, clip: Clip, training: TrainConfig, *, limit: int | None, progress: bool):
        self.preset, self.clip, self.limit, self.progress = replace(preset, training=training), clip, limit, progress
        data = preset.eval_data(SPLIT)
        length = len(data)  # type: ignore[arg-type]  # PyTorch's class does not promise a length
        count = length if limit is None else min(limit, length)
        if not this_process().is_main_process:
            return
        if isinstance(data, FolderDataset):
            for _ in in_parallel(data.read, range(count), THREADS, "looking at the validation set"):
                pass
        if progress:
            every = f"every {training.validate_every} steps and " if training.validate_every else ""
            fewer = "" if limit is not None else "; fewer: --validate-limit"
            tqdm.write(f"validation on {count:,} pictures, {every}at the end{fewer}")

    def __call__(self, model: CascadeCLIP) -> dict[str, float]:
        """The scores; none, and a warning, if they cannot be had: a training is worth more than its scores."""
        try:
            scores = score(self.preset, self.clip, model, SPLIT, self.limit, progress=self.progress)
            return summarise(self.preset, scores)
        except (InputError, OSError, torch.OutOfMemoryError) as error:
            logger.warning("no validation scores, training is not affected: %s", error)
            return {}
