"""What watches a student's function cannot be switched off, changed or outwaited by that function or its notebook."""

import base64
import statistics
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

import cascadeclip
from cascadeclip.exercises import EXERCISES, Wrong, answering, grade
from cascadeclip.exercises.checking import verdict
from cascadeclip.exercises.distant import Distant


def lent(seen, unseen):
    return statistics.harmonic_mean([seen, unseen])


def its_watch():
    return partial(sys.getprofile)()


def off_and_on_again(seen, unseen):
    watch = sys.getprofile()
    next(map(sys.setprofile, [None]))
    found = cascadeclip.evaluation.harmonic_mean(seen, unseen)
    sys.setprofile(watch)
    return found


def said_to_be_over(seen, unseen):
    its_watch().is_over = True
    sys.setprofile(None)
    return cascadeclip.evaluation.harmonic_mean(seen, unseen)


def for_another_exercise(seen, unseen):
    its_watch().exercise = EXERCISES["learning_rate"]
    return lent(seen, unseen)


def made_blind(seen, unseen):
    its_watch().look = print
    return lent(seen, unseen)


@pytest.mark.parametrize("answer", [off_and_on_again, said_to_be_over, for_another_exercise, made_blind])
def test_answers_cannot_change_what_watches_them(answer):
    with pytest.raises(Wrong, match=r"interferes with what watches it|'look' is read-only"):
        grade("harmonic_mean", {"harmonic_mean": answer}, 1)
    assert sys.getprofile() is None


class Later(float):
    """A number that is computed when it is read."""

    def __new__(cls, seen, unseen):
        made = super().__new__(cls)
        made.given = (seen, unseen)
        return made

    def __float__(self):
        return cascadeclip.evaluation.harmonic_mean(*self.given)


class LaterTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *arguments, **options):
        return torch.tensor(cascadeclip.evaluation.harmonic_mean(0.5, 0.5))


@pytest.mark.parametrize(
    "answer", [lambda *given: Later(*given), lambda *given: torch.zeros(()).as_subclass(LaterTensor)]
)
def test_answers_cannot_wait_until_nobody_watches(answer):
    with pytest.raises(Wrong, match="write it yourself"):
        grade("harmonic_mean", {"harmonic_mean": answer}, 1)


# --- asked from outside ----------------------------------------------------------------------------------------------


def asked(answer):
    """The verdict on an answer to `harmonic_mean`, asked as by a judge outside."""
    space = {"harmonic_mean": answer}
    judge = Distant(lambda text, seconds: base64.b64decode(eval(text, space)).decode())
    return verdict(EXERCISES["harmonic_mean"], judge, 1)


def blinding(name, value):
    def answer(seen, unseen):
        setattr(answering._Watch, name, value)
        return lent(seen, unseen)

    return answer


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
@pytest.mark.parametrize("answer", [blinding("__call__", print), blinding("look", print), blinding("stop", print)])
def test_an_answer_that_replaces_its_watch_does_not_count(answer):
    found = asked(answer)
    assert found.points == 0
    assert "replaced what sees whether an answer is its own work" in str(found.wrong)


@pytest.mark.parametrize("name,value", [("ROOM", "nowhere"), ("ESCAPES", frozenset()), ("too_late", print)])
def test_nor_does_one_whose_notebook_replaced_it(name, value, monkeypatch):
    monkeypatch.setattr(answering, name, value)
    found = asked(lambda seen, unseen: 2 * seen * unseen / (seen + unseen) if seen else 0.0)
    assert found.points == 0 and f"its own work: {name}" in str(found.wrong)


def test_the_rules_are_the_judges(monkeypatch):
    judges = EXERCISES["harmonic_mean"]
    monkeypatch.setitem(EXERCISES, "harmonic_mean", replace(judges, withheld=frozenset(), seconds=9))
    space = {"harmonic_mean": lent}
    judge = Distant(lambda text, seconds: base64.b64decode(eval(text, space)).decode())
    assert "write it yourself" in str(verdict(judges, judge, 1).wrong)
