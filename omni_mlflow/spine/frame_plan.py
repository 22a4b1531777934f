"""Which frames of a camera's file were taken, at which times, by which decoder; and the proof of it.

Frame i of a camera is the i-th picture that its file shows, whatever the clock of the container says. Two
readings that know nothing of each other must agree on it: the order of display that the packets announce,
read without decoding anything, and the order in which the decoder gives out pictures. Some pictures are then
decoded a second time, by frame threads and if possible after a seek, and must be the same in every pixel. A
file that fails is refused by name.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from pydantic import Field

from omni_mlflow.spine.mosaic import Picture
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import SCHEMA_VERSION, Row, Tile

_SAMPLED_FRAMES = 2
_DOWNLOAD_AGAIN = "the copy is incomplete or damaged, download it again"
_NO_VIDEO = "it cannot be decoded as video"


class UnreadableVideoError(Exception):
    """A video file cannot be decoded, or not to certain frames."""

    def __init__(self, path: Path, reason: str, what_to_do: str = _DOWNLOAD_AGAIN) -> None:
        super().__init__(path, reason, what_to_do)
        self.path = path
        self.reason = reason
        self.what_to_do = what_to_do

    @property
    def told(self) -> str:
        return f"{self.reason}; {self.what_to_do}"

    def __str__(self) -> str:
        return f"{self.path}: {self.told}"


class Decoder(Row):
    library: str
    codec: str
    threads: str


class SecondLook(Row):
    """Frames that were decoded twice: ``decoder`` found the same pixels as the pass over the whole file.

    Attributes:
        sha256: of the planes of each of ``frames``, as decoded.
    """

    frames: tuple[int, ...]
    sha256: tuple[str, ...]
    decoder: Decoder


class CameraFrames(Row):
    """What was taken from one camera's file.

    Attributes:
        time_base: seconds of one tick of ``pts``, as a fraction.
        num_frames: pictures that the file shows.
        hidden_frames: pictures that its edit list cuts away; they are not counted.
        frames: those that were taken, ascending; a file that is too short ends before the grid does.
        pts: time of each of them on the container's clock. It places nothing: frames are counted.
    """

    file: str
    decoder: Decoder
    time_base: str
    num_frames: int
    hidden_frames: int
    frames: tuple[int, ...]
    pts: tuple[int, ...]
    second_look: SecondLook


class FramePlan(Row):
    """What one episode's proxy video shows: its frame k is frame ``k * grid_stride`` of every camera.

    Attributes:
        pictures: where in its tile each camera's picture lies; empty in plans made before this was recorded.
    """

    schema_version: int = SCHEMA_VERSION
    grid_stride: int
    num_proxy_frames: int
    tiles: tuple[Tile, ...]
    pictures: dict[str, Picture] = Field(default_factory=dict)
    cameras: dict[str, CameraFrames]

    @property
    def digest(self) -> str:
        """Identity of the frames taken, their pixels sampled: the same by every decoder that agrees."""
        plan = self.model_dump(mode="json")
        for camera in plan["cameras"].values():
            del camera["decoder"], camera["second_look"]["decoder"]
        return digest_of(plan)


class DisplayOrder(NamedTuple):
    """What the packets of a file announce.

    Attributes:
        pts: time of each picture that is shown, ascending.
        keys: which of them a decoder can start from.
        hidden: how many pictures the edit list cuts away.
    """

    pts: tuple[int, ...]
    keys: tuple[int, ...]
    hidden: int


class CameraPass:
    """The frames ``grid`` of one camera's file, decoded in one pass up to the last of them."""

    def __init__(self, path: Path, grid: Sequence[int]) -> None:
        """Read the order of display.

        Raises:
            UnreadableVideoError: the file is no video, shows no frame, is cut short, or has no such order.
        """
        self.path = path
        self._order = display_order(path)
        self._frames = tuple(frame for frame in grid if frame < len(self._order.pts))
        self.num_repeated = len(grid) - len(self._frames)
        self._digests: dict[int, str] = {}

    def pictures(self) -> Generator[av.VideoFrame | None]:
        """Yield one picture for each frame of the grid; None stands for each one after the file's end.

        Raises:
            UnreadableVideoError: a picture is damaged, or is not the one that the packets announce.
        """
        sample = self._sample()
        wanted = iter(self._frames)
        target = next(wanted)
        with opened(self.path) as container:
            stream = video_of(self.path, container)
            for frame, picture in enumerate(container.decode(stream)):
                self._check(frame, picture)
                if frame == target:
                    if frame in sample:
                        self._digests[frame] = _pixels(picture)
                    yield picture
                    if (target := next(wanted, -1)) < 0:
                        break
        if target >= 0:
            raise UnreadableVideoError(
                self.path, f"frame {target} does not decode, and its packets announce {len(self._order.pts)}"
            )
        yield from repeat(None, self.num_repeated)

    def record(self) -> CameraFrames:
        """Decode the sampled frames again by another way, and return what was taken.

        Raises:
            UnreadableVideoError: the two ways do not give the same pixels.
        """
        with opened(self.path) as container:
            stream = video_of(self.path, container)
            codec, time_base = stream.codec_context.name, str(stream.time_base)
        # A seek is the cheap way; where it leads to no whole picture, the start of the file does.
        if not (self._same_pixels(self._key_before(min(self._digests))) or self._same_pixels(None)):
            raise UnreadableVideoError(
                self.path, f"frames {sorted(self._digests)} are others when they are decoded again"
            )
        return CameraFrames(
            file=self.path.name,
            decoder=_decoder(codec, "1"),
            time_base=time_base,
            num_frames=len(self._order.pts),
            hidden_frames=self._order.hidden,
            frames=self._frames,
            pts=tuple(self._order.pts[frame] for frame in self._frames),
            second_look=SecondLook(
                frames=tuple(self._digests),
                sha256=tuple(self._digests.values()),
                decoder=_decoder(codec, "2, a frame each"),
            ),
        )

    def _sample(self) -> tuple[int, ...]:
        """The first frames of the grid from the key frame before its middle: cheap to reach by a seek."""
        key = self._key_before(self._frames[len(self._frames) // 2])
        first = next(place for place, frame in enumerate(self._frames) if frame >= (key or 0))
        return self._frames[first : first + _SAMPLED_FRAMES]

    def _key_before(self, frame: int) -> int | None:
        """None when the picture to start from is one that the edit list hides."""
        place = bisect_right(self._order.keys, frame)
        return self._order.keys[place - 1] if place else None

    def _check(self, frame: int, picture: av.VideoFrame) -> None:
        if picture.is_corrupt:
            raise UnreadableVideoError(self.path, f"frame {frame} is damaged")
        announced = self._order.pts[frame] if frame < len(self._order.pts) else None
        if picture.pts != announced:
            raise UnreadableVideoError(
                self.path, f"picture {frame} decodes at tick {picture.pts}, its packets announce {announced}"
            )

    def _same_pixels(self, start: int | None) -> bool:
        """Decode the sampled frames with a thread for each, from frame ``start`` or from the file's start."""
        pending = {self._order.pts[frame]: digest for frame, digest in self._digests.items()}
        with opened(self.path) as container:
            stream = video_of(self.path, container)
            stream.thread_type = "FRAME"
            stream.codec_context.thread_count = 2
            if start is not None:
                container.seek(self._order.pts[start], stream=stream)
            for picture in container.decode(stream):
                digest = pending.pop(picture.pts, None) if picture.pts is not None else None
                if digest is not None and _pixels(picture) != digest:
                    return False
                if not pending:
                    return True
        return False


def display_order(path: Path) -> DisplayOrder:
    """Read the order of display from the packets of a file; nothing is decoded.

    Raises:
        UnreadableVideoError: the file is no video, shows no frame, is cut short, or its packets carry no
            certain order.
    """
    with opened(path) as container:
        stream = video_of(path, container)
        check_length(path, stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        if any(packet.is_corrupt for packet in packets):
            raise UnreadableVideoError(path, "its last packet is cut short")
        shown = [packet for packet in packets if not packet.is_discard]
        times = [packet.pts for packet in shown if packet.pts is not None]
        if len(set(times)) < len(shown):
            raise UnreadableVideoError(path, "some pictures have no time of their own to be shown at")
        if not times:
            raise UnreadableVideoError(path, "it holds no frame")
        pts = tuple(sorted(times))
        place = {tick: frame for frame, tick in enumerate(pts)}
        keys = sorted(place[packet.pts] for packet in shown if packet.is_keyframe and packet.pts is not None)
        return DisplayOrder(pts, tuple(keys), len(packets) - len(shown))


def check_length(path: Path, stream: Any) -> None:
    """Check that a file is as long as its own table of frames says.

    Raises:
        UnreadableVideoError: it was cut short.
    """
    wanted = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if wanted > (size := path.stat().st_size):
        raise UnreadableVideoError(path, f"it ends at byte {size} of {wanted}")


@contextmanager
def opened(path: Path, *, failure: str = _NO_VIDEO) -> Iterator[InputContainer]:
    """Open a media file; a name in its metadata that is not UTF-8 is no damage.

    Args:
        failure: what the decoder's error means.

    Raises:
        UnreadableVideoError: what opening or decoding it raised.
    """
    with naming(path, failure=failure), av.open(str(path), metadata_errors="replace") as container:
        yield container


def video_of(path: Path, container: InputContainer) -> Any:
    """Return the video stream of an open file, to be decoded by one thread.

    Raises:
        UnreadableVideoError: it has none, or FFmpeg does not know its codec.
    """
    if not container.streams.video:
        raise UnreadableVideoError(path, "it holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise UnreadableVideoError(path, "FFmpeg does not know the codec of its video")
    stream.codec_context.thread_count = 1
    return stream


@contextmanager
def naming(path: Path, *, failure: str = _NO_VIDEO) -> Iterator[None]:
    """Name the file in every error of the decoder."""
    try:
        yield
    except av.FFmpegError as error:
        raise UnreadableVideoError(path, f"{failure}: {error.strerror}") from error


def _pixels(picture: av.VideoFrame) -> str:
    """SHA-256 of the planes of a picture of any pixel format, without the padding of their lines."""
    digest = hashlib.sha256()
    for number, plane in enumerate(picture.planes):
        inside = [part for part in picture.format.components if part.plane == number]
        width = sum(part.width * -(-part.bits // 8) for part in inside) or plane.line_size
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        digest.update(np.ascontiguousarray(lines[: plane.height, :width]).data)
    return digest.hexdigest()


def _decoder(codec: str, threads: str) -> Decoder:
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    return Decoder(library=f"PyAV {av.__version__}, libavcodec {version}", codec=codec, threads=threads)
