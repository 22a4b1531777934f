"""The caption JSON of an episode, laid out over its frames.

The rules are those of the data set's own toolkit: ``new`` is its current release; ``old`` is the one
before, kept so that results made with it can be reproduced. A caption is always mapped onto *all* frames
that were recorded, and then sliced: timestamps that lie outside a slice would snap to its edges.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from omni_mlflow.spine.caption_references import CaptionRule, References, references_of


@dataclass(frozen=True)
class CaptionSegment:
    """A stretch of the episode that was captioned in one go: frames ``start`` to ``end``, both included."""

    start: int
    end: int
    subtask: str | None


@dataclass(frozen=True)
class FrameCaptions:
    """What was annotated at each frame; every tuple but ``segments`` has ``num_frames`` entries.

    ``None`` at a frame means that nobody annotated it: no text, an empty one, or ``N/A``.

    Attributes:
        description: a sentence or two about the action.
        segments: in the order of the file; a frame's subtask may be that of an earlier one that overran.
        dropped_segments: how many more there were that name none of these frames.
    """

    num_frames: int
    action: tuple[str | None, ...]
    description: tuple[str | None, ...]
    subtask: tuple[str | None, ...]
    objects: tuple[tuple[str, ...] | None, ...]
    interaction: tuple[str | None, ...]
    segments: tuple[CaptionSegment, ...]
    dropped_segments: int
    main_task: str | None

    def until(self, stop: int) -> FrameCaptions:
        """Return the captions of the frames before ``stop``; a segment that begins later is a dropped one."""
        if stop >= self.num_frames:
            return self
        kept = [segment for segment in self.segments if segment.start < stop]
        return FrameCaptions(
            num_frames=stop,
            action=self.action[:stop],
            description=self.description[:stop],
            subtask=self.subtask[:stop],
            objects=self.objects[:stop],
            interaction=self.interaction[:stop],
            segments=tuple(replace(segment, end=min(segment.end, stop - 1)) for segment in kept),
            dropped_segments=self.dropped_segments + len(self.segments) - len(kept),
            main_task=self.main_task,
        )


def map_captions(
    text: str | bytes | None, names: Sequence[str], *, rule: CaptionRule = "new"
) -> FrameCaptions | None:
    """Lay the caption ``text`` over the frames called ``names``.

    Args:
        text: the JSON text, or None when the episode has no caption.
        names: the name of every frame of the whole episode, ``<device timestamp>.jpg``.

    Returns:
        The captions, or None when there is no text or it is not JSON. A field of an unexpected type counts
        as empty, so such an episode is unlabelled where the toolkit would stop.
    """
    document = _parsed(text)
    if document is None:
        return None
    document = _mapping(document)
    frames = [_Frame() for _ in names]
    references = references_of(names, rule=rule)
    laid = [_lay_segment(_mapping(each), frames, references) for each in _list(document.get("segments"))]
    _fill_forward(frames)
    return FrameCaptions(
        num_frames=len(frames),
        action=tuple(_annotated(frame.action) for frame in frames),
        description=tuple(_annotated(frame.description) for frame in frames),
        subtask=tuple(_annotated(frame.subtask) for frame in frames),
        objects=tuple(_objects(frame.objects) for frame in frames),
        interaction=tuple(_annotated(frame.interaction) for frame in frames),
        segments=tuple(segment for segment in laid if segment is not None),
        dropped_segments=laid.count(None),
        main_task=_annotated(_mapping(document.get("config")).get("Main Task")),
    )


@dataclass
class _Frame:
    """What is known so far of one frame. ``None`` is a key nobody wrote; an empty text was written."""

    action: str | None = None
    description: str | None = None
    subtask: str | None = None
    objects: Any = None
    interaction: Any = None


@dataclass(frozen=True)
class _Action:
    start: int
    end: int  # inclusive, as in the file
    label: str
    description: str


@dataclass
class _Segment:
    subtask: str
    actions: list[_Action]
    touched: set[int] = field(default_factory=set)


def _lay_segment(
    document: Mapping[str, Any], frames: list[_Frame], references: References
) -> CaptionSegment | None:
    """Write one segment into its frames; None when it names no frame of this episode."""
    segment = _Segment(_text(document.get("Sub Task")), _actions(document, references))
    for action in segment.actions:
        for index in range(action.start, min(action.end, len(frames) - 1) + 1):
            segment.touched.add(index)
            frames[index].subtask = segment.subtask
            frames[index].action = action.label
            frames[index].description = action.description
    objects = _lay_moments("objects", document, segment, frames, references)
    interaction = _lay_moments("interaction", document, segment, frames, references)
    if not segment.touched:
        return None
    start, end = references.bounds(document.get("start_frame", 0), document.get("end_frame", 0))
    first = min(segment.touched) if start is None else start
    last = max(segment.touched) if end is None else end
    for index in range(first, last + 1):
        frame = frames[index]
        frame.subtask = segment.subtask if frame.subtask is None else frame.subtask
        if not frame.action and (before := _action_before(segment.actions, index)) is not None:
            frame.action, frame.description = before.label, before.description
        if frame.objects is None and (earlier := _latest(objects, index)) is not None:
            frame.objects = frames[earlier].objects
        if frame.interaction is None and (earlier := _latest(interaction, index)) is not None:
            frame.interaction = frames[earlier].interaction
    return CaptionSegment(first, last, _annotated(segment.subtask))


def _actions(document: Mapping[str, Any], references: References) -> list[_Action]:
    actions = []
    for entry in map(_mapping, _list(document.get("Current Action"))):
        if (found := references.action(entry)) is not None:
            actions.append(_Action(*found, _text(entry.get("label")), _text(entry.get("description"))))
    return sorted(actions, key=lambda action: action.start)


def _lay_moments(
    key: Literal["objects", "interaction"],
    document: Mapping[str, Any],
    segment: _Segment,
    frames: list[_Frame],
    references: References,
) -> list[int]:
    """Write one sparse map of a segment into its frames; return, ascending, the frames that carry on."""
    carrying = set()
    for reference, value in _mapping(document.get(key)).items():
        if (index := references.moment(reference)) is None:
            continue
        segment.touched.add(index)
        frame = frames[index]
        frame.subtask = segment.subtask if frame.subtask is None else frame.subtask
        setattr(frame, key, "" if value is None else value)
        if references.carries(reference):
            carrying.add(index)
    return sorted(carrying)


def _action_before(actions: Sequence[_Action], index: int) -> _Action | None:
    """The last action that ended before frame ``index``, else the segment's first action."""
    found = actions[0] if actions else None
    for action in actions:
        if action.end < index:
            found = action
        elif action.start > index:
            break
    return found


def _latest(ascending: Sequence[int], index: int) -> int | None:
    place = bisect_right(ascending, index)
    return ascending[place - 1] if place else None


def _fill_forward(frames: Sequence[_Frame]) -> None:
    """Objects and interactions end with their segment; actions and subtasks last until the next one."""
    for before, frame in pairwise(frames):
        frame.subtask = before.subtask if frame.subtask is None else frame.subtask
        if frame.action is None:
            frame.action, frame.description = before.action, before.description


def _parsed(text: str | bytes | None) -> Any:
    if text is None:
        return None
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    try:
        return json.loads(text.strip("\ufeff\0 \n"))
    except (ValueError, RecursionError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Iterator[Any]:
    return iter(value if isinstance(value, list) else ())


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _annotated(value: Any) -> str | None:
    text = _text(value).encode("utf-8", errors="replace").decode().strip()  # JSON can hold half a character
    return None if not text or text.upper() == "N/A" else text


def _objects(value: Any) -> tuple[str, ...] | None:
    entries = value if isinstance(value, list) else [value]
    names = tuple(name for name in map(_annotated, entries) if name is not None)
    return names or None
