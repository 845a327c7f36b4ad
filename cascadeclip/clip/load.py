"""CLIP for the package: weights, tokenizer, and class words turned into text embeddings."""

import hashlib
import logging
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath

import open_clip
import torch
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from cascadeclip.clip.mini import EMBED_DIM, VISION, MiniTokenizer, build_mini_clip
from cascadeclip.clip.sentences import Tokenizer, check_apart, check_marks, check_whole
from cascadeclip.config import TowerConfig
from cascadeclip.data.emojiscenes import CAPTIONS
from cascadeclip.data.words import check_names, check_templates, filled
from cascadeclip.errors import InputError
from cascadeclip.files import check_file, exists, is_file, open_file
from cascadeclip.model.tower import position_embedding, tower_config
from cascadeclip.processes import device, own_draws, plain_torch
from cascadeclip.schema import checked
from cascadeclip.tensors import check_finite

logger = logging.getLogger(__name__)

MINI = "mini"
RANDOM = "random"  # in place of a tag or a file
LARGEST_SIDE = 2**14  # px, as of a `TowerConfig`
_PAPER_STAGES = ((6, 7, 8), (9, 10, 11), (12,))
_ANY_VALUE = {  # settings of open_clip's image tower that may have any value
    *("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "patch_dropout"),
    *("no_ln_pre", "pos_embed_type", "final_ln_after_pool", "output_tokens", "act_kwargs", "norm_kwargs"),
    *("attn_pooler_queries", "attn_pooler_heads"),  # unused without attentional pooling
}


@dataclass
class Clip:
    """A CLIP that the package can build on.

    Attributes:
        name: `mini`, or an architecture of open_clip (`ViT-B-16`).
        pretrained: open_clip's tag of the weights, a file, or None.
        model: open_clip's model, frozen and in eval mode.
        tokenize: texts -> (number of texts, context length) int64.
        long_texts: what becomes of sentences that the text tower cannot take whole: "refuse" them, or "warn" and use
            their beginnings.
    """

    name: str
    pretrained: str | None
    model: open_clip.CLIP
    tokenize: Tokenizer
    long_texts: str = "refuse"
    _embedded: dict[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def visual(self) -> VisionTransformer:
        return self.model.visual

    @property
    def weights(self) -> str:
        """Which they are, for people."""
        return self.pretrained or ("its own weights" if self.name == MINI else "random weights")

    @property
    def tower(self) -> TowerConfig:
        """Sizes of the image tower."""
        return tower_config(self.visual)

    def class_embeddings(self, names: Sequence[str], templates: Sequence[str] = CAPTIONS) -> Tensor:
        """T (C, E) float32: per class the mean over the templates of its L2-normed embeddings, L2-normed again.

        Args:
            names: class words.
            templates: sentences with one `{}` for the class word.

        Computed once per words and templates, for the text tower is frozen: on `cascadeclip.device()`, which its
        weights visit for that. The result is on the CPU.

        Raises:
            InputError: words or templates that do not fit (see `data.words`), sentences too long for the text tower or
                with its marks for start or end inside, or two words that it reads as the same text.
        """
        names = check_names(names)
        key = (names, check_templates(templates, names))
        if key not in self._embedded:
            self._embedded[key] = self._embed(*key)
        return self._embedded[key].clone()

    @plain_torch()
    @torch.inference_mode()
    def _embed(self, names: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        if self.long_texts not in ("refuse", "warn"):
            raise InputError(f"long_texts={self.long_texts!r}: choose from refuse, warn")
        sentences = [filled(template, name) for name in names for template in templates]
        tokens = self.tokenize(sentences)
        if self.name != MINI:  # its tokenizer refuses texts that are long or hold marks itself
            check_marks(self.tokenize, sentences, tokens, self.name)
            words = [name for name in names for _ in templates]
            check_whole(self.tokenize, words, sentences, tokens, self.name, self.long_texts)
        check_apart(names, tokens.view(len(names), -1))
        tower, there = _TextTower(self.model), device()
        weights = {name: tensor.to(there) for name, tensor in tower.text_state().items()}
        with torch.autocast(there.type, enabled=False):
            parts = [functional_call(tower, weights, (chunk.to(there),)).float() for chunk in tokens.split(512)]
        embedded = torch.cat(parts).cpu()
        embedded = F.normalize(embedded, dim=-1).view(len(names), len(templates), -1)
        return F.normalize(embedded.mean(1), dim=-1)


class _TextTower(nn.Module):
    """The text half of open_clip's model, so that it can be called with weights that stay where they are."""

    def __init__(self, model: open_clip.CLIP):
        super().__init__()
        self.model = model

    def text_state(self) -> dict[str, Tensor]:
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("model.visual.")}

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


@plain_torch()
def load_clip(name: str = MINI, pretrained: str | Path | None = None, *, image_size: int | None = None) -> Clip:
    """Mini-CLIP, shipped with the package, or a CLIP of open_clip.

    Args:
        name: `mini`, or an architecture that `open_clip.list_models()` names.
        pretrained: for others than `mini`: open_clip's tag (`openai`) or a weights file, OpenAI's own (`ViT-B-16.pt`)
            included; "random" or None gives random weights. Tags and OpenAI's files bring their activation along. Of
            another file nothing tells whether it was trained with quick-GELU: the name has to, as `ViT-B-16-quickgelu`
            does.
        image_size: px; bring the position embedding to this size, bilinearly as the authors do.

    Raises:
        InputError: unknown name, weights that cannot be had or are no finite numbers, or a tower that cannot carry
            prompt tokens.
    """
    tokenize: Tokenizer
    weights = None if pretrained in (None, RANDOM) else str(pretrained)
    if pretrained is not None and (not isinstance(pretrained, str | Path) or not str(pretrained)):
        raise InputError(f"pretrained={pretrained!r}: give a weights file, a tag of open_clip, or {RANDOM!r}")
    if name == MINI:
        if pretrained is not None:
            raise InputError(f"CLIP {MINI!r} comes with its weights: leave out {pretrained!r}")
        model, tokenize = build_mini_clip(), MiniTokenizer()
        with as_file(files("cascadeclip") / "assets" / "mini_clip.safetensors") as path:
            model.load_state_dict({key: tensor.float() for key, tensor in load_file(path).items()})
    else:
        with own_draws(0):  # random weights are the same every time: what was trained on them can be loaded
            model, tokenize = _from_open_clip(name, weights)
        check_finite(model.state_dict(), f"the weights {weights!r} of CLIP {name!r} are of no use")
    if image_size is not None:
        resize_positions(model.visual, image_size)
    return Clip(name, weights, model.eval().requires_grad_(False), tokenize)


def _from_open_clip(name: str, pretrained: str | None) -> tuple[open_clip.CLIP, Tokenizer]:
    if name not in open_clip.list_models():
        raise InputError(f"unknown CLIP {name!r}: use {MINI!r} or a name from open_clip.list_models(), e.g. 'ViT-B-16'")
    if reason := misfit(name):
        raise InputError(
            f"CLIP {name!r} does not fit: {reason}. Prompts and taps build on a plain ViT with a class token, such as "
            "'ViT-B-16' or 'ViT-L-14'"
        )
    if pretrained is not None and exists(pretrained):
        check_file(pretrained, "weights file")
    try:
        if pretrained is not None and _is_torchscript(Path(pretrained)):
            model = _from_openai(name, Path(pretrained))
        else:
            tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
            if pretrained and not tag:
                _warn_of_activation(name, pretrained)
            model = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=tag.get("quick_gelu", False))
        return model, open_clip.get_tokenizer(name)
    except InputError:
        raise
    except Exception as error:  # open_clip and the hub raise many kinds; all mean that there are no weights
        reason = " ".join(str(error).split())
        if isinstance(error, pickle.UnpicklingError):  # PyTorch's own words tell how to run the code
            reason = "the file is cut short, or holds more than tensors and was not opened, for safety"
        raise InputError(
            f"cannot load weights {pretrained!r} of CLIP {name!r}: {reason:.400}. Give a weights file, or a tag from "
            f"open_clip.list_pretrained_tags_by_model({name!r}), downloaded on a machine with internet access"
        ) from error


def misfit(name: str) -> str | None:
    """Why an architecture of open_clip cannot carry prompts and taps; None if it can. Nothing is built."""
    vision = open_clip.get_model_config(name)["vision_cfg"]
    if timm_name := vision.get("timm_model_name"):
        return f"its image tower is timm's {timm_name!r}, whose blocks and class token (if any) are timm's own"
    if isinstance(vision.get("layers"), list | tuple):
        return "its image tower is a ResNet, which has no tokens that prompts could join"
    if vision.get("attentional_pool"):
        return "its image embedding comes from attentional pooling, not from the class token"
    if vision.get("pool_type", "tok") != "tok":
        return f"its image embedding pools the patches (pool_type={vision['pool_type']!r}), instead of a class token"
    for key in ("image_size", "patch_size"):
        if isinstance(vision.get(key), list | tuple) and len(set(vision[key])) > 1:
            return f"its {key}={vision[key]} is not square"
    usual = CLIPVisionCfg()
    strange = [
        f"{key}={value!r}"
        for key, value in vision.items()
        if key not in _ANY_VALUE and value not in (getattr(usual, key, None), "tok", "default")
    ]
    return f"its blocks are not CLIP's own ({', '.join(strange)})" if strange else None


def fits_sizes(name: str, tower: TowerConfig) -> bool:
    """Whether a CLIP's image tower has these sizes, as far as its name tells; nothing is built. The size of pictures is
    left out, to which a tower can be brought; so is a name that is unknown, of which `load_clip` says more.
    """
    vision, embed_dim = VISION, EMBED_DIM
    if name != MINI:
        # a name in a stranger's checkpoint may be one by which open_clip would go to the Hub, or into a folder
        if name not in open_clip.list_models() or (known := open_clip.get_model_config(name)) is None:
            return True
        vision, embed_dim = known["vision_cfg"], known["embed_dim"]
    asked = {"patch_size": tower.patch_size, "width": tower.width, "layers": tower.layers}
    return embed_dim == tower.embed_dim and all(vision.get(key, size) == size for key, size in asked.items())


def _warn_of_activation(name: str, file: str) -> None:
    """No tensor tells GELU from quick-GELU; say which one the name stands for, where there are both."""
    quick = f"{name}-quickgelu"
    if is_file(file) and quick in open_clip.list_models():
        logger.warning(
            "%s: CLIP %r computes with GELU; weights trained with quick-GELU, as OpenAI's were, need %r",
            *(file, name, quick),
        )


def _is_torchscript(path: Path) -> bool:
    if not exists(path) or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(entry).name == "constants.pkl" for entry in archive.namelist())


