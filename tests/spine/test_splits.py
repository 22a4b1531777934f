"""How sessions are divided."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_mlflow.spine.splits import TooFewSessionsError, assign_splits, splits_of, stratified_bands
from omni_mlflow.spine.types import Episode, Split

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


def episodes_of(frames_of: dict[str, list[int]]) -> list[Episode]:
    """Episodes by session, each with its number of frames."""
    return [
        Episode(
            episode_id=f"{session}__ep{number}",
            session_id=session,
            path=f"{session}/ep{number}",
            num_frames=frames,
            fps=20.0,
            bytes_by_file={},
        )
        for session, lengths in frames_of.items()
        for number, frames in enumerate(lengths, start=1)
    ]


def stratified(frames_of: dict[str, list[int]], sizes: dict[Split, int], seed: int = 7) -> dict[str, Split]:
    return splits_of(stratified_bands(episodes_of(frames_of), sizes=sizes, seed=seed), seed=seed)


def test_sessions_of_equal_length_are_divided_as_if_there_were_no_bands():
    bands = stratified_bands(episodes_of({each: [600] for each in SESSIONS}), sizes=SIZES, seed=7)
    assert [(band.quartiles, band.min_frames, band.max_frames) for band in bands] == [((1,), 600, 600)]
    assert splits_of(bands, seed=7) == assign_splits(SESSIONS, sizes=SIZES, seed=7)


def test_every_split_gets_its_share_of_every_band():
    """Four lengths, eight sessions each; of 16/8/8 sessions a band of a quarter gives 4/2/2."""
    frames = {f"s{number}": [(5100, 5850, 5950, 5998)[number % 4]] for number in range(32)}
    sizes = {Split.TRAIN: 16, Split.VAL: 8, Split.TEST: 8}
    split_of = stratified(frames, sizes)
    found = Counter((frames[session][0], split) for session, split in split_of.items())
    assert found == {
        (length, split): size // 4 for length in (5100, 5850, 5950, 5998) for split, size in sizes.items()
    }


def test_what_is_left_of_a_size_goes_to_the_bands_furthest_below_their_share():
    """6 short and 4 long; of 5/0/2 the whole parts are 3/0/1 and 2/0/0: the long band lacks 0.8 for test."""
    frames = {f"s{number}": [100 if number < 6 else 200] for number in range(10)}
    sizes = {Split.TRAIN: 5, Split.VAL: 0, Split.TEST: 2}
    bands = stratified_bands(episodes_of(frames), sizes=sizes, seed=7)
    assert [band.sizes for band in bands] == [
        {Split.TRAIN: 3, Split.VAL: 0, Split.TEST: 1},
        {Split.TRAIN: 2, Split.VAL: 0, Split.TEST: 1},
    ]


def test_a_band_with_fewer_sessions_than_splits_is_joined_with_its_neighbour_and_says_so():
    frames = {f"s{number}": [100] for number in range(9)} | {"long_1": [300], "long_2": [300]}
    bands = stratified_bands(episodes_of(frames), sizes=SIZES, seed=7)
    assert [(band.quartiles, band.min_frames, band.max_frames) for band in bands] == [((1, 4), 100, 300)]
    assert splits_of(bands, seed=7) == assign_splits(frames, sizes=SIZES, seed=7)


def test_a_session_belongs_to_the_band_of_its_longest_episode():
    frames = {f"short_{number}": [100] for number in range(6)} | {f"l_{n}": [20, 300] for n in range(6)}
    short, long = stratified_bands(episodes_of(frames), sizes=SIZES, seed=7)
    assert {session[:2] for session in short.sessions} == {"sh"}
    assert {session[:2] for session in long.sessions} == {"l_"}


@given(
    frames=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3),
        st.lists(st.integers(20, 60), min_size=1, max_size=4),
        max_size=30,
    ),
    sizes=st.fixed_dictionaries({split: st.integers(0, 12) for split in Split}),
    seed=st.integers(0, 3),
)
def test_whatever_the_lengths_no_session_is_in_two_splits_and_every_size_is_met(frames, sizes, seed):
    if sum(sizes.values()) > len(frames):
        with pytest.raises(TooFewSessionsError):
            stratified(frames, sizes, seed)
        return
    bands = stratified_bands(episodes_of(frames), sizes=sizes, seed=seed)
    assert Counter(session for band in bands for session in band.sessions) == Counter(frames.keys())
    found = Counter(splits_of(bands, seed=seed).values())
    assert found == Counter({split: size for split, size in sizes.items() if size})
    for band in bands:
        assert sum(band.sizes.values()) <= len(band.sessions)
        for split, size in sizes.items():
            assert band.sizes[split] >= size * len(band.sessions) // len(frames)
    backwards = dict(reversed(frames.items()))
    assert stratified_bands(episodes_of(backwards), sizes=sizes, seed=seed) == bands
