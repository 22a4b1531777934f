"""Copies that were re-encoded, trimmed, shifted or mirrored: the same motion, sound or pictures.

Each rule compares signals over all offsets. Their thresholds lie between what was measured for copies
and for unrelated recordings: ``docs/decisions/near_duplicates.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine import key_frames, motion_trace, path_trace, sound_bits
from omni_mlflow.spine.alignment import SEES_FROM, TOO_SHORT, Match, best_match, transform_size, transformed
from omni_mlflow.spine.fingerprints import Fingerprint, Fingerprints
from omni_mlflow.spine.key_frames import MIN_CAMERAS, MIN_MOMENTS, KeyFrames
from omni_mlflow.spine.leak_graph import Finding, Leak, LeakRule, PairAbstention, edge_between, pairs_across
from omni_mlflow.spine.types import Episode

Signal = motion_trace.MotionTrace | path_trace.PathTrace | sound_bits.SoundBits


@dataclass(frozen=True)
class Witness:
    """One signal by which two episodes are compared.

    Attributes:
        has: the ids of the episodes of which it can tell something.
        compare: from the ids of two of them to their best match; None where they have too little in common.
        threshold: the score from which it speaks of a copy.
        evidence: what they then share.
    """

    has: Collection[str]
    compare: Callable[[str, str], Match | None]
    threshold: float
    evidence: str


def _same_motion(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    """Two witnesses: what the inertial unit felt, and where the rig went."""
    felt = {each.episode_id: fingerprints[each.episode_id].motion for each in episodes}
    went = {each.episode_id: fingerprints[each.episode_id].path for each in episodes}
    witnesses = (
        _aligned(
            felt,
            rate_hz=motion_trace.RATE_HZ,
            threshold=motion_trace.THRESHOLD,
            evidence="the same motion",
        ),
        _aligned(
            went,
            rate_hz=path_trace.RATE_HZ,
            threshold=path_trace.THRESHOLD,
            evidence="the same path of the rig",
            mirror=path_trace.MIRROR,
        ),
    )
    return _compared("motion_disjoint", episodes, witnesses, abstained=_abstained(felt, went))


def _same_sound(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    sounds = {each.episode_id: fingerprints[each.episode_id].sound for each in episodes}
    heard = _aligned(
        sounds, rate_hz=sound_bits.RATE_HZ, threshold=sound_bits.THRESHOLD, evidence="the same sound"
    )
    return _compared("sound_disjoint", episodes, (heard,), abstained=_abstained(sounds))


def _same_pictures(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    abstained: dict[str, str] = {}
    views: dict[str, Mapping[str, KeyFrames]] = {}
    for episode in episodes:
        fingerprint = fingerprints[episode.episode_id]
        cameras = {name: each for name, each in fingerprint.key_frames.items() if not each.abstains}
        if len(cameras) >= MIN_CAMERAS:
            views[episode.episode_id] = cameras
        else:
            abstained[episode.episode_id] = _no_pictures(fingerprint, len(cameras))

    def compare(first: str, second: str) -> Match | None:
        return key_frames.best_view(views[first], views[second], at_least=key_frames.THRESHOLD)

    seen = Witness(views, compare, key_frames.THRESHOLD, "the same pictures")
    return _compared("pictures_disjoint", episodes, (seen,), abstained=abstained)


def _aligned(
    signals: Mapping[str, Signal | None],
    *,
    rate_hz: float,
    threshold: float,
    evidence: str,
    mirror: NDArray[np.float32] | None = None,
) -> Witness:
    """Compare one signal per episode at all offsets; every signal is transformed once.

    Args:
        mirror: what a mirror does to the channels of the signal, where it changes them.
    """
    values = {name: each.signal() for name, each in signals.items() if each is not None and not each.abstains}
    size = transform_size(max((each.shape[1] for each in values.values()), default=1))
    spectra = {name: transformed(each, size=size) for name, each in values.items()}
    mirrored = {} if mirror is None else {n: transformed(v * mirror, size=size) for n, v in values.items()}

    def compare(first: str, second: str) -> Match | None:
        match = best_match(spectra[first], spectra[second], rate_hz=rate_hz, at_least=threshold)
        if mirror is None or match is None or match.score >= threshold:
            return match
        other = best_match(spectra[first], mirrored[second], rate_hz=rate_hz, at_least=threshold)
        return replace(other, mirrored=True) if other and other.score > match.score else match

    return Witness(spectra, compare, threshold, evidence)


def _abstained(*signals: Mapping[str, Signal | None]) -> dict[str, str]:
    """Why an episode can be compared by none of some signals, by its id."""
    reasons = {name: [_why_not(each[name]) for each in signals] for name in (signals[0] if signals else ())}
    return {name: "; ".join(dict.fromkeys(map(str, each))) for name, each in reasons.items() if all(each)}


def _why_not(signal: Signal | None) -> str | None:
    return "it has no such signal" if signal is None else signal.abstains


def _compared(
    rule: str,
    episodes: Sequence[Episode],
    witnesses: Sequence[Witness],
    *,
    abstained: Mapping[str, str],
) -> Finding:
    """Compare every pair across; the first witness that speaks of a copy makes the edge."""
    edges: list[Leak] = []
    silent: list[PairAbstention] = []
    pairs = 0
    for first, second in pairs_across(episodes):
        one, other = first.episode_id, second.episode_id
        if one in abstained or other in abstained:
            continue
        able = [each for each in witnesses if one in each.has and other in each.has]
        told = False
        for witness in able:
            match = witness.compare(one, other)
            told = told or match is not None
            if match is not None and match.score >= witness.threshold:
                edges.append(_edge(rule, first, second, witness, match))
                break
        pairs += told
        if not told:
            reason = TOO_SHORT if able else "they have no signal in common"
            silent.append(PairAbstention(first=one, second=other, reason=reason))
    return Finding(edges, pairs, abstained, silent)


def _edge(rule: str, first: Episode, second: Episode, witness: Witness, match: Match) -> Leak:
    return edge_between(
        rule,
        "near_duplicate",
        first,
        second,
        f"{witness.evidence} for {match.overlap_s:.1f} s{', mirrored' if match.mirrored else ''}",
        score=round(match.score, 3),
        threshold=witness.threshold,
        offset_s=round(match.offset_s, 3),
    )


def _no_pictures(fingerprint: Fingerprint, num_cameras: int) -> str:
    reasons = [f"{name}: {each.abstains}" for name, each in fingerprint.key_frames.items() if each.abstains]
    reasons += [f"{name}: {reason}" for name, reason in fingerprint.unreadable.items()]
    return f"{num_cameras} cameras can be compared, {MIN_CAMERAS} are wanted; {'; '.join(sorted(reasons))}"


NEAR_DUPLICATE_RULES = {
    "motion_disjoint": LeakRule(
        "near_duplicate",
        "acceleration and turning rate of the rig, 0.7 to 8 Hz, and its path below, over all offsets",
        SEES_FROM,
        _same_motion,
    ),
    "sound_disjoint": LeakRule(
        "near_duplicate",
        "signs of the change between 17 bands of the sound, over all offsets",
        SEES_FROM,
        _same_sound,
    ),
    "pictures_disjoint": LeakRule(
        "near_duplicate",
        "perceptual hashes of sparse frames of every camera, also mirrored, over all offsets",
        f"{SEES_FROM}, with {MIN_MOMENTS} moments of contrast for each of {MIN_CAMERAS} cameras",
        _same_pictures,
    ),
}
