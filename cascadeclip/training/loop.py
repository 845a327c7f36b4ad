"""The training loop, on Accelerate: schedule, several processes, validation, atomic checkpoints, resume.

Every random draw is a function of the seed and the step, so that the state of a run is its weights, its optimiser and
the number of steps done.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from cascadeclip.checkpoints.own import fingerprint, load_own_state, own_state
from cascadeclip.config import TrainConfig
from cascadeclip.data.labels import ignored_label, positions_among
from cascadeclip.data.stream import Endless, Shares, stream
from cascadeclip.data.transforms import normalise
from cascadeclip.errors import InputError
from cascadeclip.files import locked, without_nan, write_text
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.losses import present_pairs, segmentation_loss
from cascadeclip.processes import autocast, on_cpu, this_process
from cascadeclip.training.state import STATE, Asked, RunState, read_state, save_state

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
LOG_EVERY = 10  # steps


def seen_only(names: Sequence[str], unseen: Sequence[str]) -> tuple[list[int], Tensor]:
    """What inductive training may know.

    Returns:
        indices of the seen classes, and a table (65,536,) int64 from label to position among them; unseen classes and
        unused labels map to `ignored_label` of so many classes.
    """
    seen = [position for position, name in enumerate(names) if name not in set(unseen)]
    return seen, torch.from_numpy(positions_among(seen))


def pseudo_labels(mask_logits: Tensor, labels: Tensor, unseen: Sequence[int]) -> Tensor:
    """Labels of transductive self-training: unseen classes' pixels are known to be unseen, but not which class.

    Args:
        mask_logits: (B, C, h, w), current scores of all classes.
        labels: (B, H, W) int64, true classes.
        unseen: their indices.

    Returns:
        (B, H, W) int64: a pixel whose true class is unseen takes the unseen class with the highest probability.
    """
    scores = F.interpolate(mask_logits[:, list(unseen)].float(), labels.shape[1:], mode="bilinear", align_corners=False)
    unseen = torch.tensor(unseen, device=labels.device)
    return torch.where(torch.isin(labels, unseen), unseen[scores.argmax(1)], labels)


def reduce_labels(labels: Tensor, side: int | None) -> Tensor:
    """(B, H, W) labels -> (B, side, side), nearest pixel; unchanged for None."""
    if side is None:
        return labels
    return F.interpolate(labels[:, None].float(), (side, side), mode="nearest-exact")[:, 0].long()


def train(
    model: CascadeCLIP,
    data: Dataset,
    text: Tensor,
    names: Sequence[str],
    unseen: Sequence[str],
    config: TrainConfig,
    *,
    collate: Callable,
    out: str | Path | None = None,
    validate: Callable[[CascadeCLIP], dict[str, float]] | None = None,
    keep: Callable[[CascadeCLIP, int], None] | None = None,
    tensorboard: bool = False,
    progress: bool = True,
    depends_on: Mapping[str, object] | None = None,
) -> list[dict[str, float]]:
    """Train what is trainable of `model`, in place: on the seen classes' masks (the inductive setting), or on those
    and pseudo labels of the unseen classes (`config.transductive`, from a model that was trained inductively).

    Started by `accelerate launch`, every process takes its share of each step's pictures.

    Args:
        model: its tower stays as it is.
        data: map-style data set; `collate` makes (images uint8 (B, 3, H, W), labels (B, H, W)) of its items.
        text: (C, E) float, text embeddings in the order of `names`.
        names, unseen: class words; in the inductive setting unseen classes' pixels are ignored pixels to the loss.
        out: folder for the log and the resumable state; a run stopped there goes on. None keeps nothing.
        validate: called every `config.validate_every` steps and at the end, in every process.
        keep: called with the model and the number of steps done every `config.keep_every` steps, in the main process.
        tensorboard: also log there; needs `out` and the package of that name.
        progress: show a progress bar with loss and time left.
        depends_on: what else the run depends on, name -> value that JSON can hold: a state in `out` of other values is
            refused, by their names.

    Returns:
        The log: one entry per `LOG_EVERY` steps with step, loss, focal, dice, learning rate (and validation scores).

    Raises:
        InputError: a state in `out` of another model or schedule, a batch that does not split into the processes'
            parts, or a loss that is no longer a number (with the step, its pictures and the last good state).
    """
    with locked(out) if out is not None and this_process().is_main_process else nullcontext():
        run = _Run(model, data, text, names, unseen, config, collate, out, validate, keep, tensorboard, depends_on)
        return run.go(progress)


class _Run:
    """One training run in one process."""

    def __init__(self, model, data, text, names, unseen, config, collate, out, validate, keep, tensorboard, depends_on):
        self.model, self.config, self.validate, self.keep = model, config, validate, keep
        self.out = Path(out) if out is not None else None
        self.accelerator = _accelerator(self.out, tensorboard)
        ranks, parts = self.accelerator.num_processes, config.accumulate
        if config.batch_size % (ranks * parts):
            raise InputError(
                f"batch_size={config.batch_size} does not split into {ranks} processes times accumulate={parts} parts"
            )
        known, table = seen_only(names, () if config.transductive else unseen)
        if model.text_mean is not None and not model.text_mean.any():  # one that was trained before keeps its own
            model.centre_on(text[known])
        model.encoder.recompute = config.gradient_checkpointing
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.wrapped = self.accelerator.prepare_model(model)
        if config.compile:  # not through Accelerate, which keeps the choice of a process's first run for all others
            self.wrapped = torch.compile(self.wrapped)
        self.optimiser = adamw(self.parameters, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.log: list[dict[str, float]] = []
        self.asked = Asked(
            config=asdict(config), model=model.config.to_dict(), tower=fingerprint(model.encoder.visual),
            run={"classes": list(names), "unseen classes": list(unseen), **(depends_on or {})}, text=text[known],
        )  # fmt: skip
        self.done, self.log = self._resume()
        self.accelerator.wait_for_everyone()  # nobody writes a state before all have read it
        self.data = Endless(data, config.seed)
        shares = Shares(
            config.batch_size, parts=parts, rank=self.accelerator.process_index, processes=ranks, start=self.done
        )
        self.loader = stream(self.data, shares, collate, config.workers)
        self.table, self.text = table.to(self.device), text[known].to(self.device)
        self.hidden, self.ignore = [names.index(name) for name in unseen], ignored_label(len(known))

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def go(self, progress: bool) -> list[dict[str, float]]:
        """The remaining steps."""
        self.wrapped.train()
        shown = progress and self.accelerator.is_local_main_process
        bar = tqdm(total=self.config.steps, initial=self.done, disable=not shown, desc="training", unit="step")
        batches = iter(self.loader) if self.done < self.config.steps else None
        for step in range(self.done, self.config.steps):
            loss = self._step(step, [next(batches) for _ in range(self.config.accumulate)])
            bar.update()
            self._after_step(step + 1, loss, bar)
        bar.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False).eval()
        return self.log

    def _step(self, step: int, batches: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """One optimiser step on this process's micro-batches; returns the losses of the whole step."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate_at(step)
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        torch.manual_seed((self.config.seed << 40) + step * ranks + rank)  # dropout
        batches = [(images.to(self.device), self._targets(labels)) for images, labels in batches]
        pairs = None  # pseudo labels are not known yet: every part then divides by its own number
        if not self.config.transductive:
            pairs = sum(present_pairs(labels, self.ignore) for _, labels in batches) / len(batches)
        total = {}
        for part, (images, labels) in enumerate(batches, start=1):
            last = part == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self._loss(images, labels, pairs)
                self.accelerator.backward(self.scaler.scale(losses["total"] / len(batches)))
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach() / len(batches)
        total = {name: self.accelerator.reduce(value, "mean").item() for name, value in total.items()}
        if not math.isfinite(total["total"]):
            raise InputError(self._what_broke(step, total["total"]))
        self._update()
        return total

    def _update(self) -> None:
        self.scaler.unscale_(self.optimiser)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)

    def _targets(self, labels: Tensor) -> Tensor:
        """Class indices as far as the setting allows training to know them."""
        return self.table[reduce_labels(labels.to(self.device).long(), self.config.loss_size)]

    def _loss(self, images: Tensor, labels: Tensor, pairs: Tensor | None) -> dict[str, Tensor]:
        with autocast(self.device, self.config.precision):
            logits = self.wrapped(normalise(images), self.text).mask_logits
        if self.config.transductive:
            labels = pseudo_labels(logits.detach(), labels, self.hidden)
        return segmentation_loss(
            logits,
            labels,
            ignore_index=self.ignore,
            focal_weight=self.config.focal_weight,
            dice_weight=self.config.dice_weight,
            ignored_are_negatives=self.config.ignored_are_negatives,
            pairs=pairs,
        )

    def _what_broke(self, step: int, value: float) -> str:
        first = step * self.config.batch_size
        numbers = [self.data.index_at(position) for position in range(first, first + self.config.batch_size)]
        source = getattr(self.data.data, "source", "item {}".format)
        state = self.out and self.out / STATE
        kept = f"the last good state is {state}" if state and state.exists() else "no state was written yet"
        return (
            f"the loss is {value} at step {step + 1}, on {', '.join(source(number) for number in numbers)}; {kept}. "
            "Lower the learning rate or use precision fp32, and look at these pictures"
        )

    def _after_step(self, step: int, loss: dict[str, float], bar: tqdm) -> None:
        """Log, validate and save, as often as the settings say."""
        config, last = self.config, step == self.config.steps
        validating = self.validate is not None and (last or _due(step, config.validate_every))
        if _due(step, LOG_EVERY) or validating or last:
            entry = {"step": step, "learning_rate": config.learning_rate_at(step - 1), **loss}
            bar.set_postfix(loss=f"{entry['total']:.2f}")
            if validating:
                entry |= self.validate(self.model)
                self.wrapped.train()
            self.log.append(entry)
            self.accelerator.log({name: value for name, value in entry.items() if name != "step"}, step=step)
        if not self.accelerator.is_main_process:
            return
        if self.keep is not None and _due(step, config.keep_every):
            self.keep(self.model, step)
        if self.out is not None and (last or _due(step, config.checkpoint_every)):
            self._save(step)

    def _save(self, step: int) -> None:
        save_state(self.out, self.asked, self._state(step))
        write_text(self.out / LOG, "".join(json.dumps(without_nan(entry)) + "\n" for entry in self.log))

    def _state(self, step: int) -> RunState:
        return RunState(step, own_state(self.model), self.optimiser.state_dict(), self.scaler.state_dict(), self.log)

    def _resume(self) -> tuple[int, list]:
        """Steps done and log of a run stopped in `out`; (0, []) if there is none."""
        if self.out is None:
            return 0, []
        sizes = [tuple(parameter.shape) for parameter in self.parameters]
        state = read_state(self.out, self.asked, self._state(0), sizes)
        if state is None:
            return 0, []
        load_own_state(self.model, state.model)
        self.optimiser.load_state_dict(state.optimiser)
        if state.scaler:  # empty, where it was computed in a format that needs none
            self.scaler.load_state_dict(state.scaler)
        logger.info("resuming %s at step %d", self.out / STATE, state.step)
        return state.step, state.log


def adamw(parameters: Sequence[torch.nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of a training, in one pass over all tensors."""
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _accelerator(out: Path | None, tensorboard: bool) -> Accelerator:
    if not tensorboard:
        return Accelerator(cpu=on_cpu())
    if out is None or not is_tensorboard_available():
        raise InputError("logging to TensorBoard needs an output folder and the package: pip install tensorboard")
    accelerator = Accelerator(cpu=on_cpu(), log_with="tensorboard", project_dir=out)
    accelerator.init_trackers("tensorboard")
    return accelerator
