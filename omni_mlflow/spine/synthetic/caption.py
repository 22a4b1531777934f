"""The caption JSON of a synthetic episode, as uneven as real ones, that says exactly what the world did.

Caption segments last up to 20 s and end with a subtask. Some hold no action, because the one before runs
past its segment; actions have gaps between them or end where they start, and readers carry them forward.
Timestamps are written as numbers and as text, and the last segment ends with a frame name instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from omni_mlflow.spine.synthetic.procedure import Segment
from omni_mlflow.spine.synthetic.world import SessionWorld

CAPTION_FRAMES = 400  # 20 s
SAMPLE_FRAMES = 40  # the captioner looked at an image every 2 s
GAP_FRAMES = 5
TOKENS_IN_PER_IMAGE = 1185


@dataclass(frozen=True)
class _Scene:
    """Frames [start, stop) that one caption segment describes."""

    start: int
    stop: int
    subtask: str
    object_name: str


def caption_json(world: SessionWorld, timestamps: Sequence[int]) -> str:
    """Return the caption of an episode whose frames have these device timestamps in nanoseconds."""
    frames = len(timestamps)
    scenes = _scenes(world, frames)
    segments = [
        _caption_segment(world, scene, timestamps, number=number) for number, scene in enumerate(scenes)
    ]
    segments[-1]["end_frame"] = f"frame_{frames + 1:07d}"  # the surplus video frame has no timestamp
    tokens = sum(segment["tokens_in"] + segment["tokens_out"] for segment in segments)
    config = {"total_frames": frames + 1, "total_tokens": tokens, "Main Task": world.main_task}
    return json.dumps({"config": config, "segments": segments})


def _scenes(world: SessionWorld, frames: int) -> list[_Scene]:
    """Cut the episode where the subtask changes, and after 20 s at the latest."""
    scenes: list[_Scene] = []
    shown = [segment for segment in world.segments if segment.start < frames]
    for object_name, run in groupby(shown, key=lambda segment: segment.action.object_name):
        together = list(run)
        stop = min(together[-1].stop, frames)
        scenes += [
            _Scene(start, min(start + CAPTION_FRAMES, stop), together[0].action.subtask, object_name)
            for start in range(together[0].start, stop, CAPTION_FRAMES)
        ]
    return scenes


def _caption_segment(
    world: SessionWorld, scene: _Scene, timestamps: Sequence[int], *, number: int
) -> dict[str, Any]:
    begun = [segment for segment in world.segments if scene.start <= segment.start < scene.stop]
    sampled = range(scene.start, scene.stop, SAMPLE_FRAMES)
    told = {str(timestamps[segment.start]): _interaction(segment) for segment in begun}
    return {
        "segment_id": number,
        "start_frame": str(timestamps[scene.start]),
        "end_frame": str(timestamps[scene.stop - 1]),
        "Sub Task": scene.subtask,
        "Current Action": [_action(segment, scene, timestamps) for segment in begun],
        "sampled_frames": {f"Image {n}": timestamps[frame] for n, frame in enumerate(sampled, start=1)},
        "objects": {str(timestamps[scene.start]): [scene.object_name]},
        "interaction": told,
        "api_call_start": f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00.000000",
        "api_call_end": f"2026-01-01T{number // 60:02d}:{number % 60:02d}:03.000000",
        "tokens_in": TOKENS_IN_PER_IMAGE * len(sampled),
        "tokens_out": 60 + 80 * len(begun),
    }


def _action(segment: Segment, scene: _Scene, timestamps: Sequence[int]) -> dict[str, Any]:
    """Describe one action; alternately with its start as text, a gap after it, or nothing but its start.

    Where an action ends before its frames do, the rest of the segment is carried forward from it; where it
    runs past its segment nothing is, so its end is exact.
    """
    action = segment.action
    last = min(segment.stop, len(timestamps)) - 1
    turn = segment.start % 3
    if segment.stop <= scene.stop:
        last = {0: last, 1: max(segment.start, last - GAP_FRAMES), 2: segment.start}[turn]
    start, end = timestamps[segment.start], timestamps[last]
    return {
        "label": action.label,
        "description": f"The person works on the {action.object_name} with the {action.tool} tool.",
        "start_frame": str(start) if turn == 1 else start,
        "end_frame": str(end) if turn == 2 else end,
    }


def _interaction(segment: Segment) -> str:
    touch = "touches" if segment.in_contact else "hovers over"
    return f"The right hand {touch} the {segment.action.object_name}."
