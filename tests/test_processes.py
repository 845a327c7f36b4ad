"""Device, number format and random numbers of a process; what a missing compiler says."""

import logging
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from torch._inductor.exc import CppCompileError

import cascadeclip
from cascadeclip import processes
from cascadeclip.data.streams import Endless
from cascadeclip.errors import InputError
from cascadeclip.experiments.bench import alone
from cascadeclip.presets import get_preset
from cascadeclip.processes import has_bf16, number_format, own_draws, plain_torch, readers, told_of_compiler

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def emulating(monkeypatch):
    """A T4: bfloat16 by emulation only."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    processes._say_once.cache_clear()


def test_emulated_bfloat16_is_none(emulating, caplog):
    assert not has_bf16(CUDA)
    with caplog.at_level(logging.WARNING):
        assert [number_format(CUDA, "bf16") for _ in range(3)] == [torch.float16] * 3
    (line,) = caplog.messages
    assert "no bfloat16" in line and "float16" in line
    assert processes.autocast(CUDA, "bf16").fast_dtype == torch.float16


@pytest.mark.parametrize(
    ("precision", "wanted"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_a_card_with_bfloat16_computes_in_what_is_asked_for(monkeypatch, precision, wanted):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert number_format(CUDA, precision) == wanted


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_other_devices_without_bfloat16_compute_in_float32(monkeypatch, kind):
    monkeypatch.setattr(processes, "has_bf16", lambda device: False)
    assert number_format(torch.device(kind), "bf16") == torch.float32


def test_everything_asks_one_place_for_the_device():
    assert cascadeclip.device() == processes.this_process().device
    source = {path: path.read_text() for path in Path(cascadeclip.__file__).parent.rglob("*.py")}
    askers = {
        path.name for path, text in source.items() if "cuda.is_available()" in text or "mps.is_available()" in text
    }
    # the first two besides say what there is, the last asks whether a fork may follow, not where to compute
    assert askers <= {"processes.py", "report.py", "info.py", "kernel.py"}


# --- the caller's settings ------------------------------------------------------------------------------------------


def test_the_default_dtype_is_plain_until_the_last_thread_is_done_and_the_callers_again_then():
    torch.set_default_dtype(torch.float64)
    inside, first_is_out, found = threading.Event(), threading.Event(), []

    def second():
        with plain_torch():
            inside.set()
            first_is_out.wait(60)
            found.append(torch.zeros(1).dtype)

    try:
        thread = threading.Thread(target=second)
        with plain_torch():
            thread.start()
            assert inside.wait(60)
        first_is_out.set()
        thread.join(60)
        assert found == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_what_is_loaded_where_no_gradients_are_wanted_can_be_trained_elsewhere(mode):
    with mode():
        model = cascadeclip.load("mini").model
        assert not torch.is_grad_enabled()
    words = torch.nn.functional.normalize(torch.randn(3, model.config.tower.embed_dim), dim=-1)
    model(torch.randn(1, 3, 96, 96), words).mask_logits.sum().backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


# --- who reads pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "processes", "wanted"), [(1, 1, 1), (2, 1, 1), (16, 1, 15), (4, 2, 1), (64, 1, 16), (64, 8, 7), (2, 4, 1)]
)
def test_readers_are_as_many_as_the_cores_allow(monkeypatch, cores, processes, wanted):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert readers(None) == wanted
    assert [readers(asked) for asked in (0, 4)] == [0, 4]


def test_benchmarks_read_by_the_cores_and_the_mini_world_by_itself():
    assert get_preset("voc12").training.workers is None and get_preset("mini").training.workers == 0


# --- random numbers -------------------------------------------------------------------------------------------------


def test_draws_in_between_leave_every_generator_alone(monkeypatch):
    torch.manual_seed(3)
    wanted, reseeded = torch.rand(2), []
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, lambda seed, name=name: reseeded.append(name))
    torch.default_generator.manual_seed(3)
    with own_draws(7):
        found = torch.rand(1)
    Endless([1, 2, 3], seed=0)[1]
    with pytest.raises(KeyError), own_draws(8):
        raise KeyError
    assert torch.equal(torch.rand(2), wanted) and reseeded == []
    assert found == torch.rand(1, generator=torch.Generator().manual_seed(7))


def test_nothing_reseeds_the_generators_of_all_devices():
    """`torch.manual_seed` does; only `bench` and the judge's `kernel` may: their cases have a process each."""
    files = Path(cascadeclip.__file__).parent.rglob("*.py")
    assert {path.name for path in files if "torch.manual_seed(" in path.read_text()} <= {
        "bench.py",
        "bench_data.py",
        "kernel.py",
    }


# --- the compiler ---------------------------------------------------------------------------------------------------


def test_a_missing_compiler_is_told_in_one_line():
    said = pytest.raises(InputError, match=r"torch\.compile cannot compile the model here .*leave out --compile")
    with said as caught, told_of_compiler():
        raise CppCompileError(["g++", "-shared"], "g++: not found")
    assert "\n" not in str(caught.value)


def test_other_errors_pass():
    with pytest.raises(KeyError), told_of_compiler():
        raise KeyError("other")


# --- processes of ours ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_of_a_pool_that_is_killed_is_told_in_one_line():
    with pytest.raises(InputError, match=r"ended before its time.*--batch-size$"):
        alone(os._exit, 3)


def test_an_error_raised_in_a_process_is_not_taken_for_its_end():
    with pytest.raises(RuntimeError, match="equal size"), processes.told_of_ended("--workers"):
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nstack expects each of equal size")
    for message in (
        "DataLoader worker (pid(s) 7) exited unexpectedly",
        "DataLoader worker (pid 7) is killed by signal",
    ):
        with pytest.raises(InputError, match="ended before its time"), processes.told_of_ended("--workers"):
            raise RuntimeError(message)


def test_threads_that_ask_first_at_the_same_time_get_a_whole_answer(monkeypatch):
    class Slow:
        shared = {}

        def __init__(self, cpu):
            self.__dict__ = Slow.shared
            if not self.shared:
                self.device = None
                time.sleep(0.1)
                self.device = "cpu"

    monkeypatch.setattr(processes, "PartialState", Slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(processes.device())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["cpu"] * 3
