"""What JSON has no number for is refused by file, place and value; the file that was there stays."""

from __future__ import annotations

import math

import pytest

from omni_mlflow.spine.rows import NotFiniteError, write_document, writing_json_rows


def test_a_document_names_the_metric_that_is_no_number(tmp_path):
    path = tmp_path / "metrics.json"
    write_document(path, {"accuracy": 0.5})
    metrics = {"accuracy": 0.5, "more": {"by_class": [{"f1": 1.0}, {"f1": math.nan}]}}
    with pytest.raises(NotFiniteError, match=r"metrics\.json .*: more\.by_class\[1\]\.f1 is nan, for which"):
        write_document(path, metrics)
    assert path.read_text() == '{\n  "accuracy": 0.5\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_is_named_by_its_line(tmp_path):
    path = tmp_path / "predictions.jsonl"
    told = r"predictions\.jsonl:2 .*: values\.error is inf, for which"
    with writing_json_rows(path) as write:
        write({"id": "a", "values": {"error": 1.0}})
        with pytest.raises(NotFiniteError, match=told):
            write({"id": "b", "values": {"error": math.inf}})
    assert path.read_text() == '{"id":"a","values":{"error":1.0}}\n', "nothing of the refused row"


def test_what_else_cannot_be_written_keeps_its_own_words(tmp_path):
    endless = {}
    endless["self"] = endless
    with pytest.raises(ValueError, match="Circular reference"):
        write_document(tmp_path / "metrics.json", endless)
