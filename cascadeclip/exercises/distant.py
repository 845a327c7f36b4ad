"""The answers of a notebook that runs in another process, which may say anything: it is read as plain data."""

import json
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cascadeclip.exercises import integrity, wire
from cascadeclip.exercises.checking import Exercise, Late, Wrong

IN_KERNEL = "__import__('cascadeclip.exercises.kernel', fromlist=['kernel'])"
PATIENCE = 2  # times the seconds of a call, which the notebook's process limits itself: only a deaf one takes longer
SHOWN = 10  # names in a remark


class Distant:
    """The answers that another process gives.

    Args:
        ask: gives the text that an expression makes in that process within so many seconds of work or waiting;
            `ValueError` with the reason if there is none.

    Attributes:
        remarks: on what the teacher should know.
    """

    def __init__(self, ask: Callable[[str, float], str]) -> None:
        self.ask = ask
        self.remarks: list[str] = []

    def find(self, exercise: Exercise) -> object:
        found = self._said(f"{IN_KERNEL}.find(globals(), {exercise.name!r})", exercise)
        self._look_at(found)
        answer = _answer(found)
        return answer if exercise.is_value else None

    def call(self, exercise: Exercise, arguments: tuple[object, ...]) -> object:
        with tempfile.TemporaryDirectory() as folder:
            question = Path(folder) / "question"
            rules = replace(exercise, parts=())  # the notebook's process may have changed its own
            question.write_bytes(pickle.dumps((rules, arguments)))
            return _answer(self._said(f"{IN_KERNEL}.call(globals(), {str(question)!r})", exercise))

    def _said(self, expression: str, exercise: Exercise) -> dict[str, object]:
        try:
            found = json.loads(self.ask(expression, PATIENCE * exercise.seconds))
        except (ValueError, RecursionError) as error:
            raise Wrong(f"this notebook's process gives no answer: {str(error)[:500]}") from error
        if not isinstance(found, dict):
            raise Wrong("this notebook's process gives something else than an answer")
        return found

    def _look_at(self, found: dict[str, object]) -> None:
        replaced, origins = found.get("replaced"), found.get("origins")
        if isinstance(replaced, list) and replaced:
            names = ", ".join(str(name)[:100] for name in replaced[:SHOWN]) + (", ..." if replaced[SHOWN:] else "")
            self.remarks.append(
                f"this notebook replaced parts of the package in its own process: {names}. Its points are not "
                "affected: they come from a judge outside"
            )
        for name, here in integrity.origins().items():
            there = str(origins.get(name))[:300] if isinstance(origins, dict) else "nowhere"
            if there != here:
                self.remarks.append(f"this notebook's `{name}` is not the one that judges it: it comes from {there}")


def _answer(found: dict[str, object]) -> object:
    """The answer in what a notebook's process said; a `Wrong` if it is none."""
    if "late" in found:
        raise Late(str(found["late"])[:2000])
    if "wrong" in found:
        raise Wrong(str(found["wrong"])[:2000])
    try:
        return wire.unpack(str(found["answer"]))
    except (KeyError, ValueError) as error:
        raise Wrong(f"what it gives cannot be read: {str(error)[:500]}") from error
