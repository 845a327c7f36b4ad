"""Speed and memory against the yardsticks: python tests/support/measure_speed.py speed --classes 15 156.

    speed        seconds of a training step and of inference, ours and the yardsticks', alternating in one process
    memory       peak of a process that trains: python tests/support/measure_speed.py memory --batch 4 --classes 156
    loss-peaks   MiB that the loss adds to a process, for several numbers of classes
    profile      where the time of a training step goes
    mini         the same for the mini world, and the share that drawing the scenes takes

ViT-B/16 with random weights, pictures of --side px, on the CPU; --precision bf16 for autocast, --compile to time
ours as `torch.compile` makes it, too. Prints JSON.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import profile
from yardsticks import PlainCascade, TowerAlone, plain_loss, plain_predict

from cascadeclip.config import ModelConfig
from cascadeclip.data.labels import ignored_label
from cascadeclip.evaluation.scores import predict
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.losses import segmentation_loss
from cascadeclip.presets import MINI, vit_b_16
from cascadeclip.processes import autocast
from cascadeclip.training.loop import train
from cascadeclip.training.run import on_tower_of, open_clip_of

CPU = torch.device("cpu")


def inputs(batch: int, classes: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random pictures, text embeddings, and labels in blocks of 8 px."""
    torch.manual_seed(0)
    labels = torch.randint(0, classes, (batch, side // 8, side // 8))
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return torch.randn(batch, 3, side, side), F.normalize(torch.randn(classes, 512), dim=-1), labels


def runs(options, classes: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    images, text, labels = inputs(options.batch, classes, options.side)
    torch.compiler.reset()  # or the second number of classes would be compiled as one of any number
    model = CascadeCLIP(ModelConfig(prompt_tokens=options.prompts, tower=vit_b_16(options.side)))
    tower, plain = TowerAlone(model.encoder.visual), PlainCascade(model)
    compiled = torch.compile(model)  # at its first run
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    seen = list(range(classes * 4 // 5))

    def step(masks, loss) -> None:
        model.train()
        with autocast(CPU, options.precision):
            logits = masks(images, text)
        loss(logits, labels).backward()
        optimiser.step()
        optimiser.zero_grad()

    def tower_step() -> None:
        with autocast(CPU, options.precision):
            tower(images).sum().backward()

    @torch.inference_mode()
    def tower_forward() -> None:
        with autocast(CPU, options.precision):
            tower(images)

    def infer(scores) -> None:
        model.eval()
        with autocast(CPU, options.precision):
            scores()

    def ours(masks: Tensor, labels: Tensor) -> Tensor:
        return segmentation_loss(masks, labels)["total"]

    side, scored = options.side, (images, text, seen, 0.1)
    todo = {
        "tower step": tower_step,
        "step": lambda: step(lambda *x: model(*x).mask_logits, ours),
        "compiled step": lambda: step(lambda *x: compiled(*x).mask_logits, ours),
        "plain step": lambda: step(plain, plain_loss),
        "tower inference": tower_forward,
        "inference": lambda: infer(lambda: predict(model, *scored, side)),
        "compiled inference": lambda: infer(lambda: predict(compiled, *scored, side)),
        "plain inference": lambda: infer(lambda: plain_predict(plain, *scored, side, side)),
    }
    left_out = [
        kind for kind, wanted in (("plain", not options.skip_plain), ("compiled", options.compile)) if not wanted
    ]
    return {name: run for name, run in todo.items() if name.split()[0] not in left_out}


def speed(options) -> dict:
    """Median, least and most seconds of each run, and of its multiples of the tower alone, run in the same turn."""
    report = {"load": [os.getloadavg()[0]]}
    for classes in options.classes:
        todo = runs(options, classes)
        seconds = {name: [] for name in todo}
        for turn in range(options.repeats + 1):
            for name, run in todo.items():
                start = time.perf_counter()
                run()
                if turn:  # the first turn warms up
                    seconds[name].append(time.perf_counter() - start)
        figures = {name: spread(values) for name, values in seconds.items()}
        for name, values in seconds.items():
            floors = seconds[f"tower {name.split()[-1]}"]
            if values is not floors:
                figures[f"{name} / tower"] = spread([own / floor for own, floor in zip(values, floors, strict=True)])
        report[f"{classes} classes"] = figures
        report["load"].append(os.getloadavg()[0])
    return report


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def memory(options) -> dict:
    """Peak of this process after two training steps (`--plain`: of the plain transcription)."""
    run = runs(options, options.classes[0])["plain step" if options.plain else "step"]
    run()
    run()
    return {"batch": options.batch, "classes": options.classes[0], "peak_gb": round(status("VmHWM") * 1024 / 1e9, 3)}


def loss_peaks(options) -> dict:
    """What the loss and its gradient add to the process, for each number of classes."""
    added = []
    for classes in options.classes:
        logits = torch.randn(options.batch, classes, options.side // 16, options.side // 16, requires_grad=True)
        _, _, labels = inputs(options.batch, classes, options.side)
        ours = partial(segmentation_loss, ignore_index=ignored_label(classes))
        loss = plain_loss if options.plain else lambda *x, ours=ours: ours(*x)["total"]
        small = torch.zeros(1, 1, 2, 2, requires_grad=True)
        loss(small, torch.zeros(1, 8, 8, dtype=torch.int64)).backward()  # code that is loaded on first use
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew from here
        before = status("VmRSS")
        loss(logits, labels).backward()
        added.append(round((status("VmHWM") - before) / 1024, 2))
        del logits, labels
    masks = [round(options.batch * classes * (options.side // 16) ** 2 * 4 / 2**20, 2) for classes in options.classes]
    return {"classes": options.classes, "added_mib": added, "mask_logits_mib": masks}


def status(name: str) -> int:
    """KiB, as Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def where_time_goes(options) -> dict:
    """Share of a training step's own time by kind of operation, per cent."""
    run = runs(options, options.classes[0])["step"]
    run()
    with profile() as recorded:
        run()
    own = {event.key: event.self_cpu_time_total for event in recorded.key_averages()}
    total = sum(own.values())
    largest = sorted(own.items(), key=lambda item: -item[1])[:20]
    return {"seconds": round(total / 1e6, 3), **{name: round(100 * value / total, 1) for name, value in largest}}


def mini(options) -> dict:
    """Training steps of the mini preset: seconds each, and shares of the time, per cent."""
    clip = open_clip_of(MINI)
    model = CascadeCLIP(on_tower_of(clip, MINI.model), clip.visual)
    text = clip.class_embeddings(MINI.names, MINI.templates)

    def steps(number: int) -> float:
        training, start = replace(MINI.training, steps=number), time.perf_counter()
        data = MINI.train_data(0)
        train(model, data, text, MINI.names, MINI.unseen, training, collate=MINI.collate, progress=False)
        return (time.perf_counter() - start) / number

    steps(3)
    seconds = steps(10 * options.repeats)
    with profile() as recorded:
        steps(10)
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    scenes = sum(event.cpu_time_total for event in events if event.key.startswith("enumerate(DataLoader)"))
    shares = {"drawing scenes": round(100 * scenes / total, 1)}
    largest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:8]
    shares |= {event.key: round(100 * event.self_cpu_time_total / total, 1) for event in largest}
    return {"seconds_per_step": round(seconds, 3), **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work = {"speed": speed, "memory": memory, "loss-peaks": loss_peaks, "profile": where_time_goes, "mini": mini}
    parser.add_argument("what", choices=work)
    parser.add_argument("--classes", type=int, nargs="+", default=[15])
    for name, value in (("batch", 1), ("side", 512), ("prompts", 10), ("repeats", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", default="fp32")
    for name in ("plain", "skip-plain", "compile"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(work[options.what](options), indent=1))


if __name__ == "__main__":
    main()
