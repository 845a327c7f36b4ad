"""Pretrain Mini-CLIP: contrastive learning on EmojiScenes and their captions, over all classes.

    python data_scripts/train_mini_clip.py --steps 2000 --out runs/mini_clip

This plays the part of CLIP's own pretraining: pictures and sentences, no mask. Stopped runs go on where they were when
the command is given again. Early steps see one-object scenes and a quarter of the patches (Li et al. 2023, "Scaling
language-image pre-training via masking"), late steps see up to three objects and whole pictures. Beside the class
token, the mean of the patch tokens is contrasted with the caption, which brings the patches nearer to the words; and
each of the two is contrasted with the nouns of the caption, as sentences of their own, against all other nouns (the
multi-label loss of Xu et al. 2022, "GroupViT"): a caption is soon told from others by one of its words, a noun is not.
Matrices of both transformers are trained with Muon, everything else with AdamW, both from torch.optim (2.9 or newer).
"""

import argparse
import json
import re
import time
from pathlib import Path

import torch
from open_clip.loss import ClipLoss
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from cascadeclip.analysis import last_layer_tokens, patch_labels, value_path_tokens
from cascadeclip.clip import Clip, MiniTokenizer, build_mini_clip
from cascadeclip.data.emojiscenes import CAPTIONS, CLASSES, STUFF, STYLES, THINGS, collate, draw_scene
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.files import check_apart, replace_file

HELD_OUT_SEED = 900_003
CURRICULUM = ((0.2, (1, 1)), (0.4, (1, 2)), (1.0, (1, 3)))  # until this share of the steps: objects per scene
DROPOUT = ((0.7, 0.75), (0.92, 0.5), (1.0, 0.0))  # until this share of the steps: share of patches left out


def stage(table, progress):
    """The table's entry in force at `progress` (0..1)."""
    return next(value for until, value in table if progress <= until)


class CaptionedScenes(Dataset):
    """Scene `index` of the run; the curriculum follows from the index.

    Returns:
        (3, S, S) uint8, its caption's tokens, and (72,) float that is 1 for the classes that the caption names, nan for
        stuff when the caption names none: it is there, unsaid.
    """

    def __init__(self, seed: int, total: int, start_at: float):
        self.seed, self.total, self.start_at, self.tokenize = seed, total, start_at, MiniTokenizer()

    def __len__(self):
        return self.total

    def __getitem__(self, index):
        scene = draw_scene(
            self.seed, index, objects=stage(CURRICULUM, self.start_at + (1 - self.start_at) * index / self.total)
        )
        words = set(re.findall(r"\w+", scene.caption))
        named = torch.tensor([float(name in words) for name in CLASSES])
        if not words & set(STUFF):
            named[len(THINGS) :] = float("nan")
        return to_tensor(scene.image), self.tokenize(scene.caption)[0], named


@torch.inference_mode()
def evaluate(model, scenes: int) -> dict[str, float]:
    """Held-out top-1 per style on one-object scenes; patch-text accuracy on thing patches among present classes."""
    model.eval()
    text = Clip("mini", None, model, MiniTokenizer()).class_embeddings(CLASSES)
    result = {f"top1_{style}": top1(model, text, style, scenes) for style in STYLES}
    for name, lens in (("last", last_layer_tokens), ("value", value_path_tokens)):
        result[f"patch_{name}"] = patch_accuracy(model, text, lens, scenes)
    result["named"] = named_things(model, text, scenes)
    model.train()
    return result


def chunks(scenes: int, **options):
    """Held-out scenes, up to 100 at a time: images (B, 3, S, S) float, labels (B, S, S) and the scenes."""
    for start in range(0, scenes, 100):
        batch = [draw_scene(HELD_OUT_SEED, index, **options) for index in range(start, min(start + 100, scenes))]
        images, labels = collate(batch)
        yield normalise(images), labels.long(), batch


def top1(model, text, style: str, scenes: int) -> float:
    """How often the thing of a one-object scene is the best of all things."""
    hits = 0
    for images, _, batch in chunks(scenes, styles=(style,), objects=(1, 1)):
        with torch.autocast("cpu", torch.bfloat16):
            embedded = model.encode_image(images)
        best = (embedded.float() @ text[: len(THINGS)].T).argmax(1).tolist()
        hits += sum(THINGS[i] == scene.things[0] for i, scene in zip(best, batch, strict=True))
    return hits / scenes


def named_things(model, text, scenes: int) -> float:
    """Share of a scene's k things that are among the k best of all things."""
    share = 0.0
    for images, _, batch in chunks(scenes):
        with torch.autocast("cpu", torch.bfloat16):
            order = (model.encode_image(images).float() @ text[: len(THINGS)].T).argsort(1, descending=True)
        for best, scene in zip(order.tolist(), batch, strict=True):
            guessed = {THINGS[i] for i in best[: len(scene.things)]}
            share += len(guessed & set(scene.things)) / len(scene.things)
    return share / scenes


def patch_accuracy(model, text, lens, scenes: int) -> float:
    """How often a patch that is mostly a thing is nearest to that thing's text, among the scene's classes."""
    right = total = 0
    for images, labels, _ in chunks(scenes):
        with torch.autocast("cpu", torch.bfloat16):
            tokens = lens(model.visual, images).float()
        patches = patch_labels(labels, model.visual.grid_size)  # (B, N)
        present = (labels.flatten(1)[..., None] == torch.arange(len(CLASSES))).any(1)
        best = (tokens @ text.T).masked_fill(~present[:, None], -2).argmax(-1)
        on_thing = patches < len(THINGS)
        right, total = right + (best == patches)[on_thing].sum().item(), total + on_thing.sum().item()
    return right / total


