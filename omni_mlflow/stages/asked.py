"""What an evaluation asks, whichever part of it a process asks: samples, controls, and their identity."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from sys import intern

from pydantic import BaseModel

from omni_mlflow.spine.row_file import RowFile
from omni_mlflow.spine.rows import read_document, read_rows
from omni_mlflow.spine.types import Sample
from omni_mlflow.stages.asking import ALONE, INTACT, as_asked, drawn_alone
from omni_mlflow.stages.base import Ground
from omni_mlflow.stages.evaluation_identity import Identity, evaluation_identity
from omni_mlflow.stages.manifests import DatasetManifest


@dataclass(frozen=True)
class Questions:
    """What one evaluation asks, all of it, whichever part of it a process asks.

    Attributes:
        samples: read from their file when they are asked for.
        ids, episodes, anchors: of the samples, in order: what is asked of all of them again and again.
        passes: names of the rounds in which samples are asked: as they are, under each control, and alone.
    """

    dataset: DatasetManifest
    samples: Sequence[Sample]
    ids: Sequence[str]
    episodes: Sequence[str]
    anchors: Sequence[int]
    passes: tuple[str, ...]
    identity: Identity
    control: Callable[[str, Sequence[Sample]], list[Sample]]

    def rounds(self, ids: Sequence[str], *, batch_size: int) -> dict[str, Sequence[str]]:
        """Return which of ``ids`` each pass asks: all of them, and those that are drawn for ``alone``.

        In a batch the last bits of a score may move with the other samples, and an answer with them. So a few
        samples, drawn by their ids, are asked again; where each was asked by itself at first, none is.
        """
        rounds = dict.fromkeys((name for name in self.passes if name != ALONE), ids)
        if batch_size == 1:
            return rounds
        drawn = drawn_alone(self.ids)
        return {**rounds, ALONE: [each for each in ids if each in drawn]}

    def as_asked(self, name: str) -> Callable[[Sequence[str]], list[Sample]]:
        """Return what gives the samples of some ids as the pass ``name`` asks them."""
        return as_asked(name, self.ids, self.samples, self.control)


class _Named(BaseModel):
    """What a sample is called: all that is read of it before it is asked."""

    id: str
    episode_id: str
    anchor: int


def questions(ground: Ground) -> Questions:
    """Read the held-out samples, never their targets, and what their answers depend on."""
    path, limit = ground.open("export", "samples/test.jsonl"), ground.options.limit
    dataset = read_document(ground.open("export", "dataset_manifest.json"), DatasetManifest)
    ids, episodes, anchors = [], [], array("q")
    for sample in islice(read_rows(path, _Named), limit):
        ids.append(intern(sample.id))
        episodes.append(intern(sample.episode_id))
        anchors.append(sample.anchor)
    return Questions(
        dataset,
        RowFile.over(path, Sample)[:limit],
        ids,
        episodes,
        anchors,
        (INTACT, *ground.model.controls, ALONE),
        evaluation_identity(ground, dataset),
        ground.model.control,
    )
