"""Copies that were re-encoded, trimmed, shifted or mirrored: the same motion, sound or pictures.

Each rule compares one signal over all offsets. Their thresholds lie between what was measured for copies
and for unrelated recordings: ``docs/decisions/near_duplicates.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from omni_mlflow.spine import key_frames, motion_trace, sound_bits
from omni_mlflow.spine.alignment import Match, best_match, transform_size, transformed
from omni_mlflow.spine.fingerprints import Fingerprint, Fingerprints
from omni_mlflow.spine.key_frames import MIN_CAMERAS, KeyFrames
from omni_mlflow.spine.leak_graph import Finding, LeakRule, edge_between, pairs_across
from omni_mlflow.spine.types import Episode

Signal = motion_trace.MotionTrace | sound_bits.SoundBits


def _same_motion(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    traces = {each.episode_id: fingerprints[each.episode_id].motion for each in episodes}
    return _aligned(
        "motion_disjoint",
        episodes,
        traces,
        rate_hz=motion_trace.RATE_HZ,
        threshold=motion_trace.THRESHOLD,
        evidence="the same motion",
    )


def _same_sound(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    sounds = {each.episode_id: fingerprints[each.episode_id].sound for each in episodes}
    return _aligned(
        "sound_disjoint",
        episodes,
        sounds,
        rate_hz=sound_bits.RATE_HZ,
        threshold=sound_bits.THRESHOLD,
        evidence="the same sound",
    )


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

    return _compared(
        "pictures_disjoint",
        [each for each in episodes if each.episode_id in views],
        compare,
        threshold=key_frames.THRESHOLD,
        evidence="the same pictures",
        abstained=abstained,
    )


def _aligned(
    rule: str,
    episodes: Sequence[Episode],
    signals: Mapping[str, Signal | None],
    *,
    rate_hz: float,
    threshold: float,
    evidence: str,
) -> Finding:
    """Compare one signal per episode; every signal is transformed once."""
    present = {name: each for name, each in signals.items() if each is not None and not each.abstains}
    abstained = {
        name: (each.abstains or "") if each is not None else "it has no such signal"
        for name, each in signals.items()
        if name not in present
    }
    values = {name: each.signal() for name, each in present.items()}
    size = transform_size(max((each.shape[1] for each in values.values()), default=1))
    spectra = {name: transformed(each, size=size) for name, each in values.items()}

    def compare(first: str, second: str) -> Match | None:
        return best_match(spectra[first], spectra[second], rate_hz=rate_hz, at_least=threshold)

    placed = [each for each in episodes if each.episode_id in present]
    return _compared(rule, placed, compare, threshold=threshold, evidence=evidence, abstained=abstained)


def _compared(
    rule: str,
    episodes: Sequence[Episode],
    compare: Callable[[str, str], Match | None],
    *,
    threshold: float,
    evidence: str,
    abstained: Mapping[str, str],
) -> Finding:
    edges = []
    pairs = 0
    for first, second in pairs_across(episodes):
        match = compare(first.episode_id, second.episode_id)
        pairs += match is not None
        if match is None or match.score < threshold:
            continue
        found = f"{evidence} for {match.overlap_s:.1f} s{', mirrored' if match.mirrored else ''}"
        edges.append(
            edge_between(
                rule,
                "near_duplicate",
                first,
                second,
                found,
                score=round(match.score, 3),
                threshold=threshold,
                offset_s=round(match.offset_s, 3),
            )
        )
    return Finding(edges, pairs, abstained)


def _no_pictures(fingerprint: Fingerprint, num_cameras: int) -> str:
    reasons = [f"{name}: {each.abstains}" for name, each in fingerprint.key_frames.items() if each.abstains]
    reasons += [f"{name}: {reason}" for name, reason in fingerprint.unreadable.items()]
    return f"{num_cameras} cameras can be compared, {MIN_CAMERAS} are wanted; {'; '.join(sorted(reasons))}"


NEAR_DUPLICATE_RULES = {
    "motion_disjoint": LeakRule(
        "near_duplicate",
        "acceleration and turning rate of the rig, 0.7 to 8 Hz, over all offsets",
        _same_motion,
    ),
    "sound_disjoint": LeakRule(
        "near_duplicate", "signs of the change between 17 bands of the sound, over all offsets", _same_sound
    ),
    "pictures_disjoint": LeakRule(
        "near_duplicate",
        "perceptual hashes of sparse frames of every camera, also mirrored, over all offsets",
        _same_pictures,
    ),
}
