"""Samples with one input removed or spoilt, to see which answers hang on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.spine.types import Sample


def _other_order(instruction: str, key: str) -> str:
    """Put the words into an order that hangs on ``key`` alone; it is another one wherever there is one."""
    words = instruction.split()
    shuffled = sorted(words, key=lambda word: hashlib.sha256(f"{key} {word}".encode()).digest())
    if shuffled == words:
        shuffled = words[1:] + words[:1]
    return " ".join(shuffled)


_CHANGES: Mapping[str, Callable[[Inputs, str], dict[str, Any]]] = {
    "blank_image": lambda inputs, key: {"observation": None},  # noqa: ARG005
    "shuffled_text": lambda inputs, key: {"instruction": _other_order(inputs.instruction, key)},
    "state_only": lambda inputs, key: {"observation": None, "instruction": ""},  # noqa: ARG005
}
CONTROLS = tuple(_CHANGES)


def controlled(name: str, samples: Sequence[Sample]) -> list[Sample]:
    """Return ``samples`` under the control ``name``, ids kept.

    Raises:
        KeyError: there is no control of that name.
    """
    change = _CHANGES[name]
    found = []
    for sample in samples:
        inputs = Inputs.model_validate(sample.inputs)
        changed = inputs.model_copy(update=change(inputs, sample.id))
        found.append(sample.model_copy(update={"inputs": changed.model_dump(mode="json")}))
    return found
