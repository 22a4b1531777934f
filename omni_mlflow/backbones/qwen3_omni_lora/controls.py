"""Samples with one input exchanged or removed, to see which answers hang on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omni_mlflow.backbones.label_answers import of_another_episode
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
    controlled_samples = []
    for sample, other in zip(samples, of_another_episode(samples), strict=True):
        inputs = Inputs.model_validate(sample.inputs)
        changed = inputs.model_copy(update=change(Inputs.model_validate(other.inputs)))
        controlled_samples.append(sample.model_copy(update={"inputs": changed.model_dump(mode="json")}))
    return controlled_samples
