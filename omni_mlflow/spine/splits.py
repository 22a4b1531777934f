"""Which session goes to train, val or test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from omni_mlflow.spine.types import Episode, Row, Split


class TooFewSessionsError(Exception):
    """The split asks for more sessions than there are."""


class SplitBand(Row):
    """Sessions of similar length, of which every split gets its share.

    Attributes:
        quartiles: of length, counted from 1; more than one where small ones were joined.
        min_frames, max_frames: shortest and longest session; one is as long as its longest episode.
        sessions: in the order in which they are drawn.
        sizes: sessions given to each split.
    """

    quartiles: tuple[int, ...]
    min_frames: int
    max_frames: int
    sessions: tuple[str, ...]
    sizes: dict[Split, int]


def assign_splits(sessions: Iterable[str], *, sizes: Mapping[Split, int], seed: int) -> dict[str, Split]:
    """Give sessions to splits, train first; sessions that no split has room for are not in the result.

    Sessions are taken in the order of the sha256 of ``seed:session``: chance decides, but neither the order
    of a directory listing nor a Python version does, and with the same seed a larger data set keeps the
    relative order of a smaller one.

    Args:
        sizes: number of sessions of each split.

    Raises:
        TooFewSessionsError: naming how many are wanted and how many there are.
    """
    order = _in_order(set(sessions), seed)
    _check_enough(len(order), sizes)
    places = (split for split in Split for _ in range(sizes.get(split, 0)))
    return dict(zip(order, places, strict=False))


def stratified_bands(
    episodes: Iterable[Episode], *, sizes: Mapping[Split, int], seed: int
) -> tuple[SplitBand, ...]:
    """Divide sessions into bands of length, and give every split its share of each band.

    The bands are the quartiles of the episodes' numbers of frames; a session belongs to the band of its
    longest episode, and sessions of equal length are one band. A band with fewer sessions than there are
    splits to fill is joined with the next shorter one, the shortest with the next longer one.

    Of each band a split gets the whole part of ``size * sessions of the band / all sessions``. What is then
    left of its size is taken one by one, from the band that is furthest below its share and still has
    sessions, the shorter band where two are equal.

    Returns:
        The bands, short to long. Within one, sessions are given out as :func:`assign_splits` does.

    Raises:
        TooFewSessionsError: naming how many are wanted and how many there are.
    """
    frames: dict[str, int] = {}
    lengths = []
    for episode in episodes:
        lengths.append(episode.num_frames)
        frames[episode.session_id] = max(episode.num_frames, frames.get(episode.session_id, 0))
    _check_enough(len(frames), sizes)
    if not frames:
        return ()
    groups = _joined(_quartiles(frames, lengths), smallest=sum(size > 0 for size in sizes.values()))
    shares = _shares([len(group) for _, group in groups], sizes)
    return tuple(
        SplitBand(
            quartiles=quartiles,
            min_frames=min(frames[session] for session in group),
            max_frames=max(frames[session] for session in group),
            sessions=tuple(_in_order(group, seed)),
            sizes=share,
        )
        for (quartiles, group), share in zip(groups, shares, strict=True)
    )


def splits_of(bands: Iterable[SplitBand], *, seed: int) -> dict[str, Split]:
    """Which session is in which split; those that no split has room for are not in the result."""
    return {
        session: split
        for band in bands
        for session, split in assign_splits(band.sessions, sizes=band.sizes, seed=seed).items()
    }


def _in_order(sessions: Iterable[str], seed: int) -> list[str]:
    return sorted(sessions, key=lambda session: (_draw(seed, session), session))


def _draw(seed: int, session: str) -> str:
    return hashlib.sha256(f"{seed}:{session}".encode()).hexdigest()


def _check_enough(found: int, sizes: Mapping[Split, int]) -> None:
    wanted = sum(sizes.values())
    if wanted > found:
        asked = "/".join(str(sizes.get(split, 0)) for split in Split)
        raise TooFewSessionsError(
            f"{wanted} sessions wanted ({asked} train/val/test), {found} found; "
            "add sessions, or ask for fewer with --sizes TRAIN/VAL/TEST"
        )


_Group = tuple[tuple[int, ...], list[str]]
"""Numbers of the quartiles and the sessions in them."""


def _quartiles(frames: Mapping[str, int], lengths: Sequence[int]) -> list[_Group]:
    """Sessions by quartile, short to long; one without a session is left out."""
    edges = np.percentile(lengths, [25, 50, 75])
    groups: dict[int, list[str]] = {}
    for session, length in frames.items():
        groups.setdefault(int(np.searchsorted(edges, length, side="left")) + 1, []).append(session)
    return [((quartile,), group) for quartile, group in sorted(groups.items())]


def _joined(groups: Iterable[_Group], *, smallest: int) -> list[_Group]:
    """Join every group that cannot give each split a session with its neighbour."""
    kept: list[_Group] = []
    for quartiles, group in groups:
        if kept and min(len(group), len(kept[-1][1])) < smallest:
            before, others = kept.pop()
            kept.append(((*before, *quartiles), [*others, *group]))
        else:
            kept.append((quartiles, group))
    return kept


def _shares(members: Sequence[int], sizes: Mapping[Split, int]) -> list[dict[Split, int]]:
    """How many sessions of each band every split gets, see :func:`stratified_bands`."""
    total = sum(members)
    shares = [{split: size * count // total for split, size in sizes.items()} for count in members]
    room = [count - sum(share.values()) for count, share in zip(members, shares, strict=True)]
    for split, size in sizes.items():
        for _ in range(size - sum(share[split] for share in shares)):
            missing = [size * count - total * share[split] for count, share in zip(members, shares)]
            neediest = max((band for band, free in enumerate(room) if free), key=missing.__getitem__)
            shares[neediest][split] += 1
            room[neediest] -= 1
    return shares
