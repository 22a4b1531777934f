"""Which episodes a synthetic set holds, decided before one is written."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from omni_mlflow.spine.synthetic.anomalies import PLANTINGS, Anomaly
from omni_mlflow.spine.synthetic.world import WARM_UP_SEEDS, make_session
from omni_mlflow.spine.types import SCHEMA_VERSION, SYNTHETIC_FRAMES, Row

SEEDS_PER_SET = 1000
INVALID_BODY_SHARE = 0.25
DEMO_ANOMALIES = (Anomaly.NO_CAPTION, Anomaly.CUT_SHORT, Anomaly.NO_SLAM)

Anomalies = Literal["none", "demo", "all"]


class SynthesisError(Exception):
    """The wanted set cannot be written, or not here."""


class Source(Row):
    """The episode of the same set that another one has something of."""

    path: str
    world_seed: int
    stickiness: float = Field(default=0.0, exclude_if=lambda stickiness: stickiness == 0)


class EpisodePlan(Row):
    """One episode of a set, known before it is written.

    Attributes:
        path: folder below the set, ``<session>/ep1``.
        world_seed: of :func:`make_session`; it also decides on device and clock.
        main_task, dead_cameras: of what the episode shows.
        private_actions: labels that only this session draws.
        invalid_body_share: share of frames whose body rows are NaN.
        frames: where they are not those of the set.
    """

    session_id: str
    path: str
    world_seed: int
    main_task: str
    private_actions: tuple[str, ...]
    dead_cameras: tuple[str, ...]
    invalid_body_share: float
    anomaly: Anomaly | None = None
    copied_from: Source | None = Field(default=None, exclude_if=lambda source: source is None)
    frames: int | None = Field(default=None, exclude_if=lambda frames: frames is None)
    stickiness: float = Field(default=0.0, exclude_if=lambda stickiness: stickiness == 0)


class Synthesis(Row):
    """``synthesis.json``: what a folder of synthetic episodes holds. It follows from the arguments alone.

    Attributes:
        sessions: those that were asked for; an episode for each planted anomaly comes on top.
    """

    schema_version: int = SCHEMA_VERSION
    seed: int = Field(ge=0)
    sessions: int = Field(ge=1)
    frames: int
    anomalies: Anomalies | tuple[Anomaly, ...]
    episodes: tuple[EpisodePlan, ...]


def plan_episode_set(
    *,
    sessions: int,
    frames: int,
    seed: int,
    anomalies: Anomalies | Sequence[Anomaly],
    stickiness: float = 0.0,
) -> Synthesis:
    """Decide what every episode of the set will be.

    Episode ``i`` shows the world of seed ``1000 * seed + i``, which lies below 1,000,000: the seeds from
    there on (``WARM_UP_SEEDS``) are for warming up a base model.

    Args:
        anomalies: ``demo`` leaves a quarter of the frames of every episode without a body and spoils three
            of the sessions. ``all`` adds an episode for every :class:`Anomaly` to ``sessions`` clean ones;
            a sequence adds one for each of its entries, which may repeat. What copies something, copies it
            from the clean sessions in turn.
        stickiness: of the clean sessions (:func:`make_session`).

    Raises:
        SynthesisError: naming the argument that must change.
    """
    planted = () if anomalies in ("none", "demo") else _planted(anomalies)
    _check(sessions=sessions, frames=frames, seed=seed, anomalies=anomalies, extra=len(planted))
    spoiled = np.random.default_rng([seed, 5]).permutation(sessions)[: len(DEMO_ANOMALIES)].tolist()
    anomaly_of = dict(zip(spoiled, DEMO_ANOMALIES)) if anomalies == "demo" else {}
    share = INVALID_BODY_SHARE if anomalies == "demo" else 0.0
    first_seed = seed * SEEDS_PER_SET
    episodes = [
        _plan_episode(
            first_seed + i, frames=frames, share=share, anomaly=anomaly_of.get(i), stickiness=stickiness
        )
        for i in range(sessions)
    ]
    episodes += [
        _plan_planted(first_seed + sessions + i, anomaly, episodes[i % sessions], frames=frames)
        for i, anomaly in enumerate(planted)
    ]
    return Synthesis(
        seed=seed,
        sessions=sessions,
        frames=frames,
        anomalies=anomalies if isinstance(anomalies, str) else planted,
        episodes=tuple(episodes),
    )


def _planted(anomalies: Anomalies | Sequence[Anomaly]) -> tuple[Anomaly, ...]:
    return tuple(Anomaly) if anomalies == "all" else tuple(map(Anomaly, anomalies))


def _check(
    *, sessions: int, frames: int, seed: int, anomalies: Anomalies | Sequence[Anomaly], extra: int
) -> None:
    if not 0 <= seed < WARM_UP_SEEDS.start // SEEDS_PER_SET:
        raise SynthesisError(f"seed {seed} wanted; choose 0 .. {WARM_UP_SEEDS.start // SEEDS_PER_SET - 1}")
    if not 1 <= sessions <= SEEDS_PER_SET - extra:
        raise SynthesisError(f"{sessions} sessions wanted; choose 1 .. {SEEDS_PER_SET - extra}")
    if frames not in SYNTHETIC_FRAMES:
        raise SynthesisError(
            f"{frames} frames per episode wanted; choose {SYNTHETIC_FRAMES[0]} .. {SYNTHETIC_FRAMES[-1]}"
        )
    if anomalies == "demo" and sessions <= len(DEMO_ANOMALIES):
        raise SynthesisError(
            f"demo anomalies spoil {len(DEMO_ANOMALIES)} of {sessions} sessions; "
            f"choose {len(DEMO_ANOMALIES) + 1} or more"
        )


def _plan_planted(world_seed: int, anomaly: Anomaly, source: EpisodePlan, *, frames: int) -> EpisodePlan:
    planting = PLANTINGS[anomaly]
    plan = _plan_episode(
        world_seed,
        frames=planting.frames or frames,
        share=0.0,
        anomaly=anomaly,
        stickiness=planting.stickiness,
    )
    copied = Source(path=source.path, world_seed=source.world_seed, stickiness=source.stickiness)
    shown = ("main_task", "private_actions", "dead_cameras") if planting.shows_source else ()
    return plan.model_copy(
        update={
            "frames": planting.frames,
            "copied_from": copied if planting.copy else None,
            **{name: getattr(source, name) for name in shown},
        }
    )


def _plan_episode(
    world_seed: int, *, frames: int, share: float, anomaly: Anomaly | None, stickiness: float
) -> EpisodePlan:
    world = make_session(world_seed, frames=frames, stickiness=stickiness)
    session_id = str(
        uuid.UUID(bytes=hashlib.sha256(f"session {world_seed}".encode()).digest()[:16], version=4)
    )
    private = {segment.action.label for segment in world.segments if segment.action.private}
    return EpisodePlan(
        session_id=session_id,
        path=f"{session_id}/ep1",
        world_seed=world_seed,
        main_task=world.main_task,
        private_actions=tuple(sorted(private)),
        dead_cameras=world.dead_cameras,
        invalid_body_share=share,
        anomaly=anomaly,
        stickiness=stickiness,
    )
