"""A split that was made elsewhere, held against the episodes that are here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from omni_mlflow.spine.given import NamedEpisode
from omni_mlflow.spine.types import Check, Episode, Skip, Split


@dataclass(frozen=True)
class GivenSplit:
    """What remains of a given split, and what is wrong with it.

    Attributes:
        split_of: split by episode id, for the episodes that are both named and selected.
        skips: named episodes that the selection had rejected, with its reason, and selected ones that are not
            named; ``taken == len(split_of) + len(skips)`` unless a rule is broken.
        checks: every broken rule.
        taken: episodes that are named, selected or both.
    """

    split_of: Mapping[str, Split]
    skips: list[Skip]
    checks: list[Check]
    taken: int


def hold_against(
    named: Sequence[NamedEpisode],
    episodes: Iterable[Episode],
    *,
    rejected: Mapping[str, str],
    sizes: Mapping[Split, int],
) -> GivenSplit:
    """Verify a given split; nothing is repaired.

    Args:
        rejected: reason of each episode that the selection left out, by id.
        sizes: sessions that each split must hold, counted without what is skipped.
    """
    selected = {episode.episode_id for episode in episodes}
    split_of = {
        each.episode_id: Split(each.values["split"])
        for each in named
        if each.values.get("split") in list(Split) and each.episode_id in selected
    }
    ids = {each.episode_id for each in named}
    skips = [
        *(_skip(episode_id, "the split manifest does not name it") for episode_id in sorted(selected - ids)),
        *(
            _skip(episode_id, f"the split manifest names it, but: {rejected[episode_id]}")
            for episode_id in sorted(ids - selected)
            if episode_id in rejected
        ),
    ]
    checks = [
        *_rows_are_sound(named),
        *_episodes_are_known(named, selected | set(rejected)),
        *_sessions_have_one_split(named),
        *_sizes_are_as_asked(split_of, named, sizes),
    ]
    return GivenSplit(split_of, skips, checks, len(selected | ids))


def _skip(episode_id: str, reason: str) -> Skip:
    return Skip(subject=episode_id, stage="split", reason=reason)


def _rows_are_sound(named: Iterable[NamedEpisode]) -> Iterable[Check]:
    first: dict[str, str] = {}
    for each in named:
        split = each.values.get("split", "")
        if split not in list(Split):
            yield _broken(
                "splits_are_known", f"{each.place}: {each.episode_id}", "train, val or test", split or "none"
            )
        if each.episode_id in first:
            yield _broken(
                "episodes_come_once",
                f"{each.place}: {each.episode_id}",
                "one row",
                f"also {first[each.episode_id]}",
            )
        first.setdefault(each.episode_id, each.place)


def _episodes_are_known(named: Iterable[NamedEpisode], known: set[str]) -> Iterable[Check]:
    return [
        _broken(
            "episodes_are_known",
            f"{each.place}: {each.episode_id}",
            "an episode that 'select' found; download it and run 'select' again, or take out the row",
            "not found",
        )
        for each in named
        if each.episode_id not in known
    ]


def _sessions_have_one_split(named: Iterable[NamedEpisode]) -> Iterable[Check]:
    splits: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for each in named:
        splits[each.session_id][each.values.get("split", "")].append(each.episode_id.rpartition("__")[2])
    return [
        _broken(
            "sessions_have_one_split",
            f"session {session}",
            "all of its episodes in one split",
            "; ".join(f"{split}: {', '.join(found)}" for split, found in sorted(by_split.items())),
        )
        for session, by_split in sorted(splits.items())
        if len(by_split) > 1
    ]


def _sizes_are_as_asked(
    split_of: Mapping[str, Split], named: Iterable[NamedEpisode], sizes: Mapping[Split, int]
) -> Iterable[Check]:
    sessions = {(each.session_id, split_of[each.episode_id]) for each in named if each.episode_id in split_of}
    found = Counter(split for _, split in sessions)
    here = "/".join(str(found[split]) for split in Split)
    return [
        _broken(
            "sizes_are_as_asked",
            f"split {split}",
            f"{size} sessions; to take what is here, give --sizes {here}",
            str(found[split]),
        )
        for split, size in sizes.items()
        if found[split] != size
    ]


def _broken(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=False)
