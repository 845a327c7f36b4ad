"""One check of class words and templates, wherever they come from."""

import pytest

import cascadeclip
from cascadeclip.analysis.dense.table import Judge
from cascadeclip.clip.load import load_clip
from cascadeclip.clip.vocabulary import read_vocabulary, split_synonyms
from cascadeclip.data.words import as_written, check_names, check_templates, filled, positions_of
from cascadeclip.errors import InputError
from cascadeclip.presets import own_preset

FOLDERS = dict(images="i", masks="m")
BAD_WORDS = [
    (["cat", "CAT"], "given twice: cat"),
    (["hot dog", "hot  Dog "], "given twice: hot dog"),
    (["caf\u00e9", "cafe\u0301"], "given twice"),  # the accent stored in one letter, or apart
    (["sofa", "so\u200bfa"], "given twice"),  # a space without width
    (["straße", "STRASSE"], "given twice"),
    ([], "no words given"),
    (["cat", ""], "not empty"),
    (["cat", "\u200b"], "not empty"),
    (["cat", 7], "must be text"),
    ("cat, dog", "is one text"),
    (7, "list of texts"),
]
BAD_TEMPLATES = [
    ([], "no templates given"),
    (["a photo"], "has {} once"),
    (["a {} beside a {}"], "has {} once"),
    (["a {name}"], "has {} once"),
    (["a {.__class__} {}"], "has {} once"),
    (["a {0!r:>999999999}"], "has {} once"),
    (["a {} {"], "has {} once"),
    ([""], "has {} once"),
    ([3], "must be text"),
    (["a {}", "A  {}"], "given twice"),
]


@pytest.fixture(scope="module")
def segmenter():
    return cascadeclip.load("mini")


@pytest.mark.parametrize(("names", "message"), BAD_WORDS)
def test_segment_and_own_preset_refuse_the_same_words(names, message, segmenter):
    with pytest.raises(InputError, match=message):
        check_names(names)
    if isinstance(names, list | str):
        with pytest.raises(InputError, match=message):
            own_preset(**FOLDERS, names=names)
    with pytest.raises(InputError, match=message):
        segmenter.clip.class_embeddings(names)


@pytest.mark.parametrize(("templates", "message"), BAD_TEMPLATES)
def test_every_taker_of_templates_refuses_the_same_ones(templates, message, segmenter):
    for take in (
        check_templates,
        lambda some: own_preset(**FOLDERS, names=["cat", "dog"], templates=some),
        lambda some: segmenter.clip.class_embeddings(["cat"], some),
        lambda some: cascadeclip.Segmenter(segmenter.model, segmenter.clip, ("cat",), templates=some),
    ):
        with pytest.raises(InputError, match=message):
            take(templates)


def test_one_template_may_stand_alone_and_one_unseen_word_is_not_taken_apart():
    preset = own_preset(**FOLDERS, names=["cat", "dog"], templates="a {}", unseen="dog")
    assert (preset.templates, preset.unseen) == (("a {}",), ("dog",))


def test_a_plural_made_by_a_template_is_no_class_of_its_own():
    with pytest.raises(InputError, match="'cat' and 'cats' become the same sentence, 'cats'"):
        own_preset(**FOLDERS, names=["cat", "cats"], templates=["{}", "{}s"])
    assert own_preset(**FOLDERS, names=["cat", "cats"], templates=["a photo of {}"]).names == ("cat", "cats")


LONG = "q" * 5000


@pytest.mark.parametrize(
    "take",
    [
        lambda clip: clip.class_embeddings([LONG]),
        lambda clip: clip.class_embeddings([LONG + " a" * 99]),
        lambda clip: check_names([LONG, LONG]),
        lambda clip: check_names(f"{LONG}, b"),
        lambda clip: check_names([LONG.encode()]),
        lambda clip: check_templates([LONG]),
        lambda clip: check_templates([7 * [LONG]]),
        lambda clip: check_templates([LONG + "{}", LONG + " {}", LONG + "{}"]),
        lambda clip: check_templates(["{}", "{}s"], [LONG, LONG + "s"]),
        lambda clip: positions_of([LONG], ["cat"]),
        lambda clip: positions_of([LONG, LONG], [LONG]),
        lambda clip: own_preset(**FOLDERS, names=["cat"], unseen=[LONG]),
        lambda clip: split_synonyms(LONG + "|"),
        lambda clip: read_vocabulary(clip, [f"{LONG}|{LONG}"], ["{}"]),
        lambda clip: Judge(["cat"], [LONG]),
    ],
)
def test_a_long_word_is_named_by_its_ends(take, segmenter):
    with pytest.raises(InputError) as caught:
        take(segmenter.clip)
    assert "…" in str(caught.value) and len(str(caught.value)) < 900 and "qq" in str(caught.value)


def test_seen_words_are_checked_as_others(segmenter):
    for seen, message in ((("cat", "CAT"), "seen words given twice: cat"), (("",), "seen words must be text")):
        with pytest.raises(InputError, match=message):
            cascadeclip.Segmenter(segmenter.model, segmenter.clip, seen)


def test_a_word_is_put_in_literally():
    assert filled("a {}", "{0.__class__}") == "a {0.__class__}"
    assert filled("a {}", "$HOME \\1 {}") == "a $HOME \\1 {}"
    assert as_written("  Hot\u00a0 DOG ") == "hot dog"


def test_sentences_that_clip_would_cut_are_refused_or_told_of(caplog, register):
    clip = load_clip(register("small"), None)
    long = "thing " * 72  # with "a photo of a", start and end: 78 tokens
    with pytest.raises(
        InputError,
        match=r"2 sentences are longer than the 77 tokens .*'thing.*red', 'thing.*blue'; .*long_texts='warn'",
    ):
        clip.class_embeddings([long + "red", "cat", long + "blue"], ["a photo of a {}"])
    fits = "thing " * 70 + "red"
    assert clip.class_embeddings([fits, "cat"], ["a photo of {}"]).shape == (2, 16)  # 76 tokens
    assert clip.class_embeddings([fits, "cat"], ["a photo of a {}"]).shape == (2, 16)  # 77: just whole
    clip.long_texts = "warn"
    with pytest.raises(InputError, match="as the same text"):
        clip.class_embeddings([long + "red", long + "blue"], ["a photo of a {}"])
    clip.class_embeddings(["red " + long, "blue " + long], ["a photo of a {}"])
    assert "longer than the 77 tokens" in caplog.text


def test_words_of_the_same_tokens_are_one_class(register):
    with pytest.raises(InputError, match="reads 'café' and 'cafÃ©' as the same text"):
        load_clip(register("small"), None).class_embeddings(["café", "cafÃ©"])  # ftfy mends what was decoded wrongly
