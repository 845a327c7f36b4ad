"""Windows and macOS, as far as they can be imitated here: what only POSIX has stands in guarded places."""

import ast
import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascadeclip import files
from cascadeclip.data.own import OwnData
from cascadeclip.errors import InputError
from cascadeclip.presets import get_preset, own_preset

ROOT = Path(__file__).resolve().parents[1]

POSIX_MODULES = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {
        "fork", "forkpty", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "kill", "killpg", "link", "mkfifo",
        "nice", "posix_fadvise", "register_at_fork", "sched_getaffinity", "setsid", "setuid", "statvfs", "symlink",
        "sysconf", "uname", "wait", "waitpid", "chown", "lchown", "mknod", "pread", "pwrite", "openpty",
    },
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause", "pthread_kill",
        "setitimer", "sigwait",
    },
    "time": {"tzset", "clock_gettime", "pthread_getcpuclockid"},
}  # fmt: skip
POSIX_METHODS = {"symlink_to", "hardlink_to", "owner", "group", "is_mount"}  # of paths
POSIX_PATHS = ("/proc", "/dev/", "/tmp", "/bin/", "/usr/", "/etc/", "/sys/")

GUARDED = {  # each with what stands in its way elsewhere
    ("cascadeclip/locks.py", "fcntl"),  # except ImportError; `fcntl is None` is asked before every use
    ("cascadeclip/files.py", "os.kill"),  # after `os.name == "nt"`
    ("cascadeclip/processes.py", "os.register_at_fork"),  # hasattr
    ("cascadeclip/processes.py", "os.sysconf"),  # except AttributeError
    ("cascadeclip/processes.py", "/proc/cpuinfo"),  # exists()
    ("cascadeclip/experiments/bench.py", "/proc/self/status"),  # exists()
    ("cascadeclip/tensors.py", "/dev/fd/"),  # of names that are not UTF-8, which only Unix has
    *(("cascadeclip/exercises/kernel.py", what) for what in ("os.killpg", "os.setsid", "fork", "signal.SIGKILL")),
    # after `_can_fork`
}


def posix_only(source: str) -> set[str]:
    """What in a source only POSIX systems have."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = {alias.name for alias in node.names}
            found |= {name for name in ({module} if module else names) if name in POSIX_MODULES}
            found |= {f"{module}.{name}" for name in names & POSIX_NAMES.get(module, set())}
        elif isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", None)
            if node.attr in POSIX_NAMES.get(owner, ()):
                found.add(f"{owner}.{node.attr}")
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
            if name in POSIX_METHODS:
                found.add(name)
            if name in ("get_context", "set_start_method") and "fork" in texts:
                found.add("fork")
            if any(one.arg == "preexec_fn" for one in node.keywords):
                found.add("preexec_fn")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(POSIX_PATHS):
            found.add(node.value)
    return found


def test_what_only_posix_has_stands_in_guarded_places():
    paths = [*ROOT.glob("cascadeclip/**/*.py"), *ROOT.glob("data_scripts/*.py")]
    found = {
        (path.relative_to(ROOT).as_posix(), what)
        for path in paths
        for what in posix_only(path.read_text(encoding="utf-8"))
    }
    assert found == GUARDED


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import fcntl", "fcntl"),
        ("from resource import getrusage", "resource"),
        ("from os import fork", "os.fork"),
        ("os.symlink(a, b)", "os.symlink"),
        ("signal.signal(signal.SIGALRM, stop)", "signal.SIGALRM"),
        ("get_context('fork')", "fork"),
        ("open('/proc/meminfo')", "/proc/meminfo"),
        ("subprocess.run(a, preexec_fn=b)", "preexec_fn"),
        ("path.symlink_to(other)", "symlink_to"),
    ],
)
def test_the_search_finds(line, found):
    assert posix_only(line) == {found}


ELSEWHERE = """
import os, signal, sys
import torch, torchvision, open_clip, accelerate, matplotlib.figure, huggingface_hub, safetensors.torch, scipy.ndimage

import platform
platform.platform(), platform.processor()  # the standard library asks POSIX's commands, and keeps what they said

for name in {modules!r}:
    sys.modules[name] = None
