"""What the explorers compute: pure functions from pictures, words and settings to arrays; `draw` draws them.

Symbols: N = h * w patches, L blocks, D width of the tower, E joint image-text width, C words, S stages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis.dense.registry import dense_features
from cascadeclip.analysis.layers import FeatureColours
from cascadeclip.analysis.lenses import Tower, block_inputs, block_tokens, raw_lens
from cascadeclip.analysis.pictures import Picture, grid_of, one_batch, to_batch
from cascadeclip.analysis.surgery import attention_weights
from cascadeclip.data.emojiscenes import CLASSES
from cascadeclip.data.labels import WIDE_IGNORE, ignored_label
from cascadeclip.data.words import as_written, positions_written
from cascadeclip.errors import InputError
from cascadeclip.evaluation.diagnostics import Readout
from cascadeclip.evaluation.refine import pamr
from cascadeclip.model.cascade import Aggregation, CascadeCLIP, weighted_sum
from cascadeclip.model.encoder import EncoderOutput
from cascadeclip.model.tower import run_block
from cascadeclip.segmenter import Segmenter

# --- pictures and words --------------------------------------------------------------------------------------------


def split_words(text: str, most: int = 8) -> tuple[str, ...]:
    """Words between commas, at most `most` of them; see also `data.words.check_names`."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if len(words) > most:
        raise InputError(f"{len(words)} words are too many to be drawn: give at most {most}")
    return words


def shown_size(image: np.ndarray, longest: int = 160) -> tuple[int, int]:
    """Rows and columns that masks of a picture (H, W, 3) are drawn at: its own, unless it is large."""
    scale = min(1.0, longest / max(image.shape[:2]))
    return tuple(max(1, round(side * scale)) for side in image.shape[:2])


def truth_among(picture: Picture, classes: Sequence[str], names: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """A picture's labels as indices into `names` instead of `classes`, at another size: (h, w) int64.

    What is none of `names` is the label of ignored pixels, as is everything where nobody knows the truth.
    """
    ignored, place = ignored_label(len(names)), {as_written(name): index for index, name in enumerate(classes)}
    if picture.labels is None:
        return np.full(size, ignored)
    table = np.full(WIDE_IGNORE + 1, ignored)  # labels have at most 16 bits
    for position, name in enumerate(map(as_written, names)):
        if name in place:
            table[place[name]] = position
    labels = torch.as_tensor(picture.labels)[None, None].float()
    return table[F.interpolate(labels, size, mode="nearest-exact")[0, 0].long().numpy()]


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
    inputs = block_inputs(visual, batch)
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
        "similarity to the patch": torch.einsum("lnd,ld->ln", units, units[:, patch]),
        "colours": np.stack([colours(block, tokens) for block, tokens in enumerate(layers.tokens.numpy())]),
        "similarity to the word": layers.joint @ text.cpu().float(),
        "attention of the patch": layers.attention[:, patch].float() * (height * width),
    }
    arrays = {name: np.asarray(values) for name, values in flat.items()}
    return {name: values.reshape(-1, height, width, *values.shape[2:]) for name, values in arrays.items()}


# --- words and stages ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def encode(model: CascadeCLIP, images: Sequence[np.ndarray]) -> EncoderOutput:
    """The model's encoder over pictures (H, W, 3) uint8 of one shape."""
    return model.encoder(one_batch(images, model.encoder.visual))


@torch.inference_mode()
def stage_logits(
    model: CascadeCLIP, encoded: EncoderOutput, text: Tensor, stage: int, weights: Sequence[float] | None = None
) -> Tensor:
    """Mask logits of one stage, from features that the encoder has read already.

    Args:
        model: in eval mode.
        text: (C, E) float, L2-normed.
        stage: from 0.
        weights: one per block, to be used instead of NGA's trained ones.

    Returns:
        (B, C, h, w) float32 on the CPU; the sum over the stages is the cascade's.

    Raises:
        InputError: weights for a stage without NGA, or another number of them than blocks.
    """
    text = model.centred(text.to(encoded.image_embedding.device))
    aggregate, blocks = model.aggregations[stage], model.config.stages[stage]
    features = [encoded.features[block] for block in blocks]
    if weights is None:
        tokens = aggregate(features)
    elif aggregate.kind != "nga" or len(weights) != len(blocks):
        raise InputError(f"stage {stage + 1} reads blocks {blocks} with {aggregate.kind!r}: it cannot take {weights}")
    else:
        given = torch.tensor(weights, dtype=text.dtype, device=text.device)
        tokens = weighted_sum(given, features)
    describe, decode = (parts[stage % len(parts)] for parts in (model.descriptors, model.decoders))  # or shared
    return decode(describe(text, encoded.image_embedding), tokens).unflatten(-1, encoded.grid).float().cpu()


def trained_weights(model: CascadeCLIP) -> dict[int, list[float]]:
    """NGA's weights after training: stage (from 0) -> one per block; stages without NGA are left out."""
    stages = enumerate(cast(Iterable[Aggregation], model.aggregations))
    return {stage: own.weights.detach().cpu().tolist() for stage, own in stages if own.kind == "nga"}


