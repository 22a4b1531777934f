"""A row that kill -9 left unfinished is named at the next start: the file, its bytes, where they are kept."""

from __future__ import annotations

import os

import pytest

LOST = 3  # bytes that the dead process did not write


def tear(place, *names):
    """Take the seals of two stages, and the end of files, away: the process died while writing."""
    for stage in ("train", "evaluate"):
        (place.workspace / "trivial" / stage / "seal.json").unlink()
    torn = {}
    for name in names:
        path = place.workspace / name
        os.truncate(path, path.stat().st_size - LOST)
        torn[path] = path.read_bytes().rpartition(b"\n")[2]
    return torn


def assert_reported(place, torn, told):
    """Each is told in one line, kept beside its journal, and shown at its run."""
    tags = [tag for run in place.runs() for tag in run.data.tags.items()]
    shown = [value for key, value in tags if key.startswith("omni.torn.")]
    for path, tail in torn.items():
        kept = path.with_name(f"{path.name}.torn")
        assert kept.read_bytes() == tail + b"\n"
        sentence = (
            f"the last row of {path.name} was left unfinished by a process that died; "
            f"its {len(tail)} bytes are kept in {kept}"
        )
        assert any(line.endswith(sentence) for line in told.splitlines()), told
        assert sentence in shown
    assert len(shown) == len(torn)


def test_a_resumed_training_reports_every_row_that_was_cut_off(place):
    names = ("journal.jsonl", "progress.jsonl", "training_ledger.jsonl")
    torn = tear(place, *(f"trivial/train/{name}" for name in names))
    resumed = place.run("train")
    assert resumed.returncode == 0, resumed.stderr
    assert_reported(place, torn, resumed.stderr)


@pytest.mark.slow
def test_a_healed_run_says_what_was_cut_off_it(place):
    [(path, tail)] = tear(place, "trivial/train/journal.jsonl").items()
    healed = place.run_as_typed("heal", "--workspace", str(place.workspace))
    assert healed.returncode == 0, healed.stderr
    assert f"its {len(tail)} bytes are kept in {path}.torn" in healed.stdout
    run = next(run for run in place.runs() if run.data.tags["omni.stage"] == "train")
    assert f"{len(tail)} bytes are kept in {path}.torn" in run.data.tags["mlflow.note.content"]
    again = place.run("train")  # whoever goes on is told too, not only whoever healed
    assert f"its {len(tail)} bytes are kept in {path}.torn" in again.stderr


@pytest.mark.slow
def test_a_resumed_main_job_reports_the_rows_of_all_its_runs(place):
    [pipeline] = place.workspace.glob("runs/*/journal.jsonl")
    stages = {
        "train": ("journal.jsonl", "progress.jsonl", "training_ledger.jsonl"),
        "evaluate": ("journal.jsonl", "progress.jsonl", "predictions.partial.jsonl"),
    }
    names = [f"trivial/{stage}/{name}" for stage, each in stages.items() for name in each]
    torn = tear(place, str(pipeline.relative_to(place.workspace)), *names)
    resumed = place.run("main")
    assert resumed.returncode == 0, resumed.stderr
    assert_reported(place, torn, resumed.stderr)
