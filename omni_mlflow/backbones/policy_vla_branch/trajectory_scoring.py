"""Hands in an exam: chunks of actions as joints, in millimetres, beside motions that need no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.base import Exam
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES, train_mean_motion
from omni_mlflow.backbones.policy_vla_branch.hands import SIDES
from omni_mlflow.backbones.policy_vla_branch.learning_data import hands_before, hands_now
from omni_mlflow.backbones.policy_vla_branch.sample import Inputs
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.motions import MOTIONS
from omni_mlflow.metrics.questions import BEATS_FLOOR, DOES_NOT_BEAT_FLOOR
from omni_mlflow.metrics.score_rows import difference_row
from omni_mlflow.metrics.trajectories import (
    MPJPE,
    TRAJECTORY_METRICS,
    TrajectoryErrors,
    scored_steps,
    trajectory_errors,
    trajectory_scores,
)
from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.types import Answer

QUESTION = "hand_trajectory"
ONE_SAMPLE = "actions"
NUM_PATHS = 6


class OtherActionSpaceError(Exception):
    """Answers are chunks of another action space than the checkpoint's."""


@dataclass(frozen=True)
class HandExam:
    """Truth, answers and baselines of hand motion on the same anchors."""

    exam: Exam
    inputs: Sequence[Inputs]

    @cached_property
    def future(self) -> Floats:
        return np.asarray(self.exam.arrays["future_hands"], dtype=np.float64)

    @cached_property
    def episodes(self) -> list[str]:
        return [sample.episode_id for sample in self.exam.samples]

    @cached_property
    def scored(self) -> tuple[Bools, dict[str, int]]:
        """The steps at which every method has an answer, and how many are left out, by reason."""
        valid = np.asarray(self.exam.arrays["future_valid"], dtype=bool)
        return scored_steps(valid, hands_before(self.inputs).valid)

    def errors_of(self, predicted: Floats) -> TrajectoryErrors:
        fps = self.inputs[0].fps if self.inputs else 1.0
        return trajectory_errors(self.future, predicted, self.scored[0], fps=fps)

    def answered(self, answers: Sequence[Answer], name: str) -> TrajectoryErrors:
        """Score the chunks that answers hold under ``name``; one that is missing is as wrong as can be."""
        return self.errors_of(self.joints(answers, name))

    def joints(self, answers: Sequence[Answer], name: str) -> Floats:
        """Decode the chunks that answers hold under ``name``; NaN where there is none.

        Raises:
            OtherActionSpaceError: a chunk has not the shape of this action space.
        """
        space = SPACES[self.exam.fitted.action_space.space]
        shape = (self.exam.fitted.action_space.horizon, space.dim())
        chunks = np.full((len(answers), *shape), np.nan)
        for chunk, answer in zip(chunks, answers, strict=True):
            if name in answer.values:
                given = np.array(answer.values[name])
                if given.shape != shape:
                    raise OtherActionSpaceError(
                        f"{answer.id}: a chunk of shape {given.shape}, but {space.name} has {shape}; "
                        "evaluate the checkpoint with the contract that it was trained with"
                    )
                chunk[:] = given
        return space.decode(chunks, hands_now(self.inputs), self.exam.fitted.maps)

    def round_trip(self) -> TrajectoryErrors:
        """What the action space alone loses: truth, encoded and decoded."""
        space, maps = SPACES[self.exam.fitted.action_space.space], self.exam.fitted.maps
        now = hands_now(self.inputs)
        return self.errors_of(space.decode(space.encode(self.future, now, maps), now, maps))

    def baselines(self) -> dict[str, TrajectoryErrors]:
        now, before = hands_now(self.inputs), hands_before(self.inputs)
        horizon = self.future.shape[1]
        found = {
            name: self.errors_of(move(now.joints, before.joints, horizon)) for name, move in MOTIONS.items()
        }
        fitted = self.exam.fitted
        mean = train_mean_motion(
            SPACES[fitted.action_space.space],
            fitted.normalization.actions,
            now,
            fitted.maps,
            horizon=horizon,
        )
        return {**found, "train_mean_action": self.errors_of(mean)}


