"""How an answer is judged: it is asked about fresh inputs, and what is wrong is said in words."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

RELATIVE, ABSOLUTE = 1e-3, 1e-4  # how far an answer may be from the right one, for float32 and another order of sums
CASES = 3  # random inputs that a part is tried on
SECONDS = 20.0  # that one call of a student's function may take


class Wrong(AssertionError):
    """An answer that does not hold. The message is for the student."""


class Late(Wrong):
    """An answer that did not come in time."""


Ask = Callable[..., object]  # calls the student's function; whatever goes wrong in there is a `Wrong`
Test = Callable[[Ask, torch.Generator], None]  # asks, with random inputs; raises `Wrong`


class Answers(Protocol):
    """What a notebook answers, wherever it runs: in this process (`answering.Here`) or in another one."""

    def find(self, exercise: "Exercise") -> object:
        """The value of a `value` exercise; None for a function that is there. Raises `Wrong` if there is nothing."""

    def call(self, exercise: "Exercise", arguments: tuple[object, ...]) -> object:
        """What the function of that exercise returns. Raises `Wrong` for whatever goes wrong in there."""


@dataclass(frozen=True)
class Part:
    """One thing that is tested, and what it is worth.

    Attributes:
        claim: what holds if the test passes, for people.
        points: of the exercise's points.
        test: gets a way to ask the student's function (or, of a `value` exercise, the value itself) and the source of
            all random inputs; raises `Wrong`.
    """

    claim: str
    points: float
    test: Test


@dataclass(frozen=True)
class Exercise:
    """One exercise of an assignment.

    Attributes:
        call: how the student's function is called, or the name of a value to give.
        parts: what is tested; their points add up to the exercise's.
        withheld: names of libraries that would answer it; the student's own code may not call them.
        seconds: that one call may take.
        trains: the function is called with gradients on; all others are called without.
    """

    call: str
    parts: tuple[Part, ...]
    withheld: frozenset[str] = field(default_factory=frozenset)
    seconds: float = SECONDS
    trains: bool = False

    @property
    def name(self) -> str:
        return self.call.partition("(")[0]

    @property
    def points(self) -> float:
        return sum(part.points for part in self.parts)

    @property
    def is_value(self) -> bool:
        return "(" not in self.call

    def judge(self, answers: Answers, seed: int | None = None) -> list[Wrong | None]:
        """What is wrong with each part, None for nothing.

        Args:
            seed: of the random inputs; new ones every time if None.

        Raises:
            Wrong: there is nothing to test.
        """
        value = answers.find(self)
        tested = cast(Ask, value) if self.is_value else lambda *arguments: answers.call(self, arguments)
        seed = secrets.randbelow(2**31) if seed is None else seed
        found: list[Wrong | None] = []
        for part in self.parts:
            try:
                part.test(tested, torch.Generator().manual_seed(seed))
                found.append(None)
            except Late as late:  # the other parts would take as long
                return found + [late] * (len(self.parts) - len(found))
            except Wrong as wrong:
                found.append(wrong)
            except Exception as error:  # an answer of a kind that no test thought of must not stop the grading
                found.append(Wrong(f"`{self.name}` gives something that the test cannot work with ({told(error)})"))
        return found


@dataclass(frozen=True)
class Verdict:
    """Points, and what is said about them.

    Attributes:
        points: earned, of the exercise's.
        lines: one for each part.
        wrong: why not one part holds; None if some do.
    """

    points: float
    lines: tuple[str, ...]
    wrong: Wrong | None


def verdict(exercise: Exercise, answers: Answers, seed: int | None = None) -> Verdict:
    """Judge one exercise; never raises a `Wrong`."""
    try:
        wrongs = exercise.judge(answers, seed)
    except Wrong as nothing:
        return Verdict(0.0, (), nothing)
    lines, earned = [], 0.0
    first: Wrong | None = None
    for part, wrong in zip(exercise.parts, wrongs, strict=True):
        if wrong is None:
            earned += part.points
            lines.append(f"{part.claim}: right ({part.points:g})")
        else:
            first = first or wrong
            lines.append(f"{part.claim}: 0 of {part.points:g}: {wrong}")
    return Verdict(float(earned), tuple(lines), None if earned else first)


def kind(value: object) -> str:
    """What an answer is, for messages about one of the wrong kind."""
    return "None: is a `return` missing?" if value is None else f"of type {_type_name(value)}"


def told(error: BaseException) -> str:
    """Kind and message of an error of the student's, whose message may be an error itself."""
    try:
        return f"{_type_name(error)}: {error}"
    except KeyboardInterrupt:
        raise
    except BaseException:
        return _type_name(error)


