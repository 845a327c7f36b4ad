"""What only a GPU can tell, in a few minutes: make gpu-check, or python tests/support/gpu_check.py --out gpu.

One line a check; a check that fails does not stop the next, and one that is not done after --minutes has failed. What
they found is in OUT/gpu.json, and as a table for the README in OUT/gpu.md. Those that compile come last.
"""

import argparse
import json
import re
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

import cascadeclip
from cascadeclip.config import ModelConfig
from cascadeclip.evaluation.run import score, summarise
from cascadeclip.evaluation.scores import evaluate, predict
from cascadeclip.exercises.contest import compete, plain_clip
from cascadeclip.experiments.bench import Case, measure
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.losses import segmentation_loss
from cascadeclip.presets import MINI, get_preset
from cascadeclip.processes import autocast, has_bf16, number_format
from cascadeclip.sharing import export_onnx
from cascadeclip.training.loop import train
from cascadeclip.training.run import open_clip_of

CUDA = torch.device("cuda")
ROOT = Path(__file__).parents[2]
PACKAGE = str(Path(cascadeclip.__file__).parent)


class Blocks(Dataset):
    """Pictures of coloured blocks, whose colour is their class: always the same, and nothing has to be read."""

    def __init__(self, side: int, classes: int, length: int = 32):
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randint(0, classes, (length, side // 32, side // 32), generator=generator)
        colours = torch.randint(0, 256, (classes, 3), generator=generator, dtype=torch.uint8)
        self.labels = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2).to(torch.uint8)
        self.images = colours[self.labels.long()].permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index], self.labels[index]


def together(items: list) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.stack(part) for part in zip(*items, strict=True))


def words(preset, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(len(preset.names), preset.model.tower.embed_dim, generator=generator), dim=-1)


