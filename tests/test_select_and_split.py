"""From a listing to a split that was planned before any download."""

from __future__ import annotations

import csv
import json
import shutil


def read_table(path):
    with path.open(newline="") as rows:
        return list(csv.DictReader(rows))


def reasons(place, stage):
    lines = (place.workspace / stage / "skipped_episodes.jsonl").read_text().splitlines()
    return {skip["subject"]: skip["reason"] for skip in map(json.loads, lines)}


def test_a_pilot_is_planned_from_a_listing_downloaded_read_and_split_as_planned(empty):
    files = sorted(path for path in empty.data_root.rglob("*") if path.is_file())
    listing = empty.root / "listing.csv"
    rows = [f"{path.relative_to(empty.data_root)},{path.stat().st_size}" for path in files]
    listing.write_text("\n".join(["path,bytes", *rows]) + "\n")
    few = ("--per-band", "2/1/1", "--bands", "1", "--min-bytes", "1")
    planned = empty.run("select", "--data-root", "none", "--listing", str(listing), *few)
    assert planned.returncode == 0, planned.stderr
    seal = empty.json("select/seal.json")
    assert (seal["taken"], seal["made"], seal["skipped"]) == (6, 4, 2)
    plan = read_table(empty.workspace / "select/selection.csv")
    assert sorted(row["split"] for row in plan) == ["test", "train", "train", "val"]
    assert [len(row["download_files"].split()) for row in plan] == [7, 7, 7, 7]

    refused = empty.run("split", "--sizes", "2/1/1")
    assert refused.returncode == 1
    assert "are not here. Download the files that the column download_files" in refused.stderr

    selection = empty.workspace / "select/selection.csv"
    read = empty.run("select", "--selection", str(selection))
    assert read.returncode == 0, read.stderr
    assert set(reasons(empty, "select").values()) == {"not needed: the selection does not name it"}
    assert empty.json("select/selection.json")["selected"] == 4

    given = ("--split-manifest", str(empty.workspace / "select/plan.csv"))
    wrong = empty.run("split", "--sizes", "1/1/1", *given)
    assert wrong.returncode == 1
    assert "give --sizes 2/1/1" in wrong.stderr
    done = empty.run("split", "--sizes", "2/1/1", *given)
    assert done.returncode == 0, done.stderr
    manifest = empty.json("split/split_manifest.json")
    assert manifest["rule"] == "given"
    assert {each["path"]: each["split"] for each in manifest["episodes"]} == {
        row["episode_path"]: row["split"] for row in plan
    }


def test_a_listing_goes_without_what_only_a_data_root_has(empty):
    clash = empty.run("select", "--listing", "listing.csv")
    assert clash.returncode == 2
    assert "a listing is selected from without --data-root" in clash.stderr


def test_sizes_without_a_test_session_are_wrong_usage(empty):
    refused = empty.run("split", "--sizes", "43/0/0")
    assert refused.returncode == 2
    assert "Invalid value for --sizes: '43/0/0' leave no session for test" in refused.stderr


def test_more_sessions_than_there_are_is_one_sentence_with_both_numbers(place):
    refused = place.run("split", "--sizes", "9/1/1")
    assert refused.returncode == 1
    assert "11 sessions wanted (9/1/1 train/val/test), 6 found; add sessions" in refused.stderr


def test_a_seed_draws_another_split_each_time_the_same_and_is_recorded(place):
    """In the order of the sha256 of ``seed:session``; the contract's seed is what nobody asks otherwise."""
    folder = place.workspace / "split"
    usual = place.json("split/split_manifest.json")
    drawn = []
    for _ in range(2):
        done = place.run("split", "--seed", "3")
        assert done.returncode == 0, done.stderr
        drawn.append((folder / "split_manifest.json").read_bytes())
        shutil.rmtree(folder)  # so that the next one is drawn and not taken back
    assert drawn[0] == drawn[1]
    assert json.loads(drawn[0])["seed"] == 3
    assert json.loads(drawn[0])["digest"] != usual["digest"]
    recorded = [
        run.data.params.get("split_seed") for run in place.runs() if run.data.tags["omni.stage"] == "split"
    ]
    assert recorded.count("3") == 2


def test_a_seed_that_is_none_and_one_beside_a_given_split_are_wrong_usage(empty, tmp_path):
    assert "no whole number" in (wrong := empty.run("split", "--seed", "x")).stderr
    plan = tmp_path / "plan.csv"
    plan.write_text("episode_path,split\n")
    both = empty.run("main", "--split-seed", "3", "--split-manifest", str(plan))
    assert "a split that is given is not drawn" in both.stderr
    assert (wrong.returncode, both.returncode) == (2, 2)
