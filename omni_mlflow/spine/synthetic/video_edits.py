"""Videos that are absent, too short, late, silent or exchanged, and videos coded a second time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.synthetic.videos import CLIP_FRAMES, SOUND_CAMERA, SOUND_RATE, X264, encode_video
from omni_mlflow.spine.synthetic.world import FPS
from omni_mlflow.spine.types import CAMERAS

COARSER = {**X264, "crf": "33"}
SHORT_BY_FRAMES = 5


def without_videos(*cameras: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for camera in cameras:
            (folder / f"{camera}.mp4").unlink()

    return edit


def short_video(folder: Path) -> None:
    video = folder / "fisheye_cam3.mp4"
    pictures = _num_pictures(video)
    _copy_packets(video, lambda packet: _picture(packet) < pictures - 1 - SHORT_BY_FRAMES)


def exact_video(folder: Path) -> None:
    video = folder / "stereo_left.mp4"
    pictures = _num_pictures(video)
    _copy_packets(video, lambda packet: _picture(packet) < pictures - 1)


def silent(folder: Path) -> None:
    _copy_packets(folder / f"{SOUND_CAMERA}.mp4", lambda packet: packet.stream.type == "video")


def put_index_first(video: Path) -> None:
    _copy_packets(video, lambda _: True, {"movflags": "faststart"})


def swapped_fisheyes(folder: Path) -> None:
    first, second, aside = (folder / name for name in ("fisheye_cam0.mp4", "fisheye_cam2.mp4", "aside"))
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def delay_pictures(folder: Path, *, after: Sequence[int]) -> None:
    """Show every picture later by one frame period for each number in ``after`` that is below its own."""

    def delay(packet: Any) -> bool:
        if packet.stream.type == "video":
            periods = int(np.searchsorted(after, _picture(packet)))
            packet.pts = packet.dts = packet.pts + round(periods / (FPS * packet.time_base))
        return True

    for camera in CAMERAS:
        _copy_packets(folder / f"{camera}.mp4", delay)


def recode_videos(folder: Path, *, first: int, stop: int, mirrored: bool = False) -> None:
    """Code pictures ``[first, stop)`` of every video again, and their sound, at a lower quality.

    Pictures and sound before the first or after the last are that one, held; ``first`` may be negative.
    """
    for camera in CAMERAS:
        path = folder / f"{camera}.mp4"
        images, sound = _decoded(path)
        shown = images[np.clip(np.arange(first, stop), 0, len(images) - 1)]
        if mirrored:
            shown = shown[:, :, ::-1]
        if sound is not None:
            samples = np.arange(first * SOUND_RATE // FPS, stop * SOUND_RATE // FPS)
            sound = sound[np.clip(samples, 0, len(sound) - 1)]
        clips = np.split(shown, range(CLIP_FRAMES, len(shown), CLIP_FRAMES))
        encode_video(path, clips, size=shown.shape[1:3], sound=sound, options=COARSER)


def _decoded(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return all pictures, RGB, shape (pictures, height, width, 3), and the sound, shape (samples,)."""
    import av

    with av.open(str(path)) as container:
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        container.seek(0)
        sound = (
            [frame.to_ndarray()[0] for frame in container.decode(audio=0)] if container.streams.audio else []
        )
    return images, np.concatenate(sound) if sound else None


def _copy_packets(path: Path, keep: Callable[[Any], bool], options: Mapping[str, str] | None = None) -> None:
    """Write an MP4 anew, uncoded, from the packets that ``keep`` approves; it may move them in time."""
    import av

    copy = path.with_suffix(".copy")
    with (
        av.open(str(path)) as source,
        av.open(str(copy), "w", format="mp4", options=dict(options or {})) as target,
    ):
        packets = [packet for packet in source.demux() if packet.dts is not None and keep(packet)]
        streams = {
            stream: target.add_stream_from_template(stream)
            for stream in source.streams
            if any(packet.stream == stream for packet in packets)
        }
        for packet in packets:
            packet.stream = streams[packet.stream]
            target.mux(packet)
    copy.replace(path)


def _picture(packet: Any) -> int:
    """Number of a video packet's picture: the encoder writes them in order. Sound comes before all."""
    return round(packet.pts * packet.time_base * FPS) if packet.stream.type == "video" else -1


def _num_pictures(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return int(container.streams.video[0].frames)
