"""How sessions are divided."""

from __future__ import annotations

import pytest

from omni_mlflow.spine.splits import TooFewSessionsError, assign_splits
from omni_mlflow.spine.types import Split

SESSIONS = [f"session_{number}" for number in range(20)]
SIZES = {Split.TRAIN: 5, Split.VAL: 2, Split.TEST: 3}


def test_every_split_gets_as_many_sessions_as_asked_and_the_rest_gets_none():
    splits = assign_splits(SESSIONS, sizes=SIZES, seed=7)
    assert [list(splits.values()).count(split) for split in Split] == [5, 2, 3]


def test_order_and_repetition_of_the_sessions_change_nothing():
    assert assign_splits([*reversed(SESSIONS), *SESSIONS], sizes=SIZES, seed=7) == assign_splits(
        SESSIONS, sizes=SIZES, seed=7
    )


def test_another_seed_divides_otherwise():
    assert assign_splits(SESSIONS, sizes=SIZES, seed=8) != assign_splits(SESSIONS, sizes=SIZES, seed=7)


def test_the_division_is_the_same_on_every_machine():
    """The sha256 of ``7:<session>`` begins 18 for c, 82 for a, d3 for d and ec for b."""
    splits = assign_splits("abcd", sizes={Split.TRAIN: 2, Split.TEST: 1}, seed=7)
    assert splits == {"c": Split.TRAIN, "a": Split.TRAIN, "d": Split.TEST}


def test_too_few_sessions_say_how_many_are_wanted_and_found():
    with pytest.raises(TooFewSessionsError, match=r"10 sessions wanted \(5/2/3 train/val/test\), 4 found"):
        assign_splits("abcd", sizes=SIZES, seed=7)
