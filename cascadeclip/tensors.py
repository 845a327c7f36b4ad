"""Tensors in files: read without running code, whole to the last bit, and loaded strictly into a model."""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.files import check_file, open_file, replace_file, size_of
from cascadeclip.utf8 import is_utf8

TOWER = "encoder.visual."  # the frozen tower's tensors in a `CascadeCLIP`: CLIP's, not trained
# What weights are kept in. PyTorch has more formats, of 8 and 4 bits, and few of its functions take them.
REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """`safetensors.safe_open`, which by itself opens no path that is not UTF-8."""
    if is_utf8(str(path)):
        with safe_open(path, "pt") as file:
            yield file
    else:  # only Unix has such names; there an open file has another one
        with open_file(path, "safetensors file") as content, safe_open(f"/dev/fd/{content.fileno()}", "pt") as file:
            yield file


def read_safetensors(path: str | Path, what: str = "checkpoint") -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file; an `InputError` if there is none, a `DamagedFile` if it is cut short."""
    path = check_file(path, what)
    try:
        with open_safetensors(path) as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise DamagedFile(f"{path} is not a whole safetensors file ({error}); copy or download it again") from error


class _Unread:
    """Takes the place of a number or array of numpy, as mmcv's `meta` may hold them.

    Nothing of `meta` is used, so that none of numpy's code has to run on what a file says.
    """

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_NUMPY = ["numpy.dtype", "numpy.ndarray"]
_NUMPY += [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]


def read_pth(path: str | Path, what: str = "checkpoint") -> object:
    """What a `.pth` file of PyTorch holds, on the CPU; only tensors, plain Python values and containers are built.

    Raises:
        InputError: no such file, or one whose unpickling would run code.
        DamagedFile: one that is cut short, of another kind, or in which a bit has changed; tensors without values,
            with fewer than they should have, or that are sparse or quantised.
    """
    path = check_file(path, what)
    _check_sums(path)
    try:
        with torch.serialization.safe_globals([(_Unread, name) for name in _NUMPY]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # PyTorch's own words tell how to run the code
        if "nsupported operand" in str(error) or "nsupported" not in str(error):
            raise DamagedFile(f"{path} is cut short or no PyTorch checkpoint") from error
        name = re.search(r"GLOBAL (\S+)", str(error))
        found = f": {name[1]}" if name else ""
        raise DamagedFile(f"{path} holds more than tensors{found}; it was not opened, for safety") from error
    except Exception as error:  # a file of other content makes the unpickler raise anything
        raise DamagedFile(f"{path} is cut short or no PyTorch checkpoint ({_in_short(error)})") from error
    _check_plain(path, content)
    return content


def _check_plain(path: Path, content: object) -> None:
    """Tensors of other kinds answer to few of the questions that follow."""
    left, known = [content], set[int]()  # a file may hold a list that holds itself
    while left:
        part = left.pop()
        if id(part) in known:
            continue
        known.add(id(part))
        if isinstance(part, Tensor) and (
            part.layout != torch.strided or part.is_meta or part.is_quantized or part.is_nested
        ):
            raise DamagedFile(f"{path} holds a tensor without values, or one that is sparse, nested or quantised")
        if isinstance(part, Tensor) and part.nbytes > part.untyped_storage().nbytes():  # a copy would be of any size
            raise DamagedFile(f"{path} holds a tensor of {tuple(part.shape)}, and fewer values than that")
        if isinstance(part, Mapping):
            left += part.values()
        elif isinstance(part, list | tuple):
            left += part


def _check_sums(path: Path) -> None:
    """PyTorch writes a checksum of every part into the archive and does not look at it when it reads."""
    if not zipfile.is_zipfile(path):
        return  # the format of PyTorch before 1.6 has none
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2 * size_of(path, "checkpoint") + 2**20:
                raise DamagedFile(f"{path} would unpack to far more than it is; no PyTorch checkpoint does")
            broken = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DamagedFile(f"{path} is cut short or no PyTorch checkpoint ({_in_short(error)})") from error
    if broken is not None:
        raise DamagedFile(f"{path} is damaged: the checksum of its part {broken} is wrong; copy or download it again")


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__


def write_pth(path: str | Path, content: object) -> None:
    """`torch.save` in one step; an `InputError` if the file cannot be written."""

    def write(scratch: Path) -> None:
        try:
            torch.save(content, scratch)
        except RuntimeError as error:  # what PyTorch makes of a full disk
            raise OSError(str(error)) from error

    replace_file(path, write)


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`load_state_dict` with one clear message for tensors that are missing, unknown, misshapen or not finite."""
    model.load_state_dict(matched(model.state_dict(), tensors))


def matched(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`given`, in the dtypes of `wanted`; an `InputError` unless names and sizes are the same and values finite."""
    if strange := sorted(f"{name!r:.60}" for name, tensor in given.items() if not _is_named_tensor(name, tensor)):
        raise InputError(f"the checkpoint does not fit the model: no tensors by name: {shorten(strange)}")
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    both = sorted(wanted.keys() & given.keys())
    misshapen = [
        f"{name}: {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in both
        if wanted[name].shape != given[name].shape
    ]
    mistyped = [
        f"{name}: {given[name].dtype} instead of {wanted[name].dtype}"
        for name in both
        if given[name].dtype != wanted[name].dtype and not (given[name].dtype in REAL and wanted[name].dtype in REAL)
    ]
    problems = [
        f"{what} {shorten(names)}"
        for what, names in (
            ("missing", missing), ("unknown", unknown), ("other sizes:", misshapen), ("other kinds:", mistyped)
        )
        if names
    ]  # fmt: skip
    if problems:
        raise InputError(f"the checkpoint does not fit the model: {'; '.join(problems)}")
    fitting = {name: given[name].to(wanted[name].dtype) for name in wanted}
    check_finite(fitting, "the checkpoint is damaged or of a training that failed")
    return fitting


def _is_named_tensor(name: object, tensor: object) -> bool:
    return isinstance(name, str) and isinstance(tensor, Tensor)


def check_finite(tensors: Mapping[str, Tensor], blame: str) -> None:
    """An `InputError` that begins with `blame` if a floating-point tensor holds NaN or infinity."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.is_meta}
    broken = [name for name, tensor in floats.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{blame}: NaN or infinite numbers in {shorten(broken)}")


def shorten(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
