"""Names that come from a file, of an archive's members or of pictures in a list, before they become paths."""

import unicodedata
from pathlib import Path, PureWindowsPath

from cascadeclip.errors import InputError

LONGEST = 255  # bytes of one part of a path, the most that common file systems take
LONGEST_PATH = 1024  # bytes; systems stop at 4096 with the folder before it


def inside(name: str, source: str | Path) -> str:
    """The name as it was given, if it stays in the folder that it is put under.

    Args:
        source: the file that holds the name, for the message.

    Raises:
        InputError: an absolute path, one that climbs, is empty or too long, or holds characters of control.
    """
    path = PureWindowsPath(name)  # knows the separators and roots of both worlds
    if path.root or path.drive or ".." in path.parts:
        raise InputError(f"{source} holds {_said(name)}, which would lie outside the target folder: do not trust it")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name) or not path.parts:
        raise InputError(f"{source} holds {_said(name)}, which is no file's name: do not trust it")
    if len(name.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST for part in path.parts):
        raise InputError(f"{source} holds the name {_said(name)}, which is too long for a file: do not trust it")
    return name


def place_of(name: str) -> str:
    """The same text for all names that are one file to some system: in other capitals or accents, or with dots and
    spaces at the end of a part."""
    parts = (part.rstrip(". ") for part in PureWindowsPath(name).parts)
    return unicodedata.normalize("NFC", "/".join(parts).casefold())


def _said(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "...")
