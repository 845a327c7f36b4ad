"""Archives from the web and what is in them: downloads that go on where they stopped, and extraction that cannot
leave its folder."""

import hashlib
import http.client
import os
import re
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from cascadeclip.data.names import inside, place_of
from cascadeclip.errors import InputError
from cascadeclip.files import check_file, exists, is_file, open_file, replace_file, size_of

CHUNK = 1 << 20
MOST_MEMBERS = 500_000
MOST_HEADER = 1 << 20  # bytes of what a tar file says of one member, which are read at once
MOST_RATIO, LEAST_ROOM = 20, 64 << 20  # what an archive may unpack to: times its size, and bytes in any case
TIMEOUT = 60  # seconds without a byte
# What the readers of archives raise on damaged ones; RuntimeError is zipfile's word for "encrypted".
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, RuntimeError)


def digest(path: Path, algorithm: str = "md5") -> str:
    """Checksum of a file as hexadecimal digits; `algorithm` as hashlib has it."""
    with open_file(path, "file") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def download(url: str, target: str | Path, *, md5: str | None = None) -> Path:
    """Fetch `url` into the file `target`, unless it is there; returns its path.

    What has arrived lies in `<target>.part`, where the next call goes on if the server lets it.

    Raises:
        InputError: no network, an error of the server, a connection that ended early, or a wrong checksum.
    """
    target = Path(target)
    part = target.with_name(f"{target.name}.part")
    for path in (target, part):
        if exists(path):
            check_file(path, "downloaded file")
    if is_file(target):
        _check(target, md5, url)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part)
        _check(part, md5, url)
        os.replace(part, target)
    except OSError as error:
        raise InputError(f"cannot write {part}: {error}; choose a folder you may write to, with enough room") from error
    return target


def _check(path: Path, md5: str | None, url: str) -> None:
    if md5 is not None and (found := digest(path)) != md5:
        raise InputError(
            f"{path} has the MD5 checksum {found} instead of {md5}: delete it to download {url} again, or give a good "
            "copy with --archive"
        )


def _receive(url: str, part: Path) -> None:
    """Bring `part` to its full length."""
    start = _size(part)
    response = _open_url(url, start)
    with response:
        said = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
        if response.status == 416 and said and int(said[2]) == start:
            return  # it was whole already
        if response.status == 416 or (response.status == 206 and not (said and said[1] == str(start))):
            part.unlink()  # what lies here is no beginning of what the server has
            return _receive(url, part)
        start = start if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isascii() and length.isdecimal() else None
        bar = tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response, url):
                file.write(chunk)
                bar.update(len(chunk))
    size = _size(part)
    if total is not None and size != total:
        raise InputError(f"{url}: the connection ended after {size} of {total} bytes; run this again, and it goes on")


def _size(part: Path) -> int:
    return size_of(part, "part of a download") if exists(part) else 0


