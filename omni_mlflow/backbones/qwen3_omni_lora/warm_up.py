"""Teaches the tiny base to write JSON, to see and to hear, before any adapter is trained on it.

A downloaded checkpoint can do that already; a random one learns it too slowly. First come drills, text
alone: repeat the fields that are asked for. Then come captions of colours, tools and sounds, in sessions of
the synthetic world that no episode set ever holds. Nothing that is shown is called by the name of its
action: that is left for the adapter to learn.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.optimisation import learning_rate, optimise, prefetched
from omni_mlflow.backbones.qwen3_omni_lora.captions import Lesson, session_lessons
from omni_mlflow.backbones.qwen3_omni_lora.drills import drill, random_context
from omni_mlflow.backbones.qwen3_omni_lora.optimisation import answer_loss
from omni_mlflow.backbones.qwen3_omni_lora.processing import Processing
from omni_mlflow.spine.synthetic.world import WARM_UP_SEEDS, make_session

OnStep = Callable[[int, int], None]
"""Told how many steps are done, and how many there are."""

PEAK_RATE = 2e-3
MAX_FRAME_PIXELS = 64 * 96


@dataclass(frozen=True)
class WarmUp:
    """How long the tiny base is taught.

    Attributes:
        drills: batches of text alone, at the start.
        captions: batches of what sessions show; every ``drill_every``-th is a drill again.
        context_share: share of the batches of captions with lines in front that say nothing of the clip, so
            that what is seen and heard is found wherever it stands.
        sessions, frames: number of sessions of the synthetic world, and their length.
    """

    drills: int = 120
    captions: int = 460
    drill_every: int = 12
    context_share: float = 0.3
    sessions: int = 24
    frames: int = 600
    batch_size: int = 8
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.drills + self.captions


def warm_up(model: Any, processor: Any, plan: WarmUp, *, on_step: OnStep | None = None) -> None:
    """Train all weights of the thinker ``model`` in place; on a CPU, one thread."""
    import torch

    torch.set_num_threads(1)  # the same weights on every machine, whatever its number of cores
    rng = random.Random(plan.seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    with tempfile.TemporaryDirectory() as folder:
        lessons = [
            lesson
            for seed in WARM_UP_SEEDS[: plan.sessions]
            for lesson in session_lessons(
                make_session(seed, frames=plan.frames), Path(folder) / str(seed), rng
            )
        ]
        processing = Processing(processor, Path(folder), options=(), max_frame_pixels=MAX_FRAME_PIXELS)

        def batch_of(chosen: Sequence[Lesson]) -> Any:
            return processing.batch(
                [lesson.inputs for lesson in chosen],
                [lesson.talk for lesson in chosen],
                answers=[lesson.reply for lesson in chosen],
            )

        model.train()
        batches = prefetched(batch_of, curriculum(lessons, plan, rng), workers=1)
        for step, (_, batch) in enumerate(batches, start=1):
            rate = learning_rate(step, peak=PEAK_RATE, warmup_steps=20, steps=plan.steps)
            optimise(optimizer, answer_loss(model, batch), rate)
            if on_step is not None:
                on_step(step, plan.steps)
    model.eval()


def curriculum(lessons: Sequence[Lesson], plan: WarmUp, rng: random.Random) -> Iterator[list[Lesson]]:
    """Yield the batches in order; every caption is seen once before one is seen again."""
    waiting: list[Lesson] = []
    for step in range(plan.steps):
        if step < plan.drills or step % plan.drill_every == 0:
            yield [drill(rng) for _ in range(plan.batch_size)]
            continue
        if len(waiting) < plan.batch_size:
            waiting = rng.sample(lessons, len(lessons))
        chosen = [waiting.pop() for _ in range(plan.batch_size)]
        if rng.random() < plan.context_share:
            chosen = [replace(lesson, context=random_context(rng)) for lesson in chosen]
        yield chosen
