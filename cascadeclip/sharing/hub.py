"""Segmenters as folders and on the Hugging Face Hub: weights, settings, class list and a model card.

A folder holds `model.safetensors` (a checkpoint as training writes it), `config.json` and `README.md`. The frozen tower
of CLIP is not among the weights; its fingerprint is, and whoever loads the folder must have the same tower.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, Self, cast

import open_clip
import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, constants, hf_hub_download
from huggingface_hub.errors import HFValidationError

from cascadeclip._version import __version__
from cascadeclip.checkpoints.own import (
    CheckpointInfo,
    check_format,
    clip_of,
    fingerprint,
    load_any,
    read_checkpoint,
    save_checkpoint,
)
from cascadeclip.clip.load import Clip, resize_positions
from cascadeclip.config import ModelConfig
from cascadeclip.data.emojiscenes import CAPTIONS
from cascadeclip.data.words import check_words, positions_written, shortened
from cascadeclip.errors import DamagedFile, InputError
from cascadeclip.files import check_apart, check_writable, exists, is_folder, parse_json_object, read_text, write_json
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.model.tower import tower_config
from cascadeclip.schema import check_value
from cascadeclip.utf8 import as_utf8

FORMAT = "cascadeclip-hub-1"
WEIGHTS = constants.SAFETENSORS_SINGLE_FILE
CONFIG = constants.CONFIG_NAME
FILES = (CONFIG, WEIGHTS)
_DOWNLOAD = {"revision", "cache_dir", "force_download", "local_files_only", "token"}


class HubMixin(ModelHubMixin):
    """Gives a `Segmenter` `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Attributes:
        unseen: words that the training pictures showed without mask labels; empty where nobody said.
    """

    model: CascadeCLIP
    clip: Clip
    seen: tuple[str, ...]
    seen_offset: float
    templates: tuple[str, ...]
    unseen: tuple[str, ...] = ()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write weights, settings and, if there is none, a model card into a folder.

        Args:
            save_directory: made if it is missing.
            options: of `huggingface_hub.ModelHubMixin.save_pretrained`; `push_to_hub=True` also uploads,
                `model_card_kwargs=dict(license="mit")` states a licence.

        Raises:
            InputError: a folder that cannot be written or holds a model of another kind, as training writes it; a tower
                that is not the one of the CLIP named, or a word both seen and unseen.

        Example:
            >>> import cascadeclip
            >>> cascadeclip.load("mini").save_pretrained("my-segmenter")  # doctest: +SKIP
        """
        self._check()
        check_writable(save_directory, *FILES)
        _check_ours(Path(save_directory), self.clip.pretrained)
        try:
            return super().save_pretrained(save_directory, **options)
        except OSError as error:
            raise InputError(f"cannot write {save_directory}: {error}; choose a folder you may write to") from error

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """A segmenter from a folder or from a repository of the Hub.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or `owner/name`.
            options: `device`; `clip_weights`, the weights of its CLIP where they lie elsewhere here (a file, or a tag
                of open_clip); and those of `huggingface_hub.ModelHubMixin.from_pretrained`.

        Raises:
            InputError: nothing there, files that are missing, damaged or contradict each other, or a CLIP that cannot
                be had or is another one.
        """
        where = str(pretrained_model_name_or_path)
        known = {"device", "clip_weights"} | _DOWNLOAD
        if unknown := sorted(options.keys() - known):
            raise InputError(
                f"from_pretrained has no option {', '.join(unknown)}; choose from {', '.join(sorted(known))}"
            )
        return cls._from_pretrained(model_id=where, **options)

    def _check(self) -> None:
        both = sorted(self.seen[position] for position in positions_written(self.seen, self.unseen))
        if both:
            raise InputError(f"words both seen and unseen: {', '.join(map(shortened, both))}")
        model, visual = self.model, self.clip.visual
        if self.clip.tower.image_size != model.config.tower.image_size:
            visual = deepcopy(visual)
            resize_positions(visual, model.config.tower.image_size)
        settings = {tower_config(tower) for tower in (visual, model.encoder.visual)}
        if len(settings) > 1 or fingerprint(visual) != fingerprint(model.encoder.visual):
            raise InputError(
                f"the model's tower is not that of CLIP {self.clip.name!r} ({self.clip.pretrained}), nor stored; "
                "the folder could not be loaded. Write a file that holds the tower: checkpoints.save_authors"
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        save_checkpoint(
            save_directory / WEIGHTS, self.model, clip=self._portable_clip(), seen=self.seen, templates=self.templates,
            seen_offset=self.seen_offset,
        )  # fmt: skip
        info, _ = read_checkpoint(save_directory / WEIGHTS)
        write_json(save_directory / CONFIG, _config(info, self.unseen))

    def _portable_clip(self) -> dict[str, str | None]:
        """Of weights in a file its name alone: the folders of this machine mean nothing on another."""
        name, pretrained = self.clip.name, self.clip.pretrained
        if pretrained and not open_clip.get_pretrained_cfg(name, pretrained):
            pretrained = Path(pretrained).name
        return {"name": name, "pretrained": pretrained}

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, clip_weights: str | Path | None = None, device: str | torch.device = "cpu", **rest: Any
    ) -> Self:
        """`rest`: where to download from, and values of `config.json`, which is read again below, strictly."""
        download = {name: value for name, value in rest.items() if name in _DOWNLOAD}
        described, weights = (_place(model_id, name, download) for name in FILES)
        config = _read_config(described)
        _agree(config, _config(read_checkpoint(weights)[0], tuple(config["classes"]["unseen"])), model_id)
        loaded = load_any(weights, lambda info: clip_of(info, weights=clip_weights))
        info = cast(CheckpointInfo, loaded.info)  # `read_checkpoint` has just read the same file as one of ours
        segmenter = cls(
            loaded.model.to(device), loaded.clip, info.seen, seen_offset=info.seen_offset,
            templates=info.templates or CAPTIONS, origins=loaded.lines,
        )  # fmt: skip
        segmenter.unseen = tuple(config["classes"]["unseen"])
        return segmenter

    def generate_model_card(self, *, license: str | None = None) -> ModelCard:
        """What the folder's README says; filled from the model itself."""
        data = ModelCardData(
            library_name="cascadeclip", pipeline_tag="image-segmentation", license=license,
            tags=["clip", "zero-shot", "semantic-segmentation", "open-vocabulary"],
        )  # fmt: skip
        config, clip = self.model.config, self._portable_clip()
        return ModelCard(
            CARD.format(
                data=data.to_yaml(),
                clip=as_utf8(f"{clip['name']} ({clip['pretrained'] or self.clip.weights})"),
                sha256=fingerprint(self.model.encoder.visual),
                stages=[list(stage) for stage in config.stages],
                side=config.tower.image_size,
                offset=self.seen_offset,
                templates="\n".join(f"- `{template}`" for template in self.templates),
                seen=", ".join(self.seen) or "not stated",
                unseen=", ".join(self.unseen) or "all other words",
            )
        )


CARD = """---
{data}
---

# A Cascade-CLIP segmenter

Give it a picture and words, and every pixel gets one of the words; they need not be words it saw masks of.

```python
from cascadeclip import Segmenter

