"""Two signals of unknown offset: how alike they are where they overlap, at every offset at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]

MIN_OVERLAP_S = 5.0
MIN_OVERLAP_SHARE = 0.25
"""Of the shorter of two recordings: so much they must share to be compared. Less agrees by chance."""

SEES_FROM = f"{MIN_OVERLAP_S:g} s, and {MIN_OVERLAP_SHARE:.0%} of the shorter recording"

FULL_OVERLAP_S = 8.0
"""Below it a correlation counts for less: among unrelated recordings it spreads as 1 / sqrt(overlap)."""

SELF_OFFSET_S = 2.0
"""A recording that matches itself at this offset or a larger one cannot say which moment it shows."""


TOO_SHORT = f"too short to compare: no offset has {SEES_FROM} of signal in common"


@dataclass(frozen=True)
class Match:
    """The offset at which two recordings are most alike.

    Attributes:
        score: 1 for equal, about 0 for unrelated.
        offset_s: what the second shows at ``t`` seconds, the first shows at ``t + offset_s``.
        overlap_s: how much of both was compared there.
        mirrored: the second is a mirror image.
    """

    score: float
    offset_s: float
    overlap_s: float
    mirrored: bool = False


@dataclass(frozen=True)
class Transformed:
    """A signal made ready to be compared with many others.

    Attributes:
        length: samples.
        channels: rows of the signal.
        spectrum: of each channel, padded with zeros to ``size`` samples.
        energy: energy of the samples before each one, summed over channels; ``length + 1`` numbers.
    """

    length: int
    channels: int
    size: int
    spectrum: NDArray[np.complex64]
    energy: NDArray[np.float64]


def transform_size(longest: int) -> int:
    """Return a length of transforms at which signals of up to ``longest`` samples never wrap around."""
    from scipy import fft

    return int(fft.next_fast_len(2 * longest, real=True))


def transformed(signal: Signal, *, size: int) -> Transformed:
    """Transform a signal, shape (channels, samples), 0 where it says nothing."""
    from scipy import fft

    energy = np.concatenate([[0.0], np.cumsum((signal.astype(np.float64) ** 2).sum(axis=0))])
    return Transformed(signal.shape[1], len(signal), size, fft.rfft(signal, size), energy)


def wanted_overlap(*lengths: float, rate_hz: float = 1.0) -> float:
    """Return how many samples two recordings of these lengths must share to be compared."""
    return max(MIN_OVERLAP_S * rate_hz, MIN_OVERLAP_SHARE * min(lengths))


def best_match(
    one: Transformed,
    other: Transformed,
    *,
    rate_hz: float,
    min_offset_s: float = 0.0,
    at_least: float = -1.0,
) -> Match | None:
    """Return where two signals are most alike; None when too little of them can be compared.

    The score is the normalised cross-correlation over the overlap, sum(a b) / sqrt(sum(a^2) sum(b^2)), by
    the convolution theorem, times ``min(1, sqrt(overlap_s / FULL_OVERLAP_S))``.

    Args:
        at_least: lower scores are not looked for; where there cannot be a higher one, the score is 0.
    """
    from scipy import fft

    wanted = wanted_overlap(one.length, other.length, rate_hz=rate_hz)
    least_energy = one.channels * wanted / 2
    if min(one.length, other.length) < wanted or min(one.energy[-1], other.energy[-1]) < least_energy:
        return None
    product = fft.irfft((one.spectrum * other.spectrum.conj()).sum(axis=0), one.size)
    if product.max() < at_least * least_energy:
        return Match(score=0.0, offset_s=0.0, overlap_s=0.0)
    lags = np.arange(1 - other.length, one.length)
    start, stop = np.maximum(0, lags), np.minimum(one.length, lags + other.length)
    mine = one.energy[stop] - one.energy[start]
    theirs = other.energy[stop - lags] - other.energy[start - lags]
    allowed = (stop - start >= wanted) & (np.minimum(mine, theirs) >= least_energy)
    allowed &= np.abs(lags) >= min_offset_s * rate_hz
    if not allowed.any():
        return None
    scores = np.full(len(lags), -1.0)
    np.divide(product[lags], np.sqrt(mine * theirs), out=scores, where=allowed)
    scores[allowed] *= np.sqrt(np.minimum(1.0, (stop - start)[allowed] / (rate_hz * FULL_OVERLAP_S)))
    best = int(scores.argmax())
    return Match(
        score=float(scores[best]),
        offset_s=float(lags[best] / rate_hz),
        overlap_s=float((stop[best] - start[best]) / rate_hz),
    )
