"""Tensors in files: written in one step, read without running code, and loaded strictly into a model."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cascadeclip.errors import InputError

TOWER = "encoder.visual."  # the frozen tower's tensors in a `CascadeCLIP`: CLIP's, not trained


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)` and move the result to `path` in one step; a reader never sees half a file."""
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        scratch.chmod(0o666 & ~_umask())  # some writers make files that only their owner may read
        os.replace(scratch, path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {path}: {error}; choose a folder you may write to") from error
    finally:
        if scratch.exists():
            scratch.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file; an `InputError` if there is none or it is cut short."""
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); copy or download it again") from error


class _Unread:
    """Takes the place of a number or array of numpy, as mmcv's `meta` may hold them.

    Nothing of `meta` is used, so that none of numpy's code has to run on what a file says.
    """

    def __init__(self, *parts):
        pass

    def __setstate__(self, state):
        pass


_NUMPY = ["numpy.dtype", "numpy.ndarray"]
_NUMPY += [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]


def read_pth(path: Path) -> object:
    """What a `.pth` file of PyTorch holds, on the CPU; only tensors, plain Python values and containers are built.

    Raises:
        InputError: no such file, one cut short, or one whose unpickling would run code.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with torch.serialization.safe_globals([(_Unread, name) for name in _NUMPY]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than tensors; it was not opened, for safety ({error})") from error
    except Exception as error:  # a file of other content makes the unpickler raise anything
        raise InputError(f"{path} is cut short or no PyTorch checkpoint ({error!r})") from error


def write_pth(path: Path, content: object) -> None:
    """`torch.save` in one step; an `InputError` if the file cannot be written."""

    def write(scratch: Path) -> None:
        try:
            torch.save(content, scratch)
        except RuntimeError as error:  # what PyTorch makes of a full disk
            raise OSError(str(error)) from error

    replace_file(path, write)


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`load_state_dict` with one clear message for missing, unknown and misshapen tensors."""
    model.load_state_dict(matched(model.state_dict(), tensors))


def matched(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`given`, in the dtypes of `wanted`; an `InputError` unless names and sizes are the same."""
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    misshapen = [
        f"{name}: {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & given.keys())
        if wanted[name].shape != given[name].shape
    ]
    problems = [
        f"{what} {shorten(names)}"
        for what, names in (("missing", missing), ("unknown", unknown), ("other sizes:", misshapen))
        if names
    ]
    if problems:
        raise InputError(f"the checkpoint does not fit the model: {'; '.join(problems)}")
    return {name: given[name].to(wanted[name].dtype) for name in wanted}


def shorten(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
