"""A few small grey pictures of a video, without decoding all of it.

Key frames all over the video are cheap, but an encoder puts them where it likes. So some bursts of
consecutive frames are read too: a burst shows the moments at which another encoder put its key frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from omni_mlflow.spine.frame_plan import opened, video_of

KEY_FRAME_EVERY_S = 4.0
BURST_S, BURST_EVERY_S, MAX_BURSTS = 3.0, 10.0, 8
PICTURE_EVERY_S = 0.25  # within a burst
PICTURE_PIXELS = 32


@dataclass(frozen=True)
class SparseFrames:
    """Some frames of a video.

    Attributes:
        seconds: when each is shown, after the first frame of the video, ascending.
        pictures: grey, 0..255, shape (frames, 32, 32).
        length_s: of the whole video.
    """

    seconds: NDArray[np.float64]
    pictures: NDArray[np.float32]
    length_s: float


def read_sparse_frames(mp4: Path) -> SparseFrames:
    """Decode a key frame every 4 seconds and 1 to 8 bursts of 3 seconds: a tenth of a video of 5 minutes.

    Raises:
        UnreadableVideoError: it cannot be decoded.
    """
    scaler = VideoReformatter()
    seen: dict[int, NDArray[np.float32]] = {}
    with opened(mp4) as container:
        video_of(mp4, container)
        length_s = float((container.duration or 0) / av.time_base)
        for milliseconds, frame in _key_frames_and_bursts(container, length_s):
            if milliseconds not in seen:
                seen[milliseconds] = _small(frame, scaler)
    times = sorted(seen)
    pictures = np.zeros((len(times), PICTURE_PIXELS, PICTURE_PIXELS), np.float32)
    for picture, time in zip(pictures, times, strict=True):
        picture[:] = seen[time]
    return SparseFrames(np.array(times, np.float64) / 1000, pictures, length_s)


def _key_frames_and_bursts(container: Any, length_s: float) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield frames with their time in milliseconds after the first frame; some twice."""
    for second in np.arange(0, max(length_s, 0.001), KEY_FRAME_EVERY_S):
        yield from _key_frame(container, float(second))
    bursts = int(np.clip(length_s // BURST_EVERY_S, 1, MAX_BURSTS))
    for number in range(bursts):
        yield from _burst(container, max(0.0, length_s * (number + 0.5) / bursts - BURST_S / 2))


def _key_frame(container: Any, second: float) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode the key frame at or before ``second`` alone: nothing that follows is needed for it."""
    stream = container.streams.video[0]
    _seek(container, second)
    packet = next(container.demux(stream), None)
    if packet is not None and packet.size:
        for frame in (*stream.codec_context.decode(packet), *stream.codec_context.decode(None)):
            yield _milliseconds(stream, frame), frame


def _burst(container: Any, second: float) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode 3 seconds from the key frame at or before ``second``; yield a frame every quarter of one."""
    stream = container.streams.video[0]
    _seek(container, second)
    stop = due = None
    for frame in container.decode(stream):
        shown = _milliseconds(stream, frame)
        stop = shown + 1000 * BURST_S if stop is None else stop
        if due is None or shown >= due:
            yield shown, frame
            due = shown + 1000 * PICTURE_EVERY_S - 1
        if shown >= stop:
            return


def _seek(container: Any, second: float) -> None:
    stream = container.streams.video[0]
    container.seek(round(second / float(stream.time_base)) + (stream.start_time or 0), stream=stream)


def _milliseconds(stream: Any, frame: av.VideoFrame) -> int:
    return round(1000 * float(stream.time_base) * ((frame.pts or 0) - (stream.start_time or 0)))


def _small(frame: av.VideoFrame, scaler: VideoReformatter) -> NDArray[np.float32]:
    small = scaler.reformat(frame, PICTURE_PIXELS, PICTURE_PIXELS, "gray", interpolation=Interpolation.AREA)
    picture: NDArray[np.float32] = small.to_ndarray().astype(np.float32)
    return picture
