"""Proxy audio: one mono 16-bit WAV per episode that starts at frame 0 of the video."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.frame_plan import UnreadableVideoError, opened
from omni_mlflow.spine.rows import appearing_at_once

_SAMPLE_BYTES = 2
_FULL_SCALE = 32768.0


def extract_audio(mp4: Path, out: Path, *, sample_rate: int = 16_000) -> bool:
    """Write the audio track of ``mp4`` as mono 16-bit WAV; its first sample sounds at frame 0.

    Returns:
        False, and no file, when there is no audio track or nothing in it.

    Raises:
        UnreadableVideoError: the file or its audio track cannot be decoded.
    """
    with opened(mp4, failure="its audio cannot be decoded") as container:
        if not container.streams.audio:
            return False
        if container.streams.audio[0].codec_context is None:
            raise UnreadableVideoError(mp4, "FFmpeg does not know the codec of its audio")
        with appearing_at_once(out) as temporary:
            num_samples = _write_wav(temporary, _pieces(container, sample_rate), sample_rate)
    if num_samples == 0:
        out.unlink()
    return num_samples > 0


def audio_seconds(mp4: Path) -> float:
    """Return how long the audio track of ``mp4`` says it is; 0 when there is none.

    Raises:
        UnreadableVideoError: the file cannot be opened.
    """
    with opened(mp4) as container:
        track = next(iter(container.streams.audio), None)
        return 0.0 if track is None else float((track.duration or 0) * (track.time_base or 0))


def read_audio(wav: Path, *, start_s: float, stop_s: float) -> NDArray[np.float32]:
    """Return the samples of ``[start_s, stop_s)`` seconds, in -1..1; silence where the file has none."""
    with wave.open(str(wav), "rb") as file:
        rate, length = file.getframerate(), file.getnframes()
        start, stop = round(start_s * rate), round(stop_s * rate)
        samples = np.zeros(max(0, stop - start), dtype=np.float32)
        first, last = min(max(start, 0), length), min(max(stop, 0), length)
        if first < last:
            file.setpos(first)
            heard = np.frombuffer(file.readframes(last - first), dtype="<i2")
            samples[first - start : last - start] = heard / _FULL_SCALE
    return samples


def _pieces(container: av.container.InputContainer, sample_rate: int) -> Iterator[NDArray[np.int16]]:
    """Yield the track resampled, with silence in front or a cut so that it begins with the video."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
    to_skip: int | None = None
    for frame in _frames(container):
        if to_skip is None and frame is not None:
            late_s = float((frame.pts or 0) * frame.time_base) - _video_start_s(container)
            to_skip = -round(late_s * sample_rate)
            yield np.zeros(max(0, -to_skip), dtype=np.int16)
            to_skip = max(0, to_skip)
        for resampled in resampler.resample(frame):
            samples = resampled.to_ndarray()[0]
            yield samples[to_skip:]
            to_skip = max(0, (to_skip or 0) - len(samples))


def _frames(container: av.container.InputContainer) -> Iterator[av.AudioFrame | None]:
    """Yield every decoded frame, then None: the resampler gives up what it holds back."""
    yield from container.decode(container.streams.audio[0])
    yield None


def _video_start_s(container: av.container.InputContainer) -> float:
    if not container.streams.video or (start := container.streams.video[0].start_time) is None:
        return 0.0
    return float(start * container.streams.video[0].time_base)


def _write_wav(path: Path, pieces: Iterator[NDArray[np.int16]], sample_rate: int) -> int:
    num_samples = 0
    with path.open("wb") as data, wave.open(data, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(_SAMPLE_BYTES)
        out.setframerate(sample_rate)
        for piece in pieces:
            out.writeframes(piece.astype("<i2").tobytes())
            num_samples += len(piece)
    return num_samples