def resized(logits: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinearly."""
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def probabilities(logits: Tensor, size: Sequence[int], seen: Sequence[int] = (), seen_offset: float = 0.0) -> Tensor:
    """Mask logits (B, C, h, w) -> (B, C, *size) float32: brought to the size, sigmoid, less the seen offset."""
    scores = resized(logits, size).sigmoid()
    scores[:, list(seen)] -= seen_offset
    return scores


def with_sum(logits: Tensor, on: Sequence[bool]) -> Tensor:
    """Mask logits (S, ...) of every stage, and the sum of those that are on: (S + 1, ...).

    Raises:
        InputError: no stage is on.
    """
    if not any(on):
        raise InputError("every stage is switched off: switch on at least one")
    return torch.cat([logits, logits[list(on)].sum(0, keepdim=True)])


@dataclass(frozen=True, eq=False)
class WordMasks:
    """What every stage and the sum of some say about a picture and C words.

    Attributes:
        names, unseen: the words, and those that never had a mask label.
        on: which of the S stages count in the sum.
        masks: (S + 1, C, h, w) float32, mask logits; the sum comes last, but for a method `beside` it.
        best: (S + 1, h, w) int64, the word chosen at each place, the seen offset taken off.
        truth: (h, w) int64, the right word, or the label of ignored pixels where it is none of them or unknown.
        beside: a training-free method whose masks stand in one column more.
    """

    names: tuple[str, ...]
    unseen: tuple[str, ...]
    on: tuple[bool, ...]
    masks: np.ndarray
    best: np.ndarray
    truth: np.ndarray
    beside: str | None = None

    @property
    def known(self) -> np.ndarray:
        """(h, w) bool: where one of the words is the right one."""
        return self.truth != ignored_label(len(self.names))

    def right(self) -> list[float]:
        """Share of the pixels with a known word that each stage and the sum give it; nan if there are none."""
        known = self.known
        return [float((one == self.truth)[known].mean()) if known.any() else float("nan") for one in self.best]


@torch.inference_mode()
def read_words(segmenter: Segmenter, encoded: EncoderOutput, names: Sequence[str]) -> Tensor:
    """Mask logits of the words in every stage, (S, C, h, w) float32, from one picture that `encode` has read."""
    model, text = segmenter.model, segmenter.clip.class_embeddings(names, segmenter.templates)
    return torch.cat([stage_logits(model, encoded, text, stage) for stage in range(len(model.config.stages))])


def word_masks(
    segmenter: Segmenter, picture: Picture, names: Sequence[str], on: Sequence[bool], *,
    logits: Tensor | None = None, classes: Sequence[str] = CLASSES, beside: str | None = None,
) -> WordMasks:  # fmt: skip
    """The words' masks at the size they are drawn at.

    Args:
        on: stages that count in the sum; at least one.
        logits: `read_words` of the same, if that has been done already.
        classes: what the picture's labels are indices into.
        beside: a training-free method on the same CLIP to compare with.
    """
    if logits is None:
        logits = read_words(segmenter, encode(segmenter.model, [picture.image]), names)
    columns = with_sum(logits, on)
    size, seen = shown_size(picture.image), positions_written(names, segmenter.seen)
    unseen = tuple(name for position, name in enumerate(names) if position not in seen)
    best = probabilities(columns, size, seen, segmenter.seen_offset).argmax(1).numpy()
    truth, masks = truth_among(picture, classes, names, size), resized(columns, size).numpy()
    if beside is not None:
        without = method_masks(segmenter, picture.image, names, beside, size)
        masks, best = np.concatenate([masks, without[None]]), np.concatenate([best, without.argmax(0)[None]])
    return WordMasks(tuple(names), unseen, tuple(on), masks, best, truth, beside)


@torch.inference_mode()
def method_masks(
    segmenter: Segmenter, image: np.ndarray, names: Sequence[str], method: str, size: tuple[int, int]
) -> np.ndarray:
    """What a training-free method says about the words, (C, *size) float32: similarities less their mean.

    The mean is that of the words at each place, or of the places, if there is one word.
    """
    visual, text = segmenter.clip.visual, segmenter.clip.class_embeddings(names, segmenter.templates)
    batch = to_batch(image, visual)
    patches = dense_features(visual, batch, method)
    similarity = (patches @ text.to(patches).T).transpose(1, 2).unflatten(2, grid_of(batch, visual)).float().cpu()
    similarity = similarity - similarity.mean((1,) if len(names) > 1 else (2, 3), keepdim=True)
    return resized(similarity, size)[0].numpy()


def refined(batch: Tensor, similarity: Tensor, image: np.ndarray, times: int) -> Tensor:
    """Similarities (1, C, h, w) refined along a picture's edges, at the size they are drawn: (1, C, h', w')."""
    return resized(pamr(batch, similarity, times), shown_size(image))


def every_second_pixel(pictures: Sequence[Picture]) -> Tensor:
    """Labels (n, H / 2, W / 2) of labelled pictures of one size, for scores that have to be quick."""
    return torch.stack([torch.as_tensor(picture.labels)[1::2, 1::2] for picture in pictures])


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
