"""Rows of a file that are parsed when somebody asks for them."""

import pytest

from omni_mlflow.spine.row_file import RowFile
from omni_mlflow.spine.rows import BadRowError, write_rows
from omni_mlflow.spine.types import Skip


def skip(number):
    return Skip(subject=f"café {number}", stage="export", reason="r" * number)


def test_rows_come_in_any_order_and_as_often_as_they_are_asked_for(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [skip(number) for number in range(4)])
    rows = RowFile.over(tmp_path / "rows.jsonl", Skip)
    assert len(rows) == 4
    assert list(rows) == list(rows) == [skip(0), skip(1), skip(2), skip(3)]
    assert (rows[-1], list(rows[1::2]), list(rows[:None])) == (skip(3), [skip(1), skip(3)], list(rows))


def test_a_row_that_cannot_be_parsed_is_named_by_its_byte(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [skip(0)])
    start = path.stat().st_size
    path.write_text(path.read_text() + "{nonsense}\n")
    with pytest.raises(BadRowError, match=f"byte {start} cannot be read"):
        list(RowFile.over(path, Skip))
