"""The command `cascadeclip`: its commands (`commands`, `data`), what their options are called and mean (`options`),
what `evaluate`, `segment` and `info` do (`scoring`, `segmenting`, `info`), and how a command ends that cannot finish
(`ending`).

It may import everything, but only inside the command that needs it: help and a mistyped option answer at once.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.cli.commands import app, main
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = ["app", "main"]
