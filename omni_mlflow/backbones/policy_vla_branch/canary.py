"""What a checkpoint answers to a few made-up samples, stored in physical units when it is saved.

A gate that asks again finds every later change of weights, processor, statistics or libraries that moves an
answer. The samples hold no recorded image, so the file tells nothing about any episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from omni_mlflow.backbones.policy_vla_branch.data import Batches, noise_and_time
from omni_mlflow.backbones.policy_vla_branch.hands import SIDES
from omni_mlflow.backbones.policy_vla_branch.inputs import STATE_NAMES
from omni_mlflow.backbones.policy_vla_branch.model import Policy
from omni_mlflow.spine.poses import Floats
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import Row

CANARY_NAME = "canary.json"
_ASKED = (
    ("Sorting blocks at the workbench", (True, True)),
    ("Pour the water out of the left cup", (True, True)),
    ("Pour the left cup out of the water", (True, False)),
    ("", (False, True)),
    ("Wash 12 plates, then dry them!", (False, False)),
)
"""Instruction of each sample, and whether its left and its right hand are known."""

_BLOCKS, _BLOCK_PIXELS, _STEPS, _KEY = 16, 4, 2, (20_240_831, 0)


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
    """Ask a policy with fixed noise. No two numbers of a state and no two places of a picture are alike, so
    that weights, columns or patches that changed places answer otherwise.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(_KEY)))
    blocks = rng.integers(0, 256, (len(_ASKED), _BLOCKS, _BLOCKS, 3), dtype=np.uint8)
    images = list(blocks.repeat(_BLOCK_PIXELS, axis=1).repeat(_BLOCK_PIXELS, axis=2))
    mean, deviation = np.array(processor.state_mean), np.array(processor.state_std)
    states = mean + deviation * rng.standard_normal((len(_ASKED), len(mean)))
    for state, (_, known) in zip(states, _ASKED, strict=True):
        _forget_unknown(state, dict(zip(SIDES, known, strict=True)))
    batches = Batches(processor)
    batch = batches.prediction(images, [text for text, _ in _ASKED], states.astype(np.float32)).to(
        policy.device
    )
    noise, _ = noise_and_time(_KEY, (len(images), batches.horizon, batches.width))
    chunks, scores = policy.predict(batch, noise[None].to(policy.device), steps=_STEPS)
    return Canary(
        actions=batches.physical(chunks[0]).tolist(),
        scores={name: score.double().cpu().tolist() for name, score in scores.items()},
    )


def save_canary(folder: Path, policy: Policy, processor: Any) -> None:
    write_document(folder / CANARY_NAME, ask_canary(policy, processor))


def _forget_unknown(state: Floats, known: Mapping[str, bool]) -> None:
    """Write the flags of both hands, and zeros for a hand that is not known, as a sample has them."""
    for place, name in enumerate(STATE_NAMES):
        side, _, number = name.partition("_")
        if number == "valid" or not known[side]:
            state[place] = float(number == "valid" and known[side])
