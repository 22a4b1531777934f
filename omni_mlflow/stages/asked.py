"""What an evaluation asks, whichever part of it a process asks: samples, controls, and their identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from omni_mlflow.spine.rows import read_document, read_rows
from omni_mlflow.spine.types import Sample
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.evaluation_identity import Identity, evaluation_identity
from omni_mlflow.stages.manifests import DatasetManifest

INTACT = "intact"


@dataclass(frozen=True)
class Questions:
    """What one evaluation asks, all of it, whichever part of it a process asks.

    Attributes:
        passes: names of the rounds in which every sample is asked: as it is, then under each control.
    """

    dataset: DatasetManifest
    samples: list[Sample]
    passes: tuple[str, ...]
    identity: Identity
    control: Callable[[str, Sequence[Sample]], list[Sample]]

    def as_asked(self, name: str) -> Callable[[Sequence[Sample]], list[Sample]]:
        """Return what turns samples into those that the pass ``name`` asks, ids kept.

        A control exchanges inputs between all samples, so it is made of all of them, once it is asked.
        """

        @cache
        def made() -> dict[str, Sample]:
            asked = self.samples if name == INTACT else self.control(name, self.samples)
            return {sample.id: sample for sample in asked}

        return lambda samples: [made()[sample.id] for sample in samples]


def questions(ground: Ground) -> Questions:
    """Read the held-out samples, never their targets, and what their answers depend on."""
    samples = list(read_rows(ground.open("export", "samples/test.jsonl"), Sample))[: ground.options.limit]
    dataset = read_document(ground.open("export", "dataset_manifest.json"), DatasetManifest)
    return Questions(
        dataset,
        samples,
        (INTACT, *ground.model.controls),
        evaluation_identity(ground, dataset),
        ground.model.control,
    )
