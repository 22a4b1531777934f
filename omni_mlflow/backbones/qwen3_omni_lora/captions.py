"""Captions of the synthetic world for the tiny base: what is seen and heard, in words of no action."""

from __future__ import annotations

import random
import wave
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.backbones.label_answers import compact
from omni_mlflow.backbones.qwen3_omni_lora.prompt import Message, conversation
from omni_mlflow.backbones.qwen3_omni_lora.sample import AudioPointer, Inputs, VideoPointer
from omni_mlflow.spine.synthetic.world import FPS, SessionWorld
from omni_mlflow.spine.types import Span

GRID, CONTEXT, WINDOW, STRIDE = 4, 8, 20, 10
"""Frame grid, frames seen, window and stride of the demo, whose clips the base shall understand."""

TILE = (32, 32)
AUDIO_RATE = 16_000


@dataclass(frozen=True)
class Lesson:
    """One reply to learn: what is shown, what is asked, what is to be said."""

    inputs: Inputs
    question: str
    reply: str
    context: tuple[str, ...] = ()

    @property
    def talk(self) -> list[Message]:
        return conversation(self.inputs, context=self.context, question=self.question)


def session_lessons(world: SessionWorld, folder: Path, rng: random.Random) -> list[Lesson]:
    """Write the media of one session to ``folder`` and return a lesson for every window.

    The frame numbers are moved by a random amount, and the fields are asked for in random order: so both
    have to be read from the question and cannot be learned by heart.
    """
    folder.mkdir(parents=True)
    write_mosaic(world, folder / "mosaic.mp4")
    write_sound(world, folder / "audio.wav")
    anchors = range(CONTEXT * GRID, world.frames + 1, STRIDE)
    return [_lesson(world, anchor, folder.name, rng) for anchor in anchors]


def _lesson(world: SessionWorld, anchor: int, folder: str, rng: random.Random) -> Lesson:
    start = anchor - WINDOW
    shift = STRIDE * rng.randrange(40)
    asked = Span(start=start + shift, stop=anchor + shift)
    facts = caption_facts(world, Span(start=start, stop=anchor))
    facts["evidence_window"] = asked.model_dump()
    names = rng.sample(sorted(facts), len(facts))
    stop = -(-anchor // GRID)
    video = VideoPointer(
        path=f"{folder}/mosaic.mp4",
        positions=tuple(range(stop - CONTEXT, stop)),
        frames_per_second=FPS / GRID,
    )
    audio = AudioPointer(path=f"{folder}/audio.wav", start_s=start / FPS, stop_s=anchor / FPS)
    inputs = Inputs(video=video, audio=audio, window=asked, main_task=None, sensors=None)
    question = f"Describe {', '.join(names)} {compact(asked.model_dump())}"
    return Lesson(inputs, question, compact({name: facts[name] for name in names}))


def caption_facts(world: SessionWorld, span: Span) -> dict[str, Any]:
    """Say what most frames of ``span`` show and sound like, and, as ``now``, what the last one shows."""
    facts = [world.facts_at(frame) for frame in range(span.start, span.stop)]
    tool, colour = Counter((fact.tool, fact.colour) for fact in facts).most_common(1)[0][0]
    return {
        "seen": f"{tool} {colour}",
        "colours": [name for name, _ in Counter(fact.colour for fact in facts).most_common()],
        "sound": "yes" if 2 * sum(fact.sound for fact in facts) >= len(facts) else "no",
        "change": "yes" if any(fact.change for fact in facts[1:]) else "no",
        "now": f"{facts[-1].tool} {facts[-1].colour}",
    }


def write_mosaic(world: SessionWorld, path: Path) -> None:
    """Write the proxy video that an index would make of the session's cameras."""
    import av

    from omni_mlflow.spine.mosaic import Encoder, Mosaic, TileScaler, mosaic_tiles

    tiles = mosaic_tiles(TILE)
    width, height = tiles[-1].x + TILE[0], tiles[-1].y + TILE[1]
    mosaic = Mosaic(width, height)
    scalers = {tile.camera: TileScaler(tile) for tile in tiles}
    with Encoder(path, width, height, Fraction(FPS, GRID)) as encoder:
        for frame in range(0, world.frames, GRID):
            for camera, image in world.render(frame).items():
                picture = av.VideoFrame.from_ndarray(image, format="rgb24")
                mosaic.paste(scalers[camera].fit(picture))
            encoder.write(mosaic)


def write_sound(world: SessionWorld, path: Path) -> None:
    """Write the session's sound as mono 16-bit WAV."""
    samples = np.clip(world.audio(AUDIO_RATE), -1.0, 1.0) * 32767
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(AUDIO_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
