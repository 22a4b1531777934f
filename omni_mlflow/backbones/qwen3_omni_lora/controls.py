"""Samples with one input exchanged or removed, to see which answers hang on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omni_mlflow.backbones.qwen3_omni_lora.sample import Inputs
from omni_mlflow.spine.types import Sample

_CHANGES: dict[str, Callable[[Inputs], dict[str, Any]]] = {
    "other_video": lambda other: {"video": other.video},
    "other_audio": lambda other: {"audio": other.audio},
    "text_only": lambda _: {"video": None, "audio": None, "sensors": None},
}
CONTROLS = tuple(_CHANGES)


def controlled(name: str, samples: Sequence[Sample]) -> list[Sample]:
    """Return ``samples`` under the control ``name``, ids kept.

    ``other_video`` and ``other_audio`` take that input from the sample half the list away, or from the next
    one there that is of another episode, if there is any; ``text_only`` leaves the question alone.

    Raises:
        KeyError: there is no control of that name.
    """
    change = _CHANGES[name]
    inputs = [Inputs.model_validate(sample.inputs) for sample in samples]
    controlled_samples = []
    for index, sample in enumerate(samples):
        other = inputs[_other_episode(samples, index)]
        changed = inputs[index].model_copy(update=change(other))
        controlled_samples.append(sample.model_copy(update={"inputs": changed.model_dump(mode="json")}))
    return controlled_samples


def _other_episode(samples: Sequence[Sample], index: int) -> int:
    half = (index + len(samples) // 2) % len(samples)
    around = (*range(half, len(samples)), *range(half))
    return next((turn for turn in around if samples[turn].episode_id != samples[index].episode_id), half)
