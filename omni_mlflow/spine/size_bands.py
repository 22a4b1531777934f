"""Pick a pilot by size: bands of annotation size, and in each band typical episodes of different sessions.

The rule is the one behind the published 128-episode pilot of Xperience-10M. An annotation's size is
proportional to its number of frames, so the bands are lengths of recording, known before any download.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from omni_mlflow.spine.annotation import ANNOTATION
from omni_mlflow.spine.listing import EPISODE_FILES, VIEWER_FILE, ListedEpisode, ListingError
from omni_mlflow.spine.splits import assign_splits
from omni_mlflow.spine.types import Check, Skip, Split

PUBLISHED_BANDS = ("short", "lower_mid", "upper_mid", "long")
SCORE_DECIMALS = 8


@dataclass(frozen=True)
class SizeBandRule:
    """The numbers of the rule; the defaults are those of the published pilot.

    Attributes:
        per_band: episodes of each band, by split.
        num_bands: bands of equal numbers of complete episodes; four have the published names.
        tie_seed: seed of the small random part of a score.
        split_seed: seed of the order in which a band's episodes go to train, val and test.
        min_annotation_bytes: an annotation below it is no candidate, whatever the percentile.
        floor_percentile: candidates are not smaller than this percentile (0..100) of the complete episodes.
    """

    per_band: Mapping[Split, int] = field(
        default_factory=lambda: {Split.TRAIN: 24, Split.VAL: 4, Split.TEST: 4}
    )
    num_bands: int = 4
    tie_seed: int = 7
    split_seed: int = 108
    min_annotation_bytes: int = 2**29
    floor_percentile: float = 5

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, from short to long."""
        numbered = tuple(f"band_{number}" for number in range(1, self.num_bands + 1))
        return PUBLISHED_BANDS if self.num_bands == len(PUBLISHED_BANDS) else numbered

    @property
    def wanted(self) -> int:
        """Episodes of each band."""
        return sum(self.per_band.values())


@dataclass(frozen=True)
class SizeStatistics:
    """What the rule reads off a whole listing; all in bytes.

    Attributes:
        min_annotation, min_training: floors of a candidate.
        band_edges: largest annotation of every band but the last one.
        median_annotation: of the candidates, by band; a band without a candidate has none.
        median_training: of all candidates.
    """

    min_annotation: float
    min_training: float
    band_edges: tuple[float, ...]
    median_annotation: Mapping[str, float]
    median_training: float


@dataclass(frozen=True)
class Picked:
    """An episode of the pilot.

    Attributes:
        score: distance from a typical episode of its band; lower is better.
        rank: from 1, in the order of the bands, then by score.
    """

    episode: ListedEpisode
    band: str
    score: float
    split: Split
    rank: int


def measure(complete: Sequence[ListedEpisode], rule: SizeBandRule) -> SizeStatistics:
    """Read floors and band edges off the complete episodes, and medians off the candidates.

    Percentiles interpolate linearly between the two nearest episodes.

    Raises:
        ListingError: there is no complete episode.
    """
    if not complete:
        raise ListingError(f"the listing holds no complete episode: each needs {', '.join(EPISODE_FILES)}")
    annotation = np.array([each.annotation_bytes for each in complete], dtype=float)
    training = np.array([each.training_bytes for each in complete], dtype=float)
    inner = np.linspace(0, 100, rule.num_bands + 1)[1:-1]
    floors = SizeStatistics(
        min_annotation=max(
            float(rule.min_annotation_bytes), float(np.percentile(annotation, rule.floor_percentile))
        ),
        min_training=float(np.percentile(training, rule.floor_percentile)),
        band_edges=tuple(float(edge) for edge in np.percentile(annotation, inner)),
        median_annotation={},
        median_training=0.0,
    )
    candidates = [each for each in complete if below_floor(each, floors) is None]
    sizes: dict[str, list[int]] = {}
    for each in candidates:
        sizes.setdefault(band_of(each, floors, rule), []).append(each.annotation_bytes)
    return replace(
        floors,
        median_annotation={band: float(median(found)) for band, found in sizes.items()},
        median_training=float(median(each.training_bytes for each in candidates)) if candidates else 0.0,
    )


def below_floor(episode: ListedEpisode, sizes: SizeStatistics) -> str | None:
    """Say why an episode is too small to be a candidate."""
    if episode.annotation_bytes < sizes.min_annotation:
        return f"too small: its annotation has less than {sizes.min_annotation:.0f} bytes"
    if episode.training_bytes < sizes.min_training:
        return f"too small: annotation and videos have less than {sizes.min_training:.0f} bytes"
    return None


def band_of(episode: ListedEpisode, sizes: SizeStatistics, rule: SizeBandRule) -> str:
    """The first band whose edge the annotation does not pass."""
    return rule.bands[int(np.searchsorted(sizes.band_edges, episode.annotation_bytes, side="left"))]


