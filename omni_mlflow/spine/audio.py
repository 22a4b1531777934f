"""Proxy audio: one mono 16-bit WAV per episode that starts at frame 0 of the video.

Every decoded frame sounds when its time says, up to :data:`JITTER_S`, and where the clocks of the file and
of the episode differ, with its picture, no more than that too early: what a window hears is from at most
twice so long after its anchor. Where a track holds nothing, or nothing that can be decoded, there is
silence; what overlaps the sound before it is cut. What follows the frame before it up to the rounding of a
clock is joined to it, sample by sample.
"""

from __future__ import annotations

import sys
import wave
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.frame_plan import UnreadableVideoError, opened
from omni_mlflow.spine.picture_clock import JITTER_S
from omni_mlflow.spine.rows import appearing_at_once
from omni_mlflow.spine.sound import NO_JOINT, Joint, Sound

LONGEST_SILENCE_S = 3600.0

_SAMPLE_BYTES = 2
_SILENT_SAMPLES = 2**20
_FULL_SCALE = 32768.0
_FAILURE = "its audio cannot be decoded"
_ENCODE_ANEW = "encode its sound anew, as AAC for example"


def extract_audio(
    mp4: Path, out: Path, *, sample_rate: int = 16_000, joints: Sequence[Joint] = NO_JOINT
) -> Sound:
    """Write the audio track of ``mp4`` as mono 16-bit WAV; its first sample sounds at frame 0.

    Args:
        joints: see :func:`~omni_mlflow.spine.picture_clock.joints_of`; the file's own clock by default.

    Returns:
        When it sounds by the file's clock; no span, and no file, when there is no audio track or nothing
        in it.

    Raises:
        UnreadableVideoError: the file or its audio track cannot be decoded, or its times make no sense.
    """
    with opened(mp4, failure=_FAILURE) as container:
        if not container.streams.audio:
            return Sound()
        placing = _Placing(mp4, container)
        with appearing_at_once(out) as temporary:
            pieces = _joined(_pieces(placing.frames(), sample_rate), joints, sample_rate)
            num_samples = _write_wav(temporary, pieces, sample_rate)
    if num_samples == 0:
        out.unlink()
        return Sound()
    return placing.sound()


def read_sound(mp4: Path) -> Sound:
    """Decode the audio track of ``mp4`` and return when it sounds; no span where there is no track.

    Raises:
        UnreadableVideoError: as :func:`extract_audio`.
    """
    with opened(mp4, failure=_FAILURE) as container:
        if not container.streams.audio:
            return Sound()
        placing = _Placing(mp4, container)
        for _ in placing.frames():
            pass
        return placing.sound()


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


class _Placed(NamedTuple):
    """A frame of a run: frames that follow each other without a gap or an overlap.

    Attributes:
        run: its number.
        run_s: when the run begins, in seconds after the first picture.
    """

    run: int
    run_s: float
    frame: av.AudioFrame


