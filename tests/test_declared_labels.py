"""An evaluation scores the classes that its dataset declared, and stops where these drifted."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import read_document, read_json_rows, read_rows
from omni_mlflow.spine.types import Split, Target
from omni_mlflow.stages.declared_labels import LabelLedgerDriftError, label_ledger


def test_the_ledger_counts_what_was_exported_and_travels_with_the_evaluation(finished):
    folder = finished.workspace / "trivial"
    ledger = read_document(folder / "export/sealed/label_ledger.json", LabelLedger)
    assert read_document(folder / "evaluate/label_ledger.json", LabelLedger) == ledger
    told = {each.label: each.test for each in ledger.labels if each.test}
    sealed = read_json_rows(folder / "export/sealed/test_targets.jsonl")
    assert told == Counter(row["labels"]["action"] for row in sealed)
    manifest = json.loads((folder / "export/dataset_manifest.json").read_text())
    samples_of_train = manifest["samples_per_episode"][Split.TRAIN].values()
    assert sum(each.train for each in ledger.labels) == sum(samples_of_train)


class _Dataset:
    """The files of an export, as a stage opens them."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, stage, name):
        return self.folder / stage / name


def test_targets_that_are_not_those_the_ledger_counted_are_not_scored(finished):
    folder = finished.workspace / "trivial"
    targets = list(read_rows(folder / "export/sealed/test_targets.jsonl", Target))
    fitted = read_document(folder / "train/checkpoint/fitted.json", TrainPriors)
    assert label_ledger(_Dataset(folder), targets, fitted).labels
    with pytest.raises(LabelLedgerDriftError, match="drifted"):
        label_ledger(_Dataset(folder), targets[1:], fitted)
