"""The resumable state of a training: what is in it, and what must be the same for the training to go on.

The last two are kept. One that is damaged is told of, and the one before it takes its place.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from cascadeclip._version import __version__
from cascadeclip.config import AS_BEFORE
from cascadeclip.data.identity import digest_of, tensor_digest
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.files import exists, move, parse_json, parse_json_object, without_nan
from cascadeclip.schema import Range, check_value
from cascadeclip.tensors import REAL, check_finite, matched, read_pth, write_pth

logger = logging.getLogger(__name__)

STATE = "state.pt"  # the resumable state in a run's folder
PREVIOUS = "state.previous.pt"
DAMAGED = "state.damaged.pt"
FORMAT = 1
# Settings that may change when a stopped run goes on: they decide where and how fast it runs, not what it computes
# (what is compiled draws other numbers for the dropout, from the same distribution).
FREE = {
    "accumulate",
    "gradient_checkpointing",
    "compile",
    "workers",
    "validate_every",
    "checkpoint_every",
    "keep_every",
}
_SAME_TEXT = 1e-3  # embeddings computed on another device differ by less, those of other sentences by more
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Asked:
    """What a run was asked to do; a state fits only the run that it was written by.

    Attributes:
        config, model: settings, as JSON has them.
        tower: fingerprint of the frozen tower.
        run: whatever else it depends on, name -> value of JSON: classes, data, templates, start.
        text: (C, E), the text embeddings trained with.
    """

    config: dict[str, Any]
    model: dict[str, Any]
    tower: str
    run: dict[str, Any]
    text: Tensor

    def plain(self) -> "Asked":
        """With lists for tuples, as a file gives it back."""
        config, model, run = (json.loads(json.dumps(part)) for part in (self.config, self.model, self.run))
        return Asked(config, model, self.tower, run, self.text.detach().float().cpu())


@dataclass(frozen=True)
class RunState:
    """A training after `step` steps.

    Attributes:
        model: tensors of `own_state`.
        optimiser: the state dict of AdamW.
        scaler: that of the loss scaling; empty without.
        log: one entry per look.
    """

    step: int
    model: Mapping[str, Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    log: list[dict[str, float]]


def save_state(folder: Path, asked: Asked, state: RunState) -> None:
    """Write the state; the one that was there is kept as the last but one.

    Raises:
        InputError: weights or moments that are not finite, or a file that cannot be written.
    """
    path, asked = folder / STATE, asked.plain()
    blame = f"no state was written at step {state.step}, and the last good one is kept"
    check_finite(state.model, blame)
    for index, entry in state.optimiser["state"].items():
        check_finite({f"{name} of parameter {index}": entry[name] for name in _MOMENTS}, blame)
    content = {
        "format": FORMAT, "version": __version__, "step": state.step, "config": json.dumps(asked.config),
        "settings": json.dumps(asked.model), "tower": asked.tower, "run": json.dumps(asked.run), "text": asked.text,
        "model": dict(state.model), "optimiser": state.optimiser, "moments": len(state.optimiser["state"]),
        "scaler": state.scaler, "log": json.dumps(without_nan(state.log)),
    }  # fmt: skip
    content["sum"] = _sum(content)
    if exists(path):
        move(path, folder / PREVIOUS)
    write_pth(path, content)


def read_state(folder: Path, asked: Asked, like: RunState, sizes: Sequence[tuple[int, ...]]) -> RunState | None:
    """The last state in a folder that is whole; None if there is none of any kind.

    Args:
        folder: of the run.
        asked: what the run that wants to go on was asked to do.
        like: the state of that run before its first step: names and sizes of what a file must hold.
        sizes: of the parameters that the optimiser moves.

    Raises:
        InputError: a state of another run (says what differs), one of a newer cascadeclip, or only damaged ones.
    """
    damaged: list[DamagedFile] = []
    for path in (folder / STATE, folder / PREVIOUS):
        if not exists(path):
            continue
        try:
            content = read_pth(path, "state of a training")
            state = _checked(path, _check_asked(path, content, asked.plain()), like, sizes, asked.config["steps"])
        except DamagedFile as error:
            damaged.append(error)
            continue
        if damaged:
            logger.warning("%s; going on from %s, after step %d", damaged[0], path, state.step)
            with suppress(InputError):  # out of the way of the next state, or that would push the good one out
                move(folder / STATE, folder / DAMAGED)
        return state
    if damaged:
        raise InputError(f"{damaged[0]}; there is no other to go on from: remove it to start anew") from damaged[0]
    return None


def _check_asked(path: Path, content: object, asked: Asked) -> dict[str, Any]:
    """What the state holds; an `InputError` unless it is of a run that was asked the same."""
    if not isinstance(content, dict):
        raise DamagedFile(f"{path} is no state of a training but {type(content).__name__}")
    number = _get(path, content, "format", int) if "format" in content else FORMAT
    settings = {
        **parse_json_object(_get(path, content, "config", str), f"config of {path}"),
        **parse_json_object(_get(path, content, "settings", str), f"settings of {path}"),
    }
    wanted = asked.config | asked.model
    unknown = sorted(settings.keys() - wanted.keys())
    if number < 1:
        raise DamagedFile(f"{path} is damaged: there is no format {number}")
    if number > FORMAT or unknown:
        about = f"unknown settings {unknown}" if unknown else f"format {number}"
        raise InputError(f"{path} was written by a newer cascadeclip ({about}); this is {__version__}: upgrade it")
    settings = AS_BEFORE | settings
    changed = [name for name in wanted if not _same(settings.get(name), wanted[name]) and name not in FREE]
    if content.get("tower") != asked.tower:
        changed.append("another CLIP")
    changed += _other_run(path, content, asked)
    if changed:
        raise InputError(
            f"{path} belongs to a run with other settings ({', '.join(changed)}); give another output folder, or "
            "remove that file to start anew"
        )
    return content


def _other_run(path: Path, content: dict[str, Any], asked: Asked) -> list[str]:
    if "run" not in content and "sum" not in content:
        logger.warning(
            "%s is of an older cascadeclip, which did not note classes, data and start of a run: see that they are the "
            "same", path,
        )  # fmt: skip
        return []
    run = parse_json_object(_get(path, content, "run", str), f"run of {path}")
    if isinstance(unseen := run.get("unseen classes"), list):  # earlier versions wrote them as they were given
        run["unseen classes"] = [name for name in asked.run["classes"] if name in unseen]
    changed = [name for name in sorted(run.keys() | asked.run.keys()) if not _same(run.get(name), asked.run.get(name))]
    text = _get(path, content, "text", Tensor)
    if text.dtype not in REAL:
        raise DamagedFile(f"{path} is damaged: text embeddings of {text.dtype}")
    if text.shape != asked.text.shape or not (text - asked.text).abs().max() < _SAME_TEXT:
        changed.append("text embeddings")
    return changed


def _same(one: object, other: object) -> bool:
    """Whether two values of JSON are equal; to Python, true is 1."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _checked(
    path: Path, content: dict[str, Any], like: RunState, sizes: Sequence[tuple[int, ...]], steps: int
) -> RunState:
    """The state, every part of it of the kind and size that training needs; a `DamagedFile` names what is not."""
    step = _get(path, content, "step", int)
    if not 0 <= step <= steps:
        raise DamagedFile(f"{path} is damaged: step {step} of a run of {steps}")
    tensors = _get(path, content, "model", dict)
    try:
        model = matched(like.model, tensors)
    except InputError as error:
        raise DamagedFile(f"{path}: {error}") from error
    log = _checked_log(path, content, step)
    moments = _checked_moments(path, content, sizes, step)
    scaler = _get(path, content, "scaler", dict)
    try:
        check_value(scaler, dict[str, float], "its loss scaling")
    except InputError as error:
        raise DamagedFile(f"{path} is damaged: {error}") from error
    if scaler and like.scaler and scaler.keys() != like.scaler.keys():
        raise DamagedFile(f"{path} is damaged: the state of the loss scaling")
    if "sum" not in content:
        logger.warning("%s is of an older cascadeclip, which wrote no checksum: a changed value would not show", path)
    elif content["sum"] != _sum(content):
        raise DamagedFile(f"{path} is damaged: its checksum is wrong")
    optimiser = {"state": moments, "param_groups": like.optimiser["param_groups"]}
    return RunState(step, model, optimiser, scaler if like.scaler else {}, log)


