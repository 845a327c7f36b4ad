"""`cascadeclip info`: what a bug report needs to say of the machine."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cascadeclip._version import __version__

PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "accelerate", "numpy", "scipy", "scikit-learn", "pillow", "matplotlib",
    "safetensors", "huggingface_hub", "typer", "jupyterlab", "ipywidgets", "anywidget", "nbgrader", "pycocotools",
    "onnx", "onnxruntime", "tensorboard",
)  # fmt: skip


def info() -> Iterator[tuple[str, str]]:
    """Rows of name and value: versions, devices with the number formats they have, memory, folders of caches."""
    yield "cascadeclip", f"{__version__} in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "system", platform.platform()
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    yield from _devices()
    yield from _folders()


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    from cascadeclip.processes import has_bf16, physical_memory, processor

    def formats(device: torch.device) -> str:
        return ", ".join(["fp32", *["bf16"] * has_bf16(device), *["fp16"] * (device.type == "cuda")])

    memory = physical_memory()
    size = "" if memory == sys.maxsize else f", {memory / 2**30:.0f} GiB"
    yield "cpu", f"{processor()}{size}; {formats(torch.device('cpu'))}"
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        device = torch.device("cuda", index)
        yield f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB; {formats(device)}"
    if not torch.cuda.is_available():
        yield "cuda", "none" if torch.version.cuda else "none (a build of PyTorch for CPUs)"
    if torch.backends.mps.is_available():
        yield "mps", "an Apple GPU, which is used only where it is asked for"


def _folders() -> Iterator[tuple[str, str]]:
    from huggingface_hub import constants

    yield "weights of the Hub", str(constants.HF_HUB_CACHE)
    yield "weights of OpenAI", str(Path("~/.cache/clip").expanduser())  # where open_clip puts them
