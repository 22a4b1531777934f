"""Reads what the model may see of samples: pictures, instructions, states."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.data import Image
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs, Observation
from omni_mlflow.backbones.policy_vla_branch.observations import Observations
from omni_mlflow.spine.types import Sample

_BLANK_SIDE = 32


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
