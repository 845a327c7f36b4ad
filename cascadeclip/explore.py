"""What the explorers compute: pure functions from pictures, words and settings to arrays; `explore_plots` draws them.

Symbols: N = h * w patches, L blocks, D width of the tower, E joint image-text width, C words, S stages.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis import FeatureColours, patch_labels
from cascadeclip.cascade import CascadeCLIP
from cascadeclip.data.emojiscenes import EmojiScenes
from cascadeclip.data.images import read_image
from cascadeclip.data.transforms import IGNORE, normalise, to_tensor, working_size
from cascadeclip.diagnostics import Readout, confusion_of
from cascadeclip.encoder import EncoderOutput, build_tower, run_block, tower_config
from cascadeclip.errors import InputError
from cascadeclip.evaluation import iou_of_counts
from cascadeclip.lenses import Tower, block_inputs, block_tokens, raw_lens
from cascadeclip.surgery import Surgery, attention_weights, last_block

# --- pictures and words --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to explore. Two of them are equal only if they are the same object.

    Attributes:
        title: for people.
        image: (H, W, 3) uint8.
        words: to start with.
        labels: (H, W) integer, the truth as indices into the world's class names, or 255; None if nobody knows.
    """

    title: str
    image: np.ndarray
    words: tuple[str, ...] = ()
    labels: np.ndarray | None = None


def scene_pictures(count: int = 24, split: str = "test") -> list[Picture]:
    """The first scenes of a fixed set of EmojiScenes; labels are indices into `CLASSES`."""
    scenes = EmojiScenes.split(split)
    found = [(index, scenes[index]) for index in range(count)]
    return [Picture(f"{i}: {', '.join(s.things)}", s.image, s.things + s.stuff, s.labels) for i, s in found]


def picture_from_file(name: str, content: bytes, words: Sequence[str] = ()) -> Picture:
    """A picture from the content of an image file, as a browser sends it.

    Raises:
        InputError: no image, a damaged one, or one too large to open.
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            file.load()
            image = read_image(file)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large ({error}); make it smaller") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{name} is no image or a damaged one ({error}); convert it to PNG or JPEG") from error
    return Picture(f"yours: {name}", image, tuple(words))


def split_words(text: str, most: int = 8) -> tuple[str, ...]:
    """Words between commas, at most `most` of them; see also `segmenter.check_names`."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if len(words) > most:
        raise InputError(f"{len(words)} words do not fit into the picture: give at most {most}")
    return words


