"""One process at a time works in a folder."""

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cascadeclip.errors import InputError
from cascadeclip.files import check_name, sweep

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # how its absence is told

logger = logging.getLogger(__name__)

LOCK = ".lock"
_held: dict[str, list[int]] = {}  # folder -> [process, thread, how often]
_guard = threading.Lock()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Have a folder to oneself: no other process, and no other thread, gets it meanwhile.

    The system keeps the lock and takes it away from a process that dies, so that no run is locked out for good.

    Raises:
        InputError: another process or thread has it; says which.
    """
    check_name(folder)
    key, owner = os.path.realpath(folder), [os.getpid(), threading.get_ident()]
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
    sweep(folder, alone=True)
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
