"""Downloads from a server on this machine, and archives that are good, damaged or malicious."""

import gzip
import hashlib
import io
import re
import socket
import stat
import tarfile
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cascadeclip.data.prepare import fetch
from cascadeclip.data.prepare.fetch import download, extract, members
from cascadeclip.errors import InputError
from tests.support.archives import write_tar, write_zip

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` at every path but /missing; keeps the Range header of every request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.honours_ranges, self.sends_only = CONTENT, [], True, None
        self.url = f"http://127.0.0.1:{self.server_port}/data.tar"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, start = self.server, 0
        server.ranges.append(self.headers["Range"])
        if self.path == "/missing":
            return self.send_error(404)
        if server.honours_ranges and self.headers["Range"]:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.sends_only])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server, tmp_path):
    target = tmp_path / "new" / "data.tar"
    assert download(server.url, target, md5=MD5) == target
    assert target.read_bytes() == CONTENT and [path.name for path in target.parent.iterdir()] == ["data.tar"]
    download(server.url, target, md5=MD5)
    assert server.ranges == [None]


def test_a_broken_connection_is_named_and_the_next_call_goes_on(server, tmp_path):
    server.sends_only = 1_000_000
    with pytest.raises(InputError, match="ended after 1000000 of 3000000 bytes; run this again"):
        download(server.url, tmp_path / "data.tar", md5=MD5)
    assert not (tmp_path / "data.tar").exists()
    server.sends_only = None
    assert download(server.url, tmp_path / "data.tar", md5=MD5).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-"]
    assert not (tmp_path / "data.tar.part").exists()


def test_it_starts_over_where_the_server_knows_no_ranges(server, tmp_path):
    server.honours_ranges = False
    (tmp_path / "data.tar.part").write_bytes(CONTENT[:1_234_567])
    assert download(server.url, tmp_path / "data.tar", md5=MD5).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1234567-"]


@pytest.mark.parametrize(
    ("part", "requests"),
    [(CONTENT, ["bytes=3000000-"]), (CONTENT + b"more", ["bytes=3000004-", None])],
    ids=["whole already", "longer than the file"],
)
def test_a_part_that_the_server_has_nothing_to_add_to(server, tmp_path, part, requests):
    (tmp_path / "data.tar.part").write_bytes(part)
    assert download(server.url, tmp_path / "data.tar", md5=MD5).read_bytes() == CONTENT
    assert server.ranges == requests


def test_a_wrong_checksum_never_gets_the_final_name(server, tmp_path):
    with pytest.raises(InputError, match=rf"data\.tar\.part has .* {MD5} instead of {'0' * 32}: delete it .*--archive"):
        download(server.url, tmp_path / "data.tar", md5="0" * 32)
    assert not (tmp_path / "data.tar").exists()


def test_a_finished_file_with_a_wrong_checksum_is_named_and_kept(server, tmp_path):
    (tmp_path / "data.tar").write_bytes(b"other")
    with pytest.raises(InputError, match=r"data\.tar has the MD5 checksum .* delete it"):
        download(server.url, tmp_path / "data.tar", md5=MD5)
    assert (tmp_path / "data.tar").read_bytes() == b"other" and not server.ranges


def test_errors_of_the_server_and_of_the_network_are_told_apart(server, tmp_path):
    with pytest.raises(InputError, match=r"/missing: the server says 404 Not Found; .*--archive"):
        download(server.url.replace("data.tar", "missing"), tmp_path / "data.tar")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening
        with pytest.raises(InputError, match=r"cannot reach http://127\.0\.0\.1.*refused.*--archive"):
            download(f"http://127.0.0.1:{unused.getsockname()[1]}/x", tmp_path / "data.tar")
    with pytest.raises(InputError, match=r"cannot reach nonsense"):
        download("nonsense", tmp_path / "data.tar")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file.data\.tar\.part"):
        download(server.url, tmp_path / "file" / "data.tar")


# --- archives -------------------------------------------------------------------------------------------------------

FILES = {f"top/part{number}/{number:03}.bin": CONTENT[number : 3000 + number * 7000] for number in range(12)}
KINDS = {"plain.tar": write_tar, "packed.tar.gz": write_tar, "packed.tgz": write_tar, "packed.zip": write_zip}


def files_under(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", KINDS)
def test_everything_is_extracted_and_what_is_there_stays(tmp_path, name):
    archive, target = KINDS[name](tmp_path / name, FILES), tmp_path / "out"
    (target / "top" / "part3").mkdir(parents=True)
    (target / "top" / "part3" / "003.bin").write_bytes(b"mine")
    assert extract(archive, target) == len(FILES) - 1
    assert files_under(target) == FILES | {"top/part3/003.bin": b"mine"}
    assert extract(archive, target) == 0


@pytest.mark.parametrize("name", KINDS)
def test_a_choice_is_extracted_to_other_places(tmp_path, name):
    archive = KINDS[name](tmp_path / name, FILES)
    odd = {path: path.removeprefix("top/") for path in FILES if int(path[-5]) % 2}
    assert extract(archive, tmp_path / "out", odd.get) == len(odd)
    assert files_under(tmp_path / "out") == {place: FILES[path] for path, place in odd.items()}


OUTSIDE = ["../evil", "a/../../evil", "/tmp_evil", "a\\..\\..\\evil", "C:\\evil", "C:evil", "\\evil"]


@pytest.mark.parametrize("name", ["evil.tar", "evil.tgz", "evil.zip"])
@pytest.mark.parametrize("member", OUTSIDE)
def test_members_outside_the_target_are_refused(tmp_path, name, member):
    write = write_zip if name.endswith("zip") else write_tar
    archive = write(tmp_path / "in" / name, {"good": b"1", member: b"2", "late": b"3"})
    with pytest.raises(InputError, match=rf"holds {re.escape(repr(member))}, which would lie outside"):
        extract(archive, tmp_path / "out" / "deep", lambda name: name if name != member else None)
    with pytest.raises(InputError, match="outside"):
        extract(archive, tmp_path / "out" / "deep")
    assert set(files_under(tmp_path)) == {f"in/{name}", "out/deep/good"}


NO_NAMES = ["x" * 300, "a/" * 600 + "b", "new\nline", "bell\a"]


@pytest.mark.parametrize("name", ["evil.tar", "evil.zip"])
@pytest.mark.parametrize("member", NO_NAMES)
def test_names_that_no_file_system_takes_are_refused(tmp_path, name, member):
    write = write_zip if name.endswith("zip") else write_tar
    archive = write(tmp_path / "in" / name, {member: b"2"})
    with pytest.raises(InputError, match="do not trust it") as error:
        extract(archive, tmp_path / "out")
    assert len(str(error.value)) < 400 and not (tmp_path / "out").exists()


def test_a_zip_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "LEAST_ROOM", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good", b"1")
        archive.writestr("zeros", bytes(4 << 20))
    with pytest.raises(InputError, match=r"bomb\.zip unpacks to more than 1,048,576 bytes"):
        extract(tmp_path / "bomb.zip", tmp_path / "out")
    assert set(files_under(tmp_path / "out")) == {"good"}


def test_what_is_not_wanted_counts_too(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "LEAST_ROOM", 1 << 20)
    with tarfile.open(tmp_path / "bomb.tar.bz2", "w:bz2") as archive:
        header = tarfile.TarInfo("zeros")
        header.size = 8 << 20
        archive.addfile(header, io.BytesIO(bytes(8 << 20)))
    with pytest.raises(InputError, match="do not trust it"):
        extract(tmp_path / "bomb.tar.bz2", tmp_path / "out", lambda name: None)


@pytest.mark.parametrize("size", [-1024, 2 << 20])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_tar_that_goes_back_or_is_mostly_header_is_refused(tmp_path, monkeypatch, kind, size):
    """With a negative size the standard library reads the same header for ever."""
    monkeypatch.setattr(fetch, "LEAST_ROOM", 1 << 20)
    header = tarfile.TarInfo("evil")
    header.size, header.type = size, kind
    (tmp_path / "evil.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(InputError, match=r"evil\.tar"):
        extract(tmp_path / "evil.tar", tmp_path / "out")


def test_many_small_files_count_together(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "LEAST_ROOM", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(str(number), bytes(1 << 18))
    with pytest.raises(InputError, match="do not trust it"):
        extract(tmp_path / "bomb.zip", tmp_path / "out")
    assert len(files_under(tmp_path / "out")) == 4


def test_a_sparse_member_is_refused_before_it_is_written(tmp_path):
    header = tarfile.TarInfo("hole")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT)[:512])
    block[386:410] = b"%011o\0%011o\0" % (1 << 31, 0)
    block[483:495] = b"%011o\0" % (1 << 31)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "hole.tar").write_bytes(bytes(block) + bytes(10240 - 512))
    with pytest.raises(InputError, match=r"hole\.tar unpacks to more than"):
        extract(tmp_path / "hole.tar", tmp_path / "out")
    assert not files_under(tmp_path / "out")


def test_an_archive_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MOST_MEMBERS", 10)
    archive = write_tar(tmp_path / "many.tar", {str(n): b"" for n in range(11)})
    with pytest.raises(InputError, match="holds more than 10 files"):
        extract(archive, tmp_path / "out")


def test_members_that_went_by_are_not_kept(tmp_path):
    archive = write_tar(tmp_path / "some.tar", {str(n): b"x" for n in range(5)})
    with tarfile.open(archive) as file:
        kept = [len(file.members) for _ in fetch._tar_members_of(file)]
    assert len(kept) == 5 and max(kept) <= 1


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    entry = tarfile.TarInfo("trap")
    entry.type, entry.linkname = kind, "/etc"
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(entry)
        inside = tarfile.TarInfo("trap/passwd")
        inside.size = 1
        archive.addfile(inside, io.BytesIO(b"x"))
    with pytest.raises(InputError, match=r"evil\.tar holds 'trap', a link or device"):
        extract(tmp_path / "evil.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["evil.tar", "evil.zip"])
@pytest.mark.parametrize("others", [("a/1.png", "a/1.png"), ("a/1.png", "A/1.PNG"), ("a/1.png", "a/./1.png"),
    ("a/1.png", "a./1.png "), ("a/\u00e9.png", "a/e\u0301.png"),
])  # fmt: skip
def test_two_members_in_one_place_are_refused(tmp_path, name, others):
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive, warnings.catch_warnings(action="ignore"):
            for number, member in enumerate(others):
                archive.writestr(member, str(number))
    else:
        with tarfile.open(tmp_path / name, "w") as archive:
            for number, member in enumerate(others):
                header = tarfile.TarInfo(member)
                header.size = 1
                archive.addfile(header, io.BytesIO(str(number).encode()))
    with pytest.raises(InputError, match=rf"{name} holds .* twice, perhaps in other capitals: do not trust it"):
        extract(tmp_path / name, tmp_path / "out")
    assert files_under(tmp_path / "out") == {others[0]: b"0"}


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize("members_", [("a", "a/b"), ("a/b", "A"), ("a/b/c", "a/b"), ("a.", "a/b/c")])
def test_a_member_is_no_file_and_folder_at_once(tmp_path, write, members_):
    archive = write(tmp_path / "evil", {name: b"0" for name in members_})
    with pytest.raises(InputError, match=rf"evil holds '{members_[1]}' as a file and as a folder: do not trust it$"):
        extract(archive, tmp_path / "out")


def test_links_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        entry = zipfile.ZipInfo("trap")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc")
    with pytest.raises(InputError, match=r"evil\.zip holds 'trap', a link or device"):
        extract(tmp_path / "evil.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["plain.tar", "packed.tgz", "packed.zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_an_archive_cut_short_is_named_and_leaves_whole_files_only(tmp_path, name, share):
    archive = KINDS[name](tmp_path / name, FILES)
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    with pytest.raises(InputError, match=rf"{name} is a damaged archive, or none"):
        extract(archive, tmp_path / "out")
    left = files_under(tmp_path / "out")
    assert left.items() <= FILES.items()
    assert name == "packed.zip" or share == 0 or left


def test_a_tar_cut_between_two_members_is_damaged(tmp_path):
    archive = write_tar(tmp_path / "plain.tar", FILES)
    with tarfile.open(archive) as file:
        cut = file.getmembers()[5].offset
    whole = archive.read_bytes()
    for end in (cut, cut + 100):
        archive.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"plain\.tar is a damaged archive"):
            list(members(archive))
    archive.write_bytes(whole[:cut] + b"\xff" * 512 + whole[cut + 512 :])  # a header that is garbled
    with pytest.raises(InputError, match=r"plain\.tar is a damaged archive"):
        list(members(archive))


@pytest.mark.parametrize("name", ["packed.tgz", "packed.zip"])
def test_a_flipped_bit_is_found(tmp_path, name):
    archive = KINDS[name](tmp_path / name, {"noise": CONTENT[:100_000], "more": CONTENT[:1000]})
    content = bytearray(archive.read_bytes())
    content[50_000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(InputError, match="damaged archive"):
        extract(archive, tmp_path / "out")


def test_what_is_no_archive(tmp_path):
    with pytest.raises(InputError, match=r"no archive at .*missing\.tar"):
        extract(tmp_path / "missing.tar", tmp_path)
    (tmp_path / "page.tgz").write_bytes(gzip.compress(b"<html>not found</html>"))
    with pytest.raises(InputError, match=r"page\.tgz is a damaged archive, or none"):
        extract(tmp_path / "page.tgz", tmp_path / "out")


def test_an_encrypted_zip_is_named(tmp_path):
    archive = write_zip(tmp_path / "secret.zip", {"a": b"1"})
    content = bytearray(archive.read_bytes())
    content[content.find(b"PK\x03\x04") + 6] |= 1  # the flag in the file's own header and in the list of contents
    content[content.find(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        extract(archive, tmp_path / "out")


def test_a_link_that_the_user_made_in_the_target_is_followed(tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "top").symlink_to(tmp_path / "big disk")
    extract(write_zip(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert files_under(tmp_path / "big disk") == {path.removeprefix("top/"): data for path, data in FILES.items()}
