"""Which encoded pictures a video holds: without its sound, or cut and not encoded anew, it holds the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from omni_mlflow.spine.contents import SKETCHED_ROWS
from omni_mlflow.spine.frame_plan import opened, video_of

MIN_BYTES = 256
"""A smaller one says little more than that nothing moved, and may occur in two recordings by chance."""


def encoded_pictures(mp4: Path) -> tuple[int, ...]:
    """Return the smallest hashes of encoded pictures of ``mp4``, ascending, as many as of an array's rows.

    A covered lens gives the same picture again and again: only those that occur once are remembered.

    Raises:
        UnreadableVideoError: it cannot be read.
    """
    with opened(mp4) as container:
        stream = video_of(mp4, container)
        occurrences = Counter(
            _hash(bytes(each)) for each in container.demux(stream) if each.size >= MIN_BYTES
        )
    return tuple(sorted(each for each, count in occurrences.items() if count == 1)[:SKETCHED_ROWS])


def _hash(encoded: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest()) >> 1  # as an int64 would hold it
