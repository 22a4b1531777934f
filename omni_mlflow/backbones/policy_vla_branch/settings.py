"""The ``settings:`` block of a policy contract."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from omni_mlflow.contract import Section, Weights
from omni_mlflow.contract.values import Count, Positive, Seed, Text

TINY = "tiny"
"""``base.model`` that stands for the small checkpoint which this project builds itself."""

HUMANOID_SPACE = "humanoid65"
_HUMANOID_EXTRA = ("daqp", "dm_control", "mink", "mujoco")
INSTALL_HUMANOID = "pip install 'omni-mlflow[humanoid]'"


Weight = Annotated[float, Field(strict=True, ge=0, le=1e6)]
"""Of one part of a loss against another."""


class Base(Weights):
    """The pretrained policy.

    Attributes:
        model: a hub id, a folder, or ``tiny``.
        revision: branch, tag or commit of the hub repository; ``local`` for the tiny base.
    """

    model: Text
    revision: Text
    precision: Literal["bfloat16", "float32"]


class Action(Section):
    """What a chunk of actions is.

    Attributes:
        space: how the motion of two hands, or of a whole body, becomes numbers.
        horizon_frames: length of a chunk; its first step is the anchor.
    """

    space: Literal["joints126", "synergy32", "ee20", "humanoid65"]
    horizon_frames: Annotated[int, Field(strict=True, ge=1, le=10_000)]

    @model_validator(mode="after")
    def _has_what_the_space_needs(self) -> Self:
        """Say so before anything is made, and not in the middle of an export."""
        if self.space == HUMANOID_SPACE:
            missing = [name for name in _HUMANOID_EXTRA if find_spec(name) is None]
            if missing:
                raise ValueError(f"{HUMANOID_SPACE} needs {', '.join(missing)}: {INSTALL_HUMANOID}")
        return self


class Training(Section):
    """Optimisation. Learning rate: linear warm-up, then a cosine.

    Attributes:
        mode: train every weight, or a LoRA adapter that is merged into the checkpoint.
        accumulate: batches whose gradients are added up before a step.
        head_weight: weight of the label heads' losses against the flow-matching loss.
        next_action_weight: further weight of the next action among the heads.
    """

    mode: Literal["full", "lora"]
    steps: Positive
    batch_size: Positive
    accumulate: Positive = 1
    learning_rate: float = Field(strict=True, gt=0, le=1)
    warmup_steps: Count
    checkpoint_every: Positive
    validate_every: Positive
    seed: Seed
    head_weight: Weight
    next_action_weight: Weight


class Lora(Section):
    """Read when ``training.mode`` is ``lora``."""

    rank: Annotated[int, Field(strict=True, ge=1, le=4096)]
    alpha: Annotated[int, Field(strict=True, ge=1, le=65536)]


class Decoding(Section):
    """How a chunk is drawn.

    Attributes:
        steps: denoising steps.
        samples_for_mean: chunks whose mean is told beside the one that is scored.
    """

    steps: Positive
    samples_for_mean: Positive


class Targets(Section):
    """What is derived from labels.

    Attributes:
        object_affordance: which of the annotated objects a window is said to afford an action on: those all
            of whose words are in the label of its action, or all of them.
    """

    object_affordance: Literal["objects_in_action", "objects_of_window"]


class Settings(Section):
    base: Base
    action: Action
    targets: Targets
    training: Training
    lora: Lora
    decoding: Decoding
