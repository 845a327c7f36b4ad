"""The training loop, on Accelerate: schedule, validation, atomic checkpoints, resume."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from cascadeclip.cascade import CascadeCLIP
from cascadeclip.checkpoint import fingerprint, load_own_state, own_state, replace_file
from cascadeclip.config import TrainConfig
from cascadeclip.data.transforms import normalise
from cascadeclip.errors import InputError
from cascadeclip.losses import segmentation_loss
from cascadeclip.precision import autocast

logger = logging.getLogger(__name__)

STATE = "state.pt"  # the resumable state in a run's folder
LOG = "log.jsonl"
LOG_EVERY = 10  # steps


class Shuffled(Sampler[int]):
    """Endless passes over a data set, each in its own order; `start` skips what a stopped run has seen."""

    def __init__(self, length: int, seed: int, start: int = 0):
        self.length, self.seed, self.start = length, seed, start

    def __iter__(self) -> Iterator[int]:
        epoch, skip = divmod(self.start, self.length)
        while True:
            order = torch.randperm(self.length, generator=torch.Generator().manual_seed(self.seed + epoch))
            yield from order[skip:].tolist()
            epoch, skip = epoch + 1, 0


def seen_only(names: Sequence[str], unseen: Sequence[str], ignore_index: int = 255) -> tuple[list[int], Tensor]:
    """What inductive training may know.

    Returns:
        indices of the seen classes, and a table (256,) int64 from label to position among them; unseen classes and
        unused labels map to `ignore_index`.
    """
    seen = [position for position, name in enumerate(names) if name not in set(unseen)]
    table = torch.full((256,), ignore_index)
    table[seen] = torch.arange(len(seen))
    return seen, table


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
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train what is trainable of `model`, in place: on the seen classes' masks (the inductive setting), or on those
    and pseudo labels of the unseen classes (`config.transductive`, from a model that was trained inductively).

    Args:
        model: its tower stays as it is.
        data: map-style data set; `collate` makes (images uint8 (B, 3, H, W), labels (B, H, W)) of its items.
        text: (C, E) float, text embeddings in the order of `names`.
        names, unseen: class words; in the inductive setting unseen classes' pixels are ignored pixels to the loss.
        out: folder for the log and the resumable state; a run stopped there goes on. None keeps nothing.
        validate: called every `config.validate_every` steps and at the end.
        progress: show a progress bar with loss and time left.

    Returns:
        The log: one entry per `LOG_EVERY` steps with step, loss, focal, dice, learning rate (and validation scores).

    Raises:
        InputError: a state in `out` of another model or schedule, or a loss that is no longer a number.
    """
    accelerator = Accelerator()
    out = Path(out) if out is not None else None
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    set_seed(config.seed)
    done, log = _resume(model, optimiser, config, out) if out is not None else (0, [])
    loader = _endless(data, collate, config, done)
    step_model, step_optimiser, loader = accelerator.prepare(model, optimiser, loader)
    loss_of = _loss_function(text, names, unseen, config, accelerator.device)
    step_model.train()
    bar = tqdm(total=config.steps, initial=done, disable=not progress, desc="training", unit="step")
    batches = iter(loader) if done < config.steps else iter(())
    for step in range(done, config.steps):
        for group in step_optimiser.param_groups:
            group["lr"] = config.learning_rate_at(step)
        loss = loss_of(step_model, *next(batches))
        if not math.isfinite(loss["total"].item()):
            raise InputError(f"the loss is {loss['total'].item()} at step {step}: lower the learning rate or use fp32")
        accelerator.backward(loss["total"])
        if config.clip_norm is not None:
            accelerator.clip_grad_norm_(parameters, config.clip_norm)
        step_optimiser.step()
        step_optimiser.zero_grad(set_to_none=True)
        bar.update()
        _after_step(step + 1, loss, config, model, optimiser, out, log, bar, validate)
    bar.close()
    model.eval()
    return log


def _endless(data: Dataset, collate: Callable, config: TrainConfig, done: int) -> DataLoader:
    """Batches without end, from the one after `done` steps on."""
    sampler = Shuffled(len(data), config.seed, start=done * config.batch_size)
    # With a generator of its own the loader leaves the global random state, and so a resumed run's dropout, alone.
    own = torch.Generator().manual_seed(config.seed)
    return DataLoader(data, config.batch_size, sampler=sampler, collate_fn=collate, generator=own)


def _loss_function(text, names, unseen, config: TrainConfig, device) -> Callable:
    """(model, images, labels) -> losses, with the classes and labels that the setting allows training to know."""
    known, table = seen_only(names, () if config.transductive else unseen)
    table, known_text = table.to(device), text[known].to(device)
    hidden = [names.index(name) for name in unseen]

    def loss_of(model, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with autocast(device, config.bf16):
            logits = model(normalise(images), known_text).mask_logits
        targets = table[reduce_labels(labels.long(), config.loss_size)]
        if config.transductive:
            targets = pseudo_labels(logits.detach(), targets, hidden)
        return segmentation_loss(
            logits,
            targets,
            focal_weight=config.focal_weight,
            dice_weight=config.dice_weight,
            ignored_are_negatives=config.ignored_are_negatives,
        )

    return loss_of


def _after_step(step, loss, config, model, optimiser, out, log, bar, validate) -> None:
    """Log, validate and save, as often as the settings say."""
    last = step == config.steps
    validating = validate is not None and (last or (config.validate_every and step % config.validate_every == 0))
    if step % LOG_EVERY == 0 or validating or last:
        entry = {"step": step, "learning_rate": config.learning_rate_at(step - 1)}
        entry |= {name: value.item() for name, value in loss.items()}
        bar.set_postfix(loss=f"{entry['total']:.2f}")
        if validating:
            entry |= validate(model)
            model.train()
        log.append(entry)
    if out is not None and (last or (config.checkpoint_every and step % config.checkpoint_every == 0)):
        _save_state(model, optimiser, config, step, log, out)


def _save_state(model, optimiser, config: TrainConfig, step: int, log: list, out: Path) -> None:
    state = {
        "step": step,
        "config": json.dumps(asdict(config)),
        "tower": fingerprint(model.encoder.visual),
        "model": own_state(model),
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
        "log": json.dumps(log),
    }
    replace_file(out / STATE, lambda scratch: torch.save(state, scratch))
    text = "".join(json.dumps(entry) + "\n" for entry in log)
    replace_file(out / LOG, lambda scratch: scratch.write_text(text))


def _resume(model, optimiser, config: TrainConfig, out: Path) -> tuple[int, list]:
    """Steps done and log of a run stopped in `out`; (0, []) if there is none."""
    path = out / STATE
    if not path.exists():
        return 0, []
    state = torch.load(path, weights_only=True)
    saved, wanted = json.loads(state["config"]), asdict(config)
    changed = [name for name in wanted if saved.get(name) != wanted[name]]
    if changed or state["tower"] != fingerprint(model.encoder.visual):
        raise InputError(
            f"{path} belongs to a run with other settings ({', '.join(changed) or 'another CLIP'}); give another "
            "output folder, or remove that file to start anew"
        )
    load_own_state(model, state["model"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["rng"])
    logger.info("resuming %s at step %d", path, state["step"])
    return state["step"], json.loads(state["log"])
