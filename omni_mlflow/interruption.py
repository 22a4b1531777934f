"""What signals become; light, because the command line needs it before anything else is read."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

VOLLEY_S = 3.0


class Interrupted(BaseException):
    """SIGTERM or SIGHUP arrived. Not an Exception, so that no stage can swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name


def name_of(stopping: BaseException) -> str:
    """What a person calls the thing that stopped a run."""
    if isinstance(stopping, Interrupted):
        return stopping.name
    return "Ctrl-C (SIGINT)" if isinstance(stopping, KeyboardInterrupt) else type(stopping).__name__


class Stop:
    """Turns SIGINT, SIGTERM and SIGHUP into exceptions.

    Signals come in volleys: a terminal and a launcher both send one, and people press Ctrl-C twice. Those
    that follow the first one within ``VOLLEY_S`` would only tear what is written about its end.
    """

    def __init__(self) -> None:
        self._heard_s = -math.inf

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if now_s - self._heard_s < VOLLEY_S:
            return
        self._heard_s = now_s
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Interrupted(number)


def listen(heard: Callable[[int, FrameType | None], None]) -> None:
    """Have ``heard`` called on SIGTERM, on Ctrl-C and when the terminal goes away.

    What whoever started us ignores goes on being ignored: Ctrl-C by a job in the background, SIGHUP by nohup.
    """
    signal.signal(signal.SIGTERM, heard)
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, heard)


def end_at_once(number: int, _frame: FrameType | None) -> None:
    """End the process while it still imports: an exception would be lost or told as a traceback there."""
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    os.write(2, f"stopped by {name} before anything had begun\n".encode())
    os._exit(128 + number)
