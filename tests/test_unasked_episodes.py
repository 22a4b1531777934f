"""A held-out episode of which nothing can be asked is told with its reasons, not passed over."""

from __future__ import annotations

from types import SimpleNamespace

from omni_mlflow.spine.rows import read_document, write_rows
from omni_mlflow.spine.types import Skip, Split
from omni_mlflow.stages.evaluation_facts import ROWS_OF, unasked_episodes
from omni_mlflow.stages.manifests import DatasetManifest


def test_windows_of_a_held_out_episode_without_any_sample_are_counted_by_reason(finished, tmp_path):
    dataset = read_document(finished.workspace / "trivial/export/dataset_manifest.json", DatasetManifest)
    test, train = (dict(dataset.samples_per_episode[split]) for split in (Split.TEST, Split.TRAIN))
    handless = min(test)
    del test[handless]
    counts = {**dataset.samples_per_episode, Split.TEST: test}
    left_out = [
        (f"{handless}:20:0", "no hand is valid"),
        (f"{handless}:20:10", "no hand is valid"),
        (f"{handless}:20:20", "the horizon leaves the episode"),
        (f"{min(train)}:20:0", "no hand is valid"),
        (f"{min(test)}:20:0", "the horizon leaves the episode"),
    ]
    skips = [Skip(subject=subject, stage="export", reason=reason) for subject, reason in left_out]
    write_rows(tmp_path / "skipped_windows.jsonl", skips)
    seals = dict.fromkeys(ROWS_OF) | {"export": SimpleNamespace(outputs=["skipped_windows.jsonl"])}
    run = SimpleNamespace(
        inputs={stage: SimpleNamespace(seal=lambda seal=seal: seal) for stage, seal in seals.items()},
        open=lambda stage, name: (tmp_path if stage == "export" else finished.workspace / stage) / name,
    )
    found = unasked_episodes(run, dataset.model_copy(update={"samples_per_episode": counts}))
    assert found == {handless: {"no hand is valid": 2, "the horizon leaves the episode": 1}}
