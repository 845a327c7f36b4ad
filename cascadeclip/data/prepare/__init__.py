"""Benchmarks from their originals to folders that `data.benchmarks` reads: archives are fetched and unpacked (`fetch`),
laid out (`originals`), and looked through (`verifying`). The scripts in `data_scripts/` call this.

It may import the rest of `data`, and no other room.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.data.prepare.fetch import download, extract
    from cascadeclip.data.prepare.verifying import Report, SplitReport, verify
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "Report",
    "SplitReport",
    "download",
    "extract",
    "verify",
]
