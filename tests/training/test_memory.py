"""Memory of a long training does not grow with its steps."""

import sys

import pytest

STEPS, ALLOWED_MB = 600, 20

TRAINING = f"""
from dataclasses import replace
from pathlib import Path

import torch

from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import MINI
from cascadeclip.training.loop import train
from cascadeclip.training.run import open_clip_of

clip = open_clip_of(MINI)
model = CascadeCLIP(replace(MINI.model, dropout=0.1), clip.visual)
text = clip.class_embeddings(MINI.names, MINI.templates)
resident, step = [], torch.optim.AdamW.step


def watched(*args, **kwargs):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident.append(pages * 4096 / 1e6)
    return step(*args, **kwargs)


torch.optim.AdamW.step = watched
settings = replace(MINI.training, steps={STEPS}, batch_size=1)
train(model, MINI.train_data(0), text, MINI.names, MINI.unseen, settings, collate=MINI.collate, progress=False)
half = {STEPS} // 2
print(max(resident[half:]) - max(resident[:half]), len(resident))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the resident memory from Linux's /proc")
def test_the_second_half_of_a_training_takes_no_more_memory_than_the_first(run, tmp_path):
    grown, steps = run(sys.executable, "-c", TRAINING, cwd=tmp_path, PYTHONPATH=":".join(sys.path)).split()
    assert int(steps) == STEPS
    assert float(grown) < ALLOWED_MB
