"""``retargeting_audit.json``: what the action space makes of each episode's motion and leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.backbones.policy_vla_branch.motion import Motion
from omni_mlflow.backbones.policy_vla_branch.round_trip import (
    Bound,
    RetargetingMaps,
    RoundTrip,
)
from omni_mlflow.backbones.policy_vla_branch.space import AnySpace
from omni_mlflow.backbones.policy_vla_branch.statistics import DimensionStats
from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, FittedOnTrain, Row

AUDIT_NAME = "retargeting_audit.json"


class EpisodeAudit(Row):
    """One episode. Steps are counted per sample and hand or body, so overlapping samples count a frame again.

    Attributes:
        round_trip: of joints through the action space; None where no step is valid.
        within_bound: whether ``Bound.holds``; False is a broken rule of the evaluation.
        values, values_outside: how many numbers its actions have, and how many lie outside the 1 % and 99 %
            quantiles of the train actions.
        joint_limit_violations: how many numbers of its actions lead beyond the limits of what they move; None
            where nothing has limits.
        following_mm: how far the model that follows a body is from it, mean over valid steps; None where none
            does, or no step is valid.
        masked_steps: by reason; reasons that never occurred are there with 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode_id: str
    samples: int
    valid_steps: int
    round_trip: RoundTrip | None
    within_bound: bool | None
    values: int
    values_outside: int
    joint_limit_violations: int | None
    following_mm: float | None
    masked_steps: dict[str, int]


class RetargetingAudit(Row):
    """The whole audit.

    Attributes:
        bound: what the space was measured to lose on train episodes, left out of whatever was fitted.
        num_examples: left and right hands, or bodies, that the maps were fitted on.
        fitted_on_digest: of the sorted ids of the episodes that the maps were fitted on.
        unasked: held-out episodes without any sample, such as one without a valid hand: windows by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    action_space: str
    bound: Bound
    num_examples: tuple[int, ...]
    fitted_on_episodes: int
    fitted_on_digest: str
    episodes: tuple[EpisodeAudit, ...]
    unasked: dict[str, dict[str, int]]

    @property
    def joint_limit_violations(self) -> int | None:
        """Of all episodes; None where nothing has limits."""
        found = [each.joint_limit_violations for each in self.episodes]
        return None if None in found else sum(each or 0 for each in found)


def audit_retargeting(
    motion: Motion[Any],
    *,
    episodes: Sequence[str],
    space: AnySpace,
    maps: RetargetingMaps,
    actions: DimensionStats,
    fitted: FittedOnTrain,
    unasked: Mapping[str, Mapping[str, int]],
) -> RetargetingAudit:
    """Send the true motion of every sample through the action space and back.

    Args:
        episodes: of each sample.
        actions: statistics of the train actions.
        fitted: whatever names the episodes that the maps were fitted on.
        unasked: see :class:`RetargetingAudit`.
    """
    audited = _each_episode(motion, episodes=episodes, space=space, maps=maps, actions=actions)
    return RetargetingAudit(
        action_space=space.name,
        bound=maps.round_trip[space.name],
        num_examples=maps.num_examples,
        fitted_on_episodes=len(fitted.episode_ids),
        fitted_on_digest=fitted.episodes_digest,
        episodes=tuple(audited),
        unasked={episode: dict(reasons) for episode, reasons in unasked.items()},
    )


def _each_episode(
    motion: Motion[Any],
    *,
    episodes: Sequence[str],
    space: AnySpace,
    maps: RetargetingMaps,
    actions: DimensionStats,
) -> Iterator[EpisodeAudit]:
    """Yield what the round trip loses of each episode, by id."""
    valid, future = motion.future.valid, motion.future.joints
    encoded = space.actions(motion, maps)
    apart_m = np.linalg.norm(space.decode(encoded, motion.now, maps) - future, axis=-1)
    errors_mm = 1000.0 * apart_m.mean(axis=-1)
    values = space.dim_valid(valid)
    beyond, following_mm = space.beyond_limits(encoded, motion.now), space.following_mm(motion)
    outside = values & ((encoded < np.array(actions.q01)) | (encoded > np.array(actions.q99)))
    bound = maps.round_trip[space.name]
    of_rows = np.array(episodes)
    for episode in sorted(set(episodes)):
        rows = of_rows == episode
        found = _round_trip(errors_mm[rows], valid[rows])
        whole = valid[rows].all(axis=-1)
        yield EpisodeAudit(
            episode_id=episode,
            samples=int(rows.sum()),
            valid_steps=int(valid[rows].sum()),
            round_trip=found,
            within_bound=None if found is None else bound.holds(found),
            values=int(values[rows].sum()),
            values_outside=int(outside[rows].sum()),
            joint_limit_violations=None if beyond is None else int((beyond & values)[rows].sum()),
            following_mm=None if following_mm is None else _mean(following_mm[rows][whole]),
            masked_steps=_masked(motion.reason[rows], space.moving.reasons),
        )


def _masked(codes: NDArray[np.uint8], reasons: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(codes.ravel(), minlength=len(reasons)).tolist()
    return dict(zip(reasons[1:], counts[1:], strict=True))


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _round_trip(errors_mm: Floats, valid: Bools) -> RoundTrip | None:
    if not valid.any():
        return None
    return RoundTrip(mean_mm=float(errors_mm[valid].mean()), max_mm=float(errors_mm[valid].max()))


def bound_check(audit: RetargetingAudit) -> Check:
    """Hold every episode against the bound once more; what its row says of it is not believed."""
    beyond = [
        f"{each.episode_id}: mean {found.mean_mm:.2f} mm, worst step {found.max_mm:.2f} mm"
        for each in audit.episodes
        if (found := each.round_trip) and not (each.within_bound and audit.bound.holds(found))
    ]
    bound = audit.bound
    worst = f"mean {bound.episode_mean_mm:.2f} mm, worst step {bound.max_mm:.2f} mm"
    return Check(
        rule="motion_comes_back_within_the_bound",
        subject=AUDIT_NAME,
        expected=f"{worst}, times {bound.tolerance:g}",
        found="; ".join(beyond) or "as expected",
        ok=not beyond,
    )
