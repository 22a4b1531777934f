"""That episodes were generated is read from their annotation, and nothing on the way to a result loses it."""

from __future__ import annotations

import csv
import json
import shutil

import h5py
import pytest

from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.workspace import StaleInputError
from tests.conftest import TRIVIAL, Place
from tests.workbench import Workbench

TOLD = {
    "select/selection.json": "synthetic",
    "guard/episode_manifest.json": "synthetic",
    "index/window_index_manifest.json": "synthetic",
    "trivial/export/dataset_manifest.json": "synthetic",
    "trivial/train/training_metadata.json": "synthetic",
}


@pytest.fixture
def moved(episodes, tmp_path):
    """The episodes at a place that looks like a download, without the record of the generator."""
    root = tmp_path / "xperience-10m"
    shutil.copytree(episodes, root)
    (root / "synthesis.json").unlink()
    return root


@pytest.fixture
def bench(place, monkeypatch):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    return Workbench(place, [])


def test_every_stage_from_selection_to_training_hands_the_fact_on(finished):
    assert {name: finished.json(name)[key] for name, key in TOLD.items()} == dict.fromkeys(TOLD, True)
    assert all(each["synthetic"] for each in finished.json("split/split_manifest.json")["episodes"])
    assert finished.json("trivial/evaluate/evaluation.json")["evidence"] == "synthetic"


@pytest.mark.parametrize(
    ("said", "synthetic"),
    [('{"synthetic": true}', True), ('{"synthetic": false}', False), ("{}", False), ("not JSON", False)],
)
def test_the_annotation_says_it_and_neither_the_path_nor_a_record_beside_it(moved, said, synthetic):
    folder = next(path.parent for path in sorted(moved.rglob("annotation.hdf5")))
    with h5py.File(folder / "annotation.hdf5", "r+") as file:
        del file["metadata/other"]
        file["metadata/other"] = said
    found, _ = scan_data_root(moved)
    told = {episode.path: episode.synthetic for episode in found}
    own = folder.relative_to(moved).as_posix()
    assert told.pop(own) is synthetic
    assert set(told.values()) == {True}


def test_neither_a_given_selection_nor_a_given_split_makes_generated_episodes_real(empty, moved):
    place = Place(empty.root, moved)
    assert place.run("select").returncode == 0
    rows = [
        {"episode_id": each["episode_id"], "path": each["path"], "split": split, "synthetic": "false"}
        for each, split in zip(
            map(json.loads, (place.workspace / "select/episodes.jsonl").read_text().splitlines()),
            ("train", "train", "train", "val", "test", "test"),
            strict=True,
        )
    ]
    given = empty.root / "given.csv"
    with given.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    selected = place.run("select", "--selection", str(given))
    assert selected.returncode == 0, selected.stderr
    split = place.run("split", "--sizes", "3/1/2", "--split-manifest", str(given))
    assert split.returncode == 0, split.stderr
    assert place.json("select/selection.json")["synthetic"] is True
    assert all(each["synthetic"] for each in place.json("split/split_manifest.json")["episodes"])
    for stage in ("select", "split"):
        assert place.json(f"{stage}/seal.json")["tags"]["omni.evidence"] == "synthetic"


def test_a_copied_workspace_still_evaluates_as_synthetic(bench):
    bench.forget_evaluation()
    assert bench.run("evaluate").seal.tags["omni.evidence"] == "synthetic"
    assert json.loads((bench.evaluation / "evaluation.json").read_text())["evidence"] == "synthetic"


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("split/split_manifest.json", "guard"),
        ("guard/episode_manifest.json", "evaluate"),
        ("trivial/export/dataset_manifest.json", "evaluate"),
    ],
)
def test_a_manifest_that_was_edited_to_say_otherwise_breaks_its_seal(bench, name, stage):
    path = bench.place.workspace / name
    text = path.read_text()
    assert '"synthetic": true' in text
    path.write_text(text.replace('"synthetic": true', '"synthetic": false'))
    with pytest.raises(StaleInputError, match=path.name):
        bench.run(stage)