class _Placing:
    """Reads the frames of a track once, and remembers when each run of them sounds."""

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        if container.streams.audio[0].codec_context is None:
            raise UnreadableVideoError(path, "FFmpeg does not know the codec of its audio", _ENCODE_ANEW)
        self._path = path
        self._container = container
        self._runs: list[tuple[float, float]] = []
        self._heard_s = 0.0
        self._mute = True
        self._num_broken = 0

    def frames(self) -> Iterator[_Placed]:
        """Yield every decoded frame with its run.

        Raises:
            UnreadableVideoError: the track changes its format, none of it can be decoded, or its times make
                no sense.
        """
        origin_s, num_samples, formats = _video_start_s(self._container), 0, set()
        last_s: float | None = None
        for frame in self._decoded():
            formats.add((frame.sample_rate, frame.format.name, frame.layout.name))
            if len(formats) > 1:
                raise UnreadableVideoError(
                    self._path, "its sound changes its format on the way", _ENCODE_ANEW
                )
            due_s = self._runs[-1][1] if self._runs else -origin_s
            start_s = due_s if frame.pts is None else float(frame.pts * frame.time_base) - origin_s
            self._check(start_s, last_s)
            if not self._runs or abs(start_s - due_s) > JITTER_S:
                self._runs.append((start_s, start_s))
                num_samples = 0
            num_samples += frame.samples
            run_s = self._runs[-1][0]
            self._runs[-1] = (run_s, run_s + num_samples / frame.sample_rate)
            self._heard_s += frame.samples / frame.sample_rate
            last_s = start_s
            self._mute = self._mute and _is_mute(frame)
            yield _Placed(len(self._runs), run_s, frame)

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """Yield every frame that can be decoded: one damaged packet leaves a hole and spoils no other.

        Raises:
            av.FFmpegError: there are packets and none can be decoded, or nothing tells how long a hole is.
        """
        fault: av.FFmpegError | None = None
        num_decoded = 0
        for packet in self._container.demux(self._container.streams.audio[0]):
            try:
                frames = packet.decode()
            except av.InvalidDataError as error:
                fault = error
                self._num_broken += 1
                continue
            num_decoded += len(frames)
            if fault and any(frame.pts is None for frame in frames):
                raise fault
            yield from frames
        if fault and not num_decoded:
            raise fault

    def sound(self) -> Sound:
        """Return when the frames read so far sound, each moment once, none before the first picture."""
        spans: list[tuple[float, float]] = []
        for start_s, stop_s in self._runs:
            heard_until = spans[-1][1] if spans else 0.0
            if stop_s <= heard_until:
                continue
            if spans and start_s <= heard_until:
                spans[-1] = (spans[-1][0], stop_s)
            else:
                spans.append((max(start_s, 0.0), stop_s))
        overlaps = (max(0.0, stop - start) for (_, stop), (start, _) in zip(self._runs, self._runs[1:]))
        return Sound(
            spans=tuple(spans),
            overlap_s=sum(overlaps),
            mute=bool(spans) and self._mute,
            num_broken=self._num_broken,
        )

    def _check(self, start_s: float, last_s: float | None) -> None:
        if last_s is not None and start_s < last_s - JITTER_S:
            raise UnreadableVideoError(
                self._path, f"the times of its sound jump back from {last_s:.3f} s to {start_s:.3f} s"
            )
        if not -LONGEST_SILENCE_S <= start_s <= self._heard_s + LONGEST_SILENCE_S:
            raise UnreadableVideoError(
                self._path,
                f"the times of its sound are absurd: {self._heard_s:.3f} s of it and more at {start_s:.3f} s",
            )


def _is_mute(frame: av.AudioFrame) -> bool:
    samples = frame.to_ndarray()
    return samples.size == 0 or bool(samples.min() == samples.max())


def _pieces(placed: Iterable[_Placed], sample_rate: int) -> Iterator[NDArray[np.int16]]:
    """Yield the track resampled, run by run, with silence before each or a cut, so that it is in time."""
    num_samples = 0
    for (_, run_s), run in groupby(placed, key=attrgetter("run", "run_s")):
        late = round(run_s * sample_rate) - num_samples
        sound = _resampled((each.frame for each in run), sample_rate)
        for samples in chain(_silence(late), _without(-late, sound)):
            num_samples += len(samples)
            yield samples


def _joined(
    pieces: Iterable[NDArray[np.int16]], joints: Sequence[Joint], sample_rate: int
) -> Iterator[NDArray[np.int16]]:
    """Yield a track with silence or a cut before each joint, so that what follows is in time."""
    starts = [round(joint.track_s * sample_rate) for joint in joints]
    places = [*(round(joint.episode_s * sample_rate) for joint in joints), sys.maxsize]
    read = written = 0
    for piece in pieces:
        inside = starts[bisect_right(starts, read) : bisect_left(starts, read + len(piece))]
        for part in np.split(piece, [start - read for start in inside]):
            joint = max(0, bisect_right(starts, read) - 1)
            due = places[joint] + read - starts[joint]
            in_time = part[: max(0, places[joint + 1] - due)]
            late = due - written if len(in_time) else 0
            for samples in chain(_silence(late), _without(-late, [in_time])):
                written += len(samples)
                yield samples
            read += len(part)


def _silence(num_samples: int) -> Iterator[NDArray[np.int16]]:
    for start in range(0, num_samples, _SILENT_SAMPLES):
        yield np.zeros(min(_SILENT_SAMPLES, num_samples - start), dtype=np.int16)


def _without(to_skip: int, pieces: Iterable[NDArray[np.int16]]) -> Iterator[NDArray[np.int16]]:
    for piece in pieces:
        yield piece[max(0, to_skip) :]
        to_skip -= len(piece)


def _resampled(frames: Iterable[av.AudioFrame], sample_rate: int) -> Iterator[NDArray[np.int16]]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
    for frame in chain(frames, [None]):  # after the last one it gives up what it holds back
        for resampled in resampler.resample(frame):
            yield resampled.to_ndarray()[0]


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
