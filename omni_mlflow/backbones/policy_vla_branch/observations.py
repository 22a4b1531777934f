"""What the model may see of samples, when it learns and when it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.data import Image


@dataclass(frozen=True)
class Observations:
    """What the model may see of some samples.

    Attributes:
        images: one (height, width, 3) per sample.
        states: (samples, state dimensions), physical.
    """

    images: Sequence[Image]
    instructions: Sequence[str]
    states: NDArray[np.float32]
