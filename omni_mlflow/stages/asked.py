"""What an evaluation asks, whichever part of it a process asks: samples, controls, and their identity."""

from __future__ import annotations

from dataclasses import dataclass

from omni_mlflow.spine.rows import read_document, read_rows
from omni_mlflow.spine.types import Sample
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.evaluation_identity import Identity, evaluation_identity
from omni_mlflow.stages.manifests import DatasetManifest

INTACT = "intact"

Passes = dict[str, list[Sample]]
"""The samples as they are, and under each control; the same ids in the same order."""


@dataclass(frozen=True)
class Questions:
    """What one evaluation asks, all of it, whichever part of it a process asks."""

    dataset: DatasetManifest
    passes: Passes
    identity: Identity

    @property
    def samples(self) -> list[Sample]:
        return self.passes[INTACT]


def questions(ground: Ground) -> Questions:
    """Read the held-out samples, never their targets, and what their answers depend on."""
    samples = list(read_rows(ground.open("export", "samples/test.jsonl"), Sample))[: ground.options.limit]
    dataset = read_document(ground.open("export", "dataset_manifest.json"), DatasetManifest)
    controls = {name: ground.model.control(name, samples) for name in ground.model.controls}
    return Questions(dataset, {INTACT: samples} | controls, evaluation_identity(ground, dataset))