class Checks:
    """The checks, by name; every method returns what there is to say, or raises."""

    def __init__(self, side: int, batch: int, steps: int):
        self.side, self.batch, self.steps = side, batch, steps

    def device(self) -> str:
        """The card, and whether its number format is its own."""
        if cascadeclip.device().type != "cuda":
            raise AssertionError(f"cascadeclip.device() is {cascadeclip.device()}")
        capability = "{}.{}".format(*torch.cuda.get_device_capability())
        return (
            f"{torch.cuda.get_device_name()}, {capability}, torch {torch.__version__}, bf16 {has_bf16(CUDA)}, "
            f"presets compute in {number_format(CUDA, 'bf16')}"
        )

    def parity(self) -> dict:
        """Scores, loss and gradient on the GPU against float32 on the CPU."""
        torch.manual_seed(0)
        here = CascadeCLIP(ModelConfig(dropout=0.0)).eval()
        there = CascadeCLIP(ModelConfig(dropout=0.0)).eval()
        there.load_state_dict(here.state_dict())
        there.to(CUDA)
        images, text = torch.randn(2, 3, 96, 96), F.normalize(torch.randn(5, 128), dim=-1)
        labels = torch.randint(0, 5, (2, 96, 96))
        wanted, found = self._ends(here, images, text, labels, "fp32"), {}
        for precision, most in (("fp32", 1e-4), ("bf16", 0.05), ("fp16", 0.02)):
            if precision == "bf16" and not has_bf16(CUDA):
                continue
            ends = self._ends(there, images.to(CUDA), text.to(CUDA), labels.to(CUDA), precision)
            off = [((a - b).norm() / b.norm()).item() for a, b in zip(ends, wanted, strict=True)]
            found[precision] = "scores {:.1e}, loss {:.1e}, gradient {:.1e}".format(*off)
            if not (off[0] <= most and off[1] <= most and off[2] <= 10 * most):
                raise AssertionError(found)
        return found

    @staticmethod
    def _ends(model, images, text, labels, precision) -> list[torch.Tensor]:
        model.zero_grad()
        with autocast(images.device, precision):
            scores = predict(model, images, text, [0, 1])
            logits = model(images, text).mask_logits
        loss = segmentation_loss(logits, labels)["total"]
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return [part.detach().float().cpu() for part in (scores, loss, torch.cat(gradients))]

    def shipped_scores(self) -> dict:
        """The shipped model scores alike on both."""
        clip = open_clip_of(MINI)
        models = {place: cascadeclip.load("mini", device=place).model for place in ("cpu", "cuda")}
        found = {place: summarise(MINI, score(MINI, clip, model, limit=50))["hIoU"] for place, model in models.items()}
        if not abs(found["cpu"] - found["cuda"]) <= 0.005:
            raise AssertionError(found)
        return found

    def borrowed(self) -> str:
        """After a training, a segmenter on the same CLIP, and assignment 3, still work."""
        segmenter, scene = cascadeclip.load("mini"), MINI.eval_data("val")[0]
        model = CascadeCLIP(MINI.model, segmenter.clip.visual)
        text = segmenter.clip.class_embeddings(MINI.names, MINI.templates)
        short = replace(MINI.training, steps=2)
        train(model, MINI.train_data(0), text, MINI.names, MINI.unseen, short, collate=MINI.collate, progress=False)
        segmenter.segment(scene.image, ["cat", "sand"])
        if {p.device.type for p in segmenter.clip.visual.parameters()} | {next(model.parameters()).device.type} != {
            "cpu"
        }:
            raise AssertionError("what was on the CPU before is no longer there")
        compete({"steps": 2, "batch_size": 2})
        plain_clip("val")
        return "models, CLIP and assignment are where they were"

    def device_lines(self) -> str:
        """Every notebook takes the device that the package takes."""
        texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.py")}
        lines = {name: re.findall(r"^device = (.*)$", text, re.MULTILINE) for name, text in texts.items()}
        if cascadeclip.device().type != "cuda" or {line for found in lines.values() for line in found} != {
            "cascadeclip.device()"
        }:
            raise AssertionError(lines)
        return f"cuda in {sum(map(bool, lines.values()))} notebooks"

    def export(self) -> str:
        """A segmenter on the GPU becomes an ONNX file that answers like it, and stays where it was."""
        segmenter = cascadeclip.load("mini", device="cuda")
        with tempfile.TemporaryDirectory() as folder:
            found = export_onnx(segmenter, Path(folder) / "mini.onnx")  # compares both, raises if they differ
        if next(segmenter.model.parameters()).device.type != "cuda":
            raise AssertionError("the model left the GPU")
        return f"largest difference {found:.1e}"

    def waits_in_training(self) -> dict:
        """How often the host waits for the device: at most once every ten steps."""
        runs = [self._waits(lambda steps=steps: self._run(steps=steps, side=64, batch=2)) for steps in (10, 40)]
        per_step = {line: (count - runs[0][line]) / 30 for line, count in runs[1].items() if count > runs[0][line]}
        if sum(per_step.values()) > 0.1:
            raise AssertionError(per_step)
        return {"a step": round(sum(per_step.values()), 2), **per_step}

    def waits_in_evaluation(self) -> dict:
        """At most once a picture."""
        preset = get_preset("voc12", image_size=64)
        model, text = CascadeCLIP(preset.model).to(CUDA).eval(), words(preset)
        batch = torch.zeros(1, 3, 64, 96, dtype=torch.uint8), torch.zeros(1, 60, 90, dtype=torch.int64)

        def run(pictures: int) -> None:
            batches = [tuple(part.pin_memory() for part in batch)] * pictures
            evaluate(model, batches, text, preset.names, preset.unseen, window=64, precision="bf16")

        runs = [self._waits(lambda count=count: run(count)) for count in (2, 12)]
        per_picture = {line: (count - runs[0][line]) / 10 for line, count in runs[1].items() if count > runs[0][line]}
        if sum(per_picture.values()) > 1:
            raise AssertionError(per_picture)
        return {"a picture": sum(per_picture.values()), **per_picture}

    @staticmethod
    def _waits(run: Callable[[], object]) -> Counter:
        """Lines of the package at which the host waited, and how often."""
        lines = Counter()

        def note(message, *_, **__) -> None:
            if "synchroniz" in str(message):
                ours = [f for f in traceback.extract_stack() if f.filename.startswith(PACKAGE)]
                lines[f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "elsewhere"] += 1

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return lines

    def _run(self, name="voc12", *, steps=None, side=None, batch=None, out=None, keep=None, dropout=0.1, **how):
        """A training of a preset's model with random weights; its model and log."""
        preset = get_preset(name, image_size=side or self.side)
        torch.manual_seed(0)
        model = CascadeCLIP(replace(preset.model, dropout=dropout))
        settings = replace(
            preset.training, steps=steps or self.steps, batch_size=batch or self.batch, keep_every=1 if keep else 0,
            checkpoint_every=10 if out else 0, workers=0, warmup=0, **how,
        )  # fmt: skip
        data = Blocks(side or self.side, len(preset.names))
        log = train(
            model, data, words(preset), preset.names, preset.unseen, settings, collate=together, out=out, keep=keep,
            progress=False,
        )  # fmt: skip
        return model, log

    def precisions(self) -> dict:
        """The same training ends alike in every number format."""
        ends = {p: self._run(side=128, dropout=0.0, precision=p)[1][-1]["total"] for p in ("fp32", "bf16", "fp16")}
        if not max(ends.values()) <= 1.1 * min(ends.values()):
            raise AssertionError(ends)
        return ends

    def resume(self) -> str:
        """A training that was stopped ends like one that was not."""

        class Stopped(Exception):
            pass

        def stop(model, step) -> None:
            if step == 13:
                raise Stopped

        how = dict(steps=20, side=64, batch=4, precision="fp16")
        ends = [self._run(**how)[0].state_dict() for _ in range(2)]
        with tempfile.TemporaryDirectory() as folder:
            with suppress(Stopped):
                self._run(**how, out=folder, keep=stop)
            ends.append(self._run(**how, out=folder)[0].state_dict())
        apart = [
            max((a - b).abs().max().item() for a, b in zip(ends[0].values(), e.values(), strict=True)) for e in ends
        ]
        if not apart[2] <= max(5 * apart[1], 1e-3):
            raise AssertionError(apart)
        return f"weights {apart[2]:.1e} apart, two straight runs {apart[1]:.1e}"

    def presets(self) -> dict:
        """A few steps of every preset, with the peak of its memory."""
        found = {}
        for name in ("voc12", "context59", "coco-stuff", "coco-stuff-transductive"):
            torch.cuda.reset_peak_memory_stats()
            _, log = self._run(name, steps=3)
            found[name] = f"loss {log[-1]['total']:.1f}, {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
        return found

    def bench(self) -> dict:
        """Seconds, memory and share of the card's matmul peak."""
        return self._bench(compile=False)

    def bench_compiled(self) -> dict:
        return self._bench(compile=True)

    def _bench(self, compile: bool) -> dict:
        found, precision = {}, "bf16" if has_bf16(CUDA) else "fp16"
        for name in ("voc12", "coco-stuff"):
            for work in ("train", "inference"):
                case = Case(name, work, self.batch, self.side, precision=precision, compile=compile, repeats=5)
                row = measure(case)
                found[f"{name} {work}"] = (
                    f"{row['images_per_second']:.0f} pictures/s, {100 * row['of_peak']:.0f} % of the matmul peak, "
                    f"{row['peak_mib'] / 1024:.2f} GiB"
                )
        return found


