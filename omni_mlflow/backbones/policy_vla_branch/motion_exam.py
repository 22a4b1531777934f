"""Motion in an exam: the truth, chunks of actions as points, and motions that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from omni_mlflow.backbones.base import Exam
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.backbones.policy_vla_branch.motion import Motion
from omni_mlflow.backbones.policy_vla_branch.space import AnySpace, train_mean_motion
from omni_mlflow.metrics.motions import MOTIONS
from omni_mlflow.metrics.trajectories import TrajectoryErrors, scored_steps, trajectory_errors
from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.types import Answer

ONE_SAMPLE = "actions"
"""The chunk of an answer that is scored; its noise is drawn by the sample's id."""


class OtherActionSpaceError(Exception):
    """Answers are chunks of another action space than the checkpoint's."""


@dataclass(frozen=True)
class MotionExam:
    """Truth, answers and baselines of motion on the same anchors."""

    exam: Exam
    inputs: Sequence[Inputs]

    @cached_property
    def space(self) -> AnySpace:
        return SPACES[self.exam.fitted.action_space.space]

    @cached_property
    def motion(self) -> Motion[Any]:
        return self.space.read(self.exam.arrays, self.inputs)

    @property
    def future(self) -> Floats:
        return np.asarray(self.motion.future.joints)

    @cached_property
    def episodes(self) -> list[str]:
        return [sample.episode_id for sample in self.exam.samples]

    @cached_property
    def scored(self) -> tuple[Bools, dict[str, int]]:
        """The steps at which every method has an answer, and how many are left out, by reason."""
        motion = self.motion
        return scored_steps(motion.future.valid, motion.before.valid, reasons=self.space.moving.unknown)

    def errors_of(self, predicted: Floats) -> TrajectoryErrors:
        fps = self.exam.fitted.action_space.fps  # of every chunk, whatever one episode's clock says
        wrists = sorted({point for _, _, point in self.space.moving.wrists})
        return trajectory_errors(self.future, predicted, self.scored[0], fps=fps, wrists=wrists)

    def answered(self, answers: Sequence[Answer], name: str) -> TrajectoryErrors:
        """Score the chunks that answers hold under ``name``; one that is missing is as wrong as can be."""
        return self.errors_of(self.joints(answers, name))

    def joints(self, answers: Sequence[Answer], name: str) -> Floats:
        """Decode the chunks that answers hold under ``name``; NaN where there is none.

        Raises:
            OtherActionSpaceError: a chunk has not the shape of this action space.
        """
        return self.space.decode(self.chunks(answers, name), self.motion.now, self.exam.fitted.maps)

    def chunks(self, answers: Sequence[Answer], name: str) -> Floats:
        """Return the chunks that answers hold under ``name``, (N, H, D); NaN where there is none.

        Raises:
            OtherActionSpaceError: a chunk has not the shape of this action space.
        """
        shape = (self.exam.fitted.action_space.horizon, self.space.dim())
        chunks = np.full((len(answers), *shape), np.nan)
        for chunk, answer in zip(chunks, answers, strict=True):
            if name in answer.values:
                given = np.array(answer.values[name])
                if given.shape != shape:
                    raise OtherActionSpaceError(
                        f"{answer.id}: a chunk of shape {given.shape}, but {self.space.name} has {shape}; "
                        "evaluate the checkpoint with the contract that it was trained with"
                    )
                chunk[:] = given
        return chunks

    def round_trip(self) -> TrajectoryErrors:
        """What the action space alone loses: truth, encoded and decoded."""
        space, maps = self.space, self.exam.fitted.maps
        return self.errors_of(space.decode(space.actions(self.motion, maps), self.motion.now, maps))

    @cached_property
    def baselines(self) -> dict[str, Floats]:
        """Points as motions foretell them that need no model, by name."""
        now, before, horizon = self.motion.now, self.motion.before, self.future.shape[1]
        found = {name: move(now.joints, before.joints, horizon) for name, move in MOTIONS.items()}
        fitted = self.exam.fitted
        mean = train_mean_motion(self.space, fitted.normalization.actions, now, fitted.maps, horizon=horizon)
        return {**found, "train_mean_action": mean}
