"""The door to files: what is written survives, what is read is what it should be, one process at a time."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascadeclip import files, locks
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.files import (
    check_writable,
    parse_json,
    read_json,
    read_text,
    replace_file,
    replace_together,
    write_json,
    write_text,
)
from cascadeclip.locks import locked

# --- writing --------------------------------------------------------------------------------------------------------


def refuse(*args, **kwargs):
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_that_refuses_chmod_is_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "chmod", refuse)
    check_writable(tmp_path)
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


def test_the_check_does_what_saving_does(tmp_path, monkeypatch):
    """Whatever step of saving a file system refuses, the check finds it before a training begins."""
    for step in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, refuse)
            with pytest.raises(InputError, match=r"cannot write into .*Operation not permitted.*another output folder"):
                check_writable(tmp_path)
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_a_files_place_is_told_of_before_there_is_anything_to_write(tmp_path):
    (tmp_path / "model").mkdir()
    check_writable(tmp_path, "log")
    with pytest.raises(InputError, match=r"cannot write .*model: that is a folder; choose another output folder"):
        check_writable(tmp_path, "log", "model")


def test_the_disk_has_a_file_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("replace"), replace(*paths)))
    write_text(tmp_path / "file", "text")
    assert steps == ["sync", "replace", "sync"]


def test_long_names_leave_room_for_the_scratch_file(tmp_path):
    write_text(tmp_path / ("é" * 120), "text")
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / ("é" * 128), "text")


def test_files_that_belong_together_appear_under_their_own_names(tmp_path):
    def write(path):
        path.write_text(f"see {path.name}.data")
        path.with_name(f"{path.name}.data").write_text("numbers")

    replace_together(tmp_path / "model.onnx", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "model.onnx").read_text() == "see model.onnx.data"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".state.pt.{dead.pid}.{files._HOST}.abcdef.tmp"
    alive, elsewhere = tmp_path / f".a.1.{files._HOST}.abcdef.tmp", tmp_path / ".b.99999999.00000000.abcdef.tmp"
    for path in (left, alive, elsewhere):
        path.write_text("half")
    write_text(tmp_path / "file", "text")
    assert not left.exists() and alive.exists() and elsewhere.exists()


def test_threads_that_write_a_folders_first_files_leave_each_other_alone(tmp_path, monkeypatch):
    def slow_sweep(folder, sweep=files.sweep):
        time.sleep(0.2)  # else the other thread is too late
        sweep(folder)

    monkeypatch.setattr(files, "sweep", slow_sweep)

    def write(scratch):
        scratch.write_text("whole")
        time.sleep(0.3)  # the other's sweep comes meanwhile

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(replace_file, tmp_path / name, write) for name in ("one", "two")]:
            done.result()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_processes_that_ask_at_the_same_time_whether_a_folder_can_be_written_leave_each_other_alone(
    tmp_path, monkeypatch
):
    """As those of `accelerate launch` do."""
    together = threading.Barrier(2)

    def slow_replace(path, write, replace=files.replace_file):
        replace(path, write)
        together.wait(10)  # both have written, none has cleaned up

    monkeypatch.setattr(files, "replace_file", slow_replace)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(files.check_writable, tmp_path) for _ in range(2)]:
            done.result()
    assert not list(tmp_path.iterdir())


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), (1.5, {"c": -float("inf")})]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, [1.5, {"c": None}]]}


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_text, read_json])
def test_what_is_no_file_is_said(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name, message in [
        ("none", r"no .* at .*none"),
        ("file/below", r"no .* at .*below"),
        ("", "that is a folder"),
        ("pipe", "that is a pipe or a device"),  # and nobody waits for it
        ("n" * 300, "cannot read .*name too long"),
        ("nu\0ll", "cannot read"),
    ]:
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_a_text_is_utf_8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "list.txt"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("Straße", encoding=encoding)
        assert read_text(path) == "Straße"
    for encoding in ("utf-16", "latin-1"):
        path.write_text("Straße", encoding=encoding)
        with pytest.raises(DamagedFile, match=r"list\.txt is not UTF-8 text .*; save it as UTF-8"):
            read_text(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "list.txt").write_text("12345")
    with pytest.raises(DamagedFile, match="has 5 bytes, too many for a list"):
        read_text(tmp_path / "list.txt", "list", most=4)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": NaN}', '{"a": -Infinity}', "1" * 5000, "[1]", "3", "null"]
)
def test_json_that_is_no_object_of_finite_numbers_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"config\.json"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "b": 2, "b": 2}', '{"a": [{"c": {"b": 1, "b": {}}}]}', '[{"b": 1, "b": 2}]']
)
def test_json_with_a_key_twice_is_refused_and_the_key_named(tmp_path, text):
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"own\.json is damaged, no JSON \(the key 'b' is there twice\)"):
        parse_json(read_text(tmp_path / "own.json"), str(tmp_path / "own.json"))


def test_json_within_a_file_names_the_file():
    assert parse_json("[1, 2.5]", "here") == [1, 2.5]
    with pytest.raises(DamagedFile, match="here is damaged, no JSON"):
        parse_json("[1,", "here")
    for number in ("1e999", "-1e999", "NaN"):
        with pytest.raises(DamagedFile, match=f"{number} is no number that JSON knows"):
            parse_json(f'{{"offset": {number}}}', "here")


# --- one process at a time ------------------------------------------------------------------------------------------

HOLD = (
    "import sys, time\nfrom cascadeclip.locks import locked\n"
    "with locked(sys.argv[1]):\n    print('have it', flush=True)\n    time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "have it\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_and_taken_over_from_a_process_that_died(holder, tmp_path, caplog):
    in_use = rf"in use by process {holder.pid} on .*wait for it or stop it"
    with pytest.raises(InputError, match=in_use), locked(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    (tmp_path / ".state.pt.123.tmp").write_text("half")
    with caplog.at_level(logging.WARNING), locked(tmp_path):
        assert f"taken over from process {holder.pid} on" in caplog.text
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


def test_a_folder_is_had_twice_by_the_same_thread_and_not_by_another(tmp_path, caplog):
    refused = []

    def other():
        try:
            with locked(tmp_path):
                pass
        except InputError as error:
            refused.append(str(error))

    with locked(tmp_path):
        with locked(tmp_path / "." / ".." / tmp_path.name):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        child = os.fork()
        if not child:  # a child is another process, although it has a copy of all that its parent knows
            try:
                with locked(tmp_path):
                    os._exit(1)
            except InputError:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(refused) == 1 and "another thread" in refused[0]
    with locked(tmp_path):
        pass
    assert not caplog.records  # nothing was taken over


def test_a_file_system_without_locks_is_used_with_a_line(tmp_path, monkeypatch, caplog):
    def no_locks(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", no_locks)
    with locked(tmp_path):
        replace_file(tmp_path / "file", lambda scratch: scratch.write_text("text"))
    assert "cannot be locked (" in caplog.text


def test_a_lock_lasts_only_while_it_is_held(tmp_path):
    started = time.monotonic()
    for _ in range(3):
        with locked(tmp_path):
            pass
    assert time.monotonic() - started < 1