def score(episode: ListedEpisode, band: str, sizes: SizeStatistics, rule: SizeBandRule) -> float:
    """Distance from a typical episode of its band, from 0; lower is better.

    The relative distance from the median annotation of the band, a quarter of that from the median of all
    training bytes, up to 0.02 for a late episode of its session, and up to 0.001 by chance.
    """
    typical = sizes.median_annotation[band]
    annotation = abs(episode.annotation_bytes - typical) / typical
    training = abs(episode.training_bytes - sizes.median_training) / sizes.median_training
    late = min(episode.number / 64, 1.0)
    return annotation + 0.25 * training + 0.02 * late + 0.001 * _chance(rule.tie_seed, episode.path)


def _chance(seed: int, path: str) -> float:
    """A number in [0, 1) that depends on seed and path only."""
    return int(hashlib.sha256(f"{seed}:{path}".encode()).hexdigest()[:12], 16) / 16**12


def pick(
    complete: Iterable[ListedEpisode], sizes: SizeStatistics, rule: SizeBandRule
) -> tuple[list[Picked], list[Skip], list[Check]]:
    """Fill the bands from short to long, best scores first, and never take two episodes of a session.

    Returns:
        The pilot in the order of its ranks, a reason for every other complete episode, and one broken rule
        for each band that could not be filled; the pilot is empty when there is one.
    """
    scored, skips = _score_candidates(complete, sizes, rule)
    taken: dict[str, str] = {}
    chosen: list[tuple[float, ListedEpisode, str]] = []
    short: list[Check] = []
    for band in rule.bands:
        filled = 0
        for value, episode in scored.get(band, []):
            if reason := _not_needed(episode, band, taken, full=filled == rule.wanted):
                skips.append(_skip(episode, reason))
                continue
            taken[episode.session] = band
            chosen.append((value, episode, band))
            filled += 1
        if filled < rule.wanted:
            short.append(_unfilled(band, filled, rule.wanted))
    if short:
        empty = ", ".join(check.subject for check in short)
        reason = "fits band {}, but no pilot was made: {} could not be filled"
        lost = [_skip(episode, reason.format(band, empty)) for _, episode, band in chosen]
        return [], [*skips, *lost], short
    return _with_splits(chosen, rule), skips, []


def _score_candidates(
    complete: Iterable[ListedEpisode], sizes: SizeStatistics, rule: SizeBandRule
) -> tuple[dict[str, list[tuple[float, ListedEpisode]]], list[Skip]]:
    """Candidates by band, best first, and a reason for every episode that is too small."""
    scored: dict[str, list[tuple[float, ListedEpisode]]] = {}
    skips: list[Skip] = []
    for episode in complete:
        if reason := below_floor(episode, sizes):
            skips.append(_skip(episode, reason))
        else:
            band = band_of(episode, sizes, rule)
            scored.setdefault(band, []).append((score(episode, band, sizes, rule), episode))
    for found in scored.values():
        found.sort(key=lambda pair: (pair[0], pair[1].path))
    return scored, skips


def _not_needed(episode: ListedEpisode, band: str, taken: Mapping[str, str], *, full: bool) -> str | None:
    where = taken.get(episode.session)
    if where is not None:
        return f"not needed: an episode of its session is taken in band {where}"
    return f"not needed: band {band} is full" if full else None


def _skip(episode: ListedEpisode, reason: str) -> Skip:
    return Skip(subject=episode.episode_id, stage="select", reason=reason)


def _unfilled(band: str, filled: int, wanted: int) -> Check:
    return Check(
        rule="size_bands_are_filled",
        subject=f"band {band}",
        expected=f"{wanted} episodes of different sessions; ask for fewer with --per-band TRAIN/VAL/TEST",
        found=str(filled),
        ok=False,
    )


def _with_splits(chosen: Sequence[tuple[float, ListedEpisode, str]], rule: SizeBandRule) -> list[Picked]:
    split_of: dict[str, Split] = {}
    for band in rule.bands:
        paths = [episode.path for _, episode, found in chosen if found == band]
        split_of |= assign_splits(paths, sizes=rule.per_band, seed=rule.split_seed)
    return [
        Picked(episode, band, round(value, SCORE_DECIMALS), split_of[episode.path], rank)
        for rank, (value, episode, band) in enumerate(chosen, start=1)
    ]


def published_fields(picked: Picked) -> dict[str, Any]:
    """One row of the selection, under the published names; ``episode_id`` is the folder's name there."""
    episode = picked.episode
    return {
        "selection_rank": picked.rank,
        "split": str(picked.split),
        "size_band": picked.band,
        "episode_path": episode.path,
        "top_level_session": episode.session,
        "episode_id": episode.name,
        "episode_number": episode.number,
        "annotation_human": _gibibytes(episode.annotation_bytes),
        "training_human": _gibibytes(episode.training_bytes),
        "annotation_bytes": episode.annotation_bytes,
        "video_bytes": episode.video_bytes,
        "training_bytes_excluding_visualization_rrd": episode.training_bytes,
        "total_bytes": episode.total_bytes,
        "file_count": len(episode.bytes_by_file),
        "has_annotation": ANNOTATION in episode.bytes_by_file,
        "has_all_six_videos": not episode.missing_files,
        "has_visualization_rrd": VIEWER_FILE in episode.bytes_by_file,
        "missing_required_files": episode.missing_files,
        "download_files": [f"{episode.path}/{name}" for name in EPISODE_FILES],
        "selection_score": picked.score,
    }


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
