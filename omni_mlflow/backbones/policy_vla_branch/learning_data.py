"""Samples as numbers: motion, pictures, label indices."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.base import SampleSet
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.affordance import with_afforded
from omni_mlflow.backbones.policy_vla_branch.data import Image, PolicyData
from omni_mlflow.backbones.policy_vla_branch.fitted import PolicyFitted, head_labels
from omni_mlflow.backbones.policy_vla_branch.inference import Observations
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs, Observation
from omni_mlflow.backbones.policy_vla_branch.labels import ClassTarget, contact_label
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.spine.types import Sample, Target

_BLANK_SIDE = 32


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


def observed(samples: Sequence[Sample], pictures: Pictures) -> Observations:
    """Return what the model may see of samples."""
    inputs = [Inputs.model_validate(sample.inputs) for sample in samples]
    return Observations(
        images=[pictures.of(each.observation) for each in inputs],
        instructions=[each.instruction for each in inputs],
        states=states_of(inputs),
    )


def states_of(inputs: Sequence[Inputs]) -> NDArray[np.float32]:
    return np.array([each.state for each in inputs], dtype=np.float32)


class Pictures:
    """Reads one camera's picture out of proxy videos; those read last are kept, up to ``cache_bytes``."""

    def __init__(self, media_root: Path, *, cache_bytes: int = 2**30) -> None:
        self._root = media_root
        self._room = cache_bytes
        self._kept: OrderedDict[tuple[str, int, str], Image] = OrderedDict()
        self._lock = Lock()  # batches are made by a thread while another one validates

    def of(self, observation: Observation | None) -> Image:
        """Return the picture, RGB, (height, width, 3); grey where there is none."""
        if observation is None:
            return np.full((_BLANK_SIDE, _BLANK_SIDE, 3), 128, dtype=np.uint8)
        key = (observation.video, observation.proxy_frame, observation.tile.camera)
        with self._lock:
            if key not in self._kept:
                self._keep(key, self._read(observation))
            self._kept.move_to_end(key)
            return self._kept[key]

    def _keep(self, key: tuple[str, int, str], picture: Image) -> None:
        self._kept[key] = picture
        self._room -= picture.nbytes
        while self._room < 0 and len(self._kept) > 1:
            self._room += self._kept.popitem(last=False)[1].nbytes

    def _read(self, observation: Observation) -> Image:
        from omni_mlflow.spine.video import read_frames

        tile = observation.tile
        whole = read_frames(self._root / observation.video, [observation.proxy_frame])[0]
        return np.ascontiguousarray(whole[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width])


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
