"""How far predicted hands, or bodies, are from the true ones, in millimetres.

Joints are compared in one frame of reference, after an answer was decoded to them; the truth is what was
recorded, never what an action space made of it. A hand counts at a step where it is valid. Everything is
kept per sample, so that intervals over episodes and paired differences apply as to any other metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.metrics.errors import NothingToScoreError, UnpairedError
from omni_mlflow.metrics.metric import Metric
from omni_mlflow.metrics.score_rows import against, difference_row, interval_row
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, ratio_estimate

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

FARTHEST_MM = 1000.0
"""A joint that is predicted farther off, or not as a number, counts as this far off: about the reach of an
arm. So an answer that is no answer costs something, and the range of every metric is known."""

HORIZONS_S = (0.25, 0.5, 0.8)
MPJPE, WRIST, RELATIVE = "trajectory_mpjpe", "wrist_error", "wrist_relative_mpjpe"
LAST = f"{MPJPE}_at_last_step"

HAND_UNKNOWN = "the hand or the camera's pose is unknown, now or at the step"
BEFORE_UNKNOWN = "the hand is unknown one frame before now, so a velocity baseline has no answer"


def _at(seconds: float) -> str:
    return f"{MPJPE}_at_{1000 * seconds:.0f}_ms"


TRAJECTORY_METRICS: Mapping[str, Metric] = {
    name: Metric(title=title, better="lower", unit="mm", at_least=0.0, at_most=FARTHEST_MM)
    for name, title in (
        (MPJPE, "Mean joint error (MPJPE)"),
        (WRIST, "Mean wrist error"),
        (RELATIVE, "Mean joint error with the wrist held in place"),
        *((_at(seconds), f"Mean joint error after {seconds} s") for seconds in HORIZONS_S),
        (LAST, "Mean joint error at the last step"),
    )
}


@dataclass(frozen=True)
class TrajectoryErrors:
    """The errors of one method.

    Attributes:
        sums: by metric, sum over the valid (step, group) of each sample, shape (N,), mm.
        counts: by metric, how many those are, shape (N,). A metric whose step lies beyond the horizon, or
            that says nothing of what moves, is in neither.
    """

    sums: Mapping[str, FloatArray]
    counts: Mapping[str, FloatArray]

    def per_sample(self, metric: str) -> FloatArray:
        """Return the mean error of each sample in mm, shape (N,); NaN where nothing is valid."""
        counts = self.counts[metric]
        return np.where(counts > 0, self.sums[metric] / np.maximum(counts, 1), np.nan)

    def estimate(self, metric: str, episodes: Sequence[str]) -> EpisodeEstimate:
        """Return the mean over all valid (step, hand), from 0 to :data:`FARTHEST_MM`; lower is better.

        Args:
            episodes: of each sample. One without anything valid is no episode of the estimate.

        Raises:
            NothingToScoreError: nothing is valid, or the metric was not measured.
        """
        if metric not in self.counts:
            why = (
                "no single wrist holds what moves"
                if metric == RELATIVE
                else "the step lies beyond the horizon"
            )
            raise NothingToScoreError(f"{metric}: {why}")
        scored = np.flatnonzero(self.counts[metric] > 0)
        found = ratio_estimate(
            self.sums[metric][scored].tolist(),
            self.counts[metric][scored].tolist(),
            [episodes[row] for row in scored.tolist()],
        )
        return replace(found, low=0.0, high=FARTHEST_MM)


def trajectory_errors(
    expected: FloatArray,
    predicted: FloatArray,
    valid: BoolArray,
    *,
    fps: float,
    wrists: Sequence[int] = (0,),
) -> TrajectoryErrors:
    """Compare joints at every valid step of every group, which is a hand or a whole body.

    Args:
        expected, predicted: shape (N, H, groups, joints, 3), metres, same frame of reference. What is not
            valid may hold anything.
        valid: shape (N, H, groups).
        fps: steps per second; step k lies k / fps after now.
        wrists: joints of a group that are wrists. With more than one, none holds the group in place.

    Raises:
        UnpairedError: the shapes differ.
    """
    if expected.shape != predicted.shape or valid.shape != expected.shape[:3]:
        raise UnpairedError(
            f"joints {expected.shape}, predictions {predicted.shape} and validity {valid.shape} do not match"
        )
    truth = np.where(valid[..., None, None], expected, 0.0)
    given = np.where(valid[..., None, None], predicted, 0.0)
    joints = _distances_mm(given - truth)
    mpjpe = joints.mean(axis=-1)
    by_metric = {MPJPE: (mpjpe, valid), WRIST: (joints[..., list(wrists)].mean(axis=-1), valid)}
    if len(wrists) == 1:
        held = np.s_[..., wrists[0] : wrists[0] + 1, :]
        relative = _distances_mm((given - given[held]) - (truth - truth[held]))
        by_metric[RELATIVE] = (relative.mean(axis=-1), valid)
    horizon = valid.shape[1]
    steps = {_at(seconds): round(seconds * fps) for seconds in HORIZONS_S} | {LAST: horizon}
    for name, step in steps.items():
        if 1 <= step <= horizon:
            by_metric[name] = (mpjpe[:, step - 1 : step], valid[:, step - 1 : step])
    return TrajectoryErrors(
        sums={name: (errors * counted).sum(axis=(1, 2)) for name, (errors, counted) in by_metric.items()},
        counts={
            name: counted.sum(axis=(1, 2)).astype(np.float64) for name, (_, counted) in by_metric.items()
        },
    )


def scored_steps(
    valid: BoolArray, before_valid: BoolArray, *, reasons: tuple[str, str] = (HAND_UNKNOWN, BEFORE_UNKNOWN)
) -> tuple[BoolArray, dict[str, int]]:
    """Return where every method has an answer, and how many (step, group) each reason leaves out.

    Args:
        valid: which groups are known now and at each step, shape (N, H, groups).
        before_valid: which are known one frame before now as well, shape (N, groups).
        reasons: what to call a step that is not valid, and one that has nothing before it.
    """
    scored = valid & before_valid[:, None]
    unknown, unknown_before = reasons
    return scored, {unknown: int((~valid).sum()), unknown_before: int((valid & ~scored).sum())}


def trajectory_scores(
    model: TrajectoryErrors, baselines: Mapping[str, TrajectoryErrors], episodes: Sequence[str]
) -> dict[str, Any]:
    """Say how good a model is and by how much it beats each baseline on the same valid steps.

    Returns:
        Every metric in mm by its name, null where nothing can be scored; beside them ``intervals``,
        ``baselines`` (a difference above zero says that the model is better) and ``reasons`` for each null.
    """
    values: dict[str, float | None] = {}
    intervals, compared, reasons = {}, {}, {}
    for metric in TRAJECTORY_METRICS:
        try:
            estimate = model.estimate(metric, episodes)
        except NothingToScoreError as error:
            values[metric], reasons[metric] = None, str(error)
            continue
        values[metric] = estimate.value
        intervals[metric] = interval_row(estimate)
        floors = {name: errors.estimate(metric, episodes) for name, errors in baselines.items()}
        compared[metric] = against(
            {name: floor.value for name, floor in floors.items()},
            {name: difference_row(floor - estimate) for name, floor in floors.items()},
        )
    return {**values, "intervals": intervals, "baselines": compared, "reasons": reasons}


def _distances_mm(apart: FloatArray) -> FloatArray:
    distances = 1000.0 * np.linalg.norm(apart, axis=-1)
    return np.asarray(np.minimum(np.nan_to_num(distances, nan=FARTHEST_MM), FARTHEST_MM))
