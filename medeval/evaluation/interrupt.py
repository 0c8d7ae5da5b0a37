"""Ends a run early, on a signal or a time limit, without losing anything."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NoReturn

Interruption = Literal["SIGINT", "SIGTERM", "time limit"]

SIGNALS: dict[signal.Signals, Interruption] = {
    signal.SIGINT: "SIGINT",
    signal.SIGTERM: "SIGTERM",
}


class Interrupt:
    """A request to end early: samples in flight are finished, and no other starts.

    A second signal drops the samples in flight as well; the files stay whole either way. Time
    limits count from the creation of this object. `tell` shows a message to people, and `pass_on`
    is called once with the reason. If `listens` is false, another process handles the signals.
    """

    def __init__(self, *, listens: bool = True) -> None:
        self.reason: Interruption | None = None
        self.tell: Callable[[str], None] = lambda message: None
        self.pass_on: Callable[[Interruption], None] = lambda reason: None
        self._listens_to = SIGNALS if listens else {}
        self._began_at = time.monotonic()
        self._task: asyncio.Task[Any] | None = None

    def ask(self, reason: Interruption) -> None:
        """Ask the run to end."""
        if self.reason is None:
            self.reason = reason
            hint = "" if reason == "time limit" else "; once more to drop them"
            self.tell(f"{reason}: finishing the samples in flight{hint}")
            self.pass_on(reason)
        elif reason != "time limit" and self._task is not None:
            self._task.cancel()

    @contextmanager
    def covering(self, time_limit_s: float | None) -> Iterator[None]:
        """Handle signals and the time limit while the current task runs the body."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        earlier = {name: signal.getsignal(name) for name in self._listens_to}
        installed = [name for name in self._listens_to if self._listens(loop, name)]
        timer = None
        if time_limit_s is not None:
            left_s = max(0.0, self._began_at + time_limit_s - time.monotonic())
            timer = loop.call_later(left_s, self.ask, "time limit")
        try:
            yield
        finally:
            self._task = None
            for name in installed:
                loop.remove_signal_handler(name)
                signal.signal(name, earlier[name])
            if timer is not None:
                timer.cancel()

    @contextmanager
    def between_tasks(self) -> Iterator[None]:
        """Handle signals while no task is covered: the first asks the run to end.

        A second one raises KeyboardInterrupt. Use it in the main thread, where signals arrive;
        elsewhere it does nothing.
        """

        def handle(number: int, _: object) -> None:
            if self.reason is not None:
                raise KeyboardInterrupt
            self.ask(SIGNALS[signal.Signals(number)])

        is_main = threading.current_thread() is threading.main_thread()
        names = self._listens_to if is_main else ()
        earlier = {name: signal.signal(name, handle) for name in names}
        try:
            yield
        finally:
            for name, handler in earlier.items():
                signal.signal(name, handler)

    def _listens(self, loop: asyncio.AbstractEventLoop, name: signal.Signals) -> bool:
        try:
            loop.add_signal_handler(name, self.ask, SIGNALS[name])
        except (RuntimeError, ValueError, NotImplementedError):
            return False  # not the main thread, which handles the signals
        return True


@contextmanager
def ending_at_sigterm(exit_code: int, tell: Callable[[str], None]) -> Iterator[None]:
    """Exit on SIGTERM before the first request and after the last, while no sample is in flight.

    Use it in the main thread, where signals arrive.
    """

    def end(*_: object) -> NoReturn:
        tell("SIGTERM: nothing was in flight; the same command resumes")
        raise SystemExit(exit_code)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
