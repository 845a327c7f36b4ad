"""A model scored on a preset's fixed pictures: in one process or several, resumable, with its predictions kept."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Subset
from tqdm import tqdm

from cascadeclip.clip.load import Clip
from cascadeclip.data.identity import data_identity, digest_of, tensor_digest
from cascadeclip.data.streams import Batches, CheckedCollate
from cascadeclip.data.words import check_embeddings, seen_positions
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.evaluation.predictions import Predictions
from cascadeclip.evaluation.scores import ConfusionMatrix, Scores, count, predict_batches, warn_of_nonsense
from cascadeclip.files import check_no_folder, exists, replace_file
from cascadeclip.locks import locked
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.presets import Preset
from cascadeclip.processes import plain_torch, readers, this_process
from cascadeclip.schema import check_value
from cascadeclip.tensors import read_safetensors

logger = logging.getLogger(__name__)

SAVE_EVERY = 50  # batches between states of a long evaluation
Predictor = Callable[[Iterable[tuple[Tensor, Tensor]]], Iterator[tuple[Tensor, Tensor]]]
COLUMNS = {
    "pAcc": "pAcc",
    "mIoU": "mIoU",
    "mIoU_seen": "mIoU(S)",
    "mIoU_unseen": "mIoU(U)",
    "mIoU_unseen_things": "of it things",
    "mIoU_unseen_stuff": "of it stuff",
    "hIoU": "hIoU",
}


@plain_torch()
def score(
    preset: Preset,
    clip: Clip,
    model: CascadeCLIP,
    split: str | None = None,
    limit: int | None = None,
    *,
    out: str | Path | None = None,
    predictions: bool = False,
    progress: bool = False,
) -> Scores:
    """Scores of a model on one of the preset's fixed sets, see `score_with` for the arguments."""
    text, how = clip.class_embeddings(preset.names, preset.templates), preset.training
    seen = seen_positions(preset.names, preset.unseen)
    check_embeddings(text, preset.names)
    run = cast(CascadeCLIP, torch.compile(model)) if how.compile else model

    def predict_all(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        return predict_batches(
            run, batches, text, seen, preset.seen_offset, preset.window, preset.stride, how.precision
        )

    settings = [preset.seen_offset, preset.window, preset.stride, how.precision, model.config.to_dict()]
    tensors = model.state_dict().values()  # with the tower, in which two files of the authors may differ
    identity = "" if out is None else digest(settings, text, *tensors)
    return score_with(preset, predict_all, identity, split, limit, out=out, predictions=predictions, progress=progress)


@plain_torch()
def score_with(
    preset: Preset,
    predict_all: Predictor,
    identity: str,
    split: str | None = None,
    limit: int | None = None,
    *,
    out: str | Path | None = None,
    predictions: bool = False,
    progress: bool = False,
) -> Scores:
    """Scores of anything on one of the preset's fixed sets. Under `accelerate launch` processes share the pictures.

    Args:
        predict_all: batches of pictures (B, 3, h, w) uint8 with labels -> scores (B, C, h, w) with the labels as they
            came; the argmax of the scores, brought to the labels' size, is what is counted.
        identity: a digest of all that decides the predictions, so that counts of others are not gone on with.
        split: the preset's final one by default.
        limit: only the first pictures.
        out: folder in which a stopped evaluation is kept, so that the same call goes on with it; what was counted of
            other pictures, masks, weights or settings is not used. None keeps nothing.
        predictions: also write every segmentation to `out/predictions/`, see `Predictions`.
        progress: show a progress bar.

    Raises:
        InputError: no such split, no pictures, predictions without a folder, or a folder that is in use.
    """
    if out is not None and this_process().is_main_process:
        with locked(out):
            return _score(preset, predict_all, identity, split, limit, out, predictions, progress)
    return _score(preset, predict_all, identity, split, limit, out, predictions, progress)


def _score(
    preset: Preset, predict_all: Predictor, identity: str, split: str | None, limit: int | None,
    out: str | Path | None, predictions: bool, progress: bool,
) -> Scores:  # fmt: skip
    """`score_with`, once the folder is ours."""
    if predictions and out is None:
        raise InputError("predictions need an output folder")
    check_value(limit, int | None, "limit")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no picture to score")
    state, split = this_process(), split or preset.final_split
    data = preset.eval_data(split)
    length = len(data)  # type: ignore[arg-type]  # PyTorch's class does not promise a length
    wanted = range(length) if limit is None else range(min(limit, length))
    if not wanted:
        raise InputError(f"split {split!r} of preset {preset.name!r} holds no picture to score")
    own = list(wanted)[state.process_index :: state.num_processes]
    confusion = ConfusionMatrix(len(preset.names))
    kept, predicted, done = None, None, 0
    if out is not None:
        which = data_identity(data, preset.collate, every="time") | {
            "preset": preset.name, "classes": preset.names, "unseen classes": preset.unseen, "split": split,
            "pictures": len(wanted), "batch": preset.scoring_batch, "processes": state.num_processes,
            "predictions": predictions, "predicted by": identity,
        }  # fmt: skip
        whole = digest_of(which)
        if predictions:
            predicted = Predictions(Path(out) / "predictions", data, wanted, preset.names, whole)
        kept = _Kept(Path(out) / counts_file(state.process_index), confusion, whole)
        done = kept.load(own, predicted)
    workers = readers(preset.training.workers) if len(own) > SAVE_EVERY else 0
    collate = CheckedCollate(preset.collate, len(preset.names), training=False)
    loader = Batches(Subset(data, own[done:]), collate, workers, batch_size=preset.scoring_batch)
    batches = tqdm(loader, disable=not progress or not state.is_main_process, desc="scoring", unit="batch")
    sources = iter(own[done:])

    def after_batch(found: Tensor) -> None:
        for labels in found:
            index = next(sources)
            if predicted:
                predicted.save(index, labels)
        if kept:
            kept.add(len(found))

    count(confusion, predict_all(batches), after_batch)
    _sum_over_processes(confusion, state)
    if state.is_main_process:
        warn_of_nonsense(confusion, preset.names, preset.unseen)
        if predicted:
            predicted.warn_of_others()
    return confusion.scores(preset.names, preset.unseen)


def counts_file(process: int) -> str:
    """What a process's counts so far are kept in."""
    return f"counts-{process}.safetensors"


class _Kept:
    """Counts so far, of one process, in a file; a file of another evaluation is not used, nor a damaged one."""

    def __init__(self, path: Path, confusion: ConfusionMatrix, identity: str):
        self.path, self.confusion, self.identity = path, confusion, identity
        self.done = self.since = 0

    def load(self, pictures: Sequence[int], predicted: Predictions | None) -> int:
        """How many of `pictures` are already in the counts.

        Args:
            pictures: indices of this process's.
            predicted: their segmentations, which have to be there; None if none were asked for.
        """
        check_no_folder(self.path)  # now, and not when there is something to save
        if not exists(self.path):
            return 0
        try:
            metadata, tensors = read_safetensors(self.path, "file of counts")
            if metadata.get("identity") != self.identity:
                logger.info("%s is of another evaluation: counting anew", self.path)
                return 0
            done, counts = self._checked(metadata, tensors, len(pictures))
        except InputError as error:
            logger.warning("%s; counting anew", error)
            return 0
        if predicted is not None and not all(map(predicted.has, pictures[:done])):
            return 0
        self.confusion.counts += counts
        self.done = done
        return done

    def _checked(self, metadata: dict[str, str], tensors: dict[str, Tensor], pictures: int) -> tuple[int, Tensor]:
        done, counts = metadata.get("done", ""), tensors.get("counts", torch.empty(0))
        like = self.confusion.counts
        if counts.shape != like.shape or counts.dtype != like.dtype or (counts.numel() and counts.min() < 0):
            raise DamagedFile(f"{self.path} is damaged: no counts of {len(like)} classes")
        if not (done.isascii() and done.isdecimal() and len(done) < 19 and int(done) <= pictures):
            raise DamagedFile(f"{self.path} is damaged: {done!r:.20} of {pictures} pictures done")
        if metadata.get("sum") != tensor_digest({done: counts}):
            raise DamagedFile(f"{self.path} is damaged: its checksum is wrong")
        return int(done), counts

    def add(self, pictures: int) -> None:
        """That many more were counted; written every `SAVE_EVERY` calls."""
        self.done, self.since = self.done + pictures, self.since + 1
        if self.since == SAVE_EVERY:
            self.since, done, counts = 0, str(self.done), self.confusion.counts
            metadata = {"identity": self.identity, "done": done, "sum": tensor_digest({done: counts})}
            replace_file(self.path, lambda scratch: save_file({"counts": counts}, scratch, metadata=metadata))


def digest(settings: list[Any], *tensors: Tensor) -> str:
    """Of settings that JSON can hold, and tensors' values."""
    found = hashlib.sha256(json.dumps(settings).encode())
    for tensor in tensors:
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _sum_over_processes(confusion: ConfusionMatrix, state: PartialState) -> None:
    if state.num_processes > 1:
        counts = confusion.counts.to(state.device)
        torch.distributed.all_reduce(counts)
        confusion.counts = counts.cpu()


def summarise(preset: Preset, scores: Scores) -> dict[str, float]:
    """Headline scores, with the preset's groups of unseen classes reported apart."""
    groups = {f"mIoU_unseen_{group}": scores.mean_iou(names) for group, names in preset.unseen_groups.items()}
    return scores.summary(**groups)


def table(report: dict[str, dict[str, float]]) -> str:
    """Scores in per cent, one line per model; `report` may hold other things than scores beside them."""
    rows = {name: scores for name, scores in report.items() if isinstance(scores, dict)}
    columns = {key: title for key, title in COLUMNS.items() if any(key in scores for scores in rows.values())}
    lines = [f"{'':12}" + "".join(f"{title:>14}" for title in columns.values())]
    for name, scores in rows.items():
        lines.append(f"{name:12}" + "".join(f"{100 * scores[key]:14.1f}" for key in columns))
    return "\n".join(lines)
