"""Texts for the tiny base: what its tokenizer is fitted on, and drills in repeating JSON."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from omni_mlflow.backbones.qwen3_omni_lora.captions import Lesson
from omni_mlflow.backbones.qwen3_omni_lora.prompt import SYSTEM, compact, conversation
from omni_mlflow.backbones.qwen3_omni_lora.sample import Inputs
from omni_mlflow.spine.synthetic import vocabulary
from omni_mlflow.spine.types import Span

WORDS = (
    *" ".join((*vocabulary.TASKS, *vocabulary.PLACES, *vocabulary.PRIVATE_THINGS)).split(),
    *vocabulary.COMMON_COLOURS,
    *vocabulary.PRIVATE_COLOURS,
    *vocabulary.COMMON_TOOLS,
    *vocabulary.PRIVATE_TOOLS,
    *("Handle", "block", "blocks", "bright", "dark"),
)
"""Words of the synthetic world. They are drawn one by one, so that none of its actions is written out."""


def corpus(seed: int) -> Iterator[str]:
    """Yield texts that hold every word of the world and every form of question and answer."""
    rng = random.Random(seed)
    yield from (" ".join(rng.sample(WORDS, len(WORDS))) for _ in range(100))
    yield from (f"{SYSTEM} system user assistant" for _ in range(100))
    yield "Main task: blocks at the\nKnown actions: Label Describe seen, colours, sound, change, now\n" * 100
    for _ in range(500):
        lesson = drill(rng)
        yield lesson.talk[1]["content"][-1]["text"]
        yield lesson.caption


def drill(rng: random.Random) -> Lesson:
    """Return a question that already holds the fields of its answer, among lines that do not matter."""
    window = Span(start=(start := 10 * rng.randrange(100)), stop=start + 20)
    fields: dict[str, Any] = {
        "action": _words(rng, 2),
        "subtask": _words(rng, 2),
        "objects": [_words(rng, 1) for _ in range(rng.randint(1, 2))],
        "contact": rng.choice(("yes", "no")),
        "transition": rng.choice(("yes", "no")),
        "next_action": _words(rng, 2),
        "evidence_window": window.model_dump(),
    }
    given = compact({name: fields[name] for name in rng.sample(sorted(fields), len(fields))})
    distracting = (
        f"Main task: {_words(rng, 3)}",
        f"Sensors: {_sensors(rng)}",
        f"Known actions: {_words(rng, 2)}, {_words(rng, 2)}",
    )
    lines = [line for line in distracting if rng.random() < 0.25]
    lines.append(f"Repeat {given}")
    inputs = Inputs(video=None, audio=None, window=window, main_task=None, sensors=None)
    question = "\n".join(lines)
    return Lesson(inputs, conversation(inputs, question), compact(fields))


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.sample(WORDS, count))


def _sensors(rng: random.Random) -> str:
    """Return a line as ``spine.features.describe_features`` writes it."""
    from omni_mlflow.spine.features import FEATURE_NAMES, describe_features

    return describe_features([rng.choice((0.0, rng.random(), 20 * rng.random())) for _ in FEATURE_NAMES])
