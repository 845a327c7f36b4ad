"""Asking a student's function in the process it lives in: quietly, for a limited time, and seeing what it calls."""

import _thread
import copy
import inspect
import io
import signal
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cascadeclip.exercises import wire
from cascadeclip.exercises.checking import Ask, Exercise, Late, Wrong, kind, told

PACKAGE = __name__.partition(".")[0]
ROOM = __package__
# Code from here is a library's, all other code is the student's own.
LIBRARIES = (
    str(Path(__file__).resolve().parents[1]),
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
# What CPython tells its audit hooks before code starts to run where no watch sees it.
PROCESSES = ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system")
WINDOWS = "_winapi.CreateProcess"  # what multiprocessing calls there
ESCAPES = frozenset({"sys.setprofile", "subprocess.Popen", WINDOWS, *PROCESSES})
THREADS = frozenset({"_thread.start_new_thread", "_thread.start_joinable_thread"})  # not before Python 3.12
STARTERS = frozenset(getattr(_thread, one) for name in THREADS if hasattr(_thread, one := name.split(".")[1]))
# As they were before a notebook could put others in their place.
_getprofile, _setprofile = sys.getprofile, sys.setprofile
_profile_of_threads, _bootstrap = threading.getprofile, threading.Thread._bootstrap  # type: ignore[attr-defined]


class Here:
    """The answers of a notebook that runs in this process.

    Args:
        namespace: the notebook's `globals()`.
    """

    def __init__(self, namespace: Mapping[str, object]) -> None:
        self.namespace = namespace

    def find(self, exercise: Exercise) -> object:
        if exercise.name not in self.namespace:
            raise Wrong(
                f"there is no `{exercise.name}` in this notebook. Was its cell deleted or its name changed, did it "
                "stop with an error, or has it not been run yet?"
            )
        answer = self.namespace[exercise.name]
        if exercise.is_value:
            return copy.deepcopy(answer)
        if not callable(answer):
            raise Wrong(f"`{exercise.name}` is {kind(answer)}; it must be a function, called as {exercise.call}")
        if str(getattr(inspect.unwrap(answer), "__module__", None)).startswith(f"{PACKAGE}."):
            raise Wrong(f"`{getattr(answer, '__name__', answer)}` is the package's own: write this one yourself")
        return None

    def call(self, exercise: Exercise, arguments: tuple[object, ...]) -> object:
        with time_limit(exercise.seconds):
            return self.call_unlimited(exercise, arguments)

    def call_unlimited(self, exercise: Exercise, arguments: tuple[object, ...]) -> object:
        """`call` without a limit on time."""
        name, function = exercise.name, cast(Ask, self.namespace[exercise.name])
        given = copy.deepcopy(arguments)
        with torch.set_grad_enabled(exercise.trains), quiet():
            try:
                answer = watched(function, given, exercise, self.received)
            except Wrong:
                raise
            except NotImplementedError as error:
                raise Wrong(f"`{name}` is not answered yet: it still raises NotImplementedError") from error
            except KeyboardInterrupt:  # a person's, or the limit's
                raise
            except BaseException as error:
                raise Wrong(f"your `{name}` stopped with {told(error)}. It is called as {exercise.call}") from error
        if not all(_same_tensors(one, other) for one, other in zip(arguments, given, strict=True)):
            raise Wrong(
                f"your `{name}` changed what it was given, so whoever uses that next gets other numbers. "
                "Copy first (`clone()`), and avoid operations that write in place"
            )
        return answer

    @staticmethod
    def received(answer: object) -> object:
        """The answer as it is judged; made while the function that gave it is still watched."""
        return answer


class AsGraded(Here):
    """Answers as a judge outside the notebook's process reads them: what would not arrive there does not pass here.

    They are plain numbers by the time the watch ends: an object cannot put off its work until it is read.
    """

    def find(self, exercise: Exercise) -> object:
        return self.received(super().find(exercise))

    @staticmethod
    def received(answer: object) -> object:
        try:
            return wire.unpack(wire.pack(answer))
        except Exception as error:
            raise Wrong(f"what it returns cannot be read: {error}"[:2000]) from error


def _same_tensors(one: Any, other: Any) -> bool:
    """Whether all tensors are the same, in nested lists and in dicts, too."""
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same_tensors, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same_tensors(one[name], other[name]) for name in one)
    return True


# --- whose work it is ------------------------------------------------------------------------------------------------


def watched(
    function: Ask, arguments: tuple[object, ...], exercise: Exercise, received: Callable[[object], object]
) -> object:
    """What is `received` of what the function returns; a `Wrong` if it lets a library do what the exercise asks for.

    It is the calls that are seen, not the names in the student's code: an alias, a partial, a default argument, an
    attribute or a method all end in the same call. Catching the `Wrong` inside the function does not help. Nor does it
    help to switch the watch off, or to go where it does not see, another process or a thread of `_thread`.
    """
    watch = _Watch(exercise)
    before, before_in_threads = _getprofile(), _profile_of_threads()
    try:
        with _TorchWatch(watch), _OperationWatch(watch):
            threading.setprofile(watch)
            _setprofile(watch)
            try:
                return received(function(*arguments))
            finally:
                untouched = watch.exercise is exercise and not watch.is_over and _getprofile() is watch
                watch.is_over = True
                _setprofile(before)
                threading.setprofile(before_in_threads)
                if not untouched:
                    watch.caught = watch.caught or Wrong(_tampering(exercise))
    finally:
        if watch.caught is not None:
            raise watch.caught


