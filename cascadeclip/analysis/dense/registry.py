"""All methods under one call: CLIP's patch tokens, read from a frozen tower in eight ways."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis.dense.calibrated import sc_clip
from cascadeclip.analysis.dense.last_block import Surgery, clearclip, clip, maskclip, naclip, sclip
from cascadeclip.analysis.dense.second_path import clip_surgery, gem
from cascadeclip.analysis.dense.trunk import Trunk, check_blocks
from cascadeclip.analysis.lenses import Tower
from cascadeclip.clip.load import Clip
from cascadeclip.errors import InputError

Method = Callable[..., Tensor]  # (trunk, block, **settings) -> (B, N, E), L2-normed

METHODS: dict[str, Method] = {
    method.__name__: method for method in (clip, maskclip, clip_surgery, sclip, clearclip, naclip, gem, sc_clip)
}


def get_method(name: str) -> Method:
    """The method of that name; an `InputError` with near names for any other."""
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), METHODS, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"unknown method {name!r}: {hint}There are {', '.join(METHODS)}")


def check_settings(name: str, settings: Mapping[str, object]) -> None:
    """An `InputError` unless a method has all of these settings."""
    parameters = inspect.signature(get_method(name)).parameters.values()
    known = [one.name for one in parameters if one.kind == one.KEYWORD_ONLY]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"method {name!r} has no setting {', '.join(unknown)}; it has {', '.join(known) or 'none'}")


def dense_features(
    clip: Clip | Tower,
    images: Tensor,
    method: str | Surgery = "naclip",
    *,
    blocks: Sequence[int] | None = None,
    **settings: object,
) -> Tensor:
    """Patch tokens of a frozen CLIP in the joint image-text space, without any training.

    Args:
        clip: a `Clip`, or an image tower of open_clip: any plain ViT. It is not changed.
        images: (B, 3, H, W) float, normalised, on the tower's device; each gives the same as alone.
        method: one of `METHODS`, or a `Surgery` of your own.
        blocks: numbers of blocks. The method is applied to each as if the tower ended there; what is returned is the
            mean of the L2-normed tokens of all, L2-normed again. The last block alone by default.
        settings: of the method, see its docstring.

    Returns:
        (B, N, E) float, L2-normed: a product with text embeddings gives cosine similarities.

    Raises:
        InputError: an unknown method or setting, a block that the tower has not, more blocks than there are.

    Example:
        >>> dense_features(load_clip(), images, "sclip", blocks=(10, 11, 12)).shape  # doctest: +SKIP
        torch.Size([1, 144, 128])
    """
    return from_trunk(Trunk(tower_of(clip), images), method, blocks=blocks, **settings)


@torch.inference_mode()
def from_trunk(
    trunk: Trunk, method: str | Surgery = "naclip", *, blocks: Sequence[int] | None = None, **settings: object
) -> Tensor:
    """`dense_features` from a batch that other methods have read already: shared blocks are not run again."""
    if isinstance(method, Surgery):
        apply: Method = method
        if settings:
            raise InputError(f"a Surgery holds all its settings; it takes no {', '.join(settings)} beside them")
    else:
        apply = get_method(method)
        check_settings(method, settings)
    numbers = check_blocks((trunk.depth,) if blocks is None else blocks, trunk.depth)
    found = [apply(trunk, number, **settings) for number in numbers]
    return found[0] if len(found) == 1 else F.normalize(torch.stack(found).mean(0), dim=-1)


def many_features(
    clip: Clip | Tower, images: Tensor, methods: Sequence[str] = tuple(METHODS), *, blocks: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Several methods on the same pictures, each with its own defaults: name -> what `dense_features` gives.

    The blocks that they share run once.
    """
    with torch.inference_mode():
        trunk = Trunk(tower_of(clip), images)
    return {name: from_trunk(trunk, name, blocks=blocks) for name in methods}


def tower_of(clip: Clip | Tower) -> Tower:
    return clip.visual if isinstance(clip, Clip) else clip
