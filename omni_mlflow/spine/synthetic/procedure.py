"""What is done in a session, segment by segment: a chance process in which an action follows the last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.synthetic.vocabulary import (
    COMMON_ACTIONS,
    COMMON_COLOURS,
    PRIVATE_COLOURS,
    PRIVATE_THINGS,
    PRIVATE_TOOLS,
    Action,
    private_action,
)

SEGMENT_FRAMES = (30, 90)
"""An action lasts this many frames, the upper bound excluded."""

FLIP_PROBABILITY = 0.7  # the other tool follows on the same block
PRIVATE_PROBABILITY = 0.53  # otherwise: a private action; makes about a quarter of all frames private
PRIVATE_SHARE = (0.23, 0.30)
PRIVATE_SHARE_NEEDS_FRAMES = 400  # shorter episodes hold too few segments to promise a share


@dataclass(frozen=True)
class Segment:
    """Frames ``[start, stop)`` in which one action is done, with or without hand contact."""

    start: int
    stop: int
    action: Action
    in_contact: bool


def draw_segments(rng: np.random.Generator, *, frames: int, stickiness: float = 0.0) -> tuple[Segment, ...]:
    """Draw what happens in frames 0 to ``frames`` (that one included: videos hold a surplus frame).

    Without stickiness, between 23 and 30 % of the frames of an episode of 400 or more carry an action that
    almost surely no other session has, so held-out windows hold unseen actions whatever the split.

    Args:
        stickiness: probability (0 <= p < 1) that what is being done goes on for one more segment, action and
            contact alike. The more it does, the more the frames of one episode resemble each other.
    """
    private = draw_private_actions(rng)
    liking = preferences(rng)
    while True:
        segments = _draw_once(rng, private, liking, length=frames + 1, stickiness=stickiness)
        low, high = PRIVATE_SHARE
        if (
            stickiness
            or frames < PRIVATE_SHARE_NEEDS_FRAMES
            or low <= _private_share(segments, frames) <= high
        ):
            return segments


def draw_private_actions(rng: np.random.Generator) -> tuple[Action, Action]:
    """Draw two actions that differ in verb, colour and thing."""
    verbs = rng.choice(list(PRIVATE_TOOLS), 2, replace=False)
    colours = rng.choice(list(PRIVATE_COLOURS), 2, replace=False)
    things = rng.choice(PRIVATE_THINGS, 2, replace=False)
    first, second = (private_action(str(v), str(c), str(t)) for v, c, t in zip(verbs, colours, things))
    return first, second


def preferences(rng: np.random.Generator) -> NDArray[np.float64]:
    """Probability of each common action: half a prior that all sessions share, half the session's own.

    In the shared prior each colour is half as likely as the one before it.
    """
    shared = np.repeat(0.5 ** np.arange(len(COMMON_COLOURS)), len(COMMON_ACTIONS) // len(COMMON_COLOURS))
    own = rng.dirichlet(np.ones(len(COMMON_ACTIONS)))
    return np.asarray(0.5 * shared / shared.sum() + 0.5 * own)


def next_action(
    current: Action,
    rng: np.random.Generator,
    private: tuple[Action, Action],
    liking: NDArray[np.float64],
) -> Action:
    """Draw the action after ``current``; it is never ``current`` again."""
    if not current.private and rng.random() < FLIP_PROBABILITY:
        same_block = [other for other in COMMON_ACTIONS if other.object_name == current.object_name]
        return next(other for other in same_block if other != current)
    if rng.random() < PRIVATE_PROBABILITY:
        order = [private[index] for index in rng.permutation(len(private))]
        return next(other for other in order if other != current)
    weights = np.where([other == current for other in COMMON_ACTIONS], 0.0, liking)
    return COMMON_ACTIONS[rng.choice(len(COMMON_ACTIONS), p=weights / weights.sum())]


def _draw_once(
    rng: np.random.Generator,
    private: tuple[Action, Action],
    liking: NDArray[np.float64],
    *,
    length: int,
    stickiness: float,
) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    action = COMMON_ACTIONS[rng.choice(len(COMMON_ACTIONS), p=liking)]
    start = 0
    while start < length:
        stop = start + int(rng.integers(*SEGMENT_FRAMES))
        while stickiness and stop < length and rng.random() < stickiness:
            stop += int(rng.integers(*SEGMENT_FRAMES))
        stop = min(length, stop)
        segments.append(Segment(start, stop, action, in_contact=bool(rng.random() < 0.5)))
        action = next_action(action, rng, private, liking)
        start = stop
    return tuple(segments)


def _private_share(segments: tuple[Segment, ...], frames: int) -> float:
    """Share (0..1) of the first ``frames`` frames; the surplus one is nobody's."""
    return sum(min(s.stop, frames) - s.start for s in segments if s.action.private) / frames
