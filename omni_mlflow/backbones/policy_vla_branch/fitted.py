"""What the policy learns from train samples beside weights: label counts, maps, statistics, action space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from omni_mlflow.backbones.base import SampleSet
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.action_space_file import ActionSpaceFile, CheckpointSpace
from omni_mlflow.backbones.policy_vla_branch.affordance import with_afforded
from omni_mlflow.backbones.policy_vla_branch.hands import Hands
from omni_mlflow.backbones.policy_vla_branch.heads import CONTACT_LABELS, HeadLabels
from omni_mlflow.backbones.policy_vla_branch.humanoid_space import BodyMaps
from omni_mlflow.backbones.policy_vla_branch.inputs import (
    STATE_NAMES,
    Inputs,
    known_numbers,
    nominal_rate,
)
from omni_mlflow.backbones.policy_vla_branch.labels import ClassKind, ClassTarget
from omni_mlflow.backbones.policy_vla_branch.motion import Motion
from omni_mlflow.backbones.policy_vla_branch.retargeting import Maps
from omni_mlflow.backbones.policy_vla_branch.round_trip import save_maps
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.space import space_file
from omni_mlflow.backbones.policy_vla_branch.statistics import (
    DimensionStats,
    NormalizationStats,
    fit_stats,
)
from omni_mlflow.backbones.policy_vla_branch.tokens import EE20, TokenBins, token_space_file
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.rows import digest_of, write_document

ACTION_SPACE_NAME, MAPS_NAME = "action_space.json", "retarget.safetensors"

_STATE_FLOORS = {"velocity": 0.05, "valid": 0.5, "aperture": 0.005, "r": 0.05}
"""Smallest standard deviation of a state, by how its name begins after the side; m, m/s or 1."""
_POSITION_FLOOR_M = 0.005


class PolicyFitted(TrainPriors):
    """Everything that was fitted on the train episodes; no video is decoded for it.

    Attributes:
        objects: (of the priors) counts of the objects that the contract's rule of affordance leaves.
        maps: codes of finger shapes, or the humanoid that follows a body.
        normalization: statistics of actions and states.
        action_space, action_space_digest: the space with its train bounds.
        token_bins: ranges of the robot-compatible tokens that any motion of hands can be written as; None
            where no hand moves.
    """

    maps: Maps | BodyMaps
    normalization: NormalizationStats
    action_space: CheckpointSpace
    action_space_digest: str
    token_bins: TokenBins | None

    @classmethod
    def fit_samples(cls, train: SampleSet, settings: Settings) -> Self:
        """Fit on samples; neither their order nor that of their episodes changes a bit.

        Raises:
            NoHandsError, NoBodiesError, NothingToNormaliseError: hands or bodies are tracked too rarely.
            NotFollowedError: the humanoid does not do what the people do.
        """
        order = sorted(range(len(train.rows)), key=lambda place: train.rows[place].sample.id)
        rows = [train.rows[place] for place in order]
        inputs = [Inputs.model_validate(row.sample.inputs) for row in rows]
        episodes = [row.sample.episode_id for row in rows]
        space = SPACES[settings.action.space]
        motion = space.read({name: np.asarray(each)[order] for name, each in train.arrays.items()}, inputs)
        maps = space.fit(motion, episodes=episodes)
        action_stats = fit_stats(
            space.actions(motion, maps), space.dim_valid(motion.future.valid), floors=space.std_floors()
        )
        states = np.array([each.state for each in inputs])
        normalization = NormalizationStats.of(
            space.name,
            action_stats,
            fit_stats(states, known_states(inputs), floors=state_floors()),
            episodes=episodes,
        )
        rule = settings.targets.object_affordance
        priors = TrainPriors.fit(with_afforded(row.target, rule) for row in rows)
        robot = _robot_stats(motion, maps) if isinstance(maps, Maps) else None
        horizon, fps = settings.action.horizon_frames, float(nominal_rate([each.fps for each in inputs]))
        tokens = [token_space_file(space_file(EE20, robot, horizon=horizon, fps=fps))] if robot else []
        file = CheckpointSpace.of(
            space_file(space, action_stats, horizon=horizon, fps=fps),
            beside=[*class_spaces(priors, inputs, fps=fps), *tokens],
        )
        return cls(
            **priors.model_dump(),
            maps=maps,
            normalization=normalization,
            action_space=file,
            action_space_digest=digest_of(file),
            token_bins=TokenBins.of(robot) if robot else None,
        )

    def save(self, checkpoint: Path) -> None:
        """Write what others read of it beside the model: ``action_space.json`` and the maps."""
        write_document(checkpoint / ACTION_SPACE_NAME, self.action_space)
        save_maps(checkpoint / MAPS_NAME, self.maps)


def _robot_stats(motion: Motion[Hands], maps: Maps) -> DimensionStats:
    actions = EE20.actions(motion, maps)
    return fit_stats(actions, EE20.dim_valid(motion.future.valid), floors=EE20.std_floors())


def class_spaces(priors: TrainPriors, inputs: Sequence[Inputs], *, fps: float) -> list[ActionSpaceFile]:
    """Define the targets that are a class, by the labels of their heads; one without a label has no head."""
    sources = [source for each in inputs for source in each.provenance]
    labels = head_labels(priors)
    by_kind: dict[ClassKind, tuple[str, ...]] = {
        "action_class": labels.action,
        "next_action": labels.next_action,
        "contact_event": labels.next_contact,
    }
    return [
        ClassTarget.of(kind, names).file([each for each in sources if each.kind == kind], fps=fps)
        for kind, names in by_kind.items()
        if names
    ]


def head_labels(fitted: TrainPriors) -> HeadLabels:
    """Return what the heads choose from: the labels of the train samples."""
    return HeadLabels(
        action=tuple(sorted(fitted.action)),
        next_action=tuple(sorted(fitted.next_action)),
        next_contact=CONTACT_LABELS if fitted.next_contact else (),
        objects=tuple(sorted(fitted.objects)),
    )


def known_states(inputs: Sequence[Inputs]) -> Bools:
    """Tell which numbers of the samples' states are known, shape (samples, 28)."""
    now = np.array([each.hands.valid for each in inputs])
    return known_numbers(now, now & np.array([each.hands.before_valid for each in inputs]))


def state_floors() -> Floats:
    """Return the smallest standard deviation of each number of a state, in its unit."""
    return np.array([_floor(name.partition("_")[2]) for name in STATE_NAMES])


def _floor(name: str) -> float:
    return next((floor for part, floor in _STATE_FLOORS.items() if name.startswith(part)), _POSITION_FLOOR_M)
