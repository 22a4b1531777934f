"""What signals become; light, because the command line needs it before anything else is read."""

from __future__ import annotations

import math
import signal
import time
from types import FrameType

VOLLEY_S = 3.0


class Interrupted(BaseException):
    """SIGTERM arrived. Not an Exception, so that no stage can swallow it."""


class Stop:
    """Turns SIGINT and SIGTERM into exceptions.

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
        raise KeyboardInterrupt if number == signal.SIGINT else Interrupted
