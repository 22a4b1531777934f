"""Rows that are made when somebody asks for them, and not before."""

import pytest

from omni_mlflow.spine.made_rows import MadeRows


def test_a_row_is_made_of_those_at_its_place_each_time_it_is_asked_for():
    made = []
    rows = MadeRows(lambda one, other: made.append((one, other)) or one * other, [1, 2, 3], [4, 5, 6])
    assert (len(rows), made) == (3, [])
    assert list(rows) == list(rows) == [4, 10, 18]
    assert len(made) == 6
    assert (rows[-1], list(rows[1:])) == (18, [10, 18])


def test_sequences_of_different_lengths_share_no_places():
    with pytest.raises(ValueError, match="2, 1"):
        MadeRows(max, [1, 2], [1])