class _Watch:
    """A profile function: sees every Python function that is called, in this thread and in those that it starts."""

    __slots__ = ("_first", "caught", "exercise", "is_over")  # its methods cannot be covered by attributes

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.caught: Wrong | None = None
        self.is_over = False
        self._first = True

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call" and argument in STARTERS:
            self.hear("_thread.start_new_thread", (frame.f_locals["self"]._bootstrap if _is_start(frame) else None,))
        if argument is _getprofile and not frame.f_code.co_filename.startswith(LIBRARIES):
            self.stop(_tampering(self.exercise))
        if event != "call" or not frame.f_code.co_filename.startswith(LIBRARIES):
            self._first = self._first and event != "call"
            return
        module, names = str(frame.f_globals.get("__name__")), frame.f_code.co_qualname.split(".")
        if module.startswith(f"{PACKAGE}.") and module != __name__:
            if self._first:
                self.stop(f"`{names[-1]}` is the package's own: write this one yourself")
            if module.startswith(f"{ROOM}.") and module != wire.__name__:
                self.stop(f"your `{self.exercise.name}` calls `{names[-1]}` of the tests: write it yourself")
        self._first = False
        self.look(names)

    def look(self, names: list[str]) -> None:
        """Stops the student's function if one of these names is withheld."""
        if "spawnv_passfds" in names:  # how multiprocessing starts a process; no audit hook is told of it
            self.hear("subprocess.Popen", ())
        for name in self.exercise.withheld.intersection(names):
            self.stop(f"your function uses `{name}`, which does this exercise's work: write it yourself")

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Stops the student's function if code would now run that the watch does not see."""
        # threads of `threading` are watched, unless it was told otherwise
        ours = event in THREADS and getattr(arguments[0], "__func__", None) is _bootstrap
        if not (self.is_over or self.caught is not None or (ours and _profile_of_threads() is self)):
            self.stop(
                f"your `{self.exercise.name}` lets code run where it is not seen ({event}): compute the answer in the "
                "function itself"
            )

    def stop(self, message: str) -> None:
        self.caught = Wrong(message)
        raise self.caught


def _tampering(exercise: Exercise) -> str:
    return f"your `{exercise.name}` interferes with what watches it: compute the answer, and nothing else"


def _is_start(frame: FrameType) -> bool:
    return frame.f_code is threading.Thread.start.__code__


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook, which nothing can take away again. It acts in threads that are watched, and only there."""
    if event in ESCAPES or event in THREADS:
        watch = _getprofile()
        if isinstance(watch, _Watch):
            watch.hear(event, arguments)


sys.addaudithook(_audit)


class _TorchWatch(TorchFunctionMode):
    """Shows the watch those functions of PyTorch that are no Python functions."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.watch.look([getattr(func, "__name__", "")])
        return func(*args, **(kwargs or {}))


class _OperationWatch(TorchDispatchMode):
    """Shows the watch what PyTorch's functions come down to, by whichever of their names they were called: those of
    compiled functions and of `torch.ops`, too."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.watch.look([func.overloadpacket.__name__])
        return func(*args, **(kwargs or {}))


# --- silence and time ------------------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed, and no warning shown."""
    with redirect_stdout(Nowhere()), redirect_stderr(Nowhere()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Nowhere(io.TextIOBase):
    """Takes any amount of text and keeps none of it."""

    def write(self, text: str) -> int:
        return len(text)


class time_limit:
    """A `Late` after that many seconds, in the main thread, which is where notebooks run their cells.

    Used as `with time_limit(seconds):`. Its interrupt belongs to what stands in the block: one that comes as the block
    ends is dropped. Python handles signals where functions begin and calls end, so `__exit__` itself is such a place.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.inside = self.late = self.raised = False
        self.over = threading.Event()
        self.timer = threading.Timer(seconds, self._stop)
        self.timer.daemon = True

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("answers are tested in the main thread: only there can an endless loop be stopped")
        # a program that was started in the background may ignore interrupts
        self.before = signal.signal(signal.SIGINT, self._interrupted)
        self.timer.start()
        self.inside = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.inside = False
        self.over.set()
        self.timer.cancel()
        self.timer.join()
        signal.signal(signal.SIGINT, self.before)
        if self.raised and kind is not None and issubclass(kind, KeyboardInterrupt):
            raise Late(too_late(self.seconds)) from None

    def _stop(self) -> None:
        """Interrupt until it is felt: before the block has begun, it is not."""
        self.late = True
        while not self.raised and not self.over.is_set():
            _interrupt_main()
            self.over.wait(0.05)

    def _interrupted(self, signum: int, frame: FrameType | None) -> None:
        if not self.late:  # a person's
            raise KeyboardInterrupt
        leaving = frame is not None and frame.f_code is time_limit.__exit__.__code__
        if self.inside and not self.raised and not leaving:
            self.raised = True
            raise KeyboardInterrupt


def _interrupt_main() -> None:
    """A real signal where the system has one for a thread: it wakes `sleep` and `queue.get`, too."""
    kill: Callable[[int | None, int], None] | None = getattr(signal, "pthread_kill", None)
    if kill is None:
        signal.raise_signal(signal.SIGINT)
    else:
        kill(threading.main_thread().ident, signal.SIGINT)


def too_late(seconds: float) -> str:
    """What a student is told about an answer that did not come in time."""
    return f"still running after {seconds:g} seconds: is there a loop that never ends, or does it wait for something?"
