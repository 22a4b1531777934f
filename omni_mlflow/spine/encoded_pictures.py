"""Which encoded pictures a video holds: without its sound, or cut and not encoded anew, it holds the same."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from omni_mlflow.spine.contents import SKETCHED_ROWS
from omni_mlflow.spine.frame_plan import opened, video_of

MIN_BYTES, PIXELS_PER_BYTE = 256, 1024
"""What an encoded picture must say at least: so many bytes, and another one for so many pixels.

A lens that is covered gives a flat picture, and an encoder makes the same bytes of it in every recording.
They may be many, where each block is written out, but they repeat themselves: packed by zlib, a flat picture
takes less.
"""

_PICTURE_UNITS = {"h264": "1-5", "hevc": "0-31"}
"""Types of the units that hold pictures. The others come and go with the container: parameter sets,
delimiters, messages, and what fills up to a constant rate."""


_CANDIDATES = 2 * SKETCHED_ROWS  # some of them may occur again


def encoded_pictures(mp4: Path) -> tuple[int, ...]:
    """Return the smallest hashes of encoded pictures of ``mp4``, ascending, as many as of an array's rows.

    A still lens gives the same picture again and again, and a covered one gives it in every recording: only
    those that occur once, and say as much as :data:`MIN_BYTES` wants, are remembered.

    Raises:
        UnreadableVideoError: it cannot be read.
    """
    occurrences: dict[int, int] = {}
    largest = 1 << 64
    with opened(mp4) as container:
        stream = video_of(mp4, container)
        at_least = MIN_BYTES + stream.codec_context.width * stream.codec_context.height // PIXELS_PER_BYTE
        for picture in _pictures(container, stream):
            candidate = _hash(picture)
            if candidate in occurrences:
                occurrences[candidate] += 1
            elif candidate < largest and _says(picture, at_least=at_least):
                occurrences[candidate] = 1
                if len(occurrences) > _CANDIDATES:
                    del occurrences[max(occurrences)]
                    largest = max(occurrences)
    return tuple(sorted(each for each, count in occurrences.items() if count == 1)[:SKETCHED_ROWS])


def _pictures(container: Any, stream: Any) -> Iterator[av.Packet]:
    """Yield what is encoded of each picture, the same from every container; a damaged one is left out."""
    units = _PICTURE_UNITS.get(stream.codec_context.name)
    if units is None:
        yield from (packet for packet in container.demux(stream) if packet.size)
        return
    only_pictures = BitStreamFilterContext(f"filter_units=pass_types={units}", stream)
    for packet in container.demux(stream):
        if packet.size:
            try:
                yield from only_pictures.filter(packet)
            except av.InvalidDataError:
                only_pictures.flush()


def _says(picture: av.Packet, *, at_least: int) -> bool:
    """Return whether it says so many bytes: its head tells, of which a flat part may take half."""
    return picture.size >= at_least and len(zlib.compress(memoryview(picture)[: 2 * at_least], 1)) >= at_least


def _hash(picture: av.Packet) -> int:
    """63 bits, which fit a signed number."""
    return int.from_bytes(hashlib.sha256(picture).digest()[:8]) >> 1
