"""Answers that are taken over from other journals are those that were found there, whatever happens."""

from __future__ import annotations

import pytest

from omni_mlflow.journal import Journal, follow_journal, follow_open_journal
from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.spine.types import Answer, Outcome
from omni_mlflow.stages.answering import AnswerJournal
from omni_mlflow.stages.kept_answers import KeptAnswers

IDS = ["kitchen:20:0", "kitchen:20:10", "kitchen:20:20"]


def said(sample_id: str) -> Answer:
    raw = f"said of {sample_id}"
    return Answer(id=sample_id, episode_id="kitchen", anchor=20, outcome=Outcome.ANSWERED, raw=raw)


def begin(path, ids, *, batch_size=1):
    with Journal(path) as rows:
        AnswerJournal(rows, {"checkpoint": "one"}, batch_size=lambda: batch_size).add(
            "intact", [said(each) for each in ids]
        )


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard/predictions.partial.jsonl"
    begin(path, IDS)
    return path


@pytest.fixture
def known(shard):
    """What the journal of the shard holds, found but not taken over yet."""
    answers, file = KeptAnswers(), shard.open("rb")
    rows = follow_open_journal(file, start=0)
    _, start = next(rows)
    for row, end in rows:
        answers.put_row(file, start, row)
        start = end
    return answers


@pytest.fixture
def whole(tmp_path):
    with Journal(tmp_path / "whole/predictions.partial.jsonl") as rows:
        yield AnswerJournal(rows, {"checkpoint": "one"}, batch_size=lambda: 1), rows.path


def test_a_journal_that_was_moved_away_and_begun_anew_gives_what_was_found_in_it(shard, known, whole):
    shard.parent.rename(shard.parent.with_name("superseded"))
    begin(shard, IDS[1:], batch_size=16)  # its rows start at other bytes
    journal, path = whole
    journal.take_over("intact", IDS, known)
    assert [answer.raw for answer in journal.answers("intact", IDS)] == [f"said of {each}" for each in IDS]
    assert [row["id"] for row, _ in follow_journal(path, start=0) if "id" in row] == IDS


def test_nothing_is_taken_over_from_a_journal_that_was_rewritten_in_place(shard, known, whole):
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join([*lines[:2], lines[3], lines[2]]))
    journal, path = whole
    before = path.read_bytes()
    with pytest.raises(BadRowError, match=r"the answer \(intact\) to kitchen:20:10 no longer stands at byte"):
        journal.take_over("intact", IDS, known)
    assert path.read_bytes() == before
    assert journal.missing("intact", IDS) == IDS


def test_nothing_is_taken_over_from_a_journal_that_was_cut(shard, known, whole):
    shard.write_bytes(shard.read_bytes()[:-1])
    journal, _ = whole
    with pytest.raises(BadRowError, match=r"the answer \(intact\) to kitchen:20:20 no longer stands"):
        journal.take_over("intact", IDS, known)
    assert journal.missing("intact", IDS) == IDS
