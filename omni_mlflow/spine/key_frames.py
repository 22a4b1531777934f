"""Perceptual hashes of a few frames of a video: 63 signs of its coarse structure per frame.

The hash holds the signs of the lowest cosine frequencies of a small grey picture, without its mean (the
DCT hash of Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, with the
threshold at 0 instead of the median). A sign is trusted where its frequency is among the stronger half:
the others change with every encoding. A mirror image negates the odd horizontal frequencies, so its hash
is ``hash ^ MIRROR``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.spine.alignment import SELF_OFFSET_S, Match, wanted_overlap
from omni_mlflow.spine.packed import Packed
from omni_mlflow.spine.types import Row

THRESHOLD = 0.9
"""Share of the moments in common, at one offset and over all cameras, that must look the same."""

CONSTANT = 0.8
"""Share of the moments at which a camera looks as it did before, from which its scene hardly changes."""

MIN_CAMERAS = 3
MIN_MOMENTS = 8
OFFSET_STEP_S = 0.125
MIN_CONTRAST = 8.0  # grey levels of 255; a covered lens stays below it

FREQUENCIES = 8
STRONG_SIGNS = 32
MIN_COMMON_SIGNS, MAX_DIFFERENT_SIGNS = 20, 3  # of two pictures with the same look

Seconds = NDArray[np.float32]

_ODD_COLUMNS = [column % 2 == 1 for _ in range(FREQUENCIES) for column in range(FREQUENCIES)]
MIRROR = np.uint64(sum(1 << place for place, odd in enumerate(_ODD_COLUMNS) if odd))


class KeyFrames(Row):
    """Hashes of one camera.

    Attributes:
        seconds: when each hashed frame is shown, after the first frame, ascending.
        signs: unsigned 64-bit numbers, one per frame; bit 0, the mean, is not used.
        strong: likewise, which of the signs can be trusted.
        length_s: of the video.
        abstains: why this camera identifies no recording; None where it can be compared.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    seconds: Packed
    signs: Packed
    strong: Packed
    length_s: float
    abstains: str | None = None

    @cached_property
    def balances(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Each trusted sign as 1 or -1, 0 for others; of even and of odd columns, shape (frames, 32) each."""
        signs, trusted = (_as_bits(each).astype(np.float32) for each in (self.signs, self.strong))
        balance = (2 * signs - 1) * trusted
        return np.ascontiguousarray(balance[:, ::2]), np.ascontiguousarray(balance[:, 1::2])


def key_frames_of(mp4: Path) -> KeyFrames:
    """Hash a few frames of ``mp4``.

    Raises:
        UnreadableVideoError: it cannot be decoded.
    """
    from omni_mlflow.spine.sparse_frames import read_sparse_frames

    sparse = read_sparse_frames(mp4)
    return key_frames(sparse.seconds, sparse.pictures, length_s=sparse.length_s)


def key_frames(seconds: NDArray[np.float64], pictures: NDArray[np.float32], *, length_s: float) -> KeyFrames:
    """Return the fingerprint of grey pictures, shape (frames, 32, 32), 0..255, shown at ``seconds``.

    Pictures without contrast are left out.
    """
    clear = pictures.std(axis=(1, 2)) >= MIN_CONTRAST
    signs, strong = perceptual_hashes(pictures[clear])
    shown = seconds[clear].astype(np.float32)
    found = KeyFrames(seconds=shown, signs=signs, strong=strong, length_s=length_s)
    return found.model_copy(update={"abstains": _why_not(found)})


def perceptual_hashes(pictures: NDArray[np.float32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return signs and strong signs of grey pictures, shape (frames, 32, 32), as one number per frame."""
    from scipy import fft

    coarse = fft.dctn(pictures, axes=(1, 2))[:, :FREQUENCIES, :FREQUENCIES]
    coarse = coarse.reshape(len(pictures), FREQUENCIES**2)
    coarse[:, 0] = 0
    strength = np.abs(coarse)
    weakest = np.sort(strength, axis=1)[:, -STRONG_SIGNS, None]
    return _as_numbers(coarse > 0), _as_numbers(strength >= weakest)


def best_view(
    one: Mapping[str, KeyFrames],
    other: Mapping[str, KeyFrames],
    *,
    min_cameras: int = MIN_CAMERAS,
    min_offset_s: float = 0.0,
    at_least: float = -1.0,
) -> Match | None:
    """Return the offset, and whether mirrored, at which cameras of the same name look most alike.

    The score is the share (0..1) of the moments in common, over all cameras, with the same look. None when
    too few cameras, or no offset with enough moments, can be compared.

    Args:
        at_least: lower scores are not looked for: where enough can be compared, they are 0.
    """
    cameras = [camera for camera in one if camera in other]
    if len(cameras) < min_cameras:
        return None
    lengths_s = [max(each[camera].length_s for camera in cameras) for each in (one, other)]
    origin, stop = (int(length / OFFSET_STEP_S) + 2 for length in reversed(lengths_s))
    wanted = MIN_MOMENTS * len(cameras)
    comparable = _comparable_as_they_are(one, other, cameras)
    moments_agree = all(_same_moments(each, cameras) for each in (one, other))
    alike = np.zeros((2, origin + stop), dtype=np.int64)
    for number, camera in enumerate(cameras, start=1):
        looks = looking_alike(one[camera], other[camera])
        alike += [_per_offset(apart, origin, origin + stop) for apart in looks]
        # Where every camera has as many moments in common, those to come can make up for so many at most.
        to_come = len(cameras) - number
        bounded = comparable and (moments_agree or not to_come)
        if bounded and alike.max() < at_least * wanted - MIN_MOMENTS * to_come:
            return Match(score=0.0, offset_s=0.0, overlap_s=0.0)
    apart = [np.subtract.outer(one[each].seconds, other[each].seconds).ravel() for each in cameras]
    common = _per_offset(np.concatenate(apart), origin, origin + stop)
    offsets = (np.arange(origin + stop) - origin + 1) * OFFSET_STEP_S
    overlap = np.minimum(lengths_s[0], offsets + lengths_s[1]) - np.maximum(0, offsets)
    allowed = (overlap >= wanted_overlap(*lengths_s)) & (np.abs(offsets) >= min_offset_s)
    allowed &= common >= wanted
    if not allowed.any():
        return None
    share = np.where(allowed, alike / np.maximum(common, 1), -1.0)
    mirrored, best = np.unravel_index(int(share.argmax()), share.shape)
    score = float(share[mirrored, best])
    return Match(score, float(offsets[best]), float(overlap[best]), mirrored=bool(mirrored))


def _comparable_as_they_are(
    one: Mapping[str, KeyFrames], other: Mapping[str, KeyFrames], cameras: Sequence[str]
) -> bool:
    """Return whether enough can be compared without an offset: then a low score is a look, not a blank."""
    lengths_s = [max(each[camera].length_s for camera in cameras) for each in (one, other)]
    common = 0
    for camera in cameras:
        mine, theirs = one[camera].seconds, other[camera].seconds
        until, since = (
            np.searchsorted(theirs, mine + by, side="right") for by in (OFFSET_STEP_S, -OFFSET_STEP_S)
        )
        common += int((until - since).sum())
    return common >= MIN_MOMENTS * len(cameras) and min(lengths_s) >= wanted_overlap(*lengths_s)


def _same_moments(views: Mapping[str, KeyFrames], cameras: Sequence[str]) -> bool:
    """Return whether all cameras show the same moments, as those of one encoder with a fixed rhythm do."""
    first = views[cameras[0]].seconds
    return all(np.array_equal(views[camera].seconds, first) for camera in cameras[1:])


def looking_alike(one: KeyFrames, other: KeyFrames) -> tuple[Seconds, Seconds]:
    """Return how far apart the moments of each pair are that look the same, as they are and mirrored.

    How many signs agree, less those that differ, is a product of matrices: faster than to count bits. What a
    mirror negates is multiplied apart. The few pairs that can look the same are then counted bit by bit.
    """
    (even, odd), (other_even, other_odd) = one.balances, other.balances
    agreement = even @ other_even.T
    agreement += np.abs(odd @ other_odd.T)
    pairs = np.flatnonzero(agreement >= MIN_COMMON_SIGNS - 2 * MAX_DIFFERENT_SIGNS)
    mine, theirs = np.divmod(pairs, max(1, len(other.signs)))
    strong = one.strong[mine] & other.strong[theirs]
    different = (one.signs[mine] ^ other.signs[theirs]) & strong
    apart = one.seconds[mine] - other.seconds[theirs]
    enough = np.bitwise_count(strong) >= MIN_COMMON_SIGNS
    same = enough & (np.bitwise_count(different) <= MAX_DIFFERENT_SIGNS)
    mirrored = enough & (np.bitwise_count(different ^ (strong & MIRROR)) <= MAX_DIFFERENT_SIGNS)
    return apart[same], apart[mirrored]


def _per_offset(apart: Seconds, origin: int, num_offsets: int) -> NDArray[np.int64]:
    """Count pairs of moments at each offset, those within one step of it."""
    steps = np.floor(apart / OFFSET_STEP_S).astype(np.int64) + origin
    counts = np.bincount(steps, minlength=num_offsets + 1)
    return np.asarray(counts[:-1] + counts[1:])


def _as_numbers(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    places = np.uint64(1) << np.arange(bits.shape[1], dtype=np.uint64)
    numbers: NDArray[np.uint64] = (bits * places).sum(axis=1, dtype=np.uint64)
    return numbers


def _as_bits(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Undo :func:`_as_numbers`."""
    octets = np.ascontiguousarray(numbers, dtype="<u8").view(np.uint8)
    return np.unpackbits(octets.reshape(-1, 8), axis=1, bitorder="little")


def _why_not(found: KeyFrames) -> str | None:
    if len(found.signs) < MIN_MOMENTS:
        return "too few frames have contrast"
    own = {"camera": found}
    repeated = best_view(own, own, min_cameras=1, min_offset_s=SELF_OFFSET_S)
    if repeated is not None and repeated.score >= CONSTANT:
        return f"the scene hardly changes: it looks the same {abs(repeated.offset_s):.1f} s later"
    return None