segmenter = Segmenter.from_pretrained("owner/name")  # or this folder
segmenter.segment("picture.png", ["cat", "grass"]).plot().savefig("result.png")
```

| | |
|---|---|
| CLIP | {clip}; its tower is not in here, SHA-256 {sha256} |
| stages | {stages} |
| trained at | {side} px |
| taken off the probability of seen classes | {offset} |

Classes with mask labels in training: {seen}.

Classes without: {unseen}.

Words are put into these sentences:

{templates}

Method: Li et al., *Cascade-CLIP*, ICML 2024, arXiv 2406.00670.
"""


def _check_ours(folder: Path, weights: str | None) -> None:
    """An `InputError` if saving would write over the weights of CLIP, or a model that `save_pretrained` did not write:
    a training's folder tells where its CLIP lies, which a shared one leaves out."""
    check_apart((folder / name for name in FILES), (weights,))
    described = read_text(folder / CONFIG) if exists(folder / CONFIG) else ""
    if any(exists(folder / name) for name in FILES) and f'"{FORMAT}"' not in described:
        raise InputError(f"{folder} holds a {WEIGHTS} or {CONFIG} of another kind; choose another output folder")


def _config(info: CheckpointInfo, unseen: tuple[str, ...]) -> dict[str, Any]:
    """What `config.json` holds."""
    values = {
        "format": FORMAT,
        "version": __version__,
        "architecture": info.model.to_dict(),
        "built_on": {**info.clip, "tower_sha256": info.tower_sha256},
        "classes": {"seen": list(info.seen), "unseen": list(unseen)},
        "templates": list(info.templates or ()),
        "seen_offset": info.seen_offset,
    }
    return json.loads(json.dumps(values))  # tuples as lists


def _place(where: str, name: str, download: dict[str, Any]) -> Path:
    """A file of a folder here, or of a repository of the Hub, downloaded."""
    if is_folder(where):
        return Path(where) / name
    try:
        return Path(hf_hub_download(where, name, **download))
    except HFValidationError as error:
        raise InputError(f"{where} is neither a folder nor the name of a repository, owner/name") from error
    except Exception as error:  # the Hub's client and what is below it raise many kinds
        reason = " ".join(
            str(error.__cause__ or error).split()
        )  # a forced download names its cause in the error before
        raise InputError(f"{where} is no folder here, and cannot be had from the Hub: {reason}") from error


def _read_config(path: Path) -> dict[str, Any]:
    text = read_text(path, f"{path.name} of a folder that save_pretrained wrote")
    config = parse_json_object(text, f"{path.name} of {path.parent}")
    check_format(config.get("format"), FORMAT, f"{path} does not describe a segmenter: its format must be {FORMAT!r}")
    try:
        classes = check_value(config.get("classes"), dict[str, tuple[str, ...]], "class words must be text: classes")
        if classes.keys() != {"seen", "unseen"}:
            raise InputError(f"classes must be seen and unseen, not {', '.join(sorted(classes)) or 'none'}")
        for kind, words in classes.items():
            check_words(words, f"{kind} words")
        config["architecture"] = ModelConfig.from_dict(config.get("architecture", {})).to_dict()
    except InputError as error:
        raise DamagedFile(f"{path} is damaged: {error}") from error
    config["version"] = __version__  # which one wrote it is for people
    return json.loads(json.dumps(config))  # tuples as lists


def _agree(config: dict[str, Any], stored: dict[str, Any], where: str) -> None:
    """An `InputError` unless `config.json` says what the weights say of themselves."""
    differing = sorted(name for name in config.keys() | stored.keys() if config.get(name) != stored.get(name))
    if differing:
        raise InputError(
            f"{CONFIG} and {WEIGHTS} in {where} contradict each other ({', '.join(differing)}): not of one model"
        )
