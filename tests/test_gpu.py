"""What needs a GPU, at small sizes: the checks of `make gpu-check` but for its figures."""

import pytest
import torch

from cascadeclip.processes import on_cpu
from tests.support.gpu_check import ORDER, Checks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        on_cpu() or not torch.cuda.is_available(), reason="no CUDA device here, or not asked: pytest -m gpu"
    ),
]


@pytest.mark.parametrize("name", [name for name in ORDER if not name.startswith("bench")])
def test_on_a_gpu(name):
    getattr(Checks(side=128, batch=4, steps=10), name)()
