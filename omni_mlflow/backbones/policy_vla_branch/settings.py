"""The ``settings:`` block of a policy contract."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import Field, model_validator

from omni_mlflow.contract import Section, Weights

TINY = "tiny"
"""``base.model`` that stands for the small checkpoint which this project builds itself."""

HUMANOID_SPACE = "humanoid65"
_HUMANOID_EXTRA = ("daqp", "dm_control", "mink", "mujoco")
INSTALL_HUMANOID = "pip install 'omni-mlflow[humanoid]'"


class Base(Weights):
    """The pretrained policy.

    Attributes:
        model: a hub id, a folder, or ``tiny``.
        revision: branch, tag or commit of the hub repository; ``local`` for the tiny base.
    """

    model: str
    revision: str
    precision: Literal["bfloat16", "float32"]


class Action(Section):
    """What a chunk of actions is.

    Attributes:
        space: how the motion of two hands, or of a whole body, becomes numbers.
        horizon_frames: length of a chunk; its first step is the anchor.
    """

    space: Literal["joints126", "synergy32", "ee20", "humanoid65"]
    horizon_frames: int = Field(ge=1)

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
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    checkpoint_every: int = Field(ge=1)
    validate_every: int = Field(ge=1)
    seed: int
    head_weight: float = Field(ge=0)
    next_action_weight: float = Field(ge=0)


class Lora(Section):
    """Read when ``training.mode`` is ``lora``."""

    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)


class Decoding(Section):
    """How a chunk is drawn.

    Attributes:
        steps: denoising steps.
        samples_for_mean: chunks whose mean is told beside the one that is scored.
    """

    steps: int = Field(ge=1)
    samples_for_mean: int = Field(ge=1)


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
