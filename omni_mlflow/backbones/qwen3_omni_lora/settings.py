"""The ``settings:`` block of a Qwen3-Omni LoRA contract."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from omni_mlflow.contract import Section, Weights
from omni_mlflow.contract.values import Count, Once, Pattern, Positive, Seed, Text

TINY = "tiny"
"""``base.model`` that stands for the small checkpoint which this project builds itself."""


class Base(Weights):
    """The frozen model below the adapter.

    Attributes:
        model: a hub id, a folder, or ``tiny``.
        revision: branch, tag or commit of the hub repository; ``local`` for the tiny base.
    """

    model: Text
    revision: Text
    precision: Literal["bfloat16", "float32"]


class Lora(Section):
    """What is adapted, in PEFT's terms.

    Attributes:
        target_modules: names of the attention's linear layers.
        target_parameters: fused expert weights, adapted as parameters because they are no modules.
        exclude_modules: regular expression that keeps the vision and audio towers frozen; PEFT reduces
            a pattern in ``target_modules`` to leaf names, which the towers share.
    """

    rank: Annotated[int, Field(strict=True, ge=1, le=4096)]
    alpha: Annotated[int, Field(strict=True, ge=1, le=65536)]
    target_modules: Once[Literal["q_proj", "k_proj", "v_proj", "o_proj"]] = Field(min_length=1)
    target_parameters: Once[Literal["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]] = ()
    exclude_modules: Pattern


class Training(Section):
    """Optimisation of the adapter. Learning rate: linear warm-up, then a cosine to 5 % of the peak.

    Attributes:
        max_val_samples: validation looks at no more samples than this, evenly spread.
        data_workers: threads that decode and process the next batches while a step runs.
        gradient_checkpointing: recompute activations; without it expert LoRA keeps one merged copy of
            the experts per layer.
    """

    steps: Positive
    batch_size: Positive
    learning_rate: float = Field(strict=True, gt=0, le=1)
    warmup_steps: Count
    checkpoint_every: Positive
    validate_every: Positive
    gradient_checkpointing: bool
    max_val_samples: Positive
    data_workers: Annotated[int, Field(strict=True, ge=1, le=1024)]
    seed: Seed


class Prompt(Section):
    """What one sample shows.

    Attributes:
        max_frame_pixels: upper bound of width x height of a frame as the model sees it.
        audio_seconds: length of the sound that ends at the anchor.
        sensor_bridge: tell the summary of the sensor features in words.
        max_label_options: the most frequent train actions that the question lists.
    """

    max_frame_pixels: Positive
    audio_seconds: float = Field(strict=True, gt=0, le=3600)
    sensor_bridge: bool
    max_label_options: Count


class Decoding(Section):
    """Greedy and free: no grammar helps the model to write valid JSON."""

    max_new_tokens: Positive
    batch_size: Positive


class Settings(Section):
    base: Base
    lora: Lora
    training: Training
    prompt: Prompt
    decoding: Decoding
