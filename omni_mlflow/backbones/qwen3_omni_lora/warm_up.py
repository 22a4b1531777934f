"""Teaches the tiny base to see, to hear and to write JSON, before any adapter is trained on it.

A downloaded checkpoint can do that already; a random one learns it too slowly. The warm-up shows
sessions of the synthetic world that no episode set ever holds, with captions of colours, tools and
sounds. No action is ever named, so what an action is called is left for the adapter to learn.
"""

from __future__ import annotations

import random
import tempfile
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.backbones.qwen3_omni_lora.optimisation import (
    answer_loss,
    learning_rate,
    optimise,
    prefetched,
)
from omni_mlflow.backbones.qwen3_omni_lora.processing import Processing
from omni_mlflow.backbones.qwen3_omni_lora.prompt import SYSTEM, Message, compact, conversation
from omni_mlflow.backbones.qwen3_omni_lora.sample import AudioPointer, Inputs, VideoPointer
from omni_mlflow.spine.synthetic import vocabulary
from omni_mlflow.spine.synthetic.world import FPS, WARM_UP_SEEDS, SessionWorld, make_session
from omni_mlflow.spine.types import Span

SESSIONS, FRAMES = 24, 600
BATCH, PEAK_RATE, SEED = 8, 2e-3, 0
GRID, CONTEXT, WINDOW, STRIDE = 4, 8, 20, 10
TILE = (32, 32)
AUDIO_RATE = 16_000
MAX_FRAME_PIXELS = 6 * TILE[0] * TILE[1]


@dataclass(frozen=True)
class Lesson:
    """One caption to learn: what is shown, what is asked, what is to be said."""

    inputs: Inputs
    talk: list[Message]
    caption: str


