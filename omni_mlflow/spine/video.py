"""Proxy video: one small mosaic per episode, decoded from the cameras once and read many times.

A camera's frame i is the i-th frame that its file decodes to, in display order: never a time, because
the containers' clocks differ from the device's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

from omni_mlflow.spine.frame_plan import (
    CameraPass,
    FramePlan,
    UnreadableVideoError,
    check_length,
    display_order,
    naming,
    opened,
    video_of,
)
from omni_mlflow.spine.mosaic import (
    FRAMES_PER_GROUP,
    Encoder,
    Fitted,
    Image,
    Mosaic,
    Picture,
    TileScaler,
    mosaic_tiles,
)
from omni_mlflow.spine.rows import appearing_at_once
from omni_mlflow.spine.types import Tile

__all__ = [
    "ProxyReader",
    "UnreadableVideoError",
    "container_fps",
    "count_frames",
    "probe_video",
    "read_frames",
    "write_proxy",
]

NOMINAL_FPS = 20
_FRAMES_PER_TURN = 32
"""Cameras take turns of so many proxy frames: six decoders in step push each other out of the CPU's cache."""


@dataclass(frozen=True)
class Proxy:
    """What was written.

    Attributes:
        plan: what each of its frames shows, and where each camera lies in it.
        repeated_frames: for each camera whose file is too short, how many proxy frames repeat its last one.
    """

    plan: FramePlan
    repeated_frames: dict[str, int]

    def ended_before(self, stop: int) -> dict[str, int]:
        """The cameras whose files hold fewer than ``stop`` pictures, and how many they hold."""
        held = {camera: each.num_frames for camera, each in self.plan.cameras.items()}
        return {camera: count for camera, count in held.items() if count < stop}


def write_proxy(streams: Mapping[str, Path], out: Path, *, frame_grid: range, tile: tuple[int, int]) -> Proxy:
    """Write the mosaic of all cameras at the source frames ``frame_grid`` as one H.264 MP4.

    Each camera is decoded once, up to the last frame of the grid, in turns of a few frames, so memory does
    not grow with the episode. Same inputs, same bytes.

    Args:
        streams: the file of each camera that there is; a camera that is not named stays black.
        frame_grid: source frames from 0 on; proxy frame k shows ``frame_grid[k]``.
        tile: width and height of one camera's tile in pixels, both even.

    Raises:
        ValueError: a tile has an odd number of pixels.
        UnreadableVideoError: a file cannot be decoded, holds no frame, or not certainly these ones.
    """
    tiles = mosaic_tiles(tile)
    height, width = tiles[-1].y + tile[1], tiles[-1].x + tile[0]
    mosaic = Mosaic(width, height)
    passes = {
        place: CameraPass(streams[place.camera], frame_grid) for place in tiles if place.camera in streams
    }
    pictures: dict[str, Picture] = {}
    with ExitStack() as stack:
        cameras = {
            place.camera: stack.enter_context(closing(_fitted(each, place))) for place, each in passes.items()
        }
        temporary = stack.enter_context(appearing_at_once(out))
        encoder = stack.enter_context(
            Encoder(temporary, width, height, Fraction(NOMINAL_FPS, frame_grid.step))
        )
        for fitted in _in_turns(cameras, len(frame_grid)):
            for camera, picture in fitted.items():
                mosaic.paste(picture)
                pictures.setdefault(camera, picture.place)
            encoder.write(mosaic)
        records = {place.camera: each.record() for place, each in passes.items()}
    return Proxy(
        FramePlan(
            grid_stride=frame_grid.step,
            num_proxy_frames=len(frame_grid),
            tiles=tiles,
            pictures=pictures,
            cameras=records,
        ),
        {place.camera: each.num_repeated for place, each in passes.items() if each.num_repeated},
    )


def _in_turns(cameras: Mapping[str, Iterator[Fitted]], num_frames: int) -> Iterator[dict[str, Fitted]]:
    """Yield all cameras' pictures of one frame after the other; each camera decodes some frames ahead."""
    for first in range(0, num_frames, _FRAMES_PER_TURN):
        turn = min(_FRAMES_PER_TURN, num_frames - first)
        taken = {camera: tuple(islice(pictures, turn)) for camera, pictures in cameras.items()}
        for number in range(turn):
            yield {camera: pictures[number] for camera, pictures in taken.items()}