@dataclass(frozen=True)
class HandScores:
    """What is told about hand motion.

    Attributes:
        metrics: parts of ``metrics.json``: values, ``intervals``, ``baselines``, ``verdicts``, ``controls``,
            ``trajectories`` and ``reasons``.
        table: rows of ``trajectory_metrics.csv``.
        per_sample: for each sample the sum of errors in mm, and over how many steps of a hand.
        paths: ``hand_paths.json``: wrists of a few samples, for a report; true motion, so it never leaves.
    """

    metrics: dict[str, Any]
    table: list[dict[str, Any]]
    per_sample: list[tuple[float, int]]
    paths: dict[str, Any]


def score_hands(exam: Exam, inputs: Sequence[Inputs]) -> HandScores:
    """Score one chunk per sample, whose noise its id gives; the mean of several stands beside it."""
    hands = HandExam(exam, inputs)
    model = hands.answered(exam.answers, ONE_SAMPLE)
    baselines = hands.baselines()
    found = trajectory_scores(model, baselines, hands.episodes)
    means = sorted({name for answer in exam.answers for name in answer.values} - {ONE_SAMPLE})
    beside = {name: hands.answered(exam.answers, name) for name in means} | {"round_trip": hands.round_trip()}
    told = {name: trajectory_scores(errors, {}, hands.episodes) for name, errors in beside.items()}
    compared = {name: {"expected": {}, **each} for name, each in found["baselines"].items()}
    metrics = {
        **{name: found[name] for name in TRAJECTORY_METRICS},
        "intervals": found["intervals"],
        "baselines": compared,
        "verdicts": _verdict(compared.get(MPJPE)),
        "controls": _controls(hands, model, baselines, compared.get(MPJPE)),
        "trajectories": {
            **{name: {metric: each[metric] for metric in TRAJECTORY_METRICS} for name, each in told.items()},
            "left_out": hands.scored[1],
            "scored": int(hands.scored[0].sum()),
        },
        "reasons": found["reasons"],
    }
    methods = {ONE_SAMPLE: model, **beside, **baselines}
    sums, counts = model.sums[MPJPE].tolist(), model.counts[MPJPE].tolist()
    return HandScores(
        metrics=metrics,
        table=list(_table(methods, hands.episodes)),
        per_sample=[(error, int(steps)) for error, steps in zip(sums, counts, strict=True)],
        paths={"samples": list(_paths(hands))},
    )


def _paths(hands: HandExam) -> Iterator[dict[str, Any]]:
    """Yield the wrists of samples spread evenly over those that were answered, x and y in metres."""
    now = hands_now(hands.inputs)
    foretold = hands.joints(hands.exam.answers, ONE_SAMPLE)
    told = np.flatnonzero(np.isfinite(foretold).all(axis=(1, 2, 3, 4)) & hands.scored[0].any(axis=(1, 2)))
    for row in told[:: max(1, len(told) // NUM_PATHS)][:NUM_PATHS].tolist():
        yield {
            "id": hands.exam.samples[row].id,
            "hands": {
                side: {
                    "now": _flat(now.joints[row, place, :1])[0],
                    "true": _flat(hands.future[row, hands.scored[0][row, :, place], place, 0]),
                    "foretold": _flat(foretold[row, :, place, 0]),
                }
                for place, side in enumerate(SIDES)
                if hands.scored[0][row, :, place].any()
            },
        }


def _flat(points: Floats) -> list[list[float]]:
    """Drop the depth, and round to a tenth of a millimetre."""
    flat: list[list[float]] = points[:, :2].round(4).tolist()
    return flat


def _verdict(baseline: Mapping[str, Any] | None) -> dict[str, Any]:
    if not baseline:
        return {}
    low = baseline["difference"]["low"]
    verdict = None if low is None else BEATS_FLOOR if low > 0 else DOES_NOT_BEAT_FLOOR
    return {QUESTION: {"verdict": verdict, "metric": MPJPE, "floor": baseline["best"]}}


def _controls(
    hands: HandExam,
    model: TrajectoryErrors,
    baselines: Mapping[str, TrajectoryErrors],
    compared: Mapping[str, Any] | None,
) -> dict[str, Any]:
    if not compared:
        return {}
    intact = model.estimate(MPJPE, hands.episodes)
    floor = baselines[compared["best"]].estimate(MPJPE, hands.episodes)
    found = {}
    for name, answers in hands.exam.controls.items():
        under_control = hands.answered(answers, ONE_SAMPLE).estimate(MPJPE, hands.episodes)
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
        "hand_steps": steps,
    }