def warm_up(model: Any, processor: Any, *, steps: int, sessions: int = SESSIONS) -> None:
    """Train all weights of the thinker ``model`` on captions, in place; on a CPU, one thread."""
    import torch

    torch.set_num_threads(1)  # the same weights on every machine, whatever its number of cores
    rng = random.Random(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    with tempfile.TemporaryDirectory() as folder:
        lessons = [
            lesson
            for seed in WARM_UP_SEEDS[:sessions]
            for lesson in session_lessons(make_session(seed, frames=FRAMES), Path(folder) / str(seed), rng)
        ]
        processing = Processing(processor, Path(folder), options=(), max_frame_pixels=MAX_FRAME_PIXELS)

        def batch_of(chosen: Sequence[Lesson]) -> Any:
            return processing.batch(
                [lesson.inputs for lesson in chosen],
                [lesson.talk for lesson in chosen],
                answers=[lesson.caption for lesson in chosen],
            )

        model.train()
        batches = prefetched(batch_of, shuffled_batches(lessons, steps, rng), workers=1)
        for step, (_, batch) in enumerate(batches, start=1):
            rate = learning_rate(step, peak=PEAK_RATE, warmup_steps=20, steps=steps)
            optimise(optimizer, answer_loss(model, batch), rate)
    model.eval()


def shuffled_batches(lessons: Sequence[Lesson], steps: int, rng: random.Random) -> Iterator[list[Lesson]]:
    """Yield ``steps`` batches; every lesson is seen once before one is seen again."""
    waiting: list[Lesson] = []
    for _ in range(steps):
        if len(waiting) < BATCH:
            waiting = rng.sample(lessons, len(lessons))
        yield [waiting.pop() for _ in range(BATCH)]


def session_lessons(world: SessionWorld, folder: Path, rng: random.Random) -> list[Lesson]:
    """Write the media of one session below ``folder`` and return a lesson for every window.

    The frame numbers are moved by a random amount, and the questions come in random order: so they have to
    be read from the prompt and cannot be learned by heart.
    """
    folder.mkdir(parents=True)
    write_mosaic(world, folder / "mosaic.mp4")
    write_sound(world, folder / "audio.wav")
    lessons = []
    for anchor in range(CONTEXT * GRID, world.frames + 1, STRIDE):
        seen = range((anchor - CONTEXT * GRID + GRID - 1) // GRID, (anchor + GRID - 1) // GRID)
        shift = STRIDE * rng.randrange(40)
        facts = caption_facts(world, Span(start=anchor - WINDOW, stop=anchor))
        asked = Span(start=anchor - WINDOW + shift, stop=anchor + shift)
        facts["evidence_window"] = asked.model_dump()
        names = rng.sample(sorted(facts), len(facts))
        inputs = Inputs(
            video=VideoPointer(
                path=f"{folder.name}/mosaic.mp4", positions=tuple(seen), frames_per_second=FPS / GRID
            ),
            audio=AudioPointer(
                path=f"{folder.name}/audio.wav", start_s=(anchor - WINDOW) / FPS, stop_s=anchor / FPS
            ),
            window=asked,
            main_task=world.main_task,
            sensors=None,
        )
        question = f"Describe {', '.join(names)} {compact(asked.model_dump())}"
        caption = compact({name: facts[name] for name in names})
        lessons.append(Lesson(inputs, conversation(inputs, question), caption))
    return lessons


def caption_facts(world: SessionWorld, span: Span) -> dict[str, Any]:
    """Say what most frames of ``span`` show and sound like, and, as ``now``, what the last one shows."""
    facts = [world.facts_at(frame) for frame in range(span.start, span.stop)]
    tool, colour = Counter((fact.tool, fact.colour) for fact in facts).most_common(1)[0][0]
    return {
        "seen": [tool, colour],
        "sound": "yes" if 2 * sum(fact.sound for fact in facts) >= len(facts) else "no",
        "change": "yes" if any(fact.change for fact in facts[1:]) else "no",
        "now": [facts[-1].tool, facts[-1].colour],
    }


def corpus() -> Iterator[str]:
    """Yield texts from which the tokenizer learns the words of the world and the form of the answers.

    Words are drawn one by one: no action is written out.
    """
    rng = random.Random(SEED)
    places = " ".join((*vocabulary.TASKS, *vocabulary.PLACES)).split()
    things = " ".join(vocabulary.PRIVATE_THINGS).split()
    colours = (*vocabulary.COMMON_COLOURS, *vocabulary.PRIVATE_COLOURS)
    verbs = (*vocabulary.COMMON_TOOLS, *vocabulary.PRIVATE_TOOLS, "Handle")
    words = [*places, *things, *colours, *verbs, "block", "blocks", "bright", "dark", "yes", "no"]
    sensors = "Sensors: head 0.12m 3deg; left 0.45m; right -; depth 0.67m; shake 0.8"
    for _ in range(300):
        drawn = [rng.choice(words) for _ in range(30)]
        window = Span(start=10 * rng.randrange(1000), stop=10_020)
        yield " ".join(drawn[:20])
        yield f"{SYSTEM} system user assistant"
        yield f"Main task: {drawn[20]}\n{sensors}\nKnown actions: {drawn[21]}, {drawn[22]}\n"
        yield f"Label Describe seen, sound, change, now, evidence_window {compact(window.model_dump())}"
        answer = dict.fromkeys(("action", "subtask", "contact", "transition", "next_action"), drawn[23])
        yield compact({**answer, "objects": drawn[24:26], "evidence_window": window.model_dump()})
        yield compact({"seen": drawn[26:28], "sound": "yes", "change": "no", "now": drawn[28:]})


def write_mosaic(world: SessionWorld, path: Path) -> None:
    """Write the proxy video that an index would write of the session's cameras."""
    import av
    from av.video.reformatter import VideoReformatter

    from omni_mlflow.spine.mosaic import Encoder, Mosaic, mosaic_tiles

    tiles = mosaic_tiles(TILE)
    mosaic = Mosaic(3 * TILE[0], 2 * TILE[1])
    scalers = {tile.camera: VideoReformatter() for tile in tiles}
    with Encoder(path, 3 * TILE[0], 2 * TILE[1], Fraction(FPS, GRID)) as encoder:
        for frame in range(0, world.frames, GRID):
            for tile in tiles:
                image = world.clip(tile.camera, frame, frame + 1)[0]
                picture = av.VideoFrame.from_ndarray(image, format="rgb24")
                mosaic.paste(tile, picture, scalers[tile.camera])
            encoder.write(mosaic)


def write_sound(world: SessionWorld, path: Path) -> None:
    """Write the session's sound as mono 16-bit WAV."""
    samples = np.clip(world.audio(AUDIO_RATE), -1.0, 1.0) * 32767
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(AUDIO_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
