"""The training loop, on Accelerate: schedule, several processes, validation, atomic checkpoints, resume.

Every random draw is a function of the seed and the step, so that the state of a run is its weights, its optimiser and
the number of steps done.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from cascadeclip.checkpoints.own import fingerprint, load_own_state, own_state
from cascadeclip.config import TrainConfig
from cascadeclip.data.distortion import distort
from cascadeclip.data.labels import ignored_label
from cascadeclip.data.streams import CheckedCollate, Collate, Endless, Shares, item_name, stream
from cascadeclip.data.transforms import normalise
from cascadeclip.data.words import check_embeddings, in_order, positions_of
from cascadeclip.errors import InputError
from cascadeclip.files import check_no_folder, exists, without_nan, write_text
from cascadeclip.locks import locked
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.losses import mean_over_ranks, present_pairs, segmentation_loss
from cascadeclip.processes import (
    autocast,
    own_draws,
    readers,
    seed_draws,
    this_process,
    told_of_compiler,
)
from cascadeclip.schema import Count, checked
from cascadeclip.tensors import check_finite
from cascadeclip.training.labels import pseudo_labels, reduce_labels, seen_only
from cascadeclip.training.launcher import accelerator_for
from cascadeclip.training.optimiser import Optimiser
from cascadeclip.training.state import PREVIOUS, STATE, Asked, RunState, read_state, save_state

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
LOG_EVERY = 10  # steps; in between, the host does not wait for a GPU
LOSSES = ("focal", "dice", "total")
OVERFLOWS = 5  # steps in a row that float16 may lose, which the loss scaling skips


@checked(until=Count | None)
def train(
    model: CascadeCLIP,
    data: Dataset[Any],
    text: Tensor,
    names: Sequence[str],
    unseen: Sequence[str],
    config: TrainConfig,
    *,
    collate: Collate,
    out: str | Path | None = None,
    validate: Callable[[CascadeCLIP], dict[str, float]] | None = None,
    keep: Callable[[CascadeCLIP, int], None] | None = None,
    tensorboard: bool = False,
    progress: bool = True,
    depends_on: Mapping[str, object] | None = None,
    finished: Callable[[CascadeCLIP], None] | None = None,
    until: int | None = None,
) -> list[dict[str, float]]:
    """Train what is trainable of `model`, in place: on the seen classes' masks (the inductive setting), or on those
    and pseudo labels of the unseen classes (`config.transductive`, from a model that was trained inductively).

    Started by `accelerate launch`, every process takes its share of each step's pictures, on `cascadeclip.device()`.
    What is borrowed is given back, after an error, too: the model goes back to the device it came from, in eval mode,
    the tower it was built on was never touched, and torch's random numbers go on as if there had been no training.

    Args:
        model: its tower's weights stay as they are.
        data: map-style data set; `collate` makes (images uint8 (B, 3, H, W), labels (B, H, W)) of its items, and where
            colours are to be distorted a third, (B, 6) of `data.draw_change`.
        text: (C, E) float, text embeddings in the order of `names`.
        names, unseen: class words; in the inductive setting unseen classes' pixels are ignored pixels to the loss.
        out: folder for the log and the resumable state; a run stopped there goes on. None keeps nothing.
        validate: called every `config.validate_every` steps and at the end, in every process.
        keep: called with the model and the number of steps done every `config.keep_every` steps, in the main process.
        tensorboard: also log there; needs `out` and the package of that name.
        progress: show a progress bar with loss and time left.
        depends_on: what else the run depends on, name -> value that JSON can hold: a state in `out` of other values is
            refused, by their names.
        finished: called with the model when all steps are done, before the last validation, in the main process.
        until: stop after this step of the schedule; the same call with a later one, or without, goes on from `out`.

    Returns:
        The log: one entry per `LOG_EVERY` steps with step, loss, focal, dice, learning rate (and validation scores).

    Raises:
        InputError: a state in `out` of another model or schedule, a batch that does not split into the processes'
            parts, a label that no class has, a device without a compiler for `config.compile`, a launcher that asks
            for more than several processes, or a loss or gradient that is no longer a number (with the step, its
            pictures and the last good state). Such a step changes no weight. With float16, a few of them in a row are
            skipped, as the loss scaling means it.
    """
    accelerator = accelerator_for(Path(out) if out is not None else None, tensorboard)
    alone = locked(out) if out is not None and this_process().is_main_process else nullcontext()
    with alone, _borrowed(model), own_draws(config.seed, accelerator.device), told_of_compiler():
        run = _Run(accelerator, model, data, text, names, unseen, config, collate, out, validate, keep, depends_on)
        run.finished, run.until = finished, config.steps if until is None else min(until, config.steps)
        return run.go(progress)


@contextmanager
def _borrowed(model: CascadeCLIP) -> Iterator[None]:
    """Gives the model back to the device that it is on now, in eval mode."""
    home, recompute = next(model.parameters()).device, model.encoder.recompute
    try:
        yield
    finally:
        model.encoder.recompute = recompute
        model.to(home).eval()


class _Run:
    """One training run in one process."""

    def __init__(
        self, accelerator: Accelerator, model: CascadeCLIP, data: Dataset[Any], text: Tensor, names: Sequence[str],
        unseen: Sequence[str], config: TrainConfig, collate: Collate, out: str | Path | None,
        validate: Callable[[CascadeCLIP], dict[str, float]] | None, keep: Callable[[CascadeCLIP, int], None] | None,
        depends_on: Mapping[str, object] | None,
    ):  # fmt: skip
        self.accelerator, self.model, self.config, self.validate, self.keep = accelerator, model, config, validate, keep
        self.finished: Callable[[CascadeCLIP], None] | None = None
        self.until = config.steps
        self.out = Path(out) if out is not None else None
        ranks, parts = self.accelerator.num_processes, config.accumulate
        if config.batch_size % (ranks * parts):
            raise InputError(
                f"batch_size={config.batch_size} does not split into {ranks} processes times accumulate={parts} parts"
            )
        check_finite(model.state_dict(), "the model to train is damaged or of a training that failed")
        known, table = seen_only(names, () if config.transductive else unseen)
        check_embeddings(text, names)
        hidden = sorted(positions_of(unseen, names))  # in whichever order they were named: the first wins a tie
        if config.transductive and not hidden:
            raise InputError("self-training makes pseudo labels of unseen classes, and no class is unseen: name some")
        if model.text_mean is not None and not model.text_mean.any():  # one that was trained before keeps its own
            model.centre_on(text[known])
        model.encoder.recompute = config.gradient_checkpointing
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.wrapped = self.accelerator.prepare_model(model)
        self.loss, self.distort = segmentation_loss, distort
        if config.compile:  # not through Accelerate, which keeps the choice of a process's first run for all others
            self.wrapped = torch.compile(self.wrapped)
            if self.device.type != "cpu":  # there, its many small chunks are as fast and would take minutes to compile
                self.loss, self.distort = torch.compile(segmentation_loss), torch.compile(distort)
        self.optimiser = Optimiser(self.parameters, config, self.device)
        self.unread: list[Tensor] = []  # of each step since the last look: LOSSES and the gradient's norm
        self.shown: dict[str, float] = {}  # losses of the last good step
        self.overflows = 0  # how many bad ones came after it
        self.labelled = torch.zeros((), device=self.device)  # seen classes in the masks so far; 0: there was no truth
        self.log: list[dict[str, float]] = []
        self.asked = Asked(
            config=asdict(config), model=model.config.to_dict(), tower=fingerprint(model.encoder.visual),
            run={"classes": list(names), "unseen classes": in_order(unseen, names), **(depends_on or {})},
            text=text[known],
        )  # fmt: skip
        self.done, self.log = self._resume()
        self.accelerator.wait_for_everyone()  # nobody writes a state before all have read it
        self.data = Endless(data, config.seed)
        shares = Shares(
            config.batch_size, parts=parts, rank=self.accelerator.process_index, processes=ranks, start=self.done
        )
        self.loader = stream(
            self.data, shares, CheckedCollate(collate, len(names), training=True), readers(config.workers)
        )
        self.table, self.text = table.to(self.device), text[known].to(self.device)
        self.hidden = torch.tensor(hidden, device=self.device)
        self.ignore = ignored_label(len(known))

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def go(self, progress: bool) -> list[dict[str, float]]:
        """The remaining steps."""
        self.wrapped.train()
        self._catch_up()
        shown = progress and self.accelerator.is_local_main_process
        bar = tqdm(total=self.until, initial=self.done, disable=not shown, desc="training", unit="step")
        left = range(self.done, self.until)
        batches = iter(self.loader if left else ())  # readers start with the first batch that is asked for
        for step in left:
            self._step(step, [next(batches) for _ in range(self.config.accumulate)])
            bar.update()
            self._after_step(step + 1, bar)
        bar.close()
        if left and not self.config.transductive and not self.labelled and self.accelerator.is_main_process:
            said = "no mask of the %d steps showed a seen class: nothing was learnt. Do the masks' numbers mean what "
            logger.warning(said + "the names say? `cascadeclip data check` counts them", len(left))
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.free_memory()
        return self.log

    def _catch_up(self) -> None:
        """Scores the state that a run goes on from, where it was stopped in between: states are saved before scores."""
        entry = self.log[-1] if self.log else {}
        due = self.done == self.until or _due(self.done, self.config.validate_every)
        scored = entry.keys() - {"step", "learning_rate", *LOSSES}
        if self.validate is not None and due and entry.get("step") == self.done and not scored:
            self._score(entry, save=True)

    def _step(self, step: int, batches: list[tuple[Tensor, ...]]) -> None:
        """One optimiser step on this process's micro-batches; what came of it stays on the device in `unread`."""
        self.optimiser.set_rate(self.config.learning_rate_at(step))
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        seed_draws((self.config.seed << 40) + step * ranks + rank, self.device)  # dropout
        uploaded = [self._upload(*batch) for batch in batches]
        pairs = None  # pseudo labels are not known yet: every part then divides by its own number
        if not self.config.transductive:  # once a step: the same number for all parts and processes
            classes = len(self.text)
            own = torch.stack([present_pairs(labels, classes, self.ignore) for _, labels in uploaded])
            pairs = mean_over_ranks(own.sum(0) / len(uploaded))
            self.labelled += pairs
        total = torch.zeros(len(LOSSES), device=self.device)
        for part, (images, labels) in enumerate(uploaded, start=1):
            last = part == len(uploaded)
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self._loss(images, labels, pairs)
                self.optimiser.backward(losses["total"] / len(uploaded))
            total += torch.stack([losses[name].detach() for name in LOSSES]) / len(uploaded)
        self.unread.append(torch.cat([total, self.optimiser.step()[None]]))

    def _look(self, done: int) -> dict[str, float]:
        """Losses of the last good step, after a look at those since the last look: the host waits for the device here.

        Raises:
            InputError: one of them is no number, and float16 does not excuse it.
        """
        rows = self.accelerator.reduce(torch.stack(self.unread), "mean").tolist()
        self.unread.clear()
        for step, (*losses, norm) in enumerate(rows, start=done - len(rows)):
            overflow = self.optimiser.scales and self.overflows < OVERFLOWS
            if math.isfinite(losses[-1]) and (self.optimiser.scales or math.isfinite(norm)):
                self.shown, self.overflows = dict(zip(LOSSES, losses, strict=True)), 0
            elif overflow:
                self.overflows += 1
            else:
                raise InputError(self._what_broke(step, losses[-1], norm))
        return self.shown

    def _upload(self, images: Tensor, labels: Tensor, changes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A batch on the device, its colours distorted there, its labels as far as training may know them."""
        images = images.to(self.device, non_blocking=True)
        if changes is not None:
            images = self.distort(images, changes.to(self.device, non_blocking=True))
        return images, self._targets(labels)

    def _targets(self, labels: Tensor) -> Tensor:
        """Class indices as far as the setting allows training to know them."""
        labels = labels.to(self.device, non_blocking=True).long()
        return self.table[reduce_labels(labels, self.config.loss_size)]

    def _loss(self, images: Tensor, labels: Tensor, pairs: Tensor | None) -> dict[str, Tensor]:
        with autocast(self.device, self.config.precision):
            logits = self.wrapped(normalise(images), self.text).mask_logits
        if self.config.transductive:
            labels = pseudo_labels(logits.detach(), labels, self.hidden)
        return self.loss(
            logits, labels,
            ignore_index=self.ignore, focal_weight=self.config.focal_weight, dice_weight=self.config.dice_weight,
            ignored_are_negatives=self.config.ignored_are_negatives, pairs=pairs,
            trusted=True,  # the table leaves no others
        )  # fmt: skip

    def _what_broke(self, step: int, loss: float, norm: float) -> str:
        what = f"the norm of the gradient is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        first = step * self.config.batch_size
        names = [item_name(self.data, position) for position in range(first, first + self.config.batch_size)]
        state = self.out and self.out / STATE
        kept = f"the last good state is {state}" if state and exists(state) else "no state was written yet"
        return (
            f"{what} at step {step + 1}, on {', '.join(names)}; {kept}. "
            "Lower the learning rate or use precision fp32, and look at these pictures"
        )

    def _after_step(self, step: int, bar: tqdm) -> None:
        """Log, validate and save, as often as the settings say, and nothing before a look at the losses."""
        config, last = self.config, step == self.until
        validating = self.validate is not None and (last or _due(step, config.validate_every))
        telling = validating or last or _due(step, LOG_EVERY)
        keeping = self.keep is not None and _due(step, config.keep_every)
        saving = self.out is not None and (last or _due(step, config.checkpoint_every))
        losses = self._look(step) if telling or keeping or saving else {}
        entry = {"step": step, "learning_rate": config.learning_rate_at(step - 1), **losses}
        if telling:
            bar.set_postfix(loss=f"{losses.get('total', math.nan):.2f}")
            self.log.append(entry)
        if self.accelerator.is_main_process:  # before scores, which may take long or fail
            if keeping and self.keep is not None:
                self.keep(self.model, step)
            if saving:
                self._save(step)
            if step == config.steps and self.finished is not None:
                self.finished(self.model)
        if validating:
            self._score(entry, save=saving)  # again, with the scores
        if telling:
            self.accelerator.log({name: value for name, value in entry.items() if name != "step"}, step=step)

    def _score(self, entry: dict[str, float], *, save: bool) -> None:
        entry |= self.validate(self.model) if self.validate is not None else {}
        self.wrapped.train()
        if save and self.accelerator.is_main_process:
            self._save(int(entry["step"]))

    def _save(self, step: int) -> None:
        if self.out is not None:
            save_state(self.out, self.asked, self._state(step))
            write_text(self.out / LOG, "".join(json.dumps(without_nan(entry)) + "\n" for entry in self.log))

    def _state(self, step: int) -> RunState:
        moments, scaler = self.optimiser.adamw.state_dict(), self.optimiser.scaler.state_dict()
        return RunState(step, own_state(self.model), moments, scaler, self.log)

    def _resume(self) -> tuple[int, list[dict[str, float]]]:
        """Steps done and log of a run stopped in `out`; (0, []) if there is none."""
        if self.out is None:
            return 0, []
        sizes = [tuple(parameter.shape) for parameter in self.parameters]
        state = read_state(self.out, self.asked, self._state(0), sizes)
        for name in (STATE, PREVIOUS, LOG):  # now, and not when there is something to save
            check_no_folder(self.out / name)
        if state is None:
            return 0, []
        load_own_state(self.model, state.model)
        self.optimiser.load(state.optimiser, state.scaler)
        logger.info("resuming %s at step %d", self.out / STATE, state.step)
        return state.step, state.log


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
