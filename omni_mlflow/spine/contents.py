"""What the arrays of a recording hold: digests that find a copy of an array, or of a run of its rows."""

from __future__ import annotations

import hashlib
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.layout import DATASETS

if TYPE_CHECKING:
    from omni_mlflow.spine.annotation import AnnotationFile

_COUNTS = ("full_body_mocap/frame_nums", "video/frame_number", "imu/keyframe_indices")

RECORDED_ARRAYS = tuple(
    name
    for name, dataset in DATASETS.items()
    if dataset.shape[:1] in (("N",), ("M",), ("P",)) and name not in _COUNTS
)
"""The 28 arrays that two recordings cannot have in common: noise of a sensor or of an estimate, or times.

Left out are the other 37 datasets. The 23 of ``calibration`` are those of the rig: all of its recordings
share them. Three arrays count frames or samples (``_COUNTS``), the same way in every recording. The three
single numbers of ``depth``, the length of the video and the six values of ``metadata`` are too little to
identify a recording; device and times are compared on their own. The caption is compared as text.
"""

SAMPLED_IMAGES = 16
"""Depth images of an episode that are digested, evenly spaced from the first to the last.

A copied array has as many images as its source, so the same ones are compared; one without noise in common
would do. Sixteen, so that stretches without a valid depth do not leave all of them empty.
"""

SKETCHED_ROWS = 64
"""Rows that are remembered of a wide array: those of the smallest hashes.

Which rows these are depends on their numbers alone, not on their place. So of a copy that keeps the share s
of the rows of its source about 64 s are remembered on both sides, wherever it was cut.
"""

MIN_ROW_NUMBERS = 32
"""A shorter row of rounded numbers may occur in two recordings by chance."""

NOISY, VERY_NOISY = 0.5, 0.9
"""Share of an array's rows that occur in it once only, from which it, or a run of its rows, identifies it.

What a sensor or an estimate gives never repeats exactly: in a real recording each row is another one. Rows
that repeat are a code, such as the rest position of fingers that nobody sees, and others use it, too.
"""


def array_digests(annotation: AnnotationFile) -> dict[str, str]:
    """Return sha256 of each of :data:`RECORDED_ARRAYS` that says something, by its path.

    Attributes, layout and compression do not matter; type and every number do. Of depth images only
    :data:`SAMPLED_IMAGES` are read. Left out is an array that is constant, or hardly :data:`NOISY`; rows
    that are zero or undefined throughout do not count.

    Raises:
        UnreadableEpisodeError: an array has an unknown shape or cannot be read.
    """
    return {
        name: digest
        for name in RECORDED_ARRAYS
        if name in annotation and (digest := _digest(annotation, name)) is not None
    }


def row_sketches(annotation: AnnotationFile) -> dict[str, tuple[int, ...]]:
    """Return the hashes of :data:`SKETCHED_ROWS` rows of each wide array, ascending, by its path.

    Only rows that occur once are hashed, of arrays that are :data:`VERY_NOISY`; no images, and no rows of
    fewer than :data:`MIN_ROW_NUMBERS` numbers.

    Raises:
        UnreadableEpisodeError: as :func:`array_digests`.
    """
    wide = (name for name in RECORDED_ARRAYS if _row_numbers(name) >= MIN_ROW_NUMBERS and name in annotation)
    once = ((name, _once(annotation.array(name), at_least=VERY_NOISY)) for name in wide)
    return {name: tuple(hashes[:SKETCHED_ROWS].tolist()) for name, hashes in once if len(hashes)}


def _digest(annotation: AnnotationFile, name: str) -> str | None:
    shape = annotation.shape(name)
    rows = _sampled(annotation, name, shape[0]) if _is_images(name) else annotation.array(name)
    if len(_once(rows, at_least=NOISY)) < 2:
        return None
    if _is_text(rows):  # stored with a fixed or a variable length: the same texts
        return hashlib.sha256(b"\n".join(_row_bytes(rows))).hexdigest()
    head = f"{shape}:{rows.dtype.str}:".encode()
    return hashlib.sha256(head + rows.tobytes()).hexdigest()


def _sampled(annotation: AnnotationFile, name: str, num_rows: int) -> NDArray[Any]:
    chosen = np.unique(np.linspace(0, num_rows - 1, SAMPLED_IMAGES).astype(int))
    return np.concatenate([annotation.array(name, slice(row, row + 1)) for row in chosen.tolist()])


def _once(rows: NDArray[Any], *, at_least: float) -> NDArray[np.int64]:
    """Return the hashes of the rows that occur once, ascending; none where they are a smaller share."""
    measured = rows if _is_text(rows) else rows[_measured(rows.reshape(len(rows), -1))]
    hashes, occurrences = np.unique(
        np.array(list(map(_hash, _row_bytes(measured))), np.int64), return_counts=True
    )
    once: NDArray[np.int64] = hashes[occurrences == 1]
    return once if len(once) >= at_least * len(measured) else once[:0]


def _measured(flat: NDArray[Any]) -> NDArray[np.bool_]:
    says: NDArray[np.bool_] = ((flat != 0) & np.isfinite(flat)).any(axis=1)
    return says


def _hash(row: bytes) -> int:
    """63 bits, which fit a signed number."""
    return int.from_bytes(hashlib.blake2b(row, digest_size=8).digest()) >> 1


def _row_bytes(rows: NDArray[Any]) -> list[bytes]:
    if _is_text(rows):
        return [text if isinstance(text, bytes) else str(text).encode() for text in rows.ravel().tolist()]
    return [row.tobytes() for row in rows]


def _is_text(rows: NDArray[Any]) -> bool:
    return rows.dtype.kind not in "fiub"  # or anything else that is no number


def _row_numbers(name: str) -> int:
    sizes = DATASETS[name].shape[1:]
    return prod(size for size in sizes if isinstance(size, int)) if sizes and not _is_images(name) else 0


def _is_images(name: str) -> bool:
    return DATASETS[name].shape[1:] == ("H", "W")
