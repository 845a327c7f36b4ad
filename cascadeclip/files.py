"""The one door to files. What is written appears in one step and survives a power cut; what is read is a file of a
bearable size that holds what it should; and one process at a time works in a folder.
"""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cascadeclip.errors import DamagedFile, InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # how its absence is told

logger = logging.getLogger(__name__)

MOST_TEXT = 2**26  # bytes of the longest text that is read
LOCK = ".lock"
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_SCRATCH = re.compile(r"\..+\.(?P<pid>\d+)(?:\.(?P<host>[0-9a-f]{8})\.[0-9a-f]{6})?\.tmp")
_swept: set[Path] = set()  # folders whose old scratch files were looked for
_sweeping = threading.Lock()


# --- writing --------------------------------------------------------------------------------------------------------


def replace_file(path: str | Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Call `write(temporary path)` and move the result to `path` in one step; a reader never sees half a file.

    Args:
        path: its folder is made if it is missing.
        write: writes one file.
        sync: wait until the disk has it, so that a power cut leaves the old file or the new one. False for one of very
            many files that can be made again.

    Raises:
        InputError: the file cannot be written; what was there is left.
    """
    path = Path(path)
    with _scratch_for(path) as scratch:
        write(scratch)
        _move(scratch, path, sync)


def replace_together(path: str | Path, write: Callable[[Path], object]) -> None:
    """As `replace_file`, for a writer that may put other files beside its own, which it names by their final names.

    `write` gets a path of the final name in an empty folder. All it leaves there is moved beside `path`, `path` last.
    """
    path = Path(path)
    with _scratch_for(path) as scratch:
        scratch.mkdir()
        write(scratch / path.name)
        for part in sorted(scratch.iterdir(), key=lambda part: part.name == path.name):
            _move(part, path.parent / part.name, sync=True)


def write_text(path: str | Path, text: str) -> None:
    """A text as UTF-8, in one step."""
    replace_file(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, values: dict[str, Any] | list[Any]) -> None:
    """JSON, in one step; it has no NaN and no infinity: they become null."""
    write_text(path, json.dumps(without_nan(values), indent=1, allow_nan=False) + "\n")


def check_writable(folder: str | Path) -> None:
    """Make `folder` and do in it what saving does, twice over; an `InputError` if it cannot be done."""
    probe = Path(folder) / ".can-be-written"
    try:
        for _ in range(2):
            replace_file(probe, lambda scratch: scratch.write_bytes(b"yes"))
        probe.unlink()
    except (InputError, OSError) as error:
        raise InputError(
            f"cannot write into {folder}: {error.__cause__ or error}; choose another output folder"
        ) from error


def without_nan(value: object) -> object:
    """The same with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


@contextmanager
def _scratch_for(path: Path) -> Iterator[Path]:
    """A path beside `path` that nobody else uses and that is gone afterwards."""
    name = f".{path.name[:40]}.{os.getpid()}.{_HOST}.{secrets.token_hex(3)}.tmp"  # file systems take 255 bytes
    scratch = path.with_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _sweeping:  # another thread's first file of this folder must not be taken for an old one
            if path.parent not in _swept:
                _sweep(path.parent, lambda pid, host: host == _HOST and (pid == os.getpid() or not _alive(pid)))
                _swept.add(path.parent)
        yield scratch
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {path}: {error}; choose a folder you may write to") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink(missing_ok=True)


def _move(scratch: Path, path: Path, sync: bool) -> None:
    with suppress(OSError):  # some writers make files that only their owner may read; some network shares refuse this
        scratch.chmod(0o666 & ~_umask())
    if sync:
        _sync(scratch)
    os.replace(scratch, path)
    if sync:
        with suppress(OSError):  # not every system can do this for a folder
            _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # a file system that has no such thing
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sweep(folder: Path, is_stale: Callable[[int, str | None], bool]) -> None:
    """Remove what killed processes left half written."""
    for left in folder.iterdir():
        found = _SCRATCH.fullmatch(left.name)
        if found and is_stale(int(found["pid"]), found["host"]):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there a signal of 0 ends the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


# --- reading --------------------------------------------------------------------------------------------------------


def exists(path: str | Path) -> bool:
    """Whether there is anything; an `InputError` if the system does not say (a name too long, a locked folder)."""
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def check_file(path: str | Path, what: str, most: int | None = None) -> Path:
    """The path, if a regular file of at most `most` bytes is there; what pipes, devices and folders are is said.

    Raises:
        InputError: nothing there, or nothing that may be read.
        DamagedFile: no regular file, or one that is larger than what it should be.
    """
    path = Path(path)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"no {what} at {path}") from error
    except (OSError, ValueError) as error:  # a name that is too long, a locked folder, a null in the name
        raise InputError(f"cannot read {path}: {error}") from error
    if stat.S_ISDIR(found.st_mode):
        raise DamagedFile(f"no {what} at {path}: that is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise DamagedFile(f"no {what} at {path}: that is a pipe or a device, no regular file")
    if most is not None and found.st_size > most:
        raise DamagedFile(f"{path} has {found.st_size} bytes, too many for a {what}")
    return path


def read_text(path: str | Path, what: str = "text file", most: int = MOST_TEXT) -> str:
    """The text of a UTF-8 file, without a byte-order mark."""
    try:
        return check_file(path, what, most).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedFile(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def read_json(path: str | Path, what: str = "JSON file") -> dict[str, Any]:
    """The object that a JSON file holds; a `DamagedFile` names the file if it holds anything else."""
    return parse_json_object(read_text(path, what), str(path), what)


def parse_json(text: str, where: str) -> object:
    """JSON of finite numbers; a `DamagedFile` names `where` it came from."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number that JSON knows")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{where} is damaged, no JSON ({error}); save or copy it again") from error


def parse_json_object(text: str, where: str, what: str = "JSON object") -> dict[str, Any]:
    """The same for an object, `{...}`."""
    values = parse_json(text, where)
    if not isinstance(values, dict):
        raise DamagedFile(f"{where} is no {what}: it must hold one object, {{...}}, not {type(values).__name__}")
    return values


# --- one process at a time ------------------------------------------------------------------------------------------

_held: dict[Path, list[int]] = {}  # folder -> [process, thread, how often]
_guard = threading.Lock()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Have a folder to oneself: no other process, and no other thread, gets it meanwhile.

    The system keeps the lock and takes it away from a process that dies, so that no run is locked out for good.

    Raises:
        InputError: another process or thread has it; says which.
    """
    key, owner = Path(folder).resolve(), [os.getpid(), threading.get_ident()]
    with _guard:
        held = _held.get(key)
        if held is not None and held[0] == owner[0]:
            if held[1] != owner[1]:
                raise InputError(f"{folder} is in use by another thread of this process; give another output folder")
            held[2] += 1
        else:
            held = None
            handle = _lock(Path(folder))
            _held[key] = [*owner, 1]
    try:
        yield
    finally:
        with _guard:
            _held[key][2] -= 1
            if not _held[key][2]:
                del _held[key]
                with suppress(OSError):
                    (Path(folder) / LOCK).unlink()  # while it is still locked: who opened it looks again
                os.close(handle)


def _lock(folder: Path) -> int:
    """The locked file's handle. A file that names its process and yet can be locked is a dead process's."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            _lock_handle(handle, folder)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    break
            os.close(handle)  # another process let go of the folder, and of this file, in between
        if left := os.read(handle, 200).decode(errors="replace"):
            logger.warning("%s: taken over from %s, which ended without letting go", folder, left)
        os.ftruncate(handle, 0)
        me = f"process {os.getpid()} on {socket.gethostname()} (since {time.strftime('%Y-%m-%d %H:%M:%S')})"
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, me.encode())
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error}; choose another output folder") from error
    # nobody else writes here: what is half written was left
    _sweep(folder, lambda pid, host: host is None or (host == _HOST and (pid == os.getpid() or not _alive(pid))))
    return handle


def _lock_handle(handle: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by worker processes, as flock's would be
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning("%s cannot be locked (%s): see that no other run writes into it", folder, error)
            return
        who = os.read(handle, 200).decode(errors="replace") or "another process"
        os.close(handle)
        raise InputError(
            f"{folder} is in use by {who}; wait for it or stop it, or give another output folder"
        ) from error
