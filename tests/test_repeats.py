"""Rows of a long table that repeat each other are found without holding the table."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_mlflow.repeats import Repeats

NAN = float("nan")


def suspects(*parts: list[Any], keys: tuple[tuple[str, ...], ...] = (("value",),)) -> list[int]:
    """The places of the suspected rows of a table with one column, given in parts."""
    repeats = Repeats(keys, kept=["place"], file=BytesIO())
    start = 0
    for part in parts:
        repeats.add(pd.DataFrame({"value": part, "place": range(start, start + len(part))}))
        start += len(part)
    found: list[int] = repeats.suspects()["place"].to_list()
    return found


@pytest.mark.parametrize(
    ("parts", "places"),
    [
        ((["a", "b"], ["c", "b"]), [0, 1, 3]),
        ((["a", "b", "b"],), [0, 1, 2]),
        ((["a", "b"], ["c", "d"]), [0]),
        (([1, 2], [3, 2.0], [True, None]), [0, 1, 3, 4]),
        ((["a", None], ["b", NAN]), [0, 1, 3]),
        ((["a", "b"], [["has no hash"], "c"]), [0, 2]),
        (([],), []),
    ],
    ids=[
        "in two parts",
        "in one part",
        "nothing twice",
        "numbers of several types",
        "no value",
        "a value that cannot be hashed",
        "no row",
    ],
)
def test_the_first_row_and_all_that_may_repeat_another_are_found(parts, places):
    assert suspects(*parts) == places


def test_rows_repeat_each_other_when_all_columns_of_a_key_agree():
    repeats = Repeats([["a", "b"], ["c"]], kept=["a"], file=BytesIO())
    repeats.add(pd.DataFrame({"a": ["x", "y"], "b": [1, 1], "c": [1, 2]}))
    repeats.add(pd.DataFrame({"a": ["y", "z", "v"], "b": [1, 1, 1], "c": [3, 4, 4]}))
    found = repeats.suspects()
    assert found.columns.to_list() == ["a"]
    assert found["a"].to_list() == ["x", "y", "y", "z", "v"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 5) | st.sampled_from(["a", "b", None]), min_size=1), st.integers(1, 4))
def test_what_is_equal_in_the_table_is_found_whatever_its_parts(values, size):
    again = [place for place, value in enumerate(values) if values.count(value) > 1]
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    assert suspects(*parts) == sorted({0, *again})


def test_memory_holds_eight_bytes_of_a_row(traced):
    with tempfile.TemporaryFile() as file:
        repeats = Repeats([["value"]], kept=["value"], file=file)
        before = traced()
        for part in range(100):
            repeats.add(pd.DataFrame({"value": [f"{part} {row} {'long' * 50}" for row in range(1000)]}))
        assert traced() - before < 12 * 100_000
        assert len(repeats.suspects()) == 1


@pytest.fixture
def traced() -> Any:
    """Return a function that says how many bytes are held."""
    held: Callable[[], int] = lambda: tracemalloc.get_traced_memory()[0]  # noqa: E731
    tracemalloc.start()
    yield held
    tracemalloc.stop()
