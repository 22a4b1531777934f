"""Leaks that are equalities: the same session, the same moment of a device, the same bytes or numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from omni_mlflow.spine.contents import RECORDED_ARRAYS, SAMPLED_IMAGES, SKETCHED_ROWS
from omni_mlflow.spine.fingerprints import Fingerprint, Fingerprints
from omni_mlflow.spine.identity import is_placeholder
from omni_mlflow.spine.leak_graph import (
    Finding,
    Leak,
    LeakRule,
    edge_between,
    num_pairs_across,
    pairs_across,
)
from omni_mlflow.spine.types import Episode

MIN_SHARED_ROWS = 4
"""Remembered rows of one array, or pictures of one video, from which a run of it was copied.

Of a quarter of it about 16 are found.
"""


def unknown_identities(episodes: Sequence[Episode], fingerprints: Fingerprints) -> list[Leak]:
    """Return an edge to nowhere for each episode whose session, device or clock cannot be established.

    A name that stands for none, a clock that does not advance or at no credible rate, and frame names that
    repeat establish nothing.
    """
    leaks = []
    for episode in episodes:
        unknown = [
            f"{what} ({why})" if why else what
            for what, why in _unknown(episode, fingerprints.get(episode.episode_id))
        ]
        if unknown:
            evidence = f"unknown {', '.join(unknown)}: it cannot be told apart from the other splits"
            leaks.append(edge_between("identity_known", "identity", episode, None, evidence))
    return leaks


def _unknown(episode: Episode, fingerprint: Fingerprint | None) -> Iterator[tuple[str, str]]:
    """Yield what is not known of an episode, and why where something stands in its place."""
    device_id = fingerprint.device_id if fingerprint else None
    if is_placeholder(episode.session_id):
        yield "session", episode.session_id.strip()
    if fingerprint is None:
        yield "fingerprint", ""
    if is_placeholder(device_id):
        yield "device id", (device_id or "").strip()
    if fingerprint is None or fingerprint.device_clock_ns is None:
        yield "device clock", ""
    if fingerprint is not None:
        yield from fingerprint.doubts.items()


def _session_disjoint(episodes: Sequence[Episode], _: Fingerprints) -> Finding:
    sessions = ((each.session_id, each) for each in episodes if each.session_id.strip())
    edges = [
        edge_between("session_disjoint", "identity", first, second, f"both belong to session {session}")
        for session, first, second in _shared(sessions)
    ]
    return Finding(edges, num_pairs_across(episodes))


def _device_clock_disjoint(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    """No device was at the same moment of its own clock in two splits.

    The clock starts again when a device does. Two recordings whose host times are known and apart are
    therefore two moments, also where the device clocks agree.
    """
    devices = ((fingerprints[each.episode_id].device_id, each) for each in episodes)
    edges = []
    for device, first, second in _shared((device, each) for device, each in devices if device):
        one, other = fingerprints[first.episode_id], fingerprints[second.episode_id]
        if not _overlap(one.device_clock_ns, other.device_clock_ns):
            continue
        if one.recorded_ns and other.recorded_ns and not _overlap(one.recorded_ns, other.recorded_ns):
            continue
        evidence = f"device {device} recorded both at {one.device_clock_ns} and {other.device_clock_ns} ns"
        edges.append(edge_between("device_clock_disjoint", "identity", first, second, evidence))
    return Finding(edges, num_pairs_across(episodes))


def _content_disjoint(episodes: Sequence[Episode], fingerprints: Fingerprints) -> Finding:
    """No file, no array, and no run of rows of an array or of encoded pictures is in two splits."""
    whole = _in_common(episodes, fingerprints, _contents)
    parts = _in_common(episodes, fingerprints, _remembered_parts)
    same = defaultdict(list, {ends: list(names) for ends, names in whole.items()})
    for ends, names in parts.items():
        same[ends] += [
            f"{name} ({count} of {SKETCHED_ROWS} remembered parts)"
            for name, count in names.items()
            if count >= MIN_SHARED_ROWS and name not in whole.get(ends, ())
        ]
    by_id = {each.episode_id: each for each in episodes}
    edges = [
        edge_between(
            "content_disjoint", "bytes", by_id[a], by_id[b], f"same content: {', '.join(sorted(what))}"
        )
        for (a, b), what in sorted(same.items())
        if what
    ]
    return Finding(edges, num_pairs_across(episodes))


def _in_common(
    episodes: Sequence[Episode],
    fingerprints: Fingerprints,
    content: Callable[[Fingerprint], Iterator[tuple[str, Hashable]]],
) -> dict[tuple[str, str], Counter[str]]:
    """Return of each pair of two splits what it has in common, whatever its name, and how many such contents.

    What has the same name on both sides is told by it; otherwise by both.
    """
    keys = Counter(key for each in episodes for _, key in content(fingerprints[each.episode_id]))
    names: dict[tuple[Hashable, str], list[str]] = defaultdict(list)
    occurrences = []
    for episode in episodes:
        for name, key in content(fingerprints[episode.episode_id]):
            if keys[key] > 1:  # what occurs once needs no name
                names[key, episode.episode_id].append(name)
                occurrences.append((key, episode))
    common: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for key, first, second in _shared(occurrences):
        ends = first.episode_id, second.episode_id
        one, other = (names[key, each] for each in ends)
        alike = [name for name in one if name in other]
        common[ends].update(alike or [f"{mine} = {theirs}" for mine in one for theirs in other])
    return common


EXACT_RULES = {
    "session_disjoint": LeakRule("identity", "session ids", "the id", _session_disjoint),
    "device_clock_disjoint": LeakRule(
        "identity",
        "device ids with the span of the device's clock, and host times",
        "one moment",
        _device_clock_disjoint,
    ),
    "content_disjoint": LeakRule(
        "bytes",
        f"sha256 of every file but silent videos without contrast, and of the {len(RECORDED_ARRAYS)} arrays "
        f"with content of their own ({SAMPLED_IMAGES} images of each of depth), hashes of {SKETCHED_ROWS} "
        f"rows of each wide array and of {SKETCHED_ROWS} encoded pictures of each video, under any name",
        f"one file, one array, or {MIN_SHARED_ROWS} remembered parts of an array or a video",
        _content_disjoint,
    ),
}


def _contents(fingerprint: Fingerprint) -> Iterator[tuple[str, str]]:
    """Yield files and arrays: what they are called, and their digests."""
    yield from ((name, sha256) for name, sha256 in fingerprint.files.items() if name not in fingerprint.blank)
    yield from fingerprint.datasets.items()


def _remembered_parts(fingerprint: Fingerprint) -> Iterator[tuple[str, int]]:
    for name, sketch in fingerprint.rows.items():
        yield from ((name, part) for part in sketch)


def _shared(
    occurrences: Iterable[tuple[Hashable, Episode]],
) -> Iterator[tuple[Any, Episode, Episode]]:
    """Yield every pair of episodes of two splits that has a key in common, with that key."""
    groups: dict[Hashable, dict[str, Episode]] = defaultdict(dict)
    for key, episode in occurrences:
        groups[key][episode.episode_id] = episode
    for key, group in groups.items():
        for first, second in pairs_across(list(group.values())):
            yield key, first, second


def _overlap(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return bool(one and other and one[0] <= other[1] and other[0] <= one[1])
