"""Whether a recording says which device made it and when: what it does not say cannot be told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CREDIBLE_FPS = (10.0, 40.0)
"""Half and double the nominal 20 frames a second; real episodes that dropped frames keep above 19."""

_PLACEHOLDERS = frozenset({"unknown", "none", "n/a", "na", "null", "nan", "nil", "undefined", "default"})
_ONLY_ZEROS_AND_MARKS = re.compile(r"[0\W_]*")


def is_placeholder(name: str | None) -> bool:
    """Whether a session or device is not really named: empty, ``unknown``, ``n/a``, zeros and the like."""
    text = (name or "").strip().casefold()
    return text in _PLACEHOLDERS or _ONLY_ZEROS_AND_MARKS.fullmatch(text) is not None


def clock_doubt(stamps_ns: NDArray[np.int64]) -> str | None:
    """Return why these times of frames are those of no clock; None where they may be.

    A clock goes forward at every frame, at a rate within :data:`CREDIBLE_FPS`.

    Args:
        stamps_ns: time of each frame on the device's clock, nanoseconds, shape (frames,).
    """
    gaps = np.diff(stamps_ns)
    if not len(gaps):
        return "one frame has no clock that advances"
    if not gaps.any():
        return f"it does not advance from {stamps_ns[0]}"
    if (gaps <= 0).any():
        return f"it does not advance after frame {int((gaps <= 0).argmax())}"
    seconds = (int(stamps_ns[-1]) - int(stamps_ns[0])) / 1e9
    if not CREDIBLE_FPS[0] <= len(gaps) / seconds <= CREDIBLE_FPS[1]:
        return f"{seconds:g} s are not credible for {len(stamps_ns)} frames"
    return None


def frame_names_doubt(names: Sequence[str]) -> str | None:
    """Return why these names do not tell frames apart; None where they do."""
    num_distinct = len(set(names))
    return None if num_distinct == len(names) else f"{num_distinct} different ones for {len(names)} frames"
