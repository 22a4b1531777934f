"""When the track of a file sounds, by its own clock or by that of an episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from omni_mlflow.spine.types import Row

WHOLE_S = 0.1
"""A track that leaves no more of an episode in silence is whole: it ends with its last full frame."""


class Joint(NamedTuple):
    """What a track sounds from ``track_s`` on, by the file's clock, belongs to ``episode_s`` and after."""

    track_s: float
    episode_s: float

    def placed(self, track_s: float) -> float:
        return self.episode_s + track_s - self.track_s


NO_JOINT = (Joint(0.0, 0.0),)


class Sound(Row):
    """When the audio track of a file sounds.

    Attributes:
        spans: from and until when, in seconds after the first picture, ascending; none without a track.
        overlap_s: how much was cut because the sound before it lasts longer.
        mute: what sounds is digital silence, every sample the same.
        num_broken: packets that cannot be decoded; silence stands for what they held.
    """

    spans: tuple[tuple[float, float], ...] = ()
    overlap_s: float = 0.0
    mute: bool = False
    num_broken: int = 0

    def silences(self, length_s: float) -> list[tuple[float, float]]:
        """Return from and until when an episode of this length is without sound."""
        inside = [(min(start, length_s), min(stop, length_s)) for start, stop in self.spans]
        edges = [0.0, *(edge for span in inside for edge in span), length_s]
        return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]

    def silence_s(self, length_s: float) -> float:
        return sum(stop - start for start, stop in self.silences(length_s))

    def share(self, length_s: float) -> float:
        """Share (0..1) of an episode of this length that has sound."""
        return 1.0 - self.silence_s(length_s) / length_s

    def joined(self, joints: Sequence[Joint]) -> Sound:
        """Return when it sounds by the episode's clock; what overlaps the sound before it is cut."""
        following = [*joints[1:], Joint(math.inf, math.inf)]
        spans: list[tuple[float, float]] = []
        for start, stop in self.spans:
            for joint, after in zip(joints, following, strict=True):
                first, last = max(start, joint.track_s), min(stop, after.track_s)
                heard_until = spans[-1][1] if spans else 0.0
                begins, ends = max(joint.placed(first), heard_until), min(joint.placed(last), after.episode_s)
                if first >= last or begins >= ends:
                    continue
                if spans and begins == heard_until:
                    spans[-1] = (spans[-1][0], ends)
                else:
                    spans.append((begins, ends))
        return self.model_copy(update={"spans": tuple(spans)})

    def is_whole(self, length_s: float) -> bool:
        """Whether no other track can have more of an episode of this length."""
        return bool(self.spans) and not self.mute and self.silence_s(length_s) <= WHOLE_S
