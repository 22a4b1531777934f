"""How far foretold motion is from the true one, in millimetres, beside motions that need no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.motion_exam import ONE_SAMPLE, MotionExam
from omni_mlflow.backbones.policy_vla_branch.token_scoring import ROBOT_TOKENS, score_tokens
from omni_mlflow.backbones.policy_vla_branch.tokens import TOKEN_ACCURACY
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.questions import BEATS_FLOOR, DOES_NOT_BEAT_FLOOR
from omni_mlflow.metrics.score_rows import difference_row
from omni_mlflow.metrics.trajectories import (
    MPJPE,
    TRAJECTORY_METRICS,
    TrajectoryErrors,
    trajectory_scores,
)
from omni_mlflow.spine.poses import Floats

NUM_PATHS = 6


@dataclass(frozen=True)
class MotionScores:
    """What is told about motion.

    Attributes:
        metrics: parts of ``metrics.json``: values, ``intervals``, ``baselines``, ``verdicts``, ``controls``,
            ``trajectories`` and ``reasons``.
        table: rows of ``trajectory_metrics.csv``.
        per_sample: for each sample the sum of errors in mm, and over how many steps of a hand or a body.
        paths: ``hand_paths.json``: wrists of a few samples, for a report; true motion, so it never leaves.
    """

    metrics: dict[str, Any]
    table: list[dict[str, Any]]
    per_sample: list[tuple[float, int]]
    paths: dict[str, Any]


def score_motion(asked: MotionExam) -> MotionScores:
    """Score one chunk per sample, whose noise its id gives; the mean of several stands beside it, and what
    is left of it as robot-compatible tokens.
    """
    answers, tokens = asked.exam.answers, score_tokens(asked)
    model = asked.answered(answers, ONE_SAMPLE)
    baselines = {name: asked.errors_of(joints) for name, joints in asked.baselines.items()}
    found = trajectory_scores(model, baselines, asked.episodes)
    means = sorted({name for answer in answers for name in answer.values} - {ONE_SAMPLE})
    beside = {name: asked.answered(answers, name) for name in means}
    beside["round_trip"] = asked.round_trip()
    if tokens.errors is not None:
        beside[ROBOT_TOKENS] = tokens.errors
    told = {name: trajectory_scores(errors, {}, asked.episodes) for name, errors in beside.items()}
    compared = found["baselines"]
    metrics = {
        **{name: found[name] for name in TRAJECTORY_METRICS},
        TOKEN_ACCURACY: tokens.accuracy,
        "intervals": found["intervals"] | tokens.interval,
        "baselines": compared | tokens.baseline,
        "verdicts": _verdict(asked.space.kind, compared.get(MPJPE)),
        "controls": _controls(asked, model, baselines, compared.get(MPJPE)),
        "trajectories": {
            **{name: {metric: each[metric] for metric in TRAJECTORY_METRICS} for name, each in told.items()},
            "left_out": asked.scored[1],
            "scored": int(asked.scored[0].sum()),
        },
        "robot_action_tokens_of_truth": tokens.of_truth,
        "reasons": found["reasons"] | tokens.reason,
    }
    methods = {ONE_SAMPLE: model, **beside, **baselines}
    sums, counts = model.sums[MPJPE].tolist(), model.counts[MPJPE].tolist()
    return MotionScores(
        metrics=metrics,
        table=list(_table(methods, asked.episodes)),
        per_sample=[(error, int(steps)) for error, steps in zip(sums, counts, strict=True)],
        paths={"seen": asked.space.moving.seen, "samples": list(_paths(asked))},
    )


def _paths(asked: MotionExam) -> Iterator[dict[str, Any]]:
    """Yield the wrists of samples spread evenly over those that were answered, x and y in metres."""
    scored, now = asked.scored[0], asked.motion.now.joints
    foretold = asked.joints(asked.exam.answers, ONE_SAMPLE)
    flat = _flat(asked)
    told = np.flatnonzero(np.isfinite(foretold).all(axis=(1, 2, 3, 4)) & scored.any(axis=(1, 2)))
    for row in told[:: max(1, len(told) // NUM_PATHS)][:NUM_PATHS].tolist():
        yield {
            "id": asked.exam.samples[row].id,
            "hands": {
                side: {
                    "now": flat(now[row, group, point][None])[0],
                    "true": flat(asked.future[row, scored[row, :, group], group, point]),
                    "foretold": flat(foretold[row, :, group, point]),
                }
                for side, group, point in asked.space.moving.wrists
                if scored[row, :, group].any()
            },
        }


def _flat(asked: MotionExam) -> Callable[[Floats], list[list[float]]]:
    """Drop the depth, let x point to the right and y down, and round to a tenth of a millimetre."""
    signs = np.array(asked.space.moving.right_and_down)

    def flat(points: Floats) -> list[list[float]]:
        found: list[list[float]] = (points[:, :2] * signs).round(4).tolist()
        return found

    return flat


def _verdict(question: str, baseline: Mapping[str, Any] | None) -> dict[str, Any]:
    if not baseline:
        return {}
    low = baseline["difference"]["low"]
    verdict = None if low is None else BEATS_FLOOR if low > 0 else DOES_NOT_BEAT_FLOOR
    return {question: {"verdict": verdict, "metric": MPJPE, "floor": baseline["best"]}}


def _controls(
    asked: MotionExam,
    model: TrajectoryErrors,
    baselines: Mapping[str, TrajectoryErrors],
    compared: Mapping[str, Any] | None,
) -> dict[str, Any]:
    if not compared:
        return {}
    intact = model.estimate(MPJPE, asked.episodes)
    floor = baselines[compared["best"]].estimate(MPJPE, asked.episodes)
    found = {}
    for name, answers in asked.exam.controls.items():
        under_control = asked.answered(answers, ONE_SAMPLE).estimate(MPJPE, asked.episodes)
        found[name] = {
            MPJPE: {
                "value": under_control.value,
                "difference": difference_row(under_control - intact),
                "over_floor": difference_row(floor - under_control),
            }
        }
    return found


def _table(methods: Mapping[str, TrajectoryErrors], episodes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row per method, metric and episode, and one over all episodes."""
    of_sample: NDArray[np.str_] = np.array(episodes)
    for method, errors in methods.items():
        for metric in TRAJECTORY_METRICS:
            try:
                value = errors.estimate(metric, episodes).value
            except NothingToScoreError:
                continue
            counts, sums = errors.counts[metric], errors.sums[metric]
            yield _cell(method, metric, "all", value, int(counts.sum()))
            for episode in sorted(set(episodes)):
                rows = of_sample == episode
                if steps := int(counts[rows].sum()):
                    yield _cell(method, metric, episode, float(sums[rows].sum()) / steps, steps)


def _cell(method: str, metric: str, episode: str, value: float, steps: int) -> dict[str, Any]:
    return {
        "method": method,
        "metric": metric,
        "episode_id": episode,
        "value_mm": round(value, 6),
        "steps": steps,
    }
