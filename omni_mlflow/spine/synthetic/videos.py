"""Write the six MP4 files of a synthetic episode: H.264, 20 fps, one frame more than the annotation has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.synthetic.world import FPS, FRAME_SIZES, SessionWorld
from omni_mlflow.spine.types import CAMERAS

SOUND_CAMERA = "fisheye_cam0"
SOUND_RATE = 44_100
GOP_FRAMES = 30
CLIP_FRAMES = 60  # rendered at once, and the distance at which sound and pictures alternate in the file
X264 = {"preset": "ultrafast", "crf": "26", "threads": "1"}  # threads would change the bytes


def write_videos(folder: Path, world: SessionWorld) -> None:
    """Write ``<camera>.mp4`` for every camera; cam0 carries the sound as AAC, mono, 44.1 kHz."""
    for camera in CAMERAS:
        sound = world.audio(SOUND_RATE) if camera == SOUND_CAMERA else None
        write_video(folder / f"{camera}.mp4", world, camera, sound=sound)


def write_video(path: Path, world: SessionWorld, camera: str, *, sound: NDArray[np.float32] | None) -> None:
    """Write one camera's MP4.

    Args:
        sound: mono samples at ``SOUND_RATE`` over the whole clip, full scale 1; None for no audio track.
    """
    starts = range(0, world.frames + 1, CLIP_FRAMES)
    clips = (world.clip(camera, start, min(start + CLIP_FRAMES, world.frames + 1)) for start in starts)
    encode_video(path, clips, size=FRAME_SIZES[camera], sound=sound, options=X264)


def encode_video(
    path: Path,
    clips: Iterable[NDArray[np.uint8]],
    *,
    size: tuple[int, int],
    sound: NDArray[np.float32] | None,
    options: Mapping[str, str],
) -> None:
    """Write an MP4; the sound of each clip follows its pictures in the file.

    Args:
        clips: RGB, shape (frames, height, width, 3) each.
        size: height and width in pixels.
        sound: as for :func:`write_video`.
        options: of the encoder x264.
    """
    import av

    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options=dict(options))
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        video.gop_size = GOP_FRAMES
        audio: Any = None if sound is None else container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        start = 0
        for clip in clips:
            for image in clip:
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            if sound is not None:
                container.mux(audio.encode(_audio_frame(sound, start, start + len(clip))))
            start += len(clip)
        for stream in container.streams:
            container.mux(stream.encode(None))


def _audio_frame(sound: NDArray[np.float32], start: int, stop: int) -> Any:
    """Return the sound of video frames [start, stop)."""
    import av

    first, last = (frame * SOUND_RATE // FPS for frame in (start, stop))
    frame = av.AudioFrame.from_ndarray(sound[None, first:last], format="fltp", layout="mono")
    frame.sample_rate = SOUND_RATE
    frame.pts = first
    return frame
