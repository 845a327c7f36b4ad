"""Synonyms, templates and backgrounds: what words people write become."""

import pytest
import torch
from torch.nn import functional as F

from cascadeclip.clip.load import load_clip
from cascadeclip.clip.vocabulary import TEMPLATE_SETS, chosen_templates, read_vocabulary
from cascadeclip.errors import InputError


@pytest.fixture(scope="module")
def clip():
    return load_clip()


def test_sets_of_templates_are_sentences_with_one_gap():
    assert {name: len(sentences) for name, sentences in TEMPLATE_SETS.items() if name != "mini"} == {
        "one": 1, "scene15": 15, "openai80": 80,
    }  # fmt: skip
    for sentences in TEMPLATE_SETS.values():
        assert len(set(sentences)) == len(sentences) and all(one.count("{}") == 1 for one in sentences)
    assert "a bad photo of a {}." in TEMPLATE_SETS["openai80"]


def test_templates_by_name_as_sentences_and_by_default(clip):
    assert chosen_templates("one", clip) == ("a photo of a {}",)
    assert chosen_templates("a drawing of a {}", clip) == ("a drawing of a {}",)
    assert chosen_templates(["{}", "one {}"], clip) == ("{}", "one {}")
    assert chosen_templates(None, clip) == TEMPLATE_SETS["mini"]
    one = read_vocabulary(clip, ["cat", "owl"], "one")
    torch.testing.assert_close(one.embeddings, clip.class_embeddings(["cat", "owl"], ["a photo of a {}"]))
    assert not torch.allclose(one.embeddings, read_vocabulary(clip, ["cat", "owl"]).embeddings, atol=1e-3)


def test_a_class_has_the_best_score_of_its_words(clip):
    found = read_vocabulary(clip, ["cat|tiger", "owl", "sand|grass|snow"])
    assert found.names == ("cat", "owl", "sand") and found.background is None
    assert found.words == (("cat",), ("tiger",), ("owl",), ("sand",), ("grass",), ("snow",))
    assert found.owners.tolist() == [0, 0, 1, 2, 2, 2]
    scores = torch.tensor([0.1, 0.4, 0.3, 0.2, 0.0, 0.25]).view(1, 6, 1)
    assert found.per_class(scores).flatten().tolist() == pytest.approx([0.4, 0.3, 0.25])


def test_or_the_mean_of_their_embeddings(clip):
    found = read_vocabulary(clip, ["cat|tiger", "owl"], synonyms="mean")
    each = clip.class_embeddings(["cat", "tiger"])
    assert found.names == ("cat", "owl") and found.owners.tolist() == [0, 1]
    assert found.words == (("cat", "tiger"), ("owl",))
    torch.testing.assert_close(found.embeddings[0], F.normalize(each.mean(0), dim=-1))
    torch.testing.assert_close(found.embeddings[1], clip.class_embeddings(["owl"])[0])


def test_background_by_threshold_wins_where_no_word_reaches_it(clip):
    found = read_vocabulary(clip, ["cat", "owl"], background=0.1)
    assert found.names == ("cat", "owl", "background") and found.words == (("cat",), ("owl",))
    scores = torch.tensor([[0.05, 0.3], [0.09, 0.2]])[None]  # two words, two pixels
    assert found.per_class(scores).argmax(1).tolist() == [[2, 0]]


def test_background_by_threshold_beside_a_class_of_two_words(clip):
    found = read_vocabulary(clip, ["cat|tiger"], background=0.1)  # as many words as there are classes
    assert found.per_class(torch.tensor([[0.05, 0.3], [0.09, 0.2]])[None]).tolist() == [
        [pytest.approx([0.09, 0.3]), pytest.approx([0.1, 0.1])]
    ]


@pytest.mark.parametrize(
    ("names", "settings", "rows", "seen"),
    [
        (["owl|cat", "sand"], dict(synonyms="mean"), [0], ("owl",)),
        (["cat|owl", "sand"], dict(synonyms="mean"), [0], ("cat",)),
        (["owl|cat", "sand"], {}, [1], ("owl",)),  # of two embeddings one is of a seen word
        (["owl|cat", "sand"], dict(background=0.1), [1], ("owl",)),
        (["owl", "sand"], dict(background=["snow", " CAT "]), [3], ()),
        (["Horse", "cat"], {}, [0, 1], ("Horse", "cat")),
        (["owl"], {}, [], ()),
    ],
)
def test_a_class_is_seen_if_any_of_its_words_is(clip, names, settings, rows, seen):
    assert read_vocabulary(clip, names, **settings).seen_among(("cat", "HORSE")) == (rows, seen)


@pytest.mark.parametrize("synonyms", ["best", "mean"])
def test_background_by_words_is_a_class_of_them(clip, synonyms):
    found = read_vocabulary(clip, ["cat|tiger"], background=["sand", "grass|snow"], synonyms=synonyms)
    assert found.names == ("cat", "background") and found.background == "background" and found.threshold is None
    assert found.words[-3:] == (("sand",), ("grass",), ("snow",))
    scores = torch.arange(len(found.words)).float()[None]
    assert found.per_class(scores).tolist() == [[float(len(found.words) - 4), float(len(found.words) - 1)]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(names=["cat|"]), "write synonyms with one |"),
        (dict(names=["cat|tiger", "Tiger"]), "given twice: tiger"),
        (dict(names=["cat"], background=["cat"]), "given twice: cat"),
        (dict(names=["cat"], background=[]), "names no words"),
        (dict(names=["cat"], background=""), "background words must be text that is not empty"),
        (dict(names=["cat"], background=["sand", " "]), "background words must be text that is not empty"),
        (dict(names=["cat", "background"], background=0.1), "leave that word out"),
        (dict(names=["cat", "Back\u00adground "], background=0.1), "leave that word out"),  # a hyphen without width
        (dict(names=["cat"], background=1.5), "background=1.5: a threshold on scores lies in 0..1"),
        (dict(names=["cat"], background=-0.1), "lies in 0..1"),
        (dict(names=["cat"], background=float("nan")), "lies in 0..1"),
        (dict(names=["cat"], synonyms="worst"), "choose from best, mean"),
        (dict(names=["cat"], templates="openai"), "choose from one, scene15, openai80, mini"),
        (dict(names=["cat"], templates=["a {} and a {}"]), "with one {} for the word"),
        (dict(names=["cat"], templates=[]), "with one {} for the word"),
        (dict(names=["spaceship"]), "does not know the word 'spaceship'"),
        (dict(names=["cat"], background=["spaceship"]), "does not know the word 'spaceship'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(clip, settings, message):
    with pytest.raises(InputError) as caught:
        read_vocabulary(clip, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)