def _fitted(camera: CameraPass, place: Tile) -> Generator[Fitted]:
    """Yield the camera's picture at each frame of the grid, scaled to its tile; the last one is repeated."""
    scaler = TileScaler(place)
    with closing(camera.pictures()) as pictures:
        for picture in pictures:
            if picture is not None:
                with naming(camera.path):
                    fitted = scaler.fit(picture)
            yield fitted


def probe_video(path: Path) -> int:
    """Decode the first frame, and see that the file is an MP4 as long as its own table of frames says.

    Returns:
        How many pictures that table shows; of a file in fragments it may hold the first ones only.

    Raises:
        UnreadableVideoError: that is not so. Damage inside the file is only found by decoding all of it.
    """
    with opened(path) as container:
        if "mp4" not in container.format.name.split(","):
            found = container.format.name.partition(",")[0]
            raise UnreadableVideoError(path, f"it is no MP4 but {found}", "download it as it was published")
        stream = video_of(path, container)
        if next(container.decode(stream), None) is None:
            raise UnreadableVideoError(path, "it holds no frame")
        check_length(path, stream)
        return sum(not entry.is_discard for entry in stream.index_entries)


def count_frames(path: Path) -> int:
    """Return how many pictures a video file shows: it is read to its end, but nothing is decoded.

    Raises:
        UnreadableVideoError: the file cannot be opened as a video, or is cut short.
    """
    return len(display_order(path).pts)


def container_fps(path: Path) -> float | None:
    """Return the average rate that a video file claims, in frames per second; None when it claims none.

    Raises:
        UnreadableVideoError: the file cannot be opened as a video.
    """
    with opened(path) as container:
        rate = container.streams.video[0].average_rate if container.streams.video else None
        return float(rate) if rate else None


def read_frames(proxy: Path, positions: Sequence[int]) -> Image:
    """Return the proxy frames at ``positions``, in that order: RGB, shape (positions, height, width, 3)."""
    with ProxyReader(proxy) as reader:
        return reader.frames(positions)


class ProxyReader:
    """Reads frames of one proxy by position. What was decoded is kept, up to ``cache_bytes``.

    Training reads many overlapping windows of one episode; a small proxy is decoded once.

    Attributes:
        num_frames: how many there are.
        num_decoded_frames: how many were decoded so far.
    """

    def __init__(self, path: Path, *, cache_bytes: int = 256 * 2**20) -> None:
        """Open ``path``.

        Raises:
            UnreadableVideoError: it cannot be opened as a video.
        """
        self.path = path
        self.num_decoded_frames = 0
        self._cache_bytes = cache_bytes
        self._groups: OrderedDict[int, list[Image]] = OrderedDict()
        with naming(path):
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.thread_count = 1
            self.num_frames: int = self._stream.frames
            self._ticks = 1 / (self._stream.average_rate * self._stream.time_base)

    def frames(self, positions: Sequence[int]) -> Image:
        """Return frames as RGB, shape (positions, height, width, 3).

        Raises:
            IndexError: a position is not in the proxy.
            UnreadableVideoError: the file is damaged.
        """
        if outside := [place for place in positions if not 0 <= place < self.num_frames]:
            raise IndexError(f"{self.path} has frames 0..{self.num_frames - 1}, not {outside}")
        if not positions:
            return np.zeros((0, self._stream.height, self._stream.width, 3), dtype=np.uint8)
        return np.stack(
            [self._group(place // FRAMES_PER_GROUP)[place % FRAMES_PER_GROUP] for place in positions]
        )

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _group(self, number: int) -> list[Image]:
        if number in self._groups:
            self._groups.move_to_end(number)
            return self._groups[number]
        group = self._decode(number * FRAMES_PER_GROUP)
        self.num_decoded_frames += len(group)
        self._groups[number] = group
        held = max(1, self._cache_bytes // (FRAMES_PER_GROUP * group[0].nbytes))
        while len(self._groups) > held:
            self._groups.popitem(last=False)
        return group

    def _decode(self, first: int) -> list[Image]:
        """Decode one group of frames, from its key frame at position ``first``."""
        stop = min(first + FRAMES_PER_GROUP, self.num_frames)
        group: list[Image] = []
        with naming(self.path):
            self._container.seek(round(first * self._ticks), stream=self._stream)
            for frame in self._container.decode(self._stream):
                if round(frame.pts / self._ticks) == first + len(group):
                    group.append(frame.to_ndarray(format="rgb24"))
                if first + len(group) == stop:
                    return group
        raise UnreadableVideoError(self.path, f"frames {first + len(group)}..{stop - 1} cannot be decoded")
