"""A run shows the digests of its files, the same ones however often its work was interrupted."""

from __future__ import annotations

import pytest

from omni_mlflow.logged_files import OUTPUTS_NAME, LoggedFiles, log_files, read_logged
from omni_mlflow.record import RunRecord
from omni_mlflow.spine.rows import file_digest, read_document
from omni_mlflow.spine.types import broken


@pytest.fixture
def enter(tmp_path):
    """Begin or enter again the run of one folder."""
    records = []

    def enter() -> RunRecord:
        records.append(RunRecord(tmp_path / "train"))
        records[-1].started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
        return records[-1]

    yield enter
    for record in records:
        record.close()


def show(record: RunRecord) -> dict[str, str]:
    """Do the work of a stage; return the digests of what it made."""
    progress, config = record.folder / "progress.jsonl", record.folder / "checkpoint/config.json"
    record.live_artifact(progress)
    progress.write_text('{"step":1}\n')
    config.parent.mkdir(exist_ok=True)
    config.write_text("{}")
    record.artifacts([config], folder="checkpoint")
    made = {path.relative_to(record.folder).as_posix(): file_digest(path) for path in (progress, config)}
    return {**made, "checkpoint/weights.bin": "ab" * 32}


def test_growing_and_finished_files_are_logged_and_large_ones_by_digest_alone(enter):
    record = enter()
    outputs = show(record)
    log_files(record, outputs, settings={"seed": 1})
    logged = read_document(record.folder / OUTPUTS_NAME, LoggedFiles)
    assert logged.outputs == outputs
    assert set(logged.shown) == {"progress.jsonl", "checkpoint/config.json"}
    assert logged.withholds("checkpoint/weights.bin")
    assert not logged.withholds("progress.jsonl")
    assert not logged.withholds("unknown.json")
    assert record.shown[OUTPUTS_NAME] == OUTPUTS_NAME


def test_a_run_that_was_interrupted_logs_the_same_bytes(enter):
    first = enter()
    log_files(first, show(first), settings={})
    begun = (first.folder / OUTPUTS_NAME).read_bytes()
    passing = first.folder / "partial.jsonl"
    passing.write_text("{}\n")
    first.artifacts([passing])
    passing.unlink()
    first.close()
    again = enter()
    log_files(again, show(again), settings={})
    assert (again.folder / OUTPUTS_NAME).read_bytes() == begun


@pytest.mark.parametrize(
    ("content", "rules"),
    [
        ("{}", {"digests_of_its_files_were_logged", "digests_can_be_read"}),
        ('{"schema_version":99}', {"digests_of_its_files_were_logged", "digests_can_be_read"}),
        ("\udcff", {"digests_of_its_files_were_logged", "digests_can_be_read"}),
        (None, {"digests_of_its_files_were_logged"}),
    ],
)
def test_digests_that_cannot_be_read_are_a_broken_rule(enter, content, rules):
    record = enter()
    log_files(record, show(record), settings={})
    path = record.folder / OUTPUTS_NAME
    tag = file_digest(path)
    assert broken(read_logged(record.folder, stage="train", tag=tag)[1]) == []
    path.unlink() if content is None else path.write_bytes(content.encode(errors="surrogateescape"))
    logged, checks = read_logged(record.folder, stage="train", tag=tag)
    assert (logged, {check.rule for check in broken(checks)}) == (None, rules)
    assert {check.subject for check in checks} == {"train/outputs.json"}