def to_batch(image: np.ndarray, visual: Tower) -> Tensor:
    """A picture (H, W, 3) uint8 as the tower reads it: (1, 3, h, w) float32, normalised, on the tower's device.

    Its short side is the tower's picture size; the long one is cut down to whole patches.
    """
    side, patch = visual.image_size[0], visual.patch_size[0]
    size = [length // patch * patch for length in working_size(*image.shape[:2], side)]
    pixels = to_tensor(image)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return normalise(pixels).to(visual.proj.device)


def grid_of(batch: Tensor, visual: Tower) -> tuple[int, int]:
    """(h, w), rows and columns of patches."""
    return tuple(side // patch for side, patch in zip(batch.shape[2:], visual.patch_size, strict=True))


# --- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Layers:
    """One picture after every block.

    Attributes:
        tokens: (L, N, D) float32, patch tokens.
        joint: (L, N, E) float32, the same through the raw lens, L2-normed.
        attention: (L, N, N) float16, mean over the heads; what patches give to the class token is left out.
        grid: (h, w).
    """

    tokens: Tensor
    joint: Tensor
    attention: Tensor
    grid: tuple[int, int]


@torch.inference_mode()
def read_layers(visual: Tower, image: np.ndarray) -> Layers:
    """Run the tower once over a picture (H, W, 3) uint8."""
    batch = to_batch(image, visual)
    inputs, after = block_inputs(visual, batch), []
    attention = torch.stack([
        attention_weights(block, block.ln_1(tokens))[0].mean(0)[1:, 1:].half().cpu()
        for block, tokens in zip(visual.transformer.resblocks, inputs, strict=True)
    ])  # fmt: skip
    after = torch.stack([*inputs[1:], run_block(visual.transformer.resblocks[-1], inputs[-1])])[:, 0, 1:]
    return Layers(after.float().cpu(), raw_lens(visual, after).float().cpu(), attention, grid_of(batch, visual))


@torch.inference_mode()
def fit_colours(visual: Tower, images: Sequence[np.ndarray], samples: int = 1500) -> FeatureColours:
    """Colours for the tokens of every block, fitted on about `samples` patches of the pictures."""
    after = [torch.stack(block_tokens(visual, to_batch(image, visual)))[:, 0, 1:].float().cpu() for image in images]
    tokens = torch.cat(after, dim=1)
    return FeatureColours([block[:: max(1, len(block) // samples)].numpy() for block in tokens])


def layer_maps(layers: Layers, colours: FeatureColours, text: Tensor, row: int, column: int) -> dict[str, np.ndarray]:
    """What one patch and one word look like at every block.

    Args:
        text: (E,) float, L2-normed, the word's embedding.
        row, column: the patch.

    Returns:
        (L, h, w) each, and (L, h, w, 3) of colours: cosine similarity to the patch; the colours; cosine similarity to
        the word through the raw lens; attention from the patch, times N, so that 1 is an even look.

    Raises:
        InputError: a patch outside the picture.
    """
    height, width = layers.grid
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(f"patch ({row}, {column}) is outside the picture, which has {height} x {width} patches")
    patch, units = row * width + column, F.normalize(layers.tokens, dim=-1)
    flat = {
        "likeness to the patch": torch.einsum("lnd,ld->ln", units, units[:, patch]),
        "colours": np.stack([colours(block, tokens) for block, tokens in enumerate(layers.tokens.numpy())]),
        "likeness to the word": layers.joint @ text.cpu().float(),
        "attention of the patch": layers.attention[:, patch].float() * (height * width),
    }
    return {name: np.asarray(values).reshape(-1, height, width, *values.shape[2:]) for name, values in flat.items()}


# --- words and stages ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def encode(model: CascadeCLIP, images: Sequence[np.ndarray]) -> EncoderOutput:
    """The model's encoder over pictures (H, W, 3) uint8 that come out at one size."""
    return model.encoder(torch.cat([to_batch(image, model.encoder.visual) for image in images]))


@torch.inference_mode()
def stage_logits(
    model: CascadeCLIP, encoded: EncoderOutput, text: Tensor, weights: Mapping[int, Sequence[float]] | None = None
) -> Tensor:
    """Mask logits of every stage, from features that the encoder has read already.

    Args:
        model: in eval mode.
        text: (C, E) float, L2-normed.
        weights: stage (from 0) -> its NGA weights, to be used instead of the trained ones.

    Returns:
        (S, B, C, h, w) float32 on the CPU; their sum over the stages is the cascade's.

    Raises:
        InputError: weights for a stage that has none, or too few or many of them.
    """
    text, found = text.to(encoded.image_embedding.device), []
    for stage, (blocks, aggregate) in enumerate(zip(model.config.stages, model.aggregations, strict=True)):
        features = [encoded.features[block] for block in blocks]
        if stage not in (weights or {}):
            tokens = aggregate(features)
        elif aggregate.kind != "nga" or len(weights[stage]) != len(blocks):
            raise InputError(
                f"stage {stage + 1} reads blocks {blocks} with {aggregate.kind!r}: it cannot take {weights[stage]}"
            )
        else:
            given = torch.tensor(weights[stage], dtype=text.dtype, device=text.device)
            tokens = torch.einsum("l,lbne->bne", given, torch.stack(features))  # Z_s = sum_l w_l H_l
        describe, decode = (parts[stage % len(parts)] for parts in (model.descriptors, model.decoders))  # or shared
        found.append(decode(describe(text, encoded.image_embedding), tokens).unflatten(-1, encoded.grid))
    return torch.stack(found).float().cpu()


def trained_weights(model: CascadeCLIP) -> dict[int, list[float]]:
    """NGA's weights after training: stage (from 0) -> one per block; stages without NGA are left out."""
    return {s: a.weights.detach().cpu().tolist() for s, a in enumerate(model.aggregations) if a.kind == "nga"}


def probabilities(logits: Tensor, size: tuple[int, int], seen: Sequence[int] = (), seen_offset: float = 0.0) -> Tensor:
    """Mask logits (..., C, h, w) -> (..., C, *size) float32: brought to the size, sigmoid, less the seen offset."""
    flat = logits.reshape(-1, *logits.shape[-3:])
    scores = F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False).sigmoid()
    scores[:, list(seen)] -= seen_offset
    return scores.view(*logits.shape[:-2], *size)


def read_out_logits(logits: Tensor, labels: Tensor, unseen: Sequence[int]) -> Readout:
    """Mask logits (n, C, h, w) as a `Readout`, from which every seen offset's segmentation follows.

    Args:
        labels: (n, H, W) integer; the probabilities are read at their size.
        unseen: indices of the classes without mask labels.
    """
    scores, parts = probabilities(logits, labels.shape[1:]), []
    for group in ([c for c in range(logits.shape[1]) if c not in set(unseen)], list(unseen)):
        value, place = scores[:, group].max(1)
        parts.append((torch.tensor(group, dtype=torch.int16)[place], value))
    (seen_class, seen_score), (unseen_class, unseen_score) = parts
    return Readout(labels, seen_class, unseen_class, seen_score, unseen_score)


# --- surgery ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Bench:
    """Labelled pictures laid out for surgery: everything up to the last block is computed once.

    Attributes:
        inputs: tower's name (`trained`, `random`) -> what goes into its last block, (n, T, D).
        towers: the towers by the same names.
        labels: (n, N) int64, each patch's class.
        text: (C, E), the classes' embeddings.
        grid: (h, w).
    """

    inputs: dict[str, Tensor]
    towers: dict[str, Tower]
    labels: Tensor
    text: Tensor
    grid: tuple[int, int]


@torch.inference_mode()
def lay_out(visual: Tower, pictures: Sequence[Picture], text: Tensor, seed: int = 0) -> Bench:
    """A bench from labelled pictures of one size, and a tower of the same sizes with random weights beside it."""
    if not pictures or any(picture.labels is None for picture in pictures):
        raise InputError("scores need labelled pictures, one or more: give pictures with labels")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = build_tower(tower_config(visual)).to(visual.proj.device).eval()
    batch = torch.cat([to_batch(picture.image, visual) for picture in pictures])
    grid, towers = grid_of(batch, visual), {"trained": visual, "random": random}
    labels = torch.stack([torch.as_tensor(picture.labels) for picture in pictures])
    inputs = {name: block_inputs(tower, batch)[-1] for name, tower in towers.items()}
    return Bench(inputs, towers, patch_labels(labels, grid), text.to(visual.proj.device), grid)


def bench_scores(bench: Bench, surgery: Surgery, seed: int = 0) -> dict[str, float]:
    """mIoU over patches, each picture's patches given to the likeliest of its own words; baselines beside it.

    Returns:
        `this surgery`, and what it must beat under the same surgery: `wrong words` (every word's embedding is that of
        another one), `shuffled patches` (the right tokens in wrong places), `random tower` (weights never trained).
    """
    tokens = {
        name: last_block(bench.towers[name], inputs, bench.grid, surgery) for name, inputs in bench.inputs.items()
    }
    places = torch.randperm(bench.labels.shape[1], generator=torch.Generator().manual_seed(seed))
    cases = {
        "this surgery": (tokens["trained"], bench.text),
        "wrong words": (tokens["trained"], bench.text.roll(1, dims=0)),
        "shuffled patches": (tokens["trained"][:, places], bench.text),
        "random tower": (tokens["random"], bench.text),
    }
    return {name: _patch_miou(found @ text.T, bench.labels) for name, (found, text) in cases.items()}


def own_words_only(similarity: Tensor, labels: Tensor) -> Tensor:
    """(n, N, C) -> the likeliest class of each patch among those that its picture holds, (n, N) int64."""
    present = torch.stack([torch.bincount(row[row != IGNORE], minlength=similarity.shape[2]) > 0 for row in labels])
    return similarity.masked_fill(~present[:, None], -torch.inf).argmax(-1)


def _patch_miou(similarity: Tensor, labels: Tensor) -> float:
    found = own_words_only(similarity.float().cpu(), labels)
    counts = confusion_of(found, labels, similarity.shape[2]).counts.double()
    return iou_of_counts(counts.diag(), counts.sum(1), counts.sum(0)).nanmean().item()