for module, names in {names!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
import pathlib
pathlib.Path.symlink_to = None

import cascadeclip
from cascadeclip import files, locks
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.cli.info import info

assert locks.fcntl is None
with locks.locked("out"):
    files.write_json("out/some.json", dict(a=1))
assert files.read_json("out/some.json") == dict(a=1)
result = cascadeclip.load("mini").segment(EmojiScenes.split("test")[0].image, ["cat", "grass"])
result.plot().savefig("out/result.png")
assert dict(info())["cpu"].endswith("fp32") or "bf16" in dict(info())["cpu"]
print("went through")
"""


@pytest.mark.slow
def test_without_what_only_posix_has_pictures_are_segmented_and_files_written(tmp_path):
    code = ELSEWHERE.format(
        modules=POSIX_MODULES, names={name: POSIX_NAMES[name] - {"kill"} for name in ("os", "signal")}
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "went through" in done.stdout


def test_windows_is_never_asked_by_signal_whether_a_process_lives(monkeypatch):
    monkeypatch.setattr(files.os, "name", "nt")
    monkeypatch.setattr(files.os, "kill", lambda *_: pytest.fail("that ends the process"))
    assert files._alive(1)


def test_a_file_that_another_program_holds_open_is_told_of(tmp_path, monkeypatch):
    """On Windows, an open file cannot be replaced."""

    def refuse(*_):
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    (tmp_path / "some.txt").write_text("before")
    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(InputError, match="being used by another process; choose a folder"):
        files.write_text(tmp_path / "some.txt", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["some.txt"]
    assert (tmp_path / "some.txt").read_text() == "before"


# --- start methods ----------------------------------------------------------------------------------------------------


def test_data_sets_can_be_sent_to_processes_that_start_anew(tmp_path):
    """`spawn` and `forkserver` pickle what a worker reads; `fork` does not."""
    draw(tmp_path)
    for preset in (get_preset("mini"), own_preset(tmp_path / "a", tmp_path / "b", ["cat", "dog"], ["dog"])):
        data = preset.training_data(0)
        again, collate = pickle.loads(pickle.dumps((data, preset.collate)))
        assert collate([again[0]])[1].shape == preset.collate([data[0]])[1].shape


# --- texts ------------------------------------------------------------------------------------------------------------


def draw(folder: Path, *, suffix: str = "jpg", count: int = 4) -> None:
    for number in range(count):
        mask = np.full((32, 32), number % 2, dtype=np.uint8)
        for place, content, end in (("a", np.stack([mask * 99] * 3, -1), suffix), ("b", mask, "png")):
            (folder / place).mkdir(exist_ok=True)
            Image.fromarray(content).save(folder / place / f"{number}.{end}", "PNG" if end == "png" else "JPEG")


def test_a_console_that_cannot_write_a_letter_writes_its_number(tmp_path):
    """A Western European Windows prints in cp1252, which has no Chinese."""
    folder = tmp_path / "猫"
    folder.mkdir()
    draw(folder)
    command = [sys.executable, "-m", "cascadeclip", "data", "init", "猫"]
    env = {**__import__("os").environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode("cp1252")
    assert rb"wrote \u732b" in done.stdout
    assert (folder / "own.json").exists()


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_lists_may_have_any_ends_of_lines(tmp_path, end):
    draw(tmp_path)
    rows = end.join(["picture,mask", *(f"{number}.jpg,{number}.png" for number in range(4)), ""])
    (tmp_path / "pairs.csv").write_bytes(rows.encode())
    own = OwnData(images=tmp_path / "a", masks=tmp_path / "b", pairs=tmp_path / "pairs.csv", names=["cat", "dog"])
    found = [len(own.find(split)[0].pairs) for split in ("train", "val")]
    assert sum(found) == 4


def test_json_may_have_crlf_and_a_byte_order_mark(tmp_path):
    (tmp_path / "some.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"a": 1}, indent=1).replace("\n", "\r\n").encode()
    )
    assert files.read_json(tmp_path / "some.json") == {"a": 1}


def test_suffixes_may_be_capitals(tmp_path):
    draw(tmp_path, suffix="JPG")
    own = OwnData(images=tmp_path / "a", masks=tmp_path / "b", names=["cat", "dog"])
    assert sum(len(own.find(split)[0].pairs) for split in ("train", "val")) == 4


def test_links_in_archives_are_refused_not_made(tmp_path, monkeypatch):
    """Without the right to make links, as on Windows, nothing else happens: none is ever made."""
    from cascadeclip.data.prepare import fetch

    monkeypatch.setattr(Path, "symlink_to", lambda *_: pytest.fail("a link"))
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(link, "elsewhere.png")
    (tmp_path / "some.zip").write_bytes(content.getvalue())
    with pytest.raises(InputError, match="a link or device"):
        fetch.extract(tmp_path / "some.zip", tmp_path / "out", lambda name: name)
