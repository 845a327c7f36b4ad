"""What comparisons keep of their runs is read through the checked door: logs of trainings and counts of pixels."""

import json

import pytest
import torch
from safetensors.torch import save, save_file

from cascadeclip.checkpoints.own import TRAINED
from cascadeclip.errors import InputError
from cascadeclip.experiments import run as compare
from cascadeclip.experiments.comparisons import Variant
from cascadeclip.experiments.curves import Curve, read_curve
from cascadeclip.presets import MINI
from cascadeclip.training.run import open_clip_of


def test_kept_counts_that_are_damaged_or_of_other_weights_are_scored_anew(tmp_path, monkeypatch, caplog):
    scored, folder = [], tmp_path / "run"
    runs = compare._Runs(MINI, open_clip_of(MINI), tmp_path, 2, progress=False)

    def score(*args):
        scored.append(args)
        return torch.ones(3, 2, len(MINI.names), dtype=torch.float64)

    monkeypatch.setattr(runs, "trained", lambda *args: folder)
    monkeypatch.setattr(runs, "_score", score)
    folder.mkdir()
    save_file({"weight": torch.ones(1)}, folder / TRAINED)
    whole = runs.counts(Variant("one"), 0)
    assert torch.equal(runs.counts(Variant("one"), 0), whole) and len(scored) == 1
    (path,) = folder.glob("counts-*")
    good = path.read_bytes()
    others = [
        {"counts": whole.float()},
        {"counts": whole[:, :1].contiguous()},
        {"other": whole},
        {"counts": whole * torch.nan},
        {"counts": whole + 1},
    ]
    broken = [b"", good[:-8], b"{}", *(save(tensors, metadata(good)) for tensors in others), save({"counts": whole})]
    for number, content in enumerate(broken, start=2):
        path.write_bytes(content)
        caplog.clear()
        assert torch.equal(runs.counts(Variant("one"), 0), whole) and len(scored) == number
        assert f"{path} is" in caplog.text and "scoring anew" in caplog.text
    save_file({"weight": torch.zeros(1)}, folder / TRAINED)
    runs.counts(Variant("one"), 0)
    assert len(scored) == len(broken) + 2


def metadata(content):
    """Metadata of a file of tensors."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def test_a_curve_is_read_from_a_training_s_log(tmp_path):
    (tmp_path / "log.jsonl").write_text(
        '{"step": 10, "total": 1.0}\n{"step": 12, "mIoU_seen": 0.1, "mIoU_unseen": 0.2, "total": 1.0}\n'
    )
    assert read_curve(tmp_path) == Curve((12,), (0.1,), (0.2,))
    for text, says in (
        ("", "holds no scores"),
        ("[1", r"no log of a training.*line 1 of"),
        ("[1]\n", "no log of a training"),
        ('{"step": "9", "mIoU_seen": 1, "mIoU_unseen": 1}', r"step\[0\]='9' must be a whole number"),
        ('{"step": 9, "mIoU_seen": [1], "mIoU_unseen": 1}', r"mIoU_seen\[0\]=\[1\] must be a finite number"),
        ('{"step": -9, "mIoU_seen": 1, "mIoU_unseen": 1}', "do not ascend"),
        ("\xff", "no log of a training"),
    ):
        (tmp_path / "log.jsonl").write_text(text)
        with pytest.raises(InputError, match=says):
            read_curve(tmp_path)
    with pytest.raises(InputError, match="no log of a training"):
        read_curve(tmp_path / "nothing")
