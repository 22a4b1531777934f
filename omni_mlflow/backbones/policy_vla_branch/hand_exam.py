"""Hands in an exam: the truth, chunks of actions as joints, and motions that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from omni_mlflow.backbones.base import Exam
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES, train_mean_motion
from omni_mlflow.backbones.policy_vla_branch.learning_data import hands_before, hands_now
from omni_mlflow.backbones.policy_vla_branch.sample import Inputs
from omni_mlflow.metrics.motions import MOTIONS
from omni_mlflow.metrics.trajectories import TrajectoryErrors, scored_steps, trajectory_errors
from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.types import Answer

ONE_SAMPLE = "actions"
"""The chunk of an answer that is scored; its noise is drawn by the sample's id."""


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

    @cached_property
    def baselines(self) -> dict[str, Floats]:
        """Joints as motions foretell them that need no model, by name."""
        now, before = hands_now(self.inputs), hands_before(self.inputs)
        horizon = self.future.shape[1]
        found = {name: move(now.joints, before.joints, horizon) for name, move in MOTIONS.items()}
        fitted = self.exam.fitted
        mean = train_mean_motion(
            SPACES[fitted.action_space.space],
            fitted.normalization.actions,
            now,
            fitted.maps,
            horizon=horizon,
        )
        return {**found, "train_mean_action": mean}
