"""Caption fingerprint: runs of five words, and when one action follows another.

A copied caption keeps its sentences. A reworded one keeps the moments at which actions change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.spine.captions import FrameCaptions
from omni_mlflow.spine.packed import Packed
from omni_mlflow.spine.types import Row

WORDS_PER_SHINGLE = 5


class CaptionPrint(Row):
    """What was written about an episode; its words cannot be read back.

    Attributes:
        shingles: 64-bit digests of all runs of five words within one sentence, ascending, each once.
        changes_s: seconds after frame 0 at which another action begins, ascending.
        length_s: of the episode.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    shingles: Packed
    changes_s: Packed
    length_s: float


def caption_print(captions: FrameCaptions, seconds: NDArray[np.float64]) -> CaptionPrint:
    """Return the fingerprint of captions whose frames are shown at ``seconds`` after frame 0."""
    shingles = {digest for text in _sentences(captions) for digest in _shingles(text)}
    changes = [
        frame
        for frame in range(1, captions.num_frames)
        if captions.action[frame] != captions.action[frame - 1]
    ]
    return CaptionPrint(
        shingles=np.array(sorted(shingles), np.uint64),
        changes_s=seconds[changes].astype(np.float32),
        length_s=float(seconds[-1]),
    )


def _sentences(captions: FrameCaptions) -> Iterator[str]:
    """Yield each action with its description, and each interaction, once for every time it is told."""
    for (label, description), _ in groupby(zip(captions.action, captions.description, strict=True)):
        yield f"{label or ''} {description or ''}"
    yield from (text for text, _ in groupby(captions.interaction) if text)


def _shingles(text: str) -> Iterator[int]:
    words: Sequence[str] = re.findall(r"\w+", text.lower())
    for first in range(len(words) - WORDS_PER_SHINGLE + 1):
        run = " ".join(words[first : first + WORDS_PER_SHINGLE])
        yield int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "little")
