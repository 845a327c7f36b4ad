"""Tokens of a frozen tower, kept on disk: pictures that come again cost no forward pass.

A tower without prompts gives the same tokens whenever the same picture comes: in the next epoch, at the next
validation, in the training of the next model. Where models are small, most of a training goes into computing them anew.
"""

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cascadeclip.checkpoints.own import fingerprint
from cascadeclip.config import ModelConfig
from cascadeclip.errors import InputError
from cascadeclip.files import replace_file
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import tower_config
from cascadeclip.tensors import open_safetensors


def recallable(model: ModelConfig) -> bool:
    """Whether a model's tokens stay the same while it trains, and are those of blocks that are kept."""
    frozen = not model.prompt_tokens and not model.spectral_blocks
    return frozen and set(model.taps) <= set(_upper_half(model))


@contextmanager
def recalling(model: CascadeCLIP, folder: str | Path | None) -> Iterator[None]:
    """Within it, the model's tokens come from a folder; without one, or if it is not `recallable`, nothing changes."""
    if folder is not None and recallable(model.config):
        model.encoder.recall = Recall(model, folder)
    try:
        yield
    finally:
        model.encoder.recall = None


def _upper_half(model: ModelConfig) -> tuple[int, ...]:
    """The blocks whose tokens are kept: 6 to 12 of a tower of 12."""
    return tuple(range(model.tower.layers // 2, model.tower.layers + 1))


class Recall:
    """Stands in for `PromptedEncoder.run_tower`: tokens come from a folder, or are computed and put there.

    One file a picture, named by a digest of its pixels and shape, in a folder named by a digest of what the tokens
    depend on besides. They are computed in float32 and kept in float16 (relative error 5e-4 at most), and a training
    reads them as they are kept, whether they were there before or not; a file whose checksum is wrong is computed anew.
    Several processes may share the folder; whoever wants the space back deletes it.

    Args:
        model: one that is `recallable`.
        folder: gets 0.4 MB a picture of the mini world, 11 MB a picture of 512 px with a ViT-B/16.
    """

    def __init__(self, model: CascadeCLIP, folder: str | Path):
        self.encoder, self.blocks = model.encoder, _upper_half(model.config)
        visual = model.encoder.visual
        # the weights do not tell the activation, the number of heads, nor a norm's epsilon: two towers may share them
        depends = (tower_config(visual), visual, fingerprint(visual), model.config.class_embedding_twice, self.blocks)
        self.folder = Path(folder) / _digest(" ".join(map(repr, depends)).encode())

    @torch.no_grad()
    def __call__(self, images: Tensor, read: tuple[int, ...]) -> tuple[dict[int, Tensor], tuple[int, int]]:
        pixels = images.float().cpu().numpy()
        shape = f"{pixels.dtype} {pixels.shape[1:]} ".encode()  # the same bytes may be another picture
        paths = [self.folder / f"{_digest(shape + image.tobytes())}.safetensors" for image in pixels]
        kept = {number: tokens for number, path in enumerate(paths) if (tokens := _read(path, read)) is not None}
        if new := [number for number in range(len(paths)) if number not in kept]:
            kept |= zip(new, self._compute(images[new], [paths[number] for number in new]), strict=True)
        (height, width), (ph, pw) = images.shape[2:], self.encoder.visual.patch_size
        tokens = {b: torch.stack([kept[n][b].float() for n in range(len(paths))]).to(images.device) for b in read}
        return tokens, (height // ph, width // pw)

    def _compute(self, images: Tensor, paths: list[Path]) -> Iterator[dict[int, Tensor]]:
        """Tokens by block, each (1 + N, D) float16, of one picture after the other, which are then kept."""
        with torch.autocast(images.device.type, enabled=False):
            tokens, _ = self.encoder.run_tower(images.float(), self.blocks)
        for number, path in enumerate(paths):
            one = {block: of_all[number].half().cpu().contiguous() for block, of_all in tokens.items()}
            named = {str(block): of_block for block, of_block in one.items()}
            sums = {block: _sum(path, block, of_block) for block, of_block in named.items()}
            replace_file(path, partial(save_file, named, metadata=sums), sync=False)
            yield one


def _read(path: Path, blocks: tuple[int, ...]) -> dict[int, Tensor] | None:
    """Tokens (1 + N, D) of one picture; None if they are not there, or damaged."""
    try:
        with open_safetensors(path) as file:
            sums, kept = file.metadata() or {}, {block: file.get_tensor(str(block)) for block in blocks}
    except (OSError, InputError, SafetensorError):
        return None
    return kept if all(sums.get(str(b)) == _sum(path, str(b), tokens) for b, tokens in kept.items()) else None


def _sum(path: Path, block: str, tokens: Tensor) -> str:
    """Checksum of a block's tokens, and of whose they are: 0.05 ms for one of the mini world."""
    whose = f"{path.name} {block} {tokens.dtype} {tuple(tokens.shape)}"
    return f"{zlib.crc32(tokens.flatten().view(torch.uint8).numpy().data, zlib.crc32(whose.encode())):08x}"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
