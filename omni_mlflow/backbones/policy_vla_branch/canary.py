"""What a checkpoint answers to two made-up samples, stored in physical units when it is saved.

A gate that asks again finds every later change of weights, processor, statistics or libraries that moves an
answer. The samples hold no recorded image, so the file tells nothing about any episode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from omni_mlflow.backbones.policy_vla_branch.data import Batches, noise_and_time
from omni_mlflow.backbones.policy_vla_branch.model import Policy
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import Row

CANARY_NAME = "canary.json"
_INSTRUCTIONS = ("", "Sorting blocks at the workbench")
_SIDE, _STEPS, _KEY = 64, 2, (20_240_831, 0)


class Canary(Row):
    """The content of ``canary.json``.

    Attributes:
        actions: (samples, horizon, dimensions) in units of the action space.
        scores: of the heads by question, (samples, labels).
    """

    actions: list[list[list[float]]]
    scores: dict[str, list[list[float]]]

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        for numbers in (self.actions, *self.scores.values()):
            np.array(numbers, dtype=np.float64)  # raises ValueError over rows of different length
        return self


def ask_canary(policy: Policy, processor: Any) -> Canary:
    """Ask a policy: two colour ramps, the mean state and one a deviation away from it, fixed noise."""
    ramp = np.linspace(0, 255, _SIDE, dtype=np.uint8)
    across = np.broadcast_to(ramp[:, None, None], (_SIDE, _SIDE, 3))
    images = [np.ascontiguousarray(across), np.ascontiguousarray(across.transpose(1, 0, 2)[::-1])]
    mean, deviation = np.array(processor.state_mean), np.array(processor.state_std)
    states = np.stack([mean, mean + deviation]).astype(np.float32)
    batches = Batches(processor)
    batch = batches.prediction(images, _INSTRUCTIONS, states).to(policy.device)
    noise, _ = noise_and_time(_KEY, (len(images), batches.horizon, batches.width))
    chunks, scores = policy.predict(batch, noise[None].to(policy.device), steps=_STEPS)
    return Canary(
        actions=batches.physical(chunks[0]).tolist(),
        scores={name: score.double().cpu().tolist() for name, score in scores.items()},
    )


def save_canary(folder: Path, policy: Policy, processor: Any) -> None:
    write_document(folder / CANARY_NAME, ask_canary(policy, processor))
