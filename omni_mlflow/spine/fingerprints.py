"""Leaks between splits, found in what episodes contain and not in what they are called.

A rule compares all episodes and returns an edge of the leak graph for each pair that two splits share.
Layers so far: ``identity`` (the same session, the same moment of the same device) and ``bytes`` (the same
file, the same recorded numbers).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omni_mlflow.spine.rows import file_digest
from omni_mlflow.spine.types import Episode, Row, Split

if TYPE_CHECKING:
    from omni_mlflow.spine.episodes import EpisodeFile

IDENTITY_DATASETS = (
    "slam/quat_wxyz",
    "slam/trans_xyz",
    "slam/frame_names",
    "slam/point_cloud",
    "imu/device_timestamp_ns",
    "imu/accel_xyz",
    "imu/gyro_xyz",
    "video/device_timestamp",
)
"""Arrays that two recordings cannot have in common: noise of a sensor, or times."""


class Fingerprint(Row):
    """What an episode is, whatever it is called.

    Attributes:
        files: sha256 of every file that is read, by name.
        datasets: sha256 of the content of every identity-bearing array of the annotation, by its path;
            attributes, layout and compression do not matter. Constant arrays identify nothing: left out.
        recorded_ns: when the recording around the episode began and ended, on the host's clock (epoch).
    """

    files: dict[str, str]
    datasets: dict[str, str]
    device_id: str | None
    device_clock_ns: tuple[int, int] | None
    recorded_ns: tuple[int, int] | None = None

    @property
    def digest(self) -> str:
        """sha256 over the sorted ``name:sha256`` lines of the files."""
        lines = "".join(f"{name}:{self.files[name]}\n" for name in sorted(self.files))
        return hashlib.sha256(lines.encode()).hexdigest()


class Leak(Row):
    """An edge of the leak graph: two episodes that must not be in two splits.

    ``second`` is None when ``first`` cannot be placed at all, because its identity is unknown.
    """

    rule: str
    layer: Literal["identity", "bytes"]
    first: str
    first_split: Split
    second: str | None = None
    second_split: Split | None = None
    evidence: str


Fingerprints = Mapping[str, Fingerprint]
LeakRule = Callable[[Sequence[Episode], Fingerprints], list[Leak]]


def fingerprint_episode(folder: Path) -> Fingerprint:
    """Read every byte of the episode in ``folder``.

    Raises:
        UnreadableEpisodeError: its annotation cannot be read.
    """
    from omni_mlflow.spine.episodes import open_episode
    from omni_mlflow.spine.listing import EPISODE_FILES

    files = {name: file_digest(folder / name) for name in EPISODE_FILES if (folder / name).is_file()}
    with open_episode(folder) as source:
        digests = ((name, _content_digest(source, name)) for name in IDENTITY_DATASETS)
        return Fingerprint(
            files=files,
            datasets={name: digest for name, digest in digests if digest is not None},
            device_id=source.device_id,
            device_clock_ns=source.device_clock_ns,
            recorded_ns=_recorded_ns(source.annotation.text("metadata/health_report")),
        )


def find_leaks(
    episodes: Sequence[Episode], fingerprints: Fingerprints, *, rules: Iterable[str] | None = None
) -> list[Leak]:
    """Return every leak between two splits, and every episode whose identity is unknown.

    Args:
        episodes: only those with a split are looked at.
        fingerprints: by episode id.
        rules: names in :data:`LEAK_RULES`, by default all. That identities are known is always asked.
    """
    placed = sorted((each for each in episodes if each.split), key=lambda each: each.episode_id)
    leaks = _unknown_identities(placed, fingerprints)
    known = [each for each in placed if each.episode_id in fingerprints]
    for name in LEAK_RULES if rules is None else rules:
        leaks += LEAK_RULES[name](known, fingerprints)
    return leaks


def _unknown_identities(episodes: Sequence[Episode], fingerprints: Fingerprints) -> list[Leak]:
    leaks = []
    for episode in episodes:
        fingerprint = fingerprints.get(episode.episode_id)
        facts = {
            "session": episode.session_id.strip(),
            "fingerprint": fingerprint,
            "device id": fingerprint and fingerprint.device_id,
            "device clock": fingerprint and fingerprint.device_clock_ns,
        }
        unknown = [name for name, fact in facts.items() if not fact]
        if unknown:
            evidence = f"unknown {', '.join(unknown)}: it cannot be told apart from the other splits"
            leaks.append(_leak("identity_known", "identity", episode, None, evidence))
    return leaks


def _session_disjoint(episodes: Sequence[Episode], _: Fingerprints) -> list[Leak]:
    """No session has episodes in two splits."""
    sessions = ((each.session_id, each) for each in episodes if each.session_id.strip())
    return [
        _leak("session_disjoint", "identity", first, second, f"both belong to session {session}")
        for session, first, second in _shared(sessions)
    ]


def _device_clock_disjoint(episodes: Sequence[Episode], fingerprints: Fingerprints) -> list[Leak]:
    """No device was at the same moment of its own clock in two splits.

    The clock starts again when a device does. Two recordings whose host times are known and apart are
    therefore two moments, also where the device clocks agree.
    """
    devices = ((fingerprints[each.episode_id].device_id, each) for each in episodes)
    leaks = []
    for device, first, second in _shared((device, each) for device, each in devices if device):
        one, other = fingerprints[first.episode_id], fingerprints[second.episode_id]
        if not _overlap(one.device_clock_ns, other.device_clock_ns):
            continue
        if one.recorded_ns and other.recorded_ns and not _overlap(one.recorded_ns, other.recorded_ns):
            continue
        evidence = f"device {device} recorded both at {one.device_clock_ns} and {other.device_clock_ns} ns"
        leaks.append(_leak("device_clock_disjoint", "identity", first, second, evidence))
    return leaks


def _content_disjoint(episodes: Sequence[Episode], fingerprints: Fingerprints) -> list[Leak]:
    """No file and no recorded array occurs in two splits."""
    contents = (
        (digest, each, name)
        for each in episodes
        for part in (fingerprints[each.episode_id].files, fingerprints[each.episode_id].datasets)
        for name, digest in part.items()
    )
    names: dict[tuple[str, str], str] = {}
    occurrences = []
    for digest, episode, name in contents:
        names[digest, episode.episode_id] = name
        occurrences.append((digest, episode))
    evidence: dict[tuple[str, str], list[str]] = defaultdict(list)
    by_id = {each.episode_id: each for each in episodes}
    for digest, first, second in _shared(occurrences):
        one, other = names[digest, first.episode_id], names[digest, second.episode_id]
        evidence[first.episode_id, second.episode_id].append(one if one == other else f"{one} = {other}")
    return [
        _leak("content_disjoint", "bytes", by_id[a], by_id[b], f"same content: {', '.join(sorted(same))}")
        for (a, b), same in sorted(evidence.items())
    ]


LEAK_RULES: dict[str, LeakRule] = {
    "session_disjoint": _session_disjoint,
    "device_clock_disjoint": _device_clock_disjoint,
    "content_disjoint": _content_disjoint,
}
"""The rules that a contract's ``leakage_guard`` may name."""


