"""``retargeting_audit.json``: what the action space makes of each episode's hands, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.backbones.policy_vla_branch.action_space import Space
from omni_mlflow.backbones.policy_vla_branch.camera import MASK_REASONS
from omni_mlflow.backbones.policy_vla_branch.hands import Hands
from omni_mlflow.backbones.policy_vla_branch.retargeting import (
    TOLERANCE,
    Bound,
    Maps,
    RoundTrip,
)
from omni_mlflow.backbones.policy_vla_branch.statistics import DimensionStats
from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, FittedOnTrain, Row

AUDIT_NAME = "retargeting_audit.json"


class EpisodeAudit(Row):
    """One episode. Steps are counted per sample and hand, so overlapping samples count a frame again.

    Attributes:
        round_trip: of joints through the action space; None where no step is valid.
        within_bound: whether ``Bound.holds``; False is a broken rule of the evaluation.
        values, values_outside: how many numbers its actions have, and how many lie outside the 1 % and 99 %
            quantiles of the train actions.
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
    masked_steps: dict[str, int]


class RetargetingAudit(Row):
    """The whole audit.

    Attributes:
        bound: what the maps were measured to lose on train hands left out of a fit.
        tolerance: factor by which another episode may lose more.
        num_hands: left and right hands that the maps were fitted on.
        fitted_on_digest: of the sorted ids of the episodes that the maps were fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    action_space: str
    bound: Bound
    tolerance: float = TOLERANCE
    num_hands: tuple[int, int]
    fitted_on_episodes: int
    fitted_on_digest: str
    episodes: tuple[EpisodeAudit, ...]


def audit_retargeting(
    future: Floats,
    reasons: NDArray[np.uint8],
    now: Hands,
    *,
    episodes: Sequence[str],
    space: Space,
    maps: Maps,
    actions: DimensionStats,
    fitted: FittedOnTrain,
) -> RetargetingAudit:
    """Send the hands of every sample through the action space and back.

    Args:
        future: shape (N, H, 2, 21, 3), metres, camera of the last observed frame.
        reasons: why a hand is left out at a step, shape (N, H, 2), as ``HandsAhead.future_reason``.
        episodes: of each sample.
        actions: statistics of the train actions.
        fitted: whatever names the episodes that the maps were fitted on.
    """
    valid = reasons == 0
    encoded = space.encode(future, now, maps)
    errors_mm = 1000.0 * np.linalg.norm(space.decode(encoded, now, maps) - future, axis=-1).mean(axis=-1)
    values = space.dim_valid(valid)
    outside = values & ((encoded < np.array(actions.q01)) | (encoded > np.array(actions.q99)))
    bound = maps.round_trip[space.name]
    of_rows = np.array(episodes)

    def audited(episode: str) -> EpisodeAudit:
        rows = of_rows == episode
        found = _round_trip(errors_mm[rows], valid[rows])
        return EpisodeAudit(
            episode_id=episode,
            samples=int(rows.sum()),
            valid_steps=int(valid[rows].sum()),
            round_trip=found,
            within_bound=None if found is None else bound.holds(found),
            values=int(values[rows].sum()),
            values_outside=int(outside[rows].sum()),
            masked_steps=_masked(reasons[rows]),
        )

    return RetargetingAudit(
        action_space=space.name,
        bound=bound,
        num_hands=maps.num_hands,
        fitted_on_episodes=len(fitted.episode_ids),
        fitted_on_digest=fitted.episodes_digest,
        episodes=tuple(audited(episode) for episode in sorted(set(episodes))),
    )


def _masked(reasons: NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(reasons.ravel(), minlength=len(MASK_REASONS)).tolist()
    return dict(zip(MASK_REASONS[1:], counts[1:], strict=True))


def _round_trip(errors_mm: Floats, valid: Bools) -> RoundTrip | None:
    if not valid.any():
        return None
    return RoundTrip(mean_mm=float(errors_mm[valid].mean()), max_mm=float(errors_mm[valid].max()))


def bound_check(audit: RetargetingAudit) -> Check:
    """Hold every episode against the bound once more; what its row says of it is not believed."""
    beyond = [
        f"{each.episode_id}: mean {found.mean_mm:.2f} mm, worst hand {found.max_mm:.2f} mm"
        for each in audit.episodes
        if (found := each.round_trip) and not (each.within_bound and audit.bound.holds(found))
    ]
    bound = audit.bound
    return Check(
        rule="hands_come_back_within_the_bound",
        subject=AUDIT_NAME,
        expected=f"mean {bound.episode_mean_mm:.2f} mm, worst hand {bound.max_mm:.2f} mm, times {TOLERANCE}",
        found="; ".join(beyond) or "as expected",
        ok=not beyond,
    )
