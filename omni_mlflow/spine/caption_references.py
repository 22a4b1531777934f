"""How a caption names frames: by file name, by place in the sequence, or by device timestamp."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

CaptionRule = Literal["new", "old"]

# Device timestamps are about 1e13 ns; a smaller number is a frame's place in the sequence, from 1.
_SMALLEST_TIMESTAMP = 100_000_000
_LARGEST_TIMESTAMP = 2**62
_MOST_DIGITS = 18


class References(Protocol):
    """How a caption names frames. ``None`` is a reference that means no frame of this episode."""

    def action(self, action: Mapping[str, Any]) -> tuple[int, int] | None:
        """First and last frame of an action."""

    def moment(self, reference: str) -> int | None:
        """Frame of a key of ``objects`` or ``interaction``."""

    def carries(self, reference: str) -> bool:
        """Tell whether what is said at this key also holds for the frames after it."""

    def bounds(self, start: Any, end: Any) -> tuple[int | None, int | None]:
        """First and last frame of a segment."""


def references_of(names: Sequence[str], *, rule: CaptionRule) -> References:
    return _NewReferences(names) if rule == "new" else _OldReferences(names)


class _Names:
    """Look-up of frames by name, by name without its ending, and by nearest timestamp."""

    def __init__(self, names: Sequence[str]) -> None:
        self.num_frames = len(names)
        self._index: dict[str, int] = {name: index for index, name in enumerate(names)}
        for index, name in enumerate(names):
            self._index.setdefault(_stem(name), index)
        self._stamped_frames = [index for index, name in enumerate(names) if _is_number(_stem(name))]
        stamps = [_bounded(_stem(names[index])) for index in self._stamped_frames]
        self._stamps = np.array(stamps, dtype=np.int64)

    def exact(self, reference: str) -> int | None:
        return self._index.get(reference)

    def nearest(self, timestamp_ns: int) -> int | None:
        if not self._stamped_frames:
            return None
        distance_ns = np.abs(self._stamps - timestamp_ns)
        return self._stamped_frames[int(distance_ns.argmin())]


class _NewReferences:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = _Names(names)

    def action(self, action: Mapping[str, Any]) -> tuple[int, int] | None:
        start = self._find(action.get("start_frame_name") or action.get("start_frame"))
        end = self._find(action.get("end_frame_name") or action.get("end_frame"))
        return None if start is None or end is None else (min(start, end), max(start, end))

    def moment(self, reference: str) -> int | None:
        return self._find(reference)

    def carries(self, reference: str) -> bool:
        return self._find(reference) is not None

    def bounds(self, start: Any, end: Any) -> tuple[int | None, int | None]:
        first, last = self._find(start), self._find(end)
        if first is not None and last is not None and last < first:
            return last, first
        return first, last

    def _find(self, reference: Any) -> int | None:
        """Exact name first, then ``frame_<n>`` (from 1), then a timestamp or a place in the sequence."""
        text = "" if reference is None else str(reference).strip()
        for name in (text, _stem(text)):
            if name and (index := self._names.exact(name)) is not None:
                return index
        if numbered := re.search(r"frame_([0-9]+)", text):
            return self._clamped(_bounded(numbered[1]) - 1)
        if not _is_number(_stem(text).removeprefix("-")):
            return None
        number = _bounded(_stem(text))
        return self._names.nearest(number) if number >= _SMALLEST_TIMESTAMP else self._clamped(number - 1)

    def _clamped(self, index: int) -> int | None:
        return min(max(index, 0), self._names.num_frames - 1) if self._names.num_frames else None


class _OldReferences:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = _Names(names)

    def action(self, action: Mapping[str, Any]) -> tuple[int, int] | None:
        start_name = _first_given(action.get("start_frame_name"), action.get("start_frame"))
        end_name = _first_given(action.get("end_frame_name"), action.get("end_frame"))
        start, end = self._names.exact(start_name), self._names.exact(end_name)
        if _is_number(start_name):
            start = self._names.nearest(_bounded(start_name)) if start is None else start
            if end is None and (timestamp_ns := _whole_number(end_name)) is not None:
                end = self._names.nearest(timestamp_ns)
        return None if start is None or end is None else (start, end)

    def moment(self, reference: str) -> int | None:
        index = self._names.exact(reference)
        if index is None and _is_number(reference):
            index = self._names.nearest(_bounded(reference))
        return index

    def carries(self, reference: str) -> bool:
        return self._names.exact(reference) is not None

    def bounds(self, start: Any, end: Any) -> tuple[int | None, int | None]:
        """Whole numbers inside the episode are places counted from 0; all else is a name or a timestamp."""
        first, last = _whole_number(str(start)), _whole_number(str(end))
        places = range(self._names.num_frames)
        if first is not None and last is not None and first in places and last in places:
            return min(first, last), last
        return self.moment(str(start)), self.moment(str(end))


def _first_given(*values: Any) -> str:
    return next((str(value) for value in values if value is not None), "")


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+", text) is not None


def _whole_number(text: str) -> int | None:
    return _bounded(text.strip()) if re.fullmatch(r"\s*-?[0-9]+\s*", text) else None


def _bounded(digits: str) -> int:
    """Read a whole number; one too long for a timestamp is the largest there is."""
    if len(digits.lstrip("-0")) > _MOST_DIGITS:
        return -_LARGEST_TIMESTAMP if digits.startswith("-") else _LARGEST_TIMESTAMP
    return int(digits)