def _open_url(url: str, start: int) -> http.client.HTTPResponse | urllib.error.HTTPError:
    """The server's answer from byte `start` on; status 416 is an answer too, it means that there is no such byte."""
    headers = {"User-Agent": "cascadeclip", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            return error
        raise InputError(
            f"{url}: the server says {error.code} {error.reason}; find the file elsewhere and give it with --archive"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(
            f"cannot reach {url}: {getattr(error, 'reason', error)}; check the network, or download it on another "
            "machine and give it with --archive"
        ) from error


def _chunks(response: IO[bytes], url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{url}: the connection broke ({error!r}); run this again, and it goes on") from error
        if not chunk:
            return
        yield chunk


# --- archives -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One entry of an archive that is not a folder.

    Attributes:
        name: its path inside.
        is_file: False for links, devices and the like.
        size: bytes that it says it unpacks to.
        open: gives its bytes; for a tar file only until the next member is asked for.
    """

    name: str
    is_file: bool
    size: int
    open: Callable[[], IO[bytes]]


def members(archive: str | Path) -> Iterator[Member]:
    """What is in a tar file (plain or compressed) or a zip file, in its order.

    Raises:
        InputError: no such file, neither tar nor zip, a damaged one, or one of more members than any data set has, or
            that say they unpack to far more than what data sets do.
    """
    archive = Path(archive)
    open_file(archive, "archive").close()
    try:
        room = _Room(archive)
        found = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
        for number, member in enumerate(found, start=1):
            if number > MOST_MEMBERS:
                raise InputError(f"{archive} holds more than {MOST_MEMBERS:,} files: do not trust it")
            room.take(member.size)  # also what nobody wants is unpacked, to get past it
            yield member
    except InputError:
        raise
    except DAMAGED as error:
        raise _damaged(archive, error) from error


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was packed on Windows
            if not info.is_dir():
                yield Member(info.filename, kind in (0, stat.S_IFREG), info.file_size, partial(file.open, info))


class _BoundedInfo(tarfile.TarInfo):
    """A member's header, unless the standard library would go back and read it again for ever, or read a long name or
    other extra header of gigabytes at once."""

    _EXTRA = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
              tarfile.SOLARIS_XHDTYPE)  # fmt: skip

    def _proc_member(self, file: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in self._EXTRA and self.size > MOST_HEADER):
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(file)  # type: ignore[misc]  # the method that reads what follows a header


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, tarinfo=_BoundedInfo) as file:
        yield from _tar_members_of(file)
        # The loop ends quietly at a header that is cut off or garbled; a whole archive ends in blocks of zeros.
        ended = file.fileobj.tell() >= file.offset + tarfile.BLOCKSIZE
        while ended and (rest := file.fileobj.read(CHUNK)):
            ended = not any(rest)
        if not ended:
            raise tarfile.ReadError("unexpected end of data")


def _tar_members_of(file: tarfile.TarFile) -> Iterator[Member]:
    while (info := file.next()) is not None:
        file.members.clear()  # type: ignore[attr-defined]  # else all that went by would be kept in memory
        if not info.isdir():
            yield Member(info.name, info.isreg(), info.size, partial(_bytes_of, file, info))


def _bytes_of(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(info)
    if content is None:
        raise tarfile.ReadError(f"{info.name} is no file")
    return content


def _damaged(archive: Path, error: Exception) -> InputError:
    return InputError(f"{archive} is a damaged archive, or none ({error}): delete it and get it again")


def extract(archive: str | Path, target: str | Path, wanted: Callable[[str], str | None] | None = None) -> int:
    """Write files of a tar or zip archive under `target`, each in one step; returns how many.

    A file that is there already is left as it is, so that a stopped extraction goes on. Links that the user made
    inside `target` are followed; links inside the archive are refused.

    Args:
        wanted: from a member's name to its path under `target`, or None to leave it out; by default all are taken.

    Raises:
        InputError: a damaged archive, a member that is no plain file, would lie outside `target` or in the place of
            another one, or an archive that unpacks to far more than what data sets do.
    """
    archive, target, written = Path(archive), Path(target), 0
    room, places = _Room(archive), _Places(archive)
    with tqdm(desc=f"extracting {archive.name}", unit=" files", disable=None) as bar:
        for member in members(archive):
            inside(member.name, archive)
            place = wanted(member.name) if wanted else member.name
            if place is None:
                continue
            if not member.is_file:
                raise InputError(f"{archive} holds {member.name!r}, a link or device: nothing of it is extracted")
            inside(place, archive)
            places.take(place)
            bar.update()
            if not is_file(target / place):
                # without waiting for the disk, ten thousands of times: `verify` finds what a power cut may leave
                replace_file(target / place, partial(_copy, member, room), sync=False)
                written += 1
    return written


class _Places:
    """Where the files of an archive are put: each at a place of its own, and none in the place of a folder."""

    def __init__(self, archive: Path):
        self.archive = archive
        self.files, self.folders = set[str](), set[str]()

    def take(self, place: str) -> None:
        """Raise an `InputError` if another member is, or needs, what is at that place."""
        own = place_of(place)
        if own in self.files:
            raise InputError(f"{self.archive} holds {place!r:.90} twice, perhaps in other capitals: do not trust it")
        above = {str(folder) for folder in PurePosixPath(own).parents}
        if own in self.folders or above & self.files:
            raise InputError(f"{self.archive} holds {place!r:.90} as a file and as a folder: do not trust it")
        self.files.add(own)
        self.folders |= above


class _Room:
    """Bytes that an archive may still unpack to: pictures and label maps are compressed already."""

    def __init__(self, archive: Path):
        self.archive = archive
        self.most = self.left = max(LEAST_ROOM, MOST_RATIO * size_of(archive, "archive"))

    def take(self, size: int) -> None:
        """Raise an `InputError` if there are not so many."""
        if not 0 <= size <= self.left:
            raise InputError(
                f"{self.archive} unpacks to more than {self.most:,} bytes, {MOST_RATIO} times its size: do not trust it"
            )
        self.left -= size


def _copy(member: Member, room: _Room, scratch: Path) -> None:
    if member.size > room.left:
        room.take(member.size)  # says no before anything is written
    with scratch.open("wb") as file:
        for chunk in _contents(member, room.archive):
            room.take(len(chunk))  # what a member says of itself need not be true
            file.write(chunk)


def _contents(member: Member, archive: Path) -> Iterator[bytes]:
    try:
        with member.open() as source:
            while chunk := source.read(CHUNK):
                yield chunk
    except DAMAGED as error:
        raise _damaged(archive, error) from error
