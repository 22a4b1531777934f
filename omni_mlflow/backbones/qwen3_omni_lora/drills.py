"""Texts for the tiny base: what its tokenizer is fitted on, and drills in repeating JSON."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from omni_mlflow.backbones.label_answers import compact
from omni_mlflow.backbones.qwen3_omni_lora.captions import Lesson
from omni_mlflow.backbones.qwen3_omni_lora.prompt import INSTRUCTION
from omni_mlflow.backbones.qwen3_omni_lora.sample import Inputs
from omni_mlflow.spine.synthetic import vocabulary
from omni_mlflow.spine.types import Span

WORDS = (
    *" ".join((*vocabulary.TASKS, *vocabulary.PLACES, *vocabulary.PRIVATE_THINGS)).split(),
    *vocabulary.COMMON_COLOURS,
    *vocabulary.PRIVATE_COLOURS,
    *vocabulary.COMMON_TOOLS,
    *vocabulary.PRIVATE_TOOLS,
    *("Handle", "blocks", "bright", "dark"),
)
"""Words of the synthetic world, to be drawn one by one. ``block`` is not among them: every action that
sessions share ends with it, so none is ever written out."""


def corpus(seed: int) -> Iterator[str]:
    """Yield texts that hold every word of the world and every form of question and answer."""
    rng = random.Random(seed)
    yield from (" ".join(rng.sample(WORDS, len(WORDS))) for _ in range(100))
    yield from (f"{INSTRUCTION} user assistant block" for _ in range(100))
    yield "Main task: blocks at the\nKnown actions: Label Describe seen, colours, sound, change, now\n" * 100
    for _ in range(500):
        lesson = drill(rng)
        yield "\n".join((*lesson.context, lesson.question))
        yield lesson.reply


def drill(rng: random.Random) -> Lesson:
    """Return a question that already holds the fields of its answer."""
    window = Span(start=(start := 10 * rng.randrange(100)), stop=start + 20)
    fields: dict[str, Any] = {
        "action": random_words(rng, 2),
        "subtask": random_words(rng, 2),
        "objects": [random_words(rng, 1) for _ in range(rng.randint(1, 2))],
        "contact": rng.choice(("yes", "no")),
        "transition": rng.choice(("yes", "no")),
        "next_action": random_words(rng, 2),
        "evidence_window": window.model_dump(),
    }
    given = compact({name: fields[name] for name in rng.sample(sorted(fields), len(fields))})
    inputs = Inputs(video=None, audio=None, window=window, main_task=None, sensors=None)
    return Lesson(inputs, f"Repeat {given}", compact(fields), random_context(rng))


def random_context(rng: random.Random) -> tuple[str, ...]:
    """Return lines as they stand in front of a question, any of them missing: they do not matter."""
    lines = (
        INSTRUCTION,
        f"Main task: {random_words(rng, rng.randint(1, 6))}",
        f"Sensors: {_sensors(rng)}",
        f"Known actions: {random_words(rng, rng.randint(1, 30))}",
    )
    return tuple(line for line in lines if rng.random() < 0.4)


def random_words(rng: random.Random, count: int) -> str:
    return " ".join(rng.sample(WORDS, count))


def _sensors(rng: random.Random) -> str:
    """Return a line as ``spine.features.describe_features`` writes it."""
    from omni_mlflow.spine.features import FEATURE_NAMES, describe_features

    return describe_features([rng.choice((0.0, rng.random(), 20 * rng.random())) for _ in FEATURE_NAMES])