def _from_openai(name: str, path: Path) -> nn.Module:
    """A CLIP from OpenAI's own file, a TorchScript archive; such an archive is code, so it must be theirs to a bit."""
    published = open_clip.get_pretrained_cfg(name, "openai").get("url", "")
    wanted = PurePosixPath(published).parent.name  # OpenAI's addresses hold the file's SHA-256
    with open_file(path, "weights file") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise InputError(
            f"{path} is a TorchScript archive, which holds code, and not the one that OpenAI published for {name!r}; "
            f"it was not opened, for safety (SHA-256 {found}, OpenAI's: {wanted or 'none'}). Give OpenAI's own file "
            "or one of plain tensors"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, but PyTorch has no other reader of such archives
        tensors = torch.jit.load(path, map_location="cpu").state_dict()
    sizes = {"input_resolution", "context_length", "vocab_size"}  # OpenAI keeps these numbers among the tensors
    model = open_clip.CLIP(**{**open_clip.get_model_config(name), "quick_gelu": True})
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items() if key not in sizes})
    return model


@checked(layers=int, of=int)
def scaled_stages(
    layers: int, stages: Sequence[Sequence[int]] = _PAPER_STAGES, of: int = 12
) -> tuple[tuple[int, ...], ...]:
    """Stages of a tower of `of` blocks, at the same relative depth in one of `layers` blocks.

    Block b becomes block round(b * layers / of). In a shallower tower several may become one; the deepest of them
    keeps it, the others are left out.

    Args:
        layers: blocks of the tower to build on.
        stages: blocks of each stage, numbered 1..of; the paper's by default.

    Raises:
        InputError: a block that is not one of 1..of, or a stage of which no block is left.

    Example:
        >>> scaled_stages(24)
        ((12, 14, 16), (18, 20, 22), (24,))
    """
    blocks = sorted({block for stage in stages for block in stage}, reverse=True)
    if layers < 1 or not all(1 <= block <= of for block in blocks):
        raise InputError(f"cannot scale stages {stages} from {of} to {layers} blocks: blocks are numbered 1..{of}")
    scaled: dict[int, int] = {}
    for block in blocks:
        target = max(1, round(block * layers / of))
        if target not in scaled.values():
            scaled[block] = target
    result = tuple(tuple(scaled[block] for block in stage if block in scaled) for stage in stages)
    if not all(result):
        raise InputError(
            f"{layers} blocks are too few for the stages {tuple(stages)} of {of}: scaled, they would be {result}; "
            "give stages of your own"
        )
    return result


def resize_positions(visual: VisionTransformer, image_size: int) -> None:
    """Change, in place, the picture size that a tower stores its position embedding for."""
    patch = visual.patch_size[0]
    if not isinstance(image_size, int) or not 0 < image_size <= LARGEST_SIDE:
        raise InputError(f"image_size={image_size!r} must be a whole number of px, from 1 to {LARGEST_SIDE}")
    if image_size % patch:
        raise InputError(f"image_size={image_size} is not a multiple of the patch size {patch}")
    side = image_size // patch
    positions = position_embedding(visual, (side, side)).detach()
    visual.positional_embedding = nn.Parameter(positions, requires_grad=visual.positional_embedding.requires_grad)
    visual.grid_size, visual.image_size = (side, side), (image_size, image_size)
