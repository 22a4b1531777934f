"""A few held-out windows to look at: what the model saw, what it was asked, what it said, what is true."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.metrics.answers import UNKNOWN

Image = NDArray[np.uint8]
_LONGEST_COLUMN = 200


@dataclass(frozen=True)
class ContactSheet:
    """One held-out window.

    Attributes:
        frames: what the model saw, uint8 RGB of one shape (height, width, 3); may be empty.
        frames_are: what the frames show, e.g. ``source frames 400, 404, 408``.
        answer: the parsed reply; empty when it was no JSON.
        raw: the reply as it came; None where no reply in words was asked for.
        columns: what a row of predictions says where it has no reply and no labels, by name.
    """

    sample_id: str
    frames: Sequence[Image]
    frames_are: str
    question: str
    answer: Mapping[str, Any]
    raw: str | None
    truth: Mapping[str, Any]
    columns: Mapping[str, Any] = field(default_factory=dict)

    def compared(self) -> list[tuple[str, str, str, bool | None]]:
        """By key of the truth: its name, the answer, the truth, and whether they are equal.

        None where nobody annotated the truth: then nothing can be said.
        """
        return [
            (key, _told(self.answer.get(key)), _told(true), _compared(self.answer.get(key), true))
            for key, true in self.truth.items()
        ]

    def told(self) -> list[tuple[str, str]]:
        """The columns as text, long ones cut."""
        return [(name, _cut(value)) for name, value in self.columns.items()]


def strip(frames: Sequence[Image], *, width: int = 300, gap: int = 6) -> bytes:
    """Frames side by side on white as one PNG.

    Args:
        frames: uint8 RGB, all of one shape (height, width, 3).
        width: largest width of one frame in pixels; larger ones are averaged down by a whole factor.
        gap: pixels between frames.
    """
    from matplotlib.image import imsave

    factor = max(1, -(-frames[0].shape[1] // width))
    space = np.full((frames[0].shape[0] // factor, gap, 3), 255, dtype=np.uint8)
    parts = [part for frame in frames for part in (space, _shrunk(frame, factor))]
    out = io.BytesIO()
    imsave(out, np.concatenate(parts[1:], axis=1), format="png", metadata={"Software": None})
    return out.getvalue()


def _shrunk(frame: Image, factor: int) -> Image:
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    blocks = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    shrunk: Image = np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return shrunk


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST_COLUMN:
        return text
    return f"{text[:_LONGEST_COLUMN]} … ({len(text) - _LONGEST_COLUMN} characters more)"


def _told(value: Any) -> str:
    if value is None:
        return "(nothing)"
    if isinstance(value, Mapping):
        return f"{value.get('start_frame')} to {value.get('end_frame')}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "(none)"
    return str(value)


def _compared(answer: Any, true: Any) -> bool | None:
    return None if true in (None, UNKNOWN, [UNKNOWN]) else _same(answer, true)


def _same(answer: Any, true: Any) -> bool:
    """Lists of objects are sets."""
    if isinstance(answer, list | tuple) and isinstance(true, list | tuple):
        return sorted(map(str, answer)) == sorted(map(str, true))
    return bool(answer == true)
