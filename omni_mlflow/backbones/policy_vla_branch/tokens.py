"""Robot-compatible action tokens: each number of an ``ee20`` action as one of 256 bins.

A bin is an equal part of the range from the 1 % to the 99 % quantile of the train actions, as in RT-2 and
OpenVLA (Kim et al., 2024). The inverse is the middle of the bin, so a number inside that range comes back
within half a bin; one outside it comes back at the end of the range, and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.backbones.policy_vla_branch.action_space import HAND_SPACES
from omni_mlflow.backbones.policy_vla_branch.action_space_file import ActionSpaceFile
from omni_mlflow.backbones.policy_vla_branch.hands import Hands
from omni_mlflow.backbones.policy_vla_branch.retargeting import Maps
from omni_mlflow.backbones.policy_vla_branch.statistics import DimensionStats
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.metric import Metric
from omni_mlflow.metrics.trajectories import MPJPE, trajectory_errors
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, ratio_estimate
from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.types import Row

NUM_BINS = 256
EE20 = HAND_SPACES["ee20"]

TOKEN_ACCURACY = "robot_action_token_accuracy"
TOKEN_METRICS: Mapping[str, Metric] = {TOKEN_ACCURACY: Metric(title="Robot action tokens foretold exactly")}

Tokens = NDArray[np.uint8]


class TokenError(Row):
    """What tokens lose, measured on valid hands.

    Attributes:
        largest_share_of_a_bin: largest error of a number inside the range, in widths of its bin; at most 0.5.
        outside_share: share of numbers outside the range.
        tokens_mpjpe_mm: mean joint error of hands that went through ``ee20`` and its tokens.
        ee20_mpjpe_mm: the same without tokens: what ``ee20`` alone loses.
    """

    largest_share_of_a_bin: float
    outside_share: float
    tokens_mpjpe_mm: float
    ee20_mpjpe_mm: float


class TokenBins(Row):
    """The range of each dimension of ``ee20``; shape (20,) each, in its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, actions: DimensionStats) -> Self:
        return cls(low=actions.q01, high=actions.q99)

    @property
    def widths(self) -> Floats:
        """Width of a bin, shape (D,); 0 where train actions never change."""
        return np.asarray((np.array(self.high) - np.array(self.low)) / NUM_BINS)

    def encode(self, actions: Floats) -> Tokens:
        """Return the bin of each number, (..., D) to (..., D), 0 .. 255; the ends hold what lies outside."""
        widths = np.where(self.widths > 0, self.widths, np.inf)
        bins = np.floor((actions - np.array(self.low)) / widths)
        return np.asarray(np.clip(bins, 0, NUM_BINS - 1), dtype=np.uint8)

    def decode(self, tokens: Tokens) -> Floats:
        """Return the middle of each bin."""
        return np.asarray(np.array(self.low) + (tokens + 0.5) * self.widths)

    def measure(self, future: Floats, now: Hands, valid: Bools, maps: Maps) -> TokenError:
        """Send hands through ``ee20`` and its tokens and back.

        Args:
            future: shape (N, H, 2, 21, 3), metres, camera of the last observed frame.
            valid: shape (N, H, 2).

        Raises:
            NothingToScoreError: no hand is valid.
        """
        if not valid.any():
            raise NothingToScoreError("no valid hand to measure tokens on")
        actions = EE20.encode(future, now, maps)
        back = self.decode(self.encode(actions))
        low, high = np.array(self.low), np.array(self.high)
        counted = EE20.dim_valid(valid)
        inside = counted & (actions >= low) & (actions <= high)
        shares = np.abs(back - actions) / np.maximum(self.widths, np.finfo(float).tiny)
        return TokenError(
            largest_share_of_a_bin=float(np.where(inside & (self.widths > 0), shares, 0.0).max()),
            outside_share=float((counted & ~inside).sum() / counted.sum()),
            tokens_mpjpe_mm=_mpjpe_mm(future, EE20.decode(back, now, maps), valid),
            ee20_mpjpe_mm=_mpjpe_mm(future, EE20.decode(actions, now, maps), valid),
        )


def token_accuracy(
    expected: Tokens, predicted: Tokens, valid: Bools, *, told: Bools, episodes: Sequence[str]
) -> EpisodeEstimate:
    """Share (0..1) of tokens that are predicted exactly; higher is better.

    Args:
        expected, predicted: shape (N, H, D).
        valid: which tokens count, same shape.
        told: which samples were answered, shape (N,); the tokens of the others are wrong.
        episodes: of each sample. One without a valid token is no episode of the estimate.

    Raises:
        NothingToScoreError: no token counts.
    """
    right = (expected == predicted) & valid & told[:, None, None]
    counts = valid.sum(axis=(1, 2))
    scored = np.flatnonzero(counts).tolist()
    return ratio_estimate(
        right.sum(axis=(1, 2))[scored].tolist(),
        counts[scored].tolist(),
        [episodes[row] for row in scored],
    )


def token_space_file(hands: ActionSpaceFile) -> ActionSpaceFile:
    """Define the tokens of an ``ee20`` definition: its bounds are the range of the bins."""
    return hands.model_copy(
        update={
            "kind": "robot_action_token",
            "space": f"{hands.space}_bins",
            "reference": f"{hands.reference}; each number as one of {NUM_BINS} equal bins from low to high, "
            "and back as the middle of its bin",
            "classes": tuple(str(token) for token in range(NUM_BINS)),
        }
    )


def _mpjpe_mm(expected: Floats, predicted: Floats, valid: Bools) -> float:
    errors = trajectory_errors(expected, predicted, valid, fps=1.0)
    return errors.estimate(MPJPE, ["all"] * len(expected)).value