ORDER = (
    "device", "device_lines", "parity", "borrowed", "waits_in_training", "waits_in_evaluation", "shipped_scores",
    "resume", "precisions", "presets", "export", "bench", "bench_compiled",
)  # fmt: skip


class OutOfTime(BaseException):
    """No `Exception`: what hangs inside a compiler would catch that."""


def out_of_time(*_) -> None:
    raise OutOfTime("no time left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--minutes", type=float, default=9)
    for name, value in (("side", 512), ("batch", 16), ("steps", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: make gpu-check is for a machine with one")
    signal.signal(signal.SIGALRM, out_of_time)
    options.out.mkdir(parents=True, exist_ok=True)
    checks, report, started = Checks(options.side, options.batch, options.steps), {}, time.monotonic()
    for name in options.only:
        begun = time.monotonic()
        try:
            signal.alarm(max(1, round(60 * options.minutes - (begun - started))))
            state, found = "ok", getattr(checks, name)()
        except (Exception, OutOfTime) as error:  # whatever it is, the next check has its turn
            state, found = "FAILED", f"{type(error).__name__}: {str(error)[:400]}"
        finally:
            signal.alarm(0)
        report[name] = {"state": state, "found": found, "seconds": round(time.monotonic() - begun, 1)}
        print(f"{name:20} {state:8} {report[name]['seconds']:6.1f} s  {found}", flush=True)
        (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    rows = [f"| {name} | {one['state']} | {str(one['found']).replace('|', '/')} |" for name, one in report.items()]
    (options.out / "gpu.md").write_text("\n".join(["| check | | found |", "|---|---|---|", *rows]) + "\n")
    failed = [name for name, one in report.items() if one["state"] == "FAILED"]
    print(f"{len(failed)} of {len(report)} checks failed; {options.out}/gpu.json")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
