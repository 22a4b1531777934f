"""Videos whose sound lost packets, or cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np


def lose_sound(video: Path, lost: Callable[[float], bool], *, spoilt: bool = False) -> None:
    """Write the file again without the packets of sound whose start in seconds is ``lost``.

    Args:
        spoilt: keep them, with bytes that no decoder takes.
    """
    original = video.rename(video.with_suffix(".original"))
    with av.open(str(original)) as had, av.open(str(video), "w") as has:
        streams = {each.index: has.add_stream_from_template(each) for each in had.streams}
        for packet in had.demux():
            kept = packet.stream.type == "video" or not lost(float(packet.pts or 0) * packet.time_base)
            if packet.size and (kept or spoilt):
                copy = packet if kept else _spoilt(packet)
                copy.stream = streams[packet.stream.index]
                has.mux(copy)
    original.unlink()


def _spoilt(packet: av.Packet) -> av.Packet:
    other = av.Packet(bytes(range(1, 251)))
    other.pts, other.dts, other.duration = packet.pts, packet.dts, packet.duration
    other.time_base = packet.time_base
    return other


def disguise_codec(video: Path) -> None:
    """Name a codec of the sound that nobody knows."""
    content = video.read_bytes()
    assert content.count(b"mp4a") == 1
    video.write_bytes(content.replace(b"mp4a", b"zzqx").replace(b"esds", b"free"))


def silence(video: Path) -> None:
    """Give the sound to nobody: every sample of it becomes 0, and the pictures stay."""
    original = video.rename(video.with_suffix(".original"))
    with av.open(str(original)) as had, av.open(str(video), "w") as has:
        pictures = has.add_stream_from_template(had.streams.video[0])
        sound = has.add_stream("aac", rate=44_100, layout="mono")
        length_s = float(had.streams.video[0].duration * had.streams.video[0].time_base)
        for packet in had.demux(had.streams.video[0]):
            if packet.size:
                packet.stream = pictures
                has.mux(packet)
        zeros = np.zeros((1, round(length_s * 44_100)), np.float32)
        frame = av.AudioFrame.from_ndarray(zeros, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        has.mux(sound.encode(frame))
        has.mux(sound.encode(None))
    original.unlink()
