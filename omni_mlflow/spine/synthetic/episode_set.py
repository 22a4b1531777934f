"""Write a set of synthetic episodes; a killed run goes on where it stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from omni_mlflow.spine.annotation import ANNOTATION
from omni_mlflow.spine.processes import each_in_a_process
from omni_mlflow.spine.rows import read_document, write_document
from omni_mlflow.spine.synthetic.anomalies import PLANTINGS, Anomaly
from omni_mlflow.spine.synthetic.plan import (
    Anomalies,
    EpisodePlan,
    Synthesis,
    SynthesisError,
    plan_episode_set,
)
from omni_mlflow.spine.synthetic.world import SessionWorld, make_session

SYNTHESIS_NAME = "synthesis.json"


def write_episode_set(
    out: Path,
    *,
    sessions: int,
    frames: int,
    seed: int,
    anomalies: Anomalies | Sequence[Anomaly],
    workers: int,
    stickiness: float = 0.0,
    on_episode: Callable[[str], None] | None = None,
) -> Synthesis:
    """Write the set that :func:`plan_episode_set` plans for these arguments; same arguments, same bytes."""
    plan = plan_episode_set(
        sessions=sessions, frames=frames, seed=seed, anomalies=anomalies, stickiness=stickiness
    )
    write_planned(out, plan, workers=workers, on_episode=on_episode)
    return plan


def write_planned(
    out: Path, plan: Synthesis, *, workers: int, on_episode: Callable[[str], None] | None = None
) -> None:
    """Write every episode of ``plan`` below ``out``; they appear whole, and those there already are kept.

    Args:
        workers: processes; 1 stays in this one.
        on_episode: told the path of every episode once it is there.

    Raises:
        SynthesisError: ``out`` holds another set.
    """
    _claim(out, plan)
    missing: list[EpisodePlan] = []
    for episode in plan.episodes:
        if not (out / episode.path).is_dir():
            missing.append(episode)
        elif on_episode is not None:
            on_episode(episode.path)
    for path in _write_all(out, missing, frames=plan.frames, workers=workers):
        if on_episode is not None:
            on_episode(path)


def write_episode(out: Path, episode: EpisodePlan, *, frames: int) -> str:
    """Write one episode below ``out`` and return its path; its folder appears all at once."""
    own = make_session(episode.world_seed, frames=episode.frames or frames, stickiness=episode.stickiness)
    unfinished = out / f".{episode.session_id}.{os.getpid()}.partial"
    folder = unfinished / Path(episode.path).name
    shutil.rmtree(unfinished, ignore_errors=True)
    folder.mkdir(parents=True)
    if episode.anomaly is None:
        _write_world(folder, own, episode)
    else:
        _plant(folder, own, episode)
    unfinished.rename(out / episode.session_id)
    return episode.path


def _write_world(folder: Path, world: SessionWorld, episode: EpisodePlan) -> None:
    from omni_mlflow.spine.synthetic.annotation import write_annotation
    from omni_mlflow.spine.synthetic.videos import write_videos

    write_annotation(folder / ANNOTATION, world, invalid_body_share=episode.invalid_body_share)
    write_videos(folder, world)


def _plant(folder: Path, own: SessionWorld, episode: EpisodePlan) -> None:
    """Write an episode and spoil it. The source of a copy is made again: same seed, same bytes."""
    assert episode.anomaly is not None
    planting = PLANTINGS[episode.anomaly]
    source = own
    if episode.copied_from is not None:
        source = make_session(
            episode.copied_from.world_seed,
            frames=own.frames,
            stickiness=episode.copied_from.stickiness,
        )
    _write_world(folder, source if planting.shows_source else own, episode)
    if planting.edit is not None:
        planting.edit(folder)
    if planting.copy is not None:
        planting.copy(folder, own, source)


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
