"""`index --dataset-jsonl`: records become an index without any episode, and nothing is built on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from omni_mlflow.expectations import check_suite
from omni_mlflow.frames import converted_frame
from omni_mlflow.spine.dataset_records import convert_records

PROJECT = Path(__file__).parents[1]

ANSWER = {
    "action": "Pour water",
    "subtask": "Make coffee",
    "objects": ["kettle"],
    "contact": "yes",
    "transition": "no",
    "next_action": "unknown",
}


def record(number: int, split: str) -> dict:
    frames = {"start_frame": 20 * number, "end_frame": 20 * number + 19}
    return {
        "id": f"kitchen__ep1:qa:{number}",
        "episode_id": "kitchen__ep1",
        "split": split,
        "center_window": frames,
        "media": {"context_start_frame": 0, "context_end_frame": 119},
        "question": "What happens?",
        "answer_json": ANSWER | {"evidence_window": frames},
    }


@dataclass(frozen=True)
class Converted:
    place: object
    done: object
    rows: list
    skipped: list
    manifest: dict


@pytest.fixture(scope="module")
def converted(finished, tmp_path_factory) -> Converted:
    """Three good records, one of them without an action, one of a split that does not exist, a blank line and
    a torn one."""
    place = finished.copy(tmp_path_factory.mktemp("converted") / "copy")
    records = place.root / "dataset.jsonl"
    made = [record(0, "val"), record(1, "val"), record(2, "trian"), record(3, "val")]
    made[1]["answer_json"] = made[1]["answer_json"] | {"action": ""}
    whole = "".join(json.dumps(each) + "\n" for each in made)
    records.write_text(whole + "\n" + whole[:100])
    done = place.run("index", "--dataset-jsonl", str(records), "--json")
    assert done.returncode == 0, done.stderr
    index = place.workspace / "index"
    return Converted(
        place,
        done,
        [json.loads(line) for line in (index / "window_index.jsonl").read_text().splitlines()],
        [json.loads(line) for line in (index / "skipped_records.jsonl").read_text().splitlines()],
        place.json("index/window_index_manifest.json"),
    )


def test_records_become_an_index_with_its_manifest(converted):
    assert [row["window"]["start_frame"] for row in converted.rows] == [0, 20, 60]
    assert [row["supervision"]["action"] for row in converted.rows] == ["Pour water", None, "Pour water"]
    manifest = converted.manifest
    assert manifest["num_windows"] == 3
    assert manifest["windows_per_split"] == {"train": 0, "val": 3, "test": 0}
    assert manifest["windows_per_episode"] == {"kitchen__ep1": 3}
    assert (manifest["converted_from"]["file"], manifest["split_digest"]) == ("dataset.jsonl", None)


def test_a_published_contact_that_is_always_yes_is_a_degenerate_label(converted):
    assert [row["supervision"]["in_contact"] for row in converted.rows] == [None] * 3
    assert converted.manifest["degenerate_labels"] == {
        "published_contact": {"answer": True, "share": 1.0},
        "transition": {"answer": False, "share": 1.0},
    }


def test_every_record_is_converted_or_skipped_with_its_line(converted):
    skip, torn = converted.skipped
    assert (skip["subject"], torn["subject"]) == ("dataset.jsonl:3", "dataset.jsonl:6")
    assert skip["reason"].startswith("split: ")
    assert torn["reason"].startswith("not a JSON object: ")
    seal = converted.place.json("index/seal.json")
    assert (seal["taken"], seal["made"], seal["skipped"]) == (5, 3, 2)


def test_no_backbone_is_exported_from_records_that_nobody_guarded(converted):
    refused = converted.place.run("export")
    assert refused.returncode == 1
    assert "this index was converted from exported records" in refused.stderr
    assert "run 'index' without --dataset-jsonl" in refused.stderr


def test_records_of_one_episode_in_two_splits_are_refused(tmp_path):
    records = tmp_path / "dataset.jsonl"
    made = [record(0, "val"), record(1, "test")]
    records.write_text("".join(json.dumps(each) + "\n" for each in made))
    table = converted_frame(convert_records(records))
    [failure] = check_suite(PROJECT / "expectations" / "converted_index.yaml", table).failures()
    assert failure.subject == "kitchen__ep1:qa:1 / kitchen__ep1"
    assert failure.expected == "no episode lies in two splits"


def test_a_file_that_is_not_there_is_wrong_usage(empty):
    done = empty.run("index", "--dataset-jsonl", "nowhere.jsonl")
    assert done.returncode == 2
    assert "nowhere.jsonl is no file" in done.stderr
