"""Names that are not UTF-8, as Linux allows them: Python hands their odd bytes on as lone surrogates, which no text
takes, few other libraries do, and a console only on demand.
"""

import io
import sys


def is_utf8(text: str) -> bool:
    """Whether a text, or a path as text, can be written as UTF-8."""
    return text == as_utf8(text)


def as_utf8(text: str) -> str:
    r"""The text with `\udce9` in place of a byte E9 that no UTF-8 explains, so that it can be written and printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def print_every_letter() -> None:
    """From now on a letter that the console lacks, as cp1252 does many, is printed as its number."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
