"""Class words and the sentences that they are put into: one check for everything that takes them."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import Tensor

from cascadeclip.errors import InputError
from cascadeclip.tensors import check_finite

GAP = "{}"  # where the class word goes in a template


def check_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The words as a tuple, without spaces around them.

    Raises:
        InputError: none, an empty one, one that is no text, several in one text, or one given twice; capitals, spaces
            and the way accents are stored make no other word.
    """
    names = _listed(names, "words")
    if not names:
        raise InputError("no words given: name at least one thing to look for, for example ['cat', 'grass']")
    check_words(names)
    if len(names) == 1 and "," in names[0]:
        parts = quoted(word.strip() for word in names[0].split(","))
        raise InputError(f"{quoted(names)} is one text: give a list of words, [{parts}]")
    return tuple(name.strip() for name in names)


def check_words(words: str | Sequence[str], what: str = "words") -> tuple[str, ...]:
    """The words as they are; there may be none.

    Raises:
        InputError: an empty one, one that is no text, or one given twice, as in `check_names`; `what` says what the
            words are.
    """
    words = _listed(words, what)
    strange = [word for word in words if not isinstance(word, str) or not as_written(word)]
    if strange:
        raise InputError(f"{what} must be text that is not empty, not {quoted(strange[:1])}")
    if repeated := _repeated([as_written(word) for word in words]):
        raise InputError(f"{what} given twice: {', '.join(map(shortened, repeated))}; give each once")
    return words


def check_templates(templates: str | Sequence[str], names: Sequence[str] = ()) -> tuple[str, ...]:
    """The sentences as a tuple; one may stand alone.

    Args:
        names: words that will be put into them.

    Raises:
        InputError: none, one that is no text, one without exactly one `{}` or with other braces, one given twice, or
            sentences that are the same for two of the words ("cat" in "{}s", and "cats" in "{}").
    """
    templates = _listed(templates, "templates")
    if not templates:
        raise InputError("no templates given: give at least one sentence with {} for the class word, 'a photo of a {}'")
    for template in templates:
        if not isinstance(template, str):
            raise InputError(f"templates must be text, not {quoted([template])}: 'a photo of a {{}}'")
        if template.count(GAP) != 1 or {"{", "}"} & set(template.replace(GAP, "")):
            raise InputError(
                f"template {quoted([template])}: a sentence has {{}} once, where the class word goes, and no "
                "other braces"
            )
    repeated = _repeated([as_written(template) for template in templates])
    if repeated:
        raise InputError(f"templates given twice: {quoted(repeated)}; give each once")
    sentences: dict[str, str] = {}
    for name in names:
        for template in templates:
            sentence = as_written(filled(template, name))
            if sentences.setdefault(sentence, name) != name:
                raise InputError(
                    f"the words {quoted([sentences[sentence]])} and {quoted([name])} become the same sentence, "
                    f"{quoted([sentence])}: change one of them, or the templates"
                )
    return templates


def positions_of(wanted: str | Sequence[str], names: Sequence[str], what: str = "unseen") -> list[int]:
    """Indices among the class words `names`; a misspelt word would otherwise count as none.

    Raises:
        InputError: a word that is none of them, or given twice; `what` says what the words are.
    """
    wanted, place = _listed(wanted, what), {name: position for position, name in enumerate(names)}
    if unknown := [word for word in wanted if word not in place]:
        raise InputError(f"{what}=[{quoted(unknown)}] are none of the {len(names)} class names; use words from `names`")
    if repeated := _repeated(wanted):
        raise InputError(f"{what}: {', '.join(map(shortened, repeated))} given twice; give each once")
    return [place[word] for word in wanted]


def positions_written(names: Sequence[str], words: Iterable[str]) -> list[int]:
    """Indices of those texts that are among the words, however people have written them: for texts that people type,
    which may well be none of the words."""
    known = {as_written(word) for word in words}
    return [position for position, name in enumerate(names) if as_written(name) in known]


def in_order(words: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that are among the words: where only the set counts, two orders of it are one."""
    kept = set(words)
    return tuple(name for name in names if name in kept)


def seen_positions(names: Sequence[str], unseen: str | Sequence[str]) -> list[int]:
    """Indices of the class words that are not `unseen`; raises as `positions_of` does."""
    hidden = set(positions_of(unseen, names))
    return [position for position in range(len(names)) if position not in hidden]


def check_embeddings(text: Tensor, names: Sequence[str]) -> None:
    """An `InputError` unless there is one text embedding, of finite numbers, for each class word."""
    if len(text) != len(names):
        raise InputError(f"{len(text)} text embeddings for {len(names)} class names: give one for each, in their order")
    check_finite({"the text embeddings": text}, "the CLIP that made them is damaged, or what was done to them")


def filled(template: str, name: str) -> str:
    """The sentence with the word in its gap. Nothing else in either text has a meaning."""
    return template.replace(GAP, name)


def as_written(name: str) -> str:
    """A text as tokenizers see it: neither capitals, nor the number of spaces, nor how accents are stored, count."""
    kept = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")  # marks without width
    return " ".join(unicodedata.normalize("NFC", kept).split()).casefold()


def shortened(text: str, most: int = 48) -> str:
    """A text for people, of at most so many letters: beginning and end of a longer one, for words that begin alike."""
    return text if len(text) <= most else f"{text[: most - most // 3 - 1]}…{text[-(most // 3) :]}"


def quoted(words: Iterable[object]) -> str:
    """Words as an error names them: in quotation marks, a long one shortened."""
    return ", ".join(shortened(repr(word), 62) for word in words)


def _listed(values: str | Sequence[str], what: str) -> tuple[str, ...]:
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, Sequence):
        raise InputError(f"{what} must be a list of texts, not {type(values).__name__}")
    return tuple(values)


def _repeated(texts: Sequence[str]) -> list[str]:
    return sorted(text for text, times in Counter(texts).items() if times > 1)
