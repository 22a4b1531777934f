"""Samples to learn from as numbers: motion, pictures, label indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.base import SampleSet
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.affordance import with_afforded
from omni_mlflow.backbones.policy_vla_branch.data import PolicyData
from omni_mlflow.backbones.policy_vla_branch.fitted import PolicyFitted, head_labels
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.backbones.policy_vla_branch.labels import ClassTarget, contact_label
from omni_mlflow.backbones.policy_vla_branch.observing import Pictures, states_of
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.spine.types import Target


def policy_data(samples: SampleSet, fitted: PolicyFitted, settings: Settings) -> PolicyData:
    """Return samples of train or val as the model learns from them."""
    inputs = [Inputs.model_validate(row.sample.inputs) for row in samples.rows]
    pictures = Pictures(samples.media_root)
    targets = [with_afforded(row.target, settings.targets.object_affordance) for row in samples.rows]
    labels = head_labels(fitted)
    space = SPACES[settings.action.space]
    motion = space.read(samples.arrays, inputs)
    contact = [contact_label(target.labels.next_in_contact) for target in targets]
    return PolicyData(
        ids=[row.sample.id for row in samples.rows],
        images=lambda rows: [pictures.of(inputs[row].observation) for row in rows],
        instructions=[each.instruction for each in inputs],
        states=states_of(inputs),
        actions=space.actions(motion, fitted.maps).astype(np.float32),
        valid=space.dim_valid(motion.future.valid),
        action=_indices("action_class", labels.action, [each.labels.action for each in targets]),
        next_action=_indices(
            "next_action", labels.next_action, [each.labels.next_action for each in targets]
        ),
        next_contact=_indices("contact_event", labels.next_contact, contact),
        objects=_object_rows(labels.objects, targets),
    )


def _indices(kind: Any, labels: Sequence[str], truths: Sequence[str | None]) -> NDArray[np.int64]:
    target = ClassTarget(kind=kind, labels=tuple(labels))
    return np.array([target.encode(truth) for truth in truths], dtype=np.int64)


def _object_rows(labels: Sequence[str], targets: Sequence[Target]) -> NDArray[np.float32]:
    place: Mapping[str, int] = {label: column for column, label in enumerate(labels)}
    rows = np.zeros((len(targets), len(labels)), dtype=np.float32)
    for row, target in zip(rows, targets, strict=True):
        if target.labels.objects is None:
            row[:] = np.nan
        else:
            row[[place[name] for name in target.labels.objects if name in place]] = 1.0
    return rows
