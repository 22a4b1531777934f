"""Videos whose sound lost packets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av


def lose_sound(video: Path, lost: Callable[[float], bool]) -> None:
    """Write the file again without the packets of sound whose start in seconds is ``lost``."""
    original = video.rename(video.with_suffix(".original"))
    with av.open(str(original)) as had, av.open(str(video), "w") as has:
        streams = {each.index: has.add_stream_from_template(each) for each in had.streams}
        for packet in had.demux():
            kept = packet.stream.type == "video" or not lost(float(packet.pts or 0) * packet.time_base)
            if packet.size and kept:
                packet.stream = streams[packet.stream.index]
                has.mux(packet)
    original.unlink()
