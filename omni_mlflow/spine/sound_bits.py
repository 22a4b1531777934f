"""Audio fingerprint: 16 bits for every sixteenth of a second, which survive another encoding.

A bit says whether the difference between two neighbouring frequency bands grew or shrank within a quarter
of a second (after Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002). Volume,
equaliser and bit rate hardly change it.
"""

from __future__ import annotations

import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.spine.alignment import SELF_OFFSET_S, Signal, best_match, transform_size, transformed
from omni_mlflow.spine.packed import Packed
from omni_mlflow.spine.sound import Sound
from omni_mlflow.spine.types import Row

RATE_HZ = 16.0
THRESHOLD = 0.35
"""Correlation of the bits from which two soundtracks are the same: a bit error rate of 32.5 %."""

SAMPLE_RATE = 8_000
FRAME_SAMPLES = 4_096
HOP_SAMPLES = int(SAMPLE_RATE / RATE_HZ)
BAND_EDGES_HZ = np.geomspace(200.0, 3_600.0, 18)
LAG_FRAMES = 4
SILENCE = 1e-3  # root mean square, full scale is 1: -60 dB


class SoundBits(Row):
    """What was heard.

    Attributes:
        bits: one unsigned 16-bit number per frame, ``RATE_HZ`` of them a second.
        heard: whether a frame is louder than silence; the bits of others mean nothing.
        abstains: why this soundtrack identifies no recording; None where it can be compared.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    bits: Packed
    heard: Packed
    abstains: str | None = None

    def signal(self) -> Signal:
        """Return the bits as -1 and 1, shape (16, frames); 0 in silence."""
        planes = (self.bits[None, :] >> np.arange(16)[:, None]) & 1
        return ((2.0 * planes - 1.0) * self.heard).astype(np.float32)


def sound_of(mp4: Path) -> tuple[Sound, SoundBits | None]:
    """Read the whole soundtrack of ``mp4``; frame 0 lies at video frame 0.

    Returns:
        When it sounds, and what was heard; None where there is no track or nothing in it.

    Raises:
        UnreadableVideoError: the file or its audio track cannot be decoded.
    """
    from omni_mlflow.spine.audio import extract_audio

    with TemporaryDirectory() as folder:
        wav = Path(folder) / "sound.wav"
        sound = extract_audio(mp4, wav, sample_rate=SAMPLE_RATE)
        if not sound.spans:
            return sound, None
        with wave.open(str(wav), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return sound, sound_bits(samples.astype(np.float32) / 32768.0)


def sound_bits(samples: Signal) -> SoundBits:
    """Return the fingerprint of mono samples at ``SAMPLE_RATE``, full scale 1, shape (samples,)."""
    if len(samples) < FRAME_SAMPLES + LAG_FRAMES * HOP_SAMPLES:
        return abstaining("it is shorter than a second")
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME_SAMPLES)[::HOP_SAMPLES]
    heard = frames.std(axis=1) > SILENCE
    bands = np.log(_band_energy(frames) + 1e-12)
    tilt = np.diff(bands, axis=1)
    grew = tilt[LAG_FRAMES:] > tilt[:-LAG_FRAMES]
    packed = (grew * (1 << np.arange(16))).sum(axis=1).astype(np.uint16)
    found = SoundBits(bits=packed, heard=heard[LAG_FRAMES:] & heard[:-LAG_FRAMES])
    return found.model_copy(update={"abstains": _why_not(found)})


def _band_energy(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import fft

    window = np.hanning(FRAME_SAMPLES).astype(np.float32)
    power = np.abs(fft.rfft(frames * window, axis=1)) ** 2
    edges = np.round(BAND_EDGES_HZ * FRAME_SAMPLES / SAMPLE_RATE).astype(int)
    return np.add.reduceat(power, edges, axis=1)[:, : len(edges) - 1]


def _why_not(found: SoundBits) -> str | None:
    if not found.heard.any():
        return "it is silent"
    own = transformed(found.signal(), size=transform_size(len(found.bits)))
    repeated = best_match(own, own, rate_hz=RATE_HZ, min_offset_s=SELF_OFFSET_S)
    if repeated is not None and repeated.score >= THRESHOLD:
        return f"it repeats itself after {abs(repeated.offset_s):.1f} s"
    return None


def abstaining(reason: str) -> SoundBits:
    """Return the fingerprint of a soundtrack that identifies no recording."""
    return SoundBits(bits=np.zeros(0, np.uint16), heard=np.zeros(0, bool), abstains=reason)