def _type_name(value: object) -> str:
    """As Python itself has it: a class may call itself anything."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def numbers(answer: object, what: str) -> Tensor:
    """The answer as a float64 or bool tensor; a `Wrong` if it holds no numbers."""
    if not isinstance(answer, Tensor | np.ndarray | np.generic | int | float | list | tuple):
        raise Wrong(f"{what} is {kind(answer)}")
    try:
        found = torch.as_tensor(answer).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Wrong(f"{what} cannot be read as numbers: {error}") from error
    if found.is_complex():
        raise Wrong(f"{what} has complex numbers")
    return found if found.dtype == torch.bool else found.double()


def shaped(answer: object, shape: Sequence[int], what: str) -> Tensor:
    """`numbers` of that shape; a `Wrong` that names both shapes otherwise."""
    found = numbers(answer, what)
    if tuple(found.shape) != tuple(shape):
        wanted = f"shape {tuple(shape)}" if len(shape) else "a single number"
        raise Wrong(f"{what} has shape {tuple(found.shape)}, expected {wanted}")
    return found


def near(found: Tensor, right: Tensor) -> bool:
    """Whether two tensors of one shape hold the same numbers, nearly."""
    return torch.allclose(found.double(), right.double(), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=False)


def all_apart(values: Sequence[float]) -> bool:
    """Whether no two of the numbers are nearly the same, so that no mistake passes for another or for the answer."""
    ordered = torch.tensor(values, dtype=torch.float64).sort().values
    return not torch.isclose(ordered[1:], ordered[:-1], rtol=RELATIVE, atol=ABSOLUTE).any()


def expect(
    answer: object,
    right: Tensor | float,
    mistakes: Mapping[str, Tensor | float] | None = None,
    what: str = "the result",
) -> None:
    """A `Wrong` unless the answer is `right`.

    Args:
        right: a tensor of any shape, or a number.
        mistakes: what to tell the student -> what the answer is when that mistake was made, of any shape.
        what: names the answer in messages.
    """
    right, found = torch.as_tensor(right), numbers(answer, what)
    for message, mistake in (mistakes or {}).items():
        mistake = torch.as_tensor(mistake)
        shows = mistake.shape != right.shape or not near(mistake, right)
        if shows and mistake.shape == found.shape and near(found, mistake):
            raise Wrong(message)
    found = shaped(answer, right.shape, what)
    if not found.isfinite().all():
        raise Wrong(f"{what} holds {_say(found[~found.isfinite()][0])}: is something divided by zero?")
    if not near(found, right):
        off = (found.double() - right.double()).abs()
        place = [int(i) for i in np.unravel_index(int(off.argmax()), tuple(off.shape))]
        at = f" at {place}" if place else ""
        raise Wrong(f"{what} is {_say(found[tuple(place)])}{at}, expected {_say(right[tuple(place)])}")


def _say(value: Tensor) -> str:
    return f"{value.item():.4g}"


def uniform(random: torch.Generator, low: float, high: float) -> float:
    """One random number."""
    return low + (high - low) * torch.rand((), generator=random).item()


def integer(random: torch.Generator, low: int, high: int) -> int:
    """One random whole number, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=random))