def _shared(
    occurrences: Iterable[tuple[Hashable, Episode]],
) -> Iterator[tuple[Any, Episode, Episode]]:
    """Yield every pair of episodes of two splits that has a key in common, with that key."""
    groups: dict[Hashable, dict[str, Episode]] = defaultdict(dict)
    for key, episode in occurrences:
        groups[key][episode.episode_id] = episode
    for key, group in groups.items():
        for first, second in combinations(group.values(), 2):
            if first.split != second.split:
                yield key, first, second


def _overlap(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    return bool(one and other and one[0] <= other[1] and other[0] <= one[1])


def _leak(
    rule: str, layer: Literal["identity", "bytes"], first: Episode, second: Episode | None, evidence: str
) -> Leak:
    assert first.split is not None
    return Leak(
        rule=rule,
        layer=layer,
        first=first.episode_id,
        first_split=first.split,
        second=second.episode_id if second else None,
        second_split=second.split if second else None,
        evidence=evidence,
    )


def _content_digest(source: EpisodeFile, name: str) -> str | None:
    """Digest of an array's shape, type and numbers; None when it is absent or all of its rows are equal."""
    if name not in source.annotation:
        return None
    array = source.annotation.array(name)
    if len(array) < 2 or (array == array[:1]).all():
        return None
    head = f"{array.shape}:{array.dtype.str}:".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def _recorded_ns(health_report: str | bytes | None) -> tuple[int, int] | None:
    """First and last host time that a health report names for its recordings."""
    try:
        recordings = json.loads(health_report or "{}").get("recordings", [])
        ranges = [each["wav_mjpeg_overlap"]["mjpeg_time_range_host_ns"] for each in recordings]
        return (min(int(start) for start, _ in ranges), max(int(stop) for _, stop in ranges))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
