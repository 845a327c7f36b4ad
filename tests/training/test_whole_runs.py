"""Whole runs of the command line in processes of their own: killed, and shared among several.

They stand in a file of their own, so that they do not run beside full-size models in the tests' process.
"""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

SHORT = ("--precision", "fp32", "--validate-limit", 11)  # of 300 scenes
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads of several processes would wait for each other

# The command line, killed some seconds after it has written its state so many times. The process counts for itself:
# another one, on a busy machine, would come too late.
KILLS_ITSELF = """
import os, runpy, signal, sys, threading, time
from pathlib import Path

_, state, writes, seconds, *arguments = sys.argv

def written():
    try:
        return Path(state).stat().st_mtime_ns
    except FileNotFoundError:  # not yet, or for a moment, while it becomes the last state but one
        return None

def kill():
    last = written()
    for _ in range(int(writes)):
        while (now := written()) in (None, last):
            time.sleep(0.002)
        last = now
    time.sleep(float(seconds))
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
sys.argv = ["cascadeclip", *arguments]
runpy.run_module("cascadeclip", run_name="__main__")
"""


def process(*arguments, launch=(sys.executable, "-m")):
    """The command line in a process of its own, or in several."""
    command = [*launch, "cascadeclip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)
    if done.returncode:  # a launcher's own traceback comes after that of the process that failed
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-500:]}\n{done.stderr[:3000]}")
    return done.stdout


def finished(path):
    return load_file(path / "model.safetensors")


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tmp_path):
    """SIGKILL at five random moments of a real run, which goes on with the same command."""
    arguments = ("train", "--steps", 40, "--batch-size", 2, "--checkpoint-every", 1, *SHORT)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    process(*arguments, "--out", straight)
    moments = random.Random(3)
    for _ in range(5):
        wait = str(moments.randint(1, 5)), str(moments.uniform(0, 0.05))
        command = [sys.executable, "-c", KILLS_ITSELF, killed / "state.pt", *wait, *arguments, "--out", killed]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=ONE_THREAD)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (killed / "model.safetensors").exists()
    process(*arguments, "--out", killed)
    one, other = finished(straight), finished(killed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (straight / "log.jsonl").read_text() == (killed / "log.jsonl").read_text()


@pytest.mark.slow
def test_two_processes_give_the_weights_and_scores_of_one(tmp_path):
    """Two processes on the CPU (gloo) against one with the same pictures per step."""
    arguments = ("train", "--steps", 6, "--batch-size", 4, *SHORT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launch += ["--rdzv-endpoint", "localhost:0", "-m"]
    assert "in 2 processes" not in process(*arguments, "--out", tmp_path / "one")
    assert process(*arguments, "--out", tmp_path / "two", launch=launch).count("in 2 processes") == 1
    one, two = finished(tmp_path / "one"), finished(tmp_path / "two")
    for name in one:
        if not name.endswith("key.bias"):  # drops out of the softmax: its gradient is rounding noise, Adam's unit
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()] for run in ("one", "two")
    ]
    for key in ("focal", "dice", "total", "learning_rate"):
        assert logs[1][-1][key] == pytest.approx(logs[0][-1][key], rel=1e-5)
    arguments = ("evaluate", "--limit", 41, "--precision", "fp32")
    process(*arguments, "--out", tmp_path / "scored by one")
    process(*arguments, "--out", tmp_path / "scored by two", launch=launch)
    scores = [json.loads((tmp_path / f"scored by {run}" / "scores.json").read_text()) for run in ("one", "two")]
    assert scores[1]["per_class"] == pytest.approx(scores[0]["per_class"], abs=1e-3)
    assert scores[1]["pAcc"] == pytest.approx(scores[0]["pAcc"], abs=1e-4) and scores[0]["pAcc"] > 0.5