def _checked_log(path: Path, content: dict[str, Any], step: int) -> list[dict[str, float]]:
    """Entries of numbers, or null where a score was none, each with a step that was done."""
    log = parse_json(_get(path, content, "log", str), f"log of {path}")
    if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
        raise DamagedFile(f"{path} is damaged: its log is no list of entries")
    for number, entry in enumerate(log):
        try:
            check_value(entry, dict[str, float | None], f"log[{number}]")
            check_value(entry.get("step"), Annotated[int, Range(1, step)], f"log[{number}].step")
        except InputError as error:
            raise DamagedFile(f"{path} is damaged: {error}") from error
    return [{name: math.nan if value is None else value for name, value in entry.items()} for entry in log]


def _checked_moments(
    path: Path, content: dict[str, Any], sizes: Sequence[tuple[int, ...]], step: int
) -> dict[int, Any]:
    """The optimiser's moments, by number of the parameter. The fused optimiser writes past the end of one too short."""
    entries = _get(path, content, "optimiser", dict).get("state")
    if not isinstance(entries, dict) or not all(type(key) is int and 0 <= key < len(sizes) for key in entries):
        raise DamagedFile(f"{path} is damaged: the state of the optimiser is of other parameters")
    whole = _get(path, content, "moments", int) if "moments" in content else len(entries)
    if len(entries) != whole or (step and not entries):
        raise DamagedFile(f"{path} is damaged: the state of the optimiser is not whole")
    return {index: _checked_entry(path, index, entry, sizes[index], step) for index, entry in entries.items()}


