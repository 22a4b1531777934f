"""Write a set of synthetic episodes; a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from omni_mlflow.spine.processes import each_in_a_process
from omni_mlflow.spine.rows import read_document, write_document
from omni_mlflow.spine.synthetic.world import WARM_UP_SEEDS, make_session
from omni_mlflow.spine.types import SCHEMA_VERSION, Row

SYNTHESIS_NAME = "synthesis.json"
SEEDS_PER_SET = 1000
MIN_FRAMES = 60  # fewer hold no window that has both a past and a future
MAX_FRAMES = 6000  # 300 s, as real episodes; device clocks of sessions stay apart
INVALID_BODY_SHARE = 0.25
CUT_BYTES = 5000

Anomalies = Literal["none", "demo"]


class SynthesisError(Exception):
    """The wanted set cannot be written, or not here."""


class Anomaly(StrEnum):
    """What is wrong with a whole episode, beyond frames without a body.

    ``NO_SLAM``: SLAM and body groups are unlinked after writing, so the file is not smaller.
    """

    NO_CAPTION = "no_caption"
    CUT_SHORT = "cut_short"
    NO_SLAM = "no_slam"


class EpisodePlan(Row):
    """One episode of a set, known before it is written.

    Attributes:
        path: folder below the set, ``<session>/ep1``.
        world_seed: of :func:`make_session`.
        private_actions: labels that only this session draws.
        invalid_body_share: share of frames whose body rows are NaN.
    """

    session_id: str
    path: str
    world_seed: int
    main_task: str
    private_actions: tuple[str, ...]
    dead_cameras: tuple[str, ...]
    invalid_body_share: float
    anomaly: Anomaly | None = None


class Synthesis(Row):
    """``synthesis.json``: what a folder of synthetic episodes holds. It follows from the arguments alone."""

    schema_version: int = SCHEMA_VERSION
    seed: int = Field(ge=0)
    sessions: int = Field(ge=1)
    frames: int
    anomalies: Anomalies
    episodes: tuple[EpisodePlan, ...]


def write_episode_set(
    out: Path,
    *,
    sessions: int,
    frames: int,
    seed: int,
    anomalies: Anomalies,
    workers: int,
    on_episode: Callable[[str], None] | None = None,
) -> Synthesis:
    """Write ``sessions`` sessions of one episode each below ``out``; same arguments, same bytes.

    Episode ``i`` shows the world of seed ``1000 * seed + i``, which lies below 1,000,000: the seeds from
    there on (``WARM_UP_SEEDS``) are for warming up a base model. Episodes appear whole; those that are
    there already are kept.

    Args:
        anomalies: ``demo`` leaves a quarter of the frames of every episode without a body, and plants each
            :class:`Anomaly` in one session.
        workers: processes; 1 stays in this one.
        on_episode: told the path of every episode once it is there.

    Raises:
        SynthesisError: the arguments allow no such set, or ``out`` holds another one.
    """
    plan = plan_episode_set(sessions=sessions, frames=frames, seed=seed, anomalies=anomalies)
    _claim(out, plan)
    missing: list[EpisodePlan] = []
    for episode in plan.episodes:
        if not (out / episode.path).is_dir():
            missing.append(episode)
        elif on_episode is not None:
            on_episode(episode.path)
    for path in _write_all(out, missing, frames=frames, workers=workers):
        if on_episode is not None:
            on_episode(path)
    return plan


def plan_episode_set(*, sessions: int, frames: int, seed: int, anomalies: Anomalies) -> Synthesis:
    """Decide what every episode of the set will be.

    Raises:
        SynthesisError: naming the argument that must change.
    """
    if not 0 <= seed < WARM_UP_SEEDS.start // SEEDS_PER_SET:
        raise SynthesisError(f"seed {seed} wanted; choose 0 .. {WARM_UP_SEEDS.start // SEEDS_PER_SET - 1}")
    if not 1 <= sessions <= SEEDS_PER_SET:
        raise SynthesisError(f"{sessions} sessions wanted; choose 1 .. {SEEDS_PER_SET}")
    if not MIN_FRAMES <= frames <= MAX_FRAMES:
        raise SynthesisError(f"{frames} frames per episode wanted; choose {MIN_FRAMES} .. {MAX_FRAMES}")
    kinds = tuple(Anomaly) if anomalies == "demo" else ()
    if sessions <= len(kinds):
        raise SynthesisError(
            f"demo anomalies spoil {len(kinds)} of {sessions} sessions; choose {len(kinds) + 1} or more"
        )
    spoiled = np.random.default_rng([seed, 5]).permutation(sessions)[: len(kinds)].tolist()
    anomaly_of = dict(zip(spoiled, kinds))
    share = INVALID_BODY_SHARE if anomalies == "demo" else 0.0
    episodes = [
        _plan_episode(seed * SEEDS_PER_SET + i, frames=frames, share=share, anomaly=anomaly_of.get(i))
        for i in range(sessions)
    ]
    return Synthesis(
        seed=seed, sessions=sessions, frames=frames, anomalies=anomalies, episodes=tuple(episodes)
    )


def write_episode(out: Path, episode: EpisodePlan, *, frames: int) -> str:
    """Write one episode below ``out`` and return its path; its folder appears all at once."""
    from omni_mlflow.spine.synthetic.annotation import write_annotation
    from omni_mlflow.spine.synthetic.videos import write_videos

    world = make_session(episode.world_seed, frames=frames)
    unfinished = out / f".{episode.session_id}.{os.getpid()}.partial"
    folder = unfinished / Path(episode.path).name
    shutil.rmtree(unfinished, ignore_errors=True)
    folder.mkdir(parents=True)
    annotation = folder / "annotation.hdf5"
    write_annotation(annotation, world, invalid_body_share=episode.invalid_body_share)
    write_videos(folder, world)
    if episode.anomaly is not None:
        _spoil(annotation, episode.anomaly)
    unfinished.rename(out / episode.session_id)
    return episode.path


def _plan_episode(world_seed: int, *, frames: int, share: float, anomaly: Anomaly | None) -> EpisodePlan:
    world = make_session(world_seed, frames=frames)
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
    )


def _claim(out: Path, plan: Synthesis) -> None:
    """Make ``out`` the folder of this set and clear what a killed run left half done.

    Raises:
        SynthesisError: it already belongs to something else.
    """
    synthesis = out / SYNTHESIS_NAME
    if synthesis.exists():
        found = read_document(synthesis, Synthesis)
        if found != plan:
            raise SynthesisError(
                f"{out} holds another episode set (sessions={found.sessions}, frames={found.frames}, "
                f"seed={found.seed}, anomalies={found.anomalies}); choose another folder, or delete this one"
            )
    elif out.exists() and any(entry.is_dir() for entry in out.iterdir()):
        raise SynthesisError(f"{out} holds folders but no {SYNTHESIS_NAME}; choose a new or empty folder")
    else:
        write_document(synthesis, plan)
    for unfinished in out.glob(".*.partial"):
        shutil.rmtree(unfinished)


def _write_all(out: Path, episodes: Sequence[EpisodePlan], *, frames: int, workers: int) -> Iterator[str]:
    if workers == 1 or len(episodes) <= 1:
        for episode in episodes:
            yield write_episode(out, episode, frames=frames)
        return
    work = partial(write_episode, out, frames=frames)
    for _, path in each_in_a_process(work, episodes, workers=workers):
        yield path


def _spoil(annotation: Path, anomaly: Anomaly) -> None:
    import h5py

    if anomaly is Anomaly.CUT_SHORT:
        os.truncate(annotation, annotation.stat().st_size - CUT_BYTES)
        return
    gone = {Anomaly.NO_CAPTION: ("caption",), Anomaly.NO_SLAM: ("slam", "full_body_mocap")}[anomaly]
    with h5py.File(annotation, "r+") as file:
        for name in gone:
            del file[name]
