"""The question put to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omni_mlflow.backbones.label_answers import compact
from omni_mlflow.backbones.qwen3_omni_lora.sample import Inputs
from omni_mlflow.metrics.answers import UNKNOWN
from omni_mlflow.metrics.priors import TrainPriors

Message = dict[str, Any]

INSTRUCTION = (
    "Answer in JSON: action, subtask, objects, contact, transition, next_action, evidence_window. "
    f"What nobody can tell is {UNKNOWN}."
)


def label_options(priors: TrainPriors, *, max_options: int) -> tuple[str, ...]:
    """Return the most frequent actions of the train samples, in alphabetical order.

    Only train labels can be listed: a label that occurs in test alone would tell the test set.
    """
    by_frequency = sorted(priors.action, key=lambda label: (-priors.action[label], label))
    return tuple(sorted(by_frequency[:max_options]))


def messages(inputs: Inputs, options: Sequence[str]) -> list[Message]:
    """Return the conversation up to the model's turn, in the chat template's terms.

    The window comes last and is spelled as the answer has to spell it: that makes it easy to repeat.
    """
    context = [INSTRUCTION]
    if inputs.main_task:
        context.append(f"Main task: {inputs.main_task}")
    if inputs.sensors:
        context.append(f"Sensors: {inputs.sensors}")
    if options:
        context.append("Known actions: " + ", ".join(options))
    return conversation(inputs, context=context, question=f"Label {compact(inputs.window.model_dump())}")


def conversation(inputs: Inputs, *, context: Sequence[str], question: str) -> list[Message]:
    """Return lines of context, the media that the sample has, and the question.

    The context comes first: whatever its length, the media and the question are as far from the answer.
    """
    parts: list[dict[str, str]] = []
    if context:
        parts.append({"type": "text", "text": "\n".join(context)})
    if inputs.video:
        parts.append({"type": "video"})
    if inputs.audio:
        parts.append({"type": "audio"})
    parts.append({"type": "text", "text": question})
    return [{"role": "user", "content": parts}]
