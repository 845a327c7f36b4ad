"""Several processes and several parts of a step: the loss and the weights of one process that takes it whole."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.training.loop import train
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate
from tests.training.test_loop import CONFIG

WHOLE = replace(CONFIG, batch_size=8, learning_rate=1e-3)


def weights_and_log(accumulate: int, out: Path) -> tuple[dict, list]:
    torch.manual_seed(3)
    model = CascadeCLIP(replace(MODEL, dropout=0.0))
    config = replace(WHOLE, accumulate=accumulate)
    log = train(model, Noise(), TEXT, NAMES, UNSEEN, config, collate=collate, out=out, progress=False)
    # the keys' biases drop out of the softmax: their gradient is rounding, which Adam scales up
    return {name: value for name, value in model.state_dict().items() if not name.endswith("key.bias")}, log


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return weights_and_log(1, tmp_path_factory.mktemp("whole"))


def same(found, wanted):
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-5)
    for entry, other in zip(found[1], wanted[1], strict=True):
        assert entry == pytest.approx(other, rel=1e-5)


def test_one_process_in_four_parts(whole, tmp_path):
    same(weights_and_log(4, tmp_path), whole)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "accumulate"), [(2, 2), (4, 1)])
def test_processes_times_parts(whole, tmp_path, processes, accumulate, run):
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes)
    run(sys.executable, *launch, __file__, accumulate, tmp_path, cwd=Path(__file__).parents[2], OMP_NUM_THREADS="1")
    same(torch.load(tmp_path / "ends.pt", weights_only=True), whole)


if __name__ == "__main__":
    ends = weights_and_log(int(sys.argv[1]), Path(sys.argv[2]))
    if torch.distributed.get_rank() == 0:
        torch.save(ends, Path(sys.argv[2]) / "ends.pt")
    torch.distributed.barrier()
