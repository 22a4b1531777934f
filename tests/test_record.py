"""A run's own journal: typed rows, one value per step, and a process that can be told dead from alive."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys

import pytest

from omni_mlflow.events import JOURNAL_NAME, Metrics, Started, parse_event, read_events, run_journals
from omni_mlflow.locks import JournalBusyError
from omni_mlflow.record import RESERVED_BYTES, RunRecord, reserve_of
from omni_mlflow.spine.processes import is_alive, this_process
from omni_mlflow.spine.rows import NewerSchemaError


@pytest.fixture
def record(tmp_path):
    record = RunRecord(tmp_path / "train")
    record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
    yield record
    record.close()


def metrics_of(record):
    return [event for event in read_events(record.folder / JOURNAL_NAME) if isinstance(event, Metrics)]


def test_a_resumed_run_keeps_its_key_and_adds_no_second_point(record):
    record.metrics({"train/loss": 2.0}, step=1)
    record.close()
    resumed = RunRecord(record.folder)
    key = resumed.started("train", parent="p", mlflow_run_id=None, mlflow_experiment_id=None)
    resumed.metrics({"train/loss": 9.0, "train/lr": 0.1}, step=1)
    resumed.metrics({"train/loss": 1.0}, step=2)
    resumed.close()
    starts = [event for event in read_events(record.folder / JOURNAL_NAME) if isinstance(event, Started)]
    assert [start.key for start in starts] == [record.key, key] == [key, key]
    assert [(row.step, row.values) for row in metrics_of(record)] == [
        (1, {"train/loss": 2.0}),
        (1, {"train/lr": 0.1}),
        (2, {"train/loss": 1.0}),
    ]


def test_a_loss_that_is_no_number_is_recorded_and_read_back(record):
    record.metrics({"train/loss": math.nan, "train/grad": -math.inf}, step=3)
    written = json.loads((record.folder / JOURNAL_NAME).read_text().splitlines()[-1])
    assert written["values"] == {"train/loss": "nan", "train/grad": "-inf"}
    [row] = metrics_of(record)
    assert math.isnan(row.values["train/loss"])
    assert row.values["train/grad"] == -math.inf


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_reserve_that_finds_no_room_names_its_file_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match=r"journal\.jsonl\.reserve") as told:
        RunRecord(tmp_path / "train")
    assert told.value.errno == errno.ENOSPC
    assert not reserve_of(tmp_path / "train" / JOURNAL_NAME).exists()
    RunRecord(tmp_path / "other", reserve=False).close()


def test_a_reserve_that_is_too_short_is_set_aside_anew(tmp_path):
    reserve = reserve_of(tmp_path / JOURNAL_NAME)
    reserve.write_bytes(bytes(20_480))
    record = RunRecord(tmp_path)
    assert reserve.stat().st_size == RESERVED_BYTES
    record.close()


def test_an_artifact_is_named_by_its_place_in_the_run_and_its_bytes(record):
    (record.folder / "eval").mkdir()
    (record.folder / "eval" / "metrics.json").write_text("{}")
    record.artifacts([record.folder / "eval" / "metrics.json"], folder="scores")
    row = json.loads((record.folder / JOURNAL_NAME).read_text().splitlines()[-1])
    assert (row["path"], row["folder"], row["live"]) == ("eval/metrics.json", "scores", False)
    assert row["digest"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_two_processes_cannot_enter_one_run(record):
    with pytest.raises(JournalBusyError):
        RunRecord(record.folder)


def test_a_row_of_a_kind_that_nobody_knows_is_an_error():
    with pytest.raises(NewerSchemaError, match="a row 'telemetry' that this omni-mlflow cannot read"):
        parse_event({"event": "telemetry", "values": {}})


def test_a_process_is_alive_until_it_ends_and_its_number_given_away_does_not_revive_it():
    me = this_process()
    assert is_alive(me) is True
    assert is_alive(me.model_copy(update={"start_ticks": me.start_ticks + 1})) is False
    assert is_alive(me.model_copy(update={"boot_id": "before the reboot"})) is False
    assert is_alive(me.model_copy(update={"host": "another machine"})) is None


def test_a_zombie_process_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = int(open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[19])  # noqa: PTH123, SIM115
    process = this_process().model_copy(update={"pid": child.pid, "start_ticks": ticks})
    assert is_alive(process) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but nobody has taken note of it
    assert is_alive(process) is False
    child.communicate()


def test_the_journals_of_a_workspace_are_those_of_stages_backbones_and_loose_runs(tmp_path):
    folders = (
        "select",
        "qwen3_omni_lora/train",
        "runs/0a1b",
        "superseded/select-12",
        "qwen3_omni_lora/superseded/train-12",
    )
    for folder in (*folders, "qwen3_omni_lora/train/checkpoint"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / JOURNAL_NAME).touch()
    found = [path.parent.relative_to(tmp_path).as_posix() for path in run_journals(tmp_path)]
    assert found == sorted(folders)
