"""Any words as classes: synonyms, named sets of templates, and words for the background.

Symbols: C classes, K words (K >= C: a class may have several), E joint width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.clip.load import MINI, Clip
from cascadeclip.data.classes import ONE_TEMPLATE, TEMPLATES
from cascadeclip.data.emojiscenes import CAPTIONS
from cascadeclip.data.words import as_written, check_templates, check_words, positions_written, quoted
from cascadeclip.errors import InputError

BACKGROUND = "background"
SYNONYMS = ("best", "mean")
TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "one": ONE_TEMPLATE,
    "scene15": TEMPLATES,  # Cascade-CLIP's and others' for Pascal Context and COCO-Stuff
    "openai80": tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES),  # OpenAI's for ImageNet
    "mini": CAPTIONS,  # what Mini-CLIP was trained with
}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes, the embeddings of their words, and what becomes of pixels of none.

    Attributes:
        names: of the C classes, each its first word; the background comes last, if there is one.
        words: of each embedding the words that it is of: one, or all of a class, where synonyms are averaged.
        owners: (K,) int64, the class of each embedding, ascending.
        embeddings: (K, E) float32, L2-normed.
        background: what pixels of no class are called; None if every pixel has to get a class.
        threshold: the background is where no word scores as much; None without it, or where words stand for it.
    """

    names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    owners: Tensor
    embeddings: Tensor
    background: str | None = None
    threshold: float | None = None

    def per_class(self, scores: Tensor) -> Tensor:
        """Scores of embeddings, (B, K, ...), -> of classes, (B, C, ...): that of a class is its best one's.

        The score of a background by threshold is the threshold everywhere: it wins where no word scores as much.
        """
        if self.threshold is None and len(self.words) == len(self.names):
            return scores
        counts = torch.bincount(self.owners).tolist()
        classes = [part.amax(1) for part in scores.split(counts, dim=1)]
        if self.threshold is not None:
            classes.append(torch.full_like(classes[0], self.threshold))
        return torch.stack(classes, dim=1)

    def seen_among(self, seen: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
        """What counts as seen, if some words had mask labels in training: an embedding does if any of its words had,
        and a class if any of its embeddings does. A background is no class.

        Returns:
            indices of the embeddings that the seen offset is taken off, and the names of the seen classes.
        """
        rows = [place for place, words in enumerate(self.words) if positions_written(words, seen)]
        owners, background = self.owners.tolist(), len(self.names) - 1 if self.background is not None else None
        classes = {owners[place] for place in rows} - {background}
        return rows, tuple(self.names[owner] for owner in sorted(classes))


def read_vocabulary(
    clip: Clip,
    names: Sequence[str],
    templates: str | Sequence[str] | None = None,
    *,
    synonyms: str = "best",
    background: float | Sequence[str] | None = None,
) -> Vocabulary:
    """Words as people write them, embedded.

    Args:
        names: one text per class; `sofa|couch` is a class with two words.
        templates: a name of `TEMPLATE_SETS`, or sentences with one `{}` for the word; None takes those that fit the
            CLIP: `mini` or `openai80`.
        synonyms: `best`: each word scores, and the class has the best; `mean`: the class is the mean of its words'
            embeddings, L2-normed again.
        background: a threshold in 0..1 on scores, or words that win pixels for no class; of those the best scores.

    Raises:
        InputError: an empty word or one given twice, unknown templates or synonyms, a threshold outside 0..1, a word
            that the CLIP does not know.
    """
    if synonyms not in SYNONYMS:
        raise InputError(f"synonyms={synonyms!r}: choose from {', '.join(SYNONYMS)}")
    threshold, others = _background(background)
    classes = [split_synonyms(name) for name in names]
    titles = [one[0] for one in classes]
    if background is not None:
        if BACKGROUND in map(as_written, titles):
            raise InputError(f"with background=, pixels of no word are called {BACKGROUND!r}: leave that word out")
        titles.append(BACKGROUND)
    check_words([word for one in (*classes, others) for word in one])
    if others:
        classes.append(others)
    embedded = clip.class_embeddings([word for one in classes for word in one], chosen_templates(templates, clip))
    parts = list(embedded.split([len(one) for one in classes]))
    if synonyms == "mean":
        parts[: len(names)] = [F.normalize(part.mean(0, keepdim=True), dim=-1) for part in parts[: len(names)]]
    # a class of several words and one embedding has their mean
    words = tuple(
        group
        for one, part in zip(classes, parts, strict=True)
        for group in ([one] if len(part) == 1 else [(word,) for word in one])
    )
    owners = torch.tensor([place for place, part in enumerate(parts) for _ in part])
    named = None if background is None else BACKGROUND
    return Vocabulary(tuple(titles), words, owners, torch.cat(parts), named, threshold)


def _background(background: float | Sequence[str] | None) -> tuple[float | None, tuple[str, ...]]:
    """A threshold, or words; an `InputError` for a threshold that no score can meet or miss."""
    if background is None:
        return None, ()
    if isinstance(background, float | int):
        if isinstance(background, bool) or not 0 <= background <= 1:
            raise InputError(f"background={background}: a threshold on scores lies in 0..1, for example 0.1")
        return float(background), ()
    texts = (background,) if isinstance(background, str) else background
    words = tuple(word for text in check_words(texts, "background words") for word in split_synonyms(text))
    if not words:
        raise InputError("background=[] names no words: give some, a threshold such as 0.1, or None")
    return None, words


def split_synonyms(name: str) -> tuple[str, ...]:
    """`sofa|couch` -> ('sofa', 'couch'); an `InputError` for an empty part."""
    words = tuple(word.strip() for word in name.split("|"))
    if not all(words):
        raise InputError(f"{quoted([name])}: write synonyms with one | between two words, as in 'sofa|couch'")
    return words


def chosen_templates(templates: str | Sequence[str] | None, clip: Clip) -> tuple[str, ...]:
    """The sentences that are meant; an `InputError` for an unknown name, or a sentence without exactly one `{}`."""
    if templates is None:
        templates = "mini" if clip.name == MINI else "openai80"
    if isinstance(templates, str) and templates in TEMPLATE_SETS:
        return TEMPLATE_SETS[templates]
    try:
        return check_templates(templates)
    except InputError as error:
        raise InputError(
            f"{error}; choose from {', '.join(TEMPLATE_SETS)}, or give sentences with one {{}} for the word"
        ) from error
