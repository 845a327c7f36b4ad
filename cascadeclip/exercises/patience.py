"""Limits on time that count work: a busy machine takes nothing away from what was promised."""

import psutil

ENOUGH = 0.9  # of the promised seconds, measured in the processor's time
IDLE = 1 / 30  # of a period: who works less waits for something
PERIODS = 10  # after which it is over in any case


class Patience:
    """Whether a process has had its time. To be asked once per period of `seconds`, and not before one is over.

    Args:
        pid: of the process.
        seconds: of work that it may take; seconds of waiting count as well, those in which others had the processor
            do not.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self.pid, self.seconds = pid, seconds
        self.periods = 0
        self.start = self.last = self._worked()

    def is_over(self) -> bool:
        self.periods += 1
        before, self.last = self.last, self._worked()
        worked, lately = self.last - self.start, self.last - before
        return worked >= ENOUGH * self.seconds or lately < IDLE * self.seconds or self.periods >= PERIODS

    def _worked(self) -> float:
        """Seconds of the processor, with those of its children; 0 if there is no such process."""
        try:
            process = psutil.Process(self.pid)
            return _seconds(process) + sum(_seconds(child) for child in process.children(recursive=True))
        except psutil.Error:
            return 0.0


def _seconds(process: psutil.Process) -> float:
    """Of one process, and of its children that have ended."""
    times = process.cpu_times()
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + ended)
