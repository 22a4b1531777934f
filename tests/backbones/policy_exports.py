"""Samples of the policy branch made of a finished job's index, what is fitted on them, and an exam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_mlflow.backbones.base import Exam, Exported, SampleSet
from omni_mlflow.backbones.label_answers import compact
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.fitted import PolicyFitted
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.backbones.policy_vla_branch.sample import export_window
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.statistics import STATS_NAME
from omni_mlflow.contract.file import load_contract
from omni_mlflow.metrics.priors import yes_no
from omni_mlflow.spine.adapter_views import as_asked
from omni_mlflow.spine.rows import read_rows, write_document
from omni_mlflow.spine.types import Answer, LabelledSample, Outcome, Split, Window
from tests.conftest import PROJECT, Place


@dataclass(frozen=True)
class PolicyExports:
    """Everything that was exported, and the settings it was exported with."""

    settings: Settings
    media: Path
    made: tuple[Exported, ...]

    def of(self, split: Split) -> list[Exported]:
        return [each for each in self.made if each.sample.split is split]

    def train(self, order: Callable[[list[Exported]], list[Exported]] = list) -> SampleSet:
        made = order(self.of(Split.TRAIN))
        return SampleSet(
            rows=tuple(LabelledSample(sample=each.sample, target=each.target) for each in made),
            media_root=self.media / Split.TRAIN,
            arrays={name: np.stack([each.arrays[name] for each in made]) for name in made[0].arrays},
        )

    def fitted(self) -> PolicyFitted:
        return PolicyFitted.fit_samples(self.train(), self.settings)

    def exam(self, answer: Callable[[int, Exported, np.ndarray], Answer] | None = None) -> Exam:
        """Held-out samples, answered by their own truth unless ``answer`` says otherwise.

        Args:
            answer: given row, sample and the true chunk in the action space.
        """
        made, fitted = self.of(Split.TEST), self.fitted()
        arrays = {name: np.stack([each.arrays[name] for each in made]) for name in made[0].arrays}
        inputs = [Inputs.model_validate(each.sample.inputs) for each in made]
        space = SPACES[self.settings.action.space]
        chunks = space.actions(space.read(arrays, inputs), fitted.maps)
        say = answer or (lambda _, each, chunk: truthful(each, chunk))
        return Exam(
            samples=[each.sample for each in made],
            targets=[each.target for each in made],
            answers=[say(row, each, chunks[row]) for row, each in enumerate(made)],
            controls={},
            fitted=fitted,
            arrays=arrays,
            generated=Path("generated"),
            classes=sorted(fitted.action),
            unasked={},
        )


def truthful(made: Exported, chunk: np.ndarray, **said: Any) -> Answer:
    """The true labels but for ``said``, and ``chunk`` as both the one sample and the mean."""
    labels = made.target.labels
    answer = {
        "action": labels.action,
        "objects": list(labels.objects or ()),
        "next_action": labels.next_action,
        "next_contact": yes_no(labels.next_in_contact),
        **said,
    }
    return Answer(
        id=made.sample.id,
        episode_id=made.sample.episode_id,
        anchor=made.sample.anchor,
        outcome=Outcome.ANSWERED,
        raw=compact(answer),
        values={"actions": chunk.tolist(), "actions_mean_of_8": chunk.tolist()},
    )


def relabelled(exam: Exam, **labels: Any) -> Exam:
    """The same exam with other true labels."""
    targets: Sequence[Any] = [
        target.model_copy(update={"labels": target.labels.model_copy(update=labels)})
        for target in exam.targets
    ]
    return replace(exam, targets=targets)


def exported_from(finished: Place, **changes: Any) -> PolicyExports:
    """Ask a finished job's index as the demo's contract does, but for ``changes``."""
    contract = load_contract(PROJECT / "contracts/policy_vla_branch.yaml", profile="demo", changes=changes)
    settings = Settings.model_validate(contract.settings)
    index = finished.workspace / "index"
    media = index / "episodes"
    made = [
        export_window(
            as_asked(each, frame_grid=each.modalities.media.grid_stride, context_frames=1),
            media_root=media / each.split,
            settings=settings,
        )
        for each in read_rows(index / "window_index.jsonl", Window)
    ]
    return PolicyExports(settings, media, tuple(each for each in made if isinstance(each, Exported)))


@pytest.fixture(scope="session")
def policy_exported(finished) -> PolicyExports:
    return exported_from(finished)


@pytest.fixture
def policy_folder(policy_exported, tmp_path) -> Path:
    """The data's half of a sound checkpoint."""
    fitted = policy_exported.fitted()
    fitted.save(tmp_path)
    write_document(tmp_path / STATS_NAME, fitted.normalization)
    write_document(tmp_path / "fitted.json", fitted)
    return tmp_path
