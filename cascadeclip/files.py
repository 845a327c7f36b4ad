"""The one door to files. What is written appears in one step and survives a power cut; what is read is a file of a
bearable size that holds what it should; what the system refuses is an `InputError` that names the path.
"""

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.utf8 import as_utf8

MOST_TEXT = 2**26  # bytes of the longest text that is read
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
    """A text as UTF-8, in one step; see `utf8` for names in it that are none."""
    replace_file(path, lambda scratch: scratch.write_text(as_utf8(text), encoding="utf-8"))


def write_json(path: str | Path, values: dict[str, Any] | list[Any]) -> None:
    """JSON, in one step; it has no NaN and no infinity: they become null."""
    write_text(path, json.dumps(without_nan(values), indent=1, allow_nan=False) + "\n")


def check_writable(folder: str | Path, *names: str) -> None:
    """Make `folder` and do in it what saving does, twice over; an `InputError` if it cannot be done.

    Args:
        names: of files to be written there, which must not be folders.
    """
    for name in names:
        check_no_folder(Path(folder) / name)
    probe = _scratch_name(Path(folder) / "can-be-written")  # of its own: several processes may ask at the same time
    try:
        for _ in range(2):
            replace_file(probe, lambda scratch: scratch.write_bytes(b"yes"))
        probe.unlink(missing_ok=True)
    except (InputError, OSError) as error:
        raise InputError(
            f"cannot write into {folder}: {error.__cause__ or error}; choose another output folder"
        ) from error


def check_apart(outputs: Iterable[str | Path], inputs: Iterable[str | Path | None]) -> None:
    """An `InputError` if one of the outputs is there and is one of the inputs: by a link or in other capitals, too.

    Args:
        inputs: names of nothing that is there are passed over; not looked at if none of the outputs is there.
    """
    there = {(found.st_dev, found.st_ino): path for path in outputs if (found := _found(path)) is not None}
    for path in inputs if there else ():
        output = None
        with suppress(InputError):  # what the system does not show is told of where it is read
            if path is not None and (found := _found(path)) is not None:
                output = there.get((found.st_dev, found.st_ino))
        if output is not None:
            raise InputError(f"cannot write {output}: that is {path}, which is read here; choose another output")


def check_no_folder(path: str | Path) -> None:
    """An `InputError` if a folder lies where a file is going to be written."""
    if is_folder(path):
        raise InputError(f"cannot write {path}: that is a folder; choose another output folder")


def move(path: str | Path, target: str | Path) -> None:
    """Give a file another name, in one step; what had it is gone. An `InputError` if that cannot be done."""
    try:
        Path(path).replace(target)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot move {path} to {target}: {getattr(error, 'strerror', None) or error}") from error


def check_name(path: str | Path) -> None:
    """An `InputError` for a null character, the one that no system has in names."""
    if "\0" in str(path):
        raise InputError(f"cannot write {str(path)!r}: a name holds no null character")


def without_nan(value: object) -> object:
    """The same with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _scratch_name(path: Path) -> Path:
    check_name(path)
    return path.with_name(f".{path.name[:40]}.{os.getpid()}.{_HOST}.{secrets.token_hex(3)}.tmp")  # 255 bytes at most


@contextmanager
def _scratch_for(path: Path) -> Iterator[Path]:
    """A path beside `path` that nobody else uses and that is gone afterwards."""
    scratch = _scratch_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _sweeping:  # another thread's first file of this folder must not be taken for an old one
            if path.parent not in _swept:
                sweep(path.parent)
                _swept.add(path.parent)
        yield scratch
    except (OSError, SafetensorError, UnicodeError) as error:
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


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove what killed processes of this machine left half written.

    Args:
        alone: nobody else writes there, so that a file which does not say whose it is was left, too.
    """
    for left in folder.iterdir():
        if (found := _SCRATCH.fullmatch(left.name)) is None:
            continue
        pid, host = int(found["pid"]), found["host"]
        if (alone and host is None) or (host == _HOST and (pid == os.getpid() or not _alive(pid))):
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
    """Whether there is anything; as `is_file` and `is_folder`, an `InputError` where the system does not say."""
    return _found(path) is not None


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there: no folder, pipe or device."""
    found = _found(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there."""
    found = _found(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _found(path: str | Path) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name that is too long, a locked folder, a link to itself, a null
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: OSError | ValueError) -> InputError:
    """What to say where the system refuses to read."""
    return InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}")


def check_folder(path: str | Path) -> Path:
    """The path, if a folder is there; an `InputError` if not."""
    if not is_folder(path):
        raise InputError(f"no folder {path}" + (": that is a file" if exists(path) else ""))
    return Path(path)


def listed(folder: str | Path) -> list[Path]:
    """What is in a folder, sorted; an `InputError` if that is none, or locked."""
    try:
        return sorted(check_folder(folder).iterdir())
    except OSError as error:
        raise unreadable(folder, error) from error


def check_file(path: str | Path, what: str, most: int | None = None) -> Path:
    """The path, if a regular file of at most `most` bytes is there; what pipes, devices and folders are is said.

    Raises:
        InputError: nothing there, or nothing that may be read.
        DamagedFile: no regular file, or one that is larger than what it should be.
    """
    found = _found(path)
    if found is None:
        raise InputError(f"no {what} at {path}")
    if stat.S_ISDIR(found.st_mode):
        raise DamagedFile(f"no {what} at {path}: that is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise DamagedFile(f"no {what} at {path}: that is a pipe or a device, no regular file")
    if most is not None and found.st_size > most:
        raise DamagedFile(f"{path} has {found.st_size} bytes, too many for a {what}")
    return Path(path)


def size_of(path: str | Path, what: str) -> int:
    """Bytes of a regular file; as `check_file`."""
    return check_file(path, what).stat().st_size


def open_file(path: str | Path, what: str) -> BufferedReader:
    """A regular file's bytes, to be read; as `check_file`."""
    try:
        return check_file(path, what).open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def read_text(path: str | Path, what: str = "text file", most: int = MOST_TEXT) -> str:
    """The text of a UTF-8 file, without a byte-order mark."""
    try:
        return check_file(path, what, most).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedFile(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def read_json(path: str | Path, what: str = "JSON file") -> dict[str, Any]:
    """The object that a JSON file holds; a `DamagedFile` names the file if it holds anything else."""
    return parse_json_object(read_text(path, what), str(path), what)


def parse_json(text: str, where: str) -> object:
    """JSON of finite numbers in which no key stands twice; a `DamagedFile` names `where` it came from."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name:.60} is no number that JSON knows")

    def finite(number: str) -> float:
        if math.isinf(value := float(number)):
            refuse(number)
        return value

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key {twice!r:.60} is there twice")
        return found

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite, object_pairs_hook=once)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(f"{where} is damaged, no JSON ({error}); save or copy it again") from error


def parse_json_object(text: str, where: str, what: str = "JSON object") -> dict[str, Any]:
    """The same for an object, `{...}`."""
    values = parse_json(text, where)
    if not isinstance(values, dict):
        raise DamagedFile(f"{where} is no {what}: it must hold one object, {{...}}, not {type(values).__name__}")
    return values
