"""How an answer is judged: a student's function is run on fresh inputs, and what is wrong is said in words."""

import _thread
import copy
import inspect
import io
import secrets
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, cast

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
        withheld: names of the package that would answer it; the student's own code may not use them.
        seconds: that one call may take.
    """

    call: str
    parts: tuple[Part, ...]
    withheld: frozenset[str] = field(default_factory=frozenset)
    seconds: float = SECONDS

    @property
    def name(self) -> str:
        return self.call.partition("(")[0]

    @property
    def points(self) -> float:
        return sum(part.points for part in self.parts)

    @property
    def is_value(self) -> bool:
        return "(" not in self.call

    def judge(self, namespace: Mapping[str, object], seed: int | None = None) -> list[Wrong | None]:
        """What is wrong with each part, None for nothing.

        Args:
            namespace: the notebook's `globals()`.
            seed: of the random inputs; new ones every time if None.

        Raises:
            Wrong: there is nothing to test.
        """
        answer = self._answer_in(namespace)
        seed = secrets.randbelow(2**31) if seed is None else seed
        found: list[Wrong | None] = []
        for part in self.parts:
            try:
                tested = cast(Ask, answer) if self.is_value else self._ask(cast(Ask, answer))
                part.test(tested, torch.Generator().manual_seed(seed))
                found.append(None)
            except Late as late:  # the other parts would take as long
                return found + [late] * (len(self.parts) - len(found))
            except Wrong as wrong:
                found.append(wrong)
        return found

    def _answer_in(self, namespace: Mapping[str, object]) -> object:
        if self.name not in namespace:
            raise Wrong(
                f"there is no `{self.name}` in this notebook. Was its cell deleted or its name changed, did it stop "
                "with an error, or has it not been run yet?"
            )
        answer = namespace[self.name]
        if self.is_value:
            return copy.deepcopy(answer)
        if not callable(answer):
            raise Wrong(f"`{self.name}` is {_kind(answer)}; it must be a function, called as {self.call}")
        own_work(answer, self.withheld)
        return answer

    def _ask(self, function: Ask) -> Ask:
        def ask(*arguments: object) -> object:
            given = copy.deepcopy(arguments)
            with torch.no_grad(), quiet(), time_limit(self.seconds):
                try:
                    answer = function(*given)
                except Wrong:
                    raise
                except NotImplementedError as error:
                    raise Wrong(f"`{self.name}` is not answered yet: it still raises NotImplementedError") from error
                except (Exception, SystemExit) as error:
                    stopped = f"{type(error).__name__}: {error}"
                    raise Wrong(f"your `{self.name}` stopped with {stopped}. It is called as {self.call}") from error
            if not all(_same_tensors(one, other) for one, other in zip(arguments, given, strict=True)):
                raise Wrong(
                    f"your `{self.name}` changed what it was given, so whoever uses that next gets other numbers. "
                    "Copy first (`clone()`), and avoid operations that write in place"
                )
            return answer

        return ask


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed, and no warning shown: nbgrader gives no points to a cell that writes to stderr."""
    with redirect_stdout(_Nowhere()), redirect_stderr(_Nowhere()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Nowhere(io.TextIOBase):
    """Takes any amount of text and keeps none of it."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """A `Late` after that many seconds, in the main thread, which is where notebooks run their cells."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("answers are tested in the main thread: only there can an endless loop be stopped")
    late = threading.Event()
    # a program that was started in the background may ignore interrupts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop() -> None:
        late.set()
        _thread.interrupt_main()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not late.is_set():
            raise
        raise Late(f"still running after {seconds:g} seconds: is there a loop that never ends?") from None
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def own_work(function: Callable[..., object], withheld: frozenset[str]) -> None:
    """A `Wrong` if the function is the package's own, or if it or a helper of it uses something that is withheld."""
    pending, known = [inspect.unwrap(function)], set()
    while pending:
        one = pending.pop()
        if _of_package(one):
            raise Wrong(f"`{getattr(one, '__name__', one)}` is the package's own: write this one yourself")
        code = getattr(one, "__code__", None)
        if code is None or code in known:
            continue
        known.add(code)
        inner = {name: cell.cell_contents for name, cell in zip(code.co_freevars, one.__closure__ or (), strict=True)}
        for name in _names(code):
            value = inner.get(name, one.__globals__.get(name))
            used = {name, getattr(value, "__name__", name)} & withheld
            if used and getattr(value, "__module__", None) != one.__module__:
                raise Wrong(f"your function uses `{name}`, which does this exercise's work: write it yourself")
            if inspect.isfunction(value) and not _of_package(value):
                pending.append(inspect.unwrap(value))


def _names(code: CodeType) -> set[str]:
    """Every name that a function, or a function inside it, looks up."""
    return {*code.co_names, *code.co_freevars}.union(
        *(_names(part) for part in code.co_consts if isinstance(part, CodeType))
    )


def _of_package(value: object) -> bool:
    return str(getattr(value, "__module__", None)).startswith("cascadeclip.") and callable(value)


def _same_tensors(one: Any, other: Any) -> bool:
    """Whether all tensors are the same, in nested lists, too."""
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same_tensors, one, other))
    return True


def _kind(value: object) -> str:
    return "None: is a `return` missing?" if value is None else f"of type {type(value).__name__}"


def numbers(answer: object, what: str) -> Tensor:
    """The answer as a float64 or bool tensor; a `Wrong` if it holds no numbers."""
    if not isinstance(answer, Tensor | np.ndarray | np.generic | int | float | list | tuple):
        raise Wrong(f"{what} is {_kind(answer)}")
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
