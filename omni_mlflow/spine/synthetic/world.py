"""A small world that a tiny model can learn: what a session's cameras see and its microphone hears.

Every cue shows in a single frame and covers an area that survives two H.264 passes and scaling to a
32 x 32 tile: the colour of the block is the noun of the action, the tool along the right edge is its
verb. Contact is heard and never seen: a tone. So exchanging the video must cost the action and leave
the contact, and exchanging the audio the reverse. Sessions differ in all the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.synthetic.procedure import Segment, draw_segments
from omni_mlflow.spine.synthetic.vocabulary import COMMON_COLOURS, PLACES, TASKS, Action
from omni_mlflow.spine.types import CAMERAS

FPS = 20
FRAME_SIZES = {camera: (64, 64) if camera.startswith("stereo") else (80, 64) for camera in CAMERAS}
"""Height and width in pixels. Fisheye images are portrait, as the real 1312 x 1080."""

WARM_UP_SEEDS = range(1_000_000, 2_000_000)
"""Sessions that a base model may be warmed up on; episode sets never use these seeds."""

DARK_NOISE = 12  # grey levels of a covered lens
BAR_PIXELS = 16  # the tool; 6 pixels of a 32 x 32 tile
HALF_BLOCK_PIXELS = (12, 17)  # half the side of the block; its side is 9-17 pixels of a tile
JITTER_PIXELS = 16  # the sensor noise is one larger picture, seen through a window that jumps


@dataclass(frozen=True)
class View:
    """Where the block is in one camera: centre and half its side, in pixels."""

    x: int
    y: int
    half: int


@dataclass(frozen=True)
class Appearance:
    """What a session looks and sounds like, whatever happens in it.

    Attributes:
        background: RGB; its brightness lies between that of the dark and the bright tool.
        tints: RGB added to the block of each colour; no entry, no tint.
        tool_tint: RGB added to every tool.
        noise: standard deviation of the sensor noise, in grey levels.
        views: where the block is, by camera; a camera without an entry is dead: dark, with noise.
        sway_pixels, sway_frames: amplitude and period of the block's sideways motion.
        tone_hz, tone_level: the sound of contact; the level is an amplitude, full scale is 1.
        hum_level: standard deviation of the background noise of the microphone.
    """

    background: tuple[int, int, int]
    tints: dict[str, tuple[int, int, int]]
    tool_tint: tuple[int, int, int]
    noise: float
    views: dict[str, View]
    sway_pixels: int
    sway_frames: int
    tone_hz: float
    tone_level: float
    hum_level: float


@dataclass(frozen=True)
class Facts:
    """What can be seen and heard at one frame, without a word of any action.

    Attributes:
        colour: of the block.
        tool: how the tool looks.
        sound: the tone is heard.
        change: block or tool differ from the frame before.
    """

    colour: str
    tool: str
    sound: bool
    change: bool


@dataclass(frozen=True)
class SessionWorld:
    """One session of ``frames`` annotated frames; its media hold one frame more."""

    seed: int
    frames: int
    main_task: str
    segments: tuple[Segment, ...]
    appearance: Appearance

    @property
    def dead_cameras(self) -> tuple[str, ...]:
        return tuple(camera for camera in CAMERAS if camera not in self.appearance.views)

    def segment_at(self, frame: int) -> Segment:
        return self.segments[bisect_right(self._starts, frame) - 1]

    def action_at(self, frame: int) -> str:
        return self.segment_at(frame).action.label

    def subtask_at(self, frame: int) -> str:
        return self.segment_at(frame).action.subtask

    def objects_at(self, frame: int) -> tuple[str, ...]:
        return (self.segment_at(frame).action.object_name,)

    def in_contact_at(self, frame: int) -> bool:
        return self.segment_at(frame).in_contact

    def facts_at(self, frame: int) -> Facts:
        segment = self.segment_at(frame)
        return Facts(
            colour=segment.action.colour,
            tool=segment.action.tool,
            sound=segment.in_contact,
            change=frame == segment.start and frame > 0,
        )

    def contacts(self) -> NDArray[np.bool_]:
        """Hand contact at every media frame, shape (frames + 1,)."""
        lengths = [segment.stop - segment.start for segment in self.segments]
        return np.repeat([segment.in_contact for segment in self.segments], lengths)

    def render(self, frame: int) -> dict[str, NDArray[np.uint8]]:
        """Return what each camera sees, RGB, shape ``FRAME_SIZES[camera]`` + (3,)."""
        return {camera: self.clip(camera, frame, frame + 1)[0] for camera in CAMERAS}

    def clip(self, camera: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Return what one camera sees in frames [start, stop), RGB, shape (frames, height, width, 3)."""
        height, width = FRAME_SIZES[camera]
        images = np.zeros((stop - start, height, width, 3), np.uint8)
        if camera not in self.appearance.views:
            # A covered lens is dark, but no sensor is silent: two recordings never share a file.
            for image, frame in zip(images, range(start, stop)):
                noise = np.random.default_rng([self.seed, 4, CAMERAS.index(camera), frame])
                image[:] = noise.integers(0, DARK_NOISE, image.shape, np.uint8)
            return images
        backdrop = self._backdrops[camera]
        for image, frame in zip(images, range(start, stop)):
            block, bar = self._colours[self.segment_at(frame).action]
            top, left = self._jitter[frame]
            image[:] = backdrop[top : top + height, left : left + width]
            image[self.block_at(camera, frame)] = block
            image[:, width - BAR_PIXELS :] = bar
        return images

    def block_at(self, camera: str, frame: int) -> tuple[slice, slice]:
        """Return the rows and columns that the block covers in a camera which is not dead."""
        view = self.appearance.views[camera]
        x = view.x + int(self._sway[frame])
        return slice(view.y - view.half, view.y + view.half), slice(x - view.half, x + view.half)

    def audio(self, sample_rate: int) -> NDArray[np.float32]:
        """Return the microphone's signal over all ``frames + 1`` frames, full scale 1, shape (samples,)."""
        look = self.appearance
        samples = np.arange(round((self.frames + 1) * sample_rate / FPS))
        heard = self.contacts()[np.minimum(samples * FPS // sample_rate, self.frames)]
        tone = look.tone_level * np.sin(2 * np.pi * look.tone_hz * samples / sample_rate)
        hum = np.random.default_rng([self.seed, 3]).normal(0, look.hum_level, len(samples))
        return (tone * heard + hum).astype(np.float32)

    @cached_property
    def _starts(self) -> list[int]:
        return [segment.start for segment in self.segments]

    @cached_property
    def _colours(self) -> dict[Action, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """RGB of block and tool of every action of the session, tints included."""
        look = self.appearance
        actions = {segment.action for segment in self.segments}
        return {
            action: (
                _tinted(action.block, look.tints.get(action.colour)),
                _tinted(action.bar, look.tool_tint),
            )
            for action in actions
        }

    @cached_property
    def _backdrops(self) -> dict[str, NDArray[np.uint8]]:
        look = self.appearance
        rng = np.random.default_rng([self.seed, 1])
        sizes = {camera: np.add(size, JITTER_PIXELS) for camera, size in FRAME_SIZES.items()}
        return {
            camera: np.clip(rng.normal(look.background, look.noise, (*size, 3)), 0, 255).astype(np.uint8)
            for camera, size in sizes.items()
        }

    @cached_property
    def _jitter(self) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, 2])
        offsets: NDArray[np.int64] = rng.integers(0, JITTER_PIXELS, (self.frames + 1, 2))
        return offsets

    @cached_property
    def _sway(self) -> NDArray[np.int64]:
        look = self.appearance
        turns = np.arange(self.frames + 1, dtype=np.float64) / look.sway_frames
        return np.asarray(np.rint(look.sway_pixels * np.sin(2 * np.pi * turns)), np.int64)


def make_session(seed: int, *, frames: int, stickiness: float = 0.0) -> SessionWorld:
    """Draw a session of ``frames`` annotated frames: same arguments, same session.

    Seeds from ``WARM_UP_SEEDS`` are for warming up a base model, all smaller ones for episodes: a base
    that had seen the sessions it is later tested on would prove nothing.
    """
    rng = np.random.default_rng([seed, 0])
    main_task = f"{rng.choice(TASKS)} blocks at the {rng.choice(PLACES)}"
    appearance = draw_appearance(rng)
    return SessionWorld(
        seed=seed,
        frames=frames,
        main_task=main_task,
        segments=draw_segments(rng, frames=frames, stickiness=stickiness),
        appearance=appearance,
    )


def draw_appearance(rng: np.random.Generator) -> Appearance:
    sway_pixels = int(rng.integers(1, 4))
    dead = rng.choice(CAMERAS, int(rng.integers(0, 2)), replace=False)
    views = {camera: _draw_view(rng, camera, sway_pixels) for camera in CAMERAS}
    return Appearance(
        background=_draw_rgb(rng.uniform(60, 120, 3)),
        tints={colour: _draw_rgb(np.clip(rng.normal(0, 18, 3), -30, 30)) for colour in COMMON_COLOURS},
        tool_tint=_draw_rgb(np.clip(rng.normal(0, 6, 3), -12, 12)),
        noise=float(rng.uniform(6, 14)),
        views={camera: view for camera, view in views.items() if camera not in dead},
        sway_pixels=sway_pixels,
        sway_frames=int(rng.integers(24, 60)),
        tone_hz=float(rng.uniform(600, 1100)),
        tone_level=float(rng.uniform(0.25, 0.35)),
        hum_level=float(rng.uniform(0.004, 0.02)),
    )


def _draw_view(rng: np.random.Generator, camera: str, sway_pixels: int) -> View:
    """Place the block where it stays inside the image and beside the tool, sway included."""
    height, width = FRAME_SIZES[camera]
    half = int(rng.integers(*HALF_BLOCK_PIXELS))
    reach = half + sway_pixels
    x = int(rng.integers(reach, width - BAR_PIXELS - reach + 1))
    return View(x=x, y=int(rng.integers(half, height - half + 1)), half=half)


def _draw_rgb(values: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.rint(values))
    return red, green, blue


def _tinted(colour: tuple[int, int, int], tint: tuple[int, int, int] | None) -> NDArray[np.uint8]:
    return np.clip(np.add(colour, tint or 0), 0, 255).astype(np.uint8)
