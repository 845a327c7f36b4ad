"""Tensors read from files of other people: whole to the last bit, and without running anything."""

import os
import zipfile

import pytest
import torch

from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.tensors import read_pth, read_safetensors, write_pth


@pytest.fixture
def saved(tmp_path):
    write_pth(tmp_path / "state.pt", {"weights": torch.arange(1000.0), "step": 3})
    return tmp_path / "state.pt"


def test_what_is_written_is_read(saved):
    assert torch.equal(read_pth(saved)["weights"], torch.arange(1000.0))


def test_one_flipped_bit_is_found(saved):
    content = bytearray(saved.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 17] ^= 1
    saved.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"state\.pt is damaged: the checksum of its part .* is wrong"):
        read_pth(saved)


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -100])
def test_a_state_cut_short_is_named(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(DamagedFile, match=r"state\.pt is cut short or no PyTorch checkpoint"):
        read_pth(saved)


def test_a_pickle_that_would_run_code_is_refused_without_advice_to_run_it(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save(Evil(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(Evil(), tmp_path / "new.pth")
    for name in ("old.pth", "new.pth"):
        with pytest.raises(InputError, match="holds more than tensors") as caught:
            read_pth(tmp_path / name)
        assert "weights_only" not in str(caught.value)


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2**24))
    with pytest.raises(DamagedFile, match="would unpack to far more than it is"):
        read_pth(tmp_path / "bomb.pth")


@pytest.mark.parametrize("read", [read_pth, read_safetensors])
def test_pipes_and_folders_are_refused(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="no run state at"):
            read(path, "run state")