def optimisers(model, muon_lr: float, adam_lr: float):
    matrices = [p for n, p in model.named_parameters() if "resblocks" in n and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01)


def learning_rate(step: int, steps: int) -> float:
    """Factor on the learning rates: 100 steps of warm-up, constant to 50 % of the run, then linear to zero."""
    return min((step + 1) / 100, 1.0, 2 * (1 - step / steps))


def encode_image(visual, images):
    """Class token, and mean of the patch tokens, each read through `ln_post` and `proj`: (B, E) float, L2-normed."""
    tokens = visual.ln_post(visual.transformer(visual._embeds(images))) @ visual.proj
    return F.normalize(tokens[:, 0].float(), dim=-1), F.normalize(tokens[:, 1:].float().mean(1), dim=-1)


def noun_loss(image, nouns, named, scale):
    """Cross-entropy between the nouns that a caption names and the image's similarities to every noun.

    Args:
        image: (B, E) L2-normed. nouns: (72, E) L2-normed. named: (B, 72), 1, 0, or nan for what cannot be known.
    """
    logits = (scale * image @ nouns.T).masked_fill(named.isnan(), float("-inf"))
    target = named.nan_to_num(0.0)
    return -(target * logits.log_softmax(1).nan_to_num(neginf=0.0)).sum(1).div(target.sum(1)).mean()


def train_step(model, optims, images, tokens, named, progress, factor, dense_weight):
    model.visual.patch_dropout.prob = stage(DROPOUT, progress)
    for optimiser in optims:
        for group in optimiser.param_groups:
            group.setdefault("base_lr", group["lr"])
            group["lr"] = group["base_lr"] * factor
    template = CAPTIONS[int(torch.randint(len(CAPTIONS), ()))]
    sentences = MiniTokenizer()([template.replace("{}", name) for name in CLASSES])
    # The plain attention kernel is twice as fast as the fused one on a CPU at these token counts.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        image, patches = encode_image(model.visual, normalise(images))
        text = model.encode_text(torch.cat([tokens, sentences]), normalize=True).float()
    text, nouns = text[: len(tokens)], text[len(tokens) :]
    scale, contrast = model.logit_scale.exp(), ClipLoss()
    loss = contrast(image, text, scale) + noun_loss(image, nouns, named, scale)
    loss = loss + dense_weight * (contrast(patches, text, scale) + noun_loss(patches, nouns, named, scale))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optims:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    with torch.no_grad():
        model.logit_scale.clamp_(0, 4.6052)  # temperature of at least 1/100
    return loss.item()


def ship(model, path: Path, metadata: dict):
    """fp16 safetensors with the run's figures in its metadata."""
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, path, metadata={key: json.dumps(value) for key, value in metadata.items()})
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")


def main(arguments):
    arguments.out.mkdir(parents=True, exist_ok=True)
    shipped = arguments.out / "mini_clip.safetensors"
    check_apart((shipped,), (arguments.init,))
    state_path, log_path = arguments.out / "state.pt", arguments.out / "log.jsonl"
    torch.manual_seed(arguments.seed)
    model = build_mini_clip(patch_dropout=0.75)
    if arguments.init is not None:
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(arguments.init).items()})
    optims = optimisers(model, arguments.muon_lr, arguments.adam_lr)
    step = seconds = 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optims, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        step, seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["rng"])
        print(f"resuming at step {step}")
    scenes = CaptionedScenes(arguments.seed, arguments.steps * arguments.batch, arguments.start_at)
    rest = range(step * arguments.batch, len(scenes))
    loader = DataLoader(scenes, arguments.batch, sampler=rest, num_workers=1, drop_last=True, prefetch_factor=4)
    started, losses = time.time() - seconds, []
    figures = {}
    for images, tokens, named in loader:
        factor = learning_rate(step, arguments.steps)
        progress = arguments.start_at + (1 - arguments.start_at) * step / arguments.steps
        losses.append(train_step(model, optims, images, tokens, named, progress, factor, arguments.dense_weight))
        step += 1
        last = step == arguments.steps
        if step % 25 == 0 or last:
            figures = {"step": step, "loss": sum(losses) / len(losses), "seconds": round(time.time() - started)}
            losses = []
            if step % arguments.eval_every == 0 or last:
                figures |= evaluate(model, arguments.eval_scenes if last else min(arguments.eval_scenes, 300))
            print(json.dumps(figures), flush=True)
            with log_path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(figures) + "\n")
        if step % 100 == 0 or last:
            state = dict(
                model=model.state_dict(), optimisers=[o.state_dict() for o in optims], step=step,
                seconds=time.time() - started, rng=torch.get_rng_state(),
            )  # fmt: skip
            replace_file(state_path, lambda scratch, state=state: torch.save(state, scratch))
    ship(model, shipped, figures | {"batch": arguments.batch, "seed": arguments.seed})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--muon-lr", type=float, default=4e-3)
    parser.add_argument("--adam-lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dense-weight", type=float, default=1.0, help="of the contrastive loss on the patches' mean")
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--start-at", type=float, default=0.0, help="share of the curriculum to leave out")
    parser.add_argument("--eval-every", type=int, default=200)
    parser.add_argument("--eval-scenes", type=int, default=1000, help="held-out scenes per figure at the end")
    parser.add_argument("--out", type=Path, default=Path("runs/mini_clip"))
    main(parser.parse_args())
