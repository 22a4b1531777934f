"""Which session goes to train, val or test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from omni_mlflow.spine.types import Split


class TooFewSessionsError(Exception):
    """The split asks for more sessions than there are."""


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
    order = sorted(set(sessions), key=lambda session: (_draw(seed, session), session))
    wanted = sum(sizes.values())
    if wanted > len(order):
        asked = "/".join(str(sizes.get(split, 0)) for split in Split)
        raise TooFewSessionsError(
            f"{wanted} sessions wanted ({asked} train/val/test), {len(order)} found; "
            "add sessions, or ask for fewer with --sizes TRAIN/VAL/TEST"
        )
    places = (split for split in Split for _ in range(sizes.get(split, 0)))
    return dict(zip(order, places, strict=False))


def _draw(seed: int, session: str) -> str:
    return hashlib.sha256(f"{seed}:{session}".encode()).hexdigest()