def _checked_entry(path: Path, index: int, entry: object, size: tuple[int, ...], step: int) -> dict[str, Tensor]:
    """What the optimiser keeps of one parameter. It takes each tensor to lie by itself, and in order."""
    if not isinstance(entry, dict) or entry.keys() != {"step", *_MOMENTS}:
        raise DamagedFile(f"{path} is damaged: the state of parameter {index} in the optimiser")
    checked = {}
    for name, value in entry.items():
        shape = () if name == "step" else size
        if not isinstance(value, Tensor) or value.dtype not in REAL or tuple(value.shape) != shape:
            raise DamagedFile(f"{path} is damaged: {name} of parameter {index} in the optimiser")
        value = value.detach().float().clone(memory_format=torch.contiguous_format)
        if not value.isfinite().all() or (name != "exp_avg" and (value < 0).any()):
            raise DamagedFile(f"{path} is damaged: {name} of parameter {index} in the optimiser")
        checked[name] = value
    if (times := checked["step"].item()) > step or times % 1:
        raise DamagedFile(f"{path} is damaged: parameter {index} has moved {times:g} times in {step} steps")
    return checked


def _sum(content: Mapping[str, Any]) -> str:
    """Checksum of a state's values: a file that was changed and written again has a right one of its own."""
    entries = content["optimiser"]["state"]
    moments = {f"{index} {name}": tensor for index, entry in entries.items() for name, tensor in entry.items()}
    texts = [str(content[name]) for name in ("step", "config", "settings", "tower", "run", "scaler", "log")]
    tensors = tensor_digest(content["model"]), tensor_digest(moments), tensor_digest({"text": content["text"]})
    return digest_of([*texts, *tensors])


def _get(path: Path, content: dict[str, Any], name: str, kind: type) -> Any:
    value = content.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = type(value).__name__ if name in content else "nothing"
        raise DamagedFile(f"{path} is damaged: {name} must be {kind.__name__}, not {found}")
    return value
