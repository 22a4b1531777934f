"""A journal survives kill -9 at any byte, has one writer, and never loses a finished row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omni_mlflow.journal import Journal, TornRow, follow_journal, last_row, read_journal, settle
from omni_mlflow.locks import JournalBusyError, exclusive, in_turn
from omni_mlflow.spine.rows import BadRowError

ROWS = [{"event": "sample", "id": f"kitchen_3/ep1:{i}", "said": "pours tea ☕", "n": i} for i in range(12)]


def write_all(path: Path) -> None:
    """A resumable job: it does the rows that the journal does not hold yet."""
    with Journal(path) as journal:
        for row in ROWS[len(journal.rows()) :]:
            journal.append(row)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "whole.jsonl"
    write_all(path)
    return path.read_bytes()


def test_a_journal_cut_at_any_byte_and_resumed_ends_byte_identical(tmp_path, uninterrupted):
    path = tmp_path / "journal.jsonl"
    torn = tmp_path / "journal.jsonl.torn"
    for cut in range(len(uninterrupted) + 1):
        path.write_bytes(uninterrupted[:cut])
        torn.unlink(missing_ok=True)
        write_all(path)
        assert path.read_bytes() == uninterrupted
        tail = uninterrupted[:cut].rpartition(b"\n")[2]
        assert (torn.read_bytes() if torn.exists() else b"") == (tail + b"\n" if tail else b"")


def test_only_the_torn_row_is_done_again(tmp_path, uninterrupted):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(uninterrupted[:-3])
    with Journal(path) as journal:
        assert journal.rows() == ROWS[:11]
        torn = tmp_path / "journal.jsonl.torn"
        assert journal.quarantined == TornRow(
            path, num_bytes=len(uninterrupted.splitlines()[-1]) - 2, kept_in=torn
        )


def test_a_row_that_is_being_written_is_not_read(tmp_path, uninterrupted):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(uninterrupted[:-1])
    assert list(read_journal(path)) == ROWS[:11]


def test_a_follower_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 0})
        [(first, end)] = follow_journal(path, start=0)
        journal.append({"n": 1})
    assert first == {"n": 0}
    assert [row for row, _ in follow_journal(path, start=end)] == [{"n": 1}]


def test_a_noted_row_waits_for_the_disk_only_when_somebody_asks(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    waits = []
    monkeypatch.setattr(os, "fsync", waits.append)
    with Journal(path) as journal:
        journal.note({"n": 0})
        assert (list(read_journal(path)), len(waits)) == ([{"n": 0}], 0)
        settle(path)
        assert len(waits) == 1
        journal.append({"n": 1})
        assert len(waits) == 2
    assert len(waits) == 3  # closing


def test_a_second_writer_is_refused_by_name(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path), pytest.raises(JournalBusyError, match=r"journal\.jsonl is being written"):
        Journal(path)


def test_a_line_edited_by_hand_is_an_error_with_its_place(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"n": 0}\n{"n": oops}\n')
    with pytest.raises(BadRowError, match=r"journal\.jsonl:2: not JSON"):
        list(read_journal(path))


@pytest.mark.parametrize(("line", "why"), [("", "a blank line;"), ('{"a" 1}', "not JSON (expected `:`);")])
def test_a_line_that_is_no_row_is_told_with_its_own_number_and_no_other(tmp_path, line, why):
    path = tmp_path / "j.jsonl"
    path.write_text(f'{{"a": 1}}\n{{"a": 2}}\n{line}\n{{"a": 3}}\n')
    with pytest.raises(BadRowError) as told:
        list(read_journal(path))
    assert str(told.value).startswith(f"{path}:3: {why} nothing writes such a row")


def test_a_full_disk_leaves_whole_rows_only(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 0})
        whole = os.write
        monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:4]))
        with pytest.raises(OSError, match="no space left"):
            journal.append({"n": 1})
        monkeypatch.undo()
        journal.append({"n": 2})
        assert journal.rows() == [{"n": 0}, {"n": 2}]


def test_a_lock_dies_with_its_process(tmp_path):
    lock = tmp_path / "lock"
    program = (
        "import sys, time, pathlib; from omni_mlflow.locks import exclusive\n"
        f"with exclusive(pathlib.Path({str(lock)!r})): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(JournalBusyError, match=f"process {holder.pid} of "), exclusive(lock):
        pass
    holder.send_signal(signal.SIGKILL)
    with in_turn(lock):  # waits for the kernel to free it, then goes on
        assert holder.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_two_hundred_kills_lose_no_row_and_repeat_none(tmp_path):
    path = tmp_path / "journal.jsonl"
    program = (
        "import pathlib; from omni_mlflow.journal import Journal\n"
        f"with Journal(pathlib.Path({str(path)!r})) as journal:\n"
        "    n = len(journal.rows())\n"
        "    print('open', flush=True)\n"
        "    while True: journal.append({'n': n}); n += 1"
    )
    for kill in range(200):
        writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.0005 * (kill % 7))
        writer.kill()
        writer.wait()
    numbers = [row["n"] for row in read_journal(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 200


@pytest.mark.parametrize("width", [1, 100, 65_536, 200_000])
def test_the_last_row_is_read_from_the_end_however_long_it_is(tmp_path, width):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"n": "x" * width})
        assert last_row(path) == {"n": "x" * width}
        journal.append({"n": "y" * width})
    assert last_row(path) == {"n": "y" * width}
    with path.open("a") as torn:
        torn.write('{"n": "z')
    assert last_row(path) == {"n": "y" * width}


def test_an_empty_journal_has_no_last_row(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.touch()
    assert last_row(path) is None
    path.write_text('{"n": 1')
    assert last_row(path) is None
