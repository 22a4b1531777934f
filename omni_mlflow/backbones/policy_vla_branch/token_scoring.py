"""Robot-compatible tokens of foretold motion against those of the true one, in any action space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from omni_mlflow.backbones.policy_vla_branch.motion_exam import ONE_SAMPLE, MotionExam
from omni_mlflow.backbones.policy_vla_branch.tokens import EE20, TOKEN_ACCURACY, Tokens, token_accuracy
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.score_rows import against, difference_row, interval_row
from omni_mlflow.metrics.trajectories import TrajectoryErrors
from omni_mlflow.spine.poses import Floats

ROBOT_TOKENS = "robot_action_tokens"


@dataclass(frozen=True)
class TokenScores:
    """What is told about tokens.

    Attributes:
        accuracy: share of tokens that are foretold exactly; None where no hand is valid.
        interval, baseline, reason: its entries in ``metrics.json``, at most one each.
        errors: of the joints that the foretold tokens decode to; None where no hand moves.
        of_truth: what the true motion loses as tokens, see ``TokenError``.
    """

    accuracy: float | None
    interval: dict[str, Any]
    baseline: dict[str, Any]
    reason: dict[str, str]
    errors: TrajectoryErrors | None
    of_truth: dict[str, float] | None


def score_tokens(hands: MotionExam) -> TokenScores:
    """Write the truth, the answers and the baselines as tokens, and compare them at the scored steps."""
    bins, maps, now = hands.exam.fitted.token_bins, hands.exam.fitted.maps, hands.motion.now
    if bins is None:
        why = f"an action of {hands.space.name} moves no hand that a gripper could follow"
        return TokenScores(None, {}, {}, {TOKEN_ACCURACY: why}, None, None)
    foretold = hands.joints(hands.exam.answers, ONE_SAMPLE)
    told = np.asarray(np.isfinite(foretold).all(axis=(1, 2, 3, 4)))
    tokens = _tokens(hands, np.where(told[:, None, None, None, None], foretold, now.joints[:, None]))
    decoded = EE20.decode(bins.decode(tokens), now, maps)
    decoded[~told] = np.nan
    errors = hands.errors_of(decoded)
    truth = _tokens(hands, hands.future)
    counted = EE20.dim_valid(hands.scored[0])
    try:
        model = token_accuracy(truth, tokens, counted, told=told, episodes=hands.episodes)
    except NothingToScoreError as error:
        return TokenScores(None, {}, {}, {TOKEN_ACCURACY: str(error)}, errors, None)
    everywhere = np.ones_like(told)
    floors = {
        name: token_accuracy(truth, _tokens(hands, joints), counted, told=everywhere, episodes=hands.episodes)
        for name, joints in hands.baselines.items()
    }
    compared = against(
        {name: floor.value for name, floor in floors.items()},
        {name: difference_row(model - floor) for name, floor in floors.items()},
    )
    return TokenScores(
        accuracy=model.value,
        interval={TOKEN_ACCURACY: interval_row(model)},
        baseline={TOKEN_ACCURACY: compared},
        reason={},
        errors=errors,
        of_truth=bins.measure(hands.future, now, hands.scored[0], maps).model_dump(),
    )


def _tokens(hands: MotionExam, joints: Floats) -> Tokens:
    fitted = hands.exam.fitted
    return np.asarray(fitted.token_bins.encode(EE20.encode(joints, hands.motion.now, fitted.maps)))
