"""How a command ends that is interrupted, gets bad input or runs out of memory: one line says what happened."""

import os
import re
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from cascadeclip.errors import InputError

RESUMED = {"demo", "train", "evaluate", "experiments"}  # commands that go on where they were stopped


class Commands(TyperGroup):
    """Commands that are stopped say what is left of their work; typer's own "Aborted." says nothing."""

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = "the same command goes on from what was saved last" if ctx.invoked_subcommand in RESUMED else ""
            print(f"\ncascadeclip: stopped{'; ' + kept if kept else ', and nothing is kept'}", file=sys.stderr)
            raise typer.Exit(130) from None
        except EOFError as error:  # typer takes it for an interrupt
            raise InputError(f"a file ended before its time ({error or 'nothing more is known'})") from error


def check_here() -> None:
    """An `InputError` if the folder that the shell is in was deleted: PyTorch's libraries end a process there."""
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"no folder here ({error.strerror}), it was deleted: go to another one with cd") from error


def in_words(error: Exception) -> str | None:
    """What users have to know of an error; None for one that is the package's own mistake."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"the system refuses: {error}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return "not enough memory: try smaller pictures or batches, --accumulate, or fewer words at once"
    if type(error).__name__.startswith("Dist") or re.search(r"\b(gloo|NCCL)\b", str(error)):
        return "another process of this run has ended, or cannot be reached; what it said last tells why"
    return None


def end_bars() -> None:
    """A progress bar that an error cut off gets its line's end, so that the message has a line of its own."""
    if (tqdm := sys.modules.get("tqdm")) is not None:
        for bar in list(getattr(tqdm.tqdm, "_instances", ())):
            bar.close()
