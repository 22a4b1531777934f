"""The smallest backbone that fulfils the protocol: it learns the most frequent labels, with no model library.

It lies outside the project as a package of its own would, and is found through its entry point.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.backbones.base import (
    CheckpointUnderTest,
    Exam,
    Exported,
    SampleSet,
    Scores,
    TrainingFacts,
    TrainingLog,
)
from omni_mlflow.contract import Section
from omni_mlflow.metrics.metric import HELD_OUT_EPISODES, Metric
from omni_mlflow.metrics.priors import TrainPriors, most_common, yes_no
from omni_mlflow.spine.modalities import Modality, ModelTarget
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import Answer, Check, Outcome, Sample, Skip, Target, Window


class TrainingSettings(Section):
    steps: int
    batch_size: int
    pause_s: float
    fails_at: int
    seed: int  # the model says nothing at the anchors that it divides


class Settings(Section):
    training: TrainingSettings


class Predictor:
    batch_size = 8

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = model

    def answer(self, samples: Sequence[Sample]) -> list[Answer]:
        return [
            Answer(
                id=sample.id,
                episode_id=sample.episode_id,
                anchor=sample.anchor,
                outcome=Outcome.ANSWERED,
                raw=self._raw(sample.anchor),
                values={"anchor": [sample.anchor]},
            )
            for sample in samples
        ]

    def _raw(self, anchor: int) -> str:
        silent = self._model["seed"] and anchor % self._model["seed"] == 0
        return json.dumps({"action": None if silent else self._model["action"]})


class Trivial:
    id = "trivial"
    settings_type = Settings
    fitted_type = TrainPriors
    shown: frozenset[Modality] = frozenset()
    targets: frozenset[ModelTarget] = frozenset()
    metrics: Mapping[str, Metric] = {
        "action_accuracy": Metric(title="Action accuracy", question="action"),
        "anchor_error": Metric(title="Distance to the anchor", better="lower", unit="frames"),
        "held_out_episode_count": HELD_OUT_EPISODES,
    }
    training_files = frozenset({"training_metadata.json", "progress.jsonl", "model.json"})
    eval_files = frozenset({"metrics.json", "predictions.jsonl", "anchors.json", "RUN_REPORT.md"})
    predictions_file = "predictions.jsonl"
    controls: tuple[str, ...] = ("nothing_shown",)
    stage_settings: Mapping[str, tuple[str, ...]] = {"export": (), "gate": (), "evaluate": ()}

    @property
    def gates(self) -> Mapping[str, Any]:
        return {"trivial_gate": self._gate}

    def export(self, window: Window, *, media_root: Path, settings: Any) -> Exported | Skip:
        if window.supervision.action is None:
            return Skip(subject=window.id, stage="export", reason="no action label")
        sample = Sample(
            id=window.id,
            episode_id=window.episode_id,
            split=window.split,
            anchor=window.anchor,
            observed=window.span,
            forecast_from=window.anchor,
            inputs={"span": window.span.model_dump()},
        )
        target = Target(
            id=window.id,
            episode_id=window.episode_id,
            anchor=window.anchor,
            span=window.span,
            labels=window.supervision,
        )
        return Exported(sample, target, {"anchor": np.array([window.anchor])})

    def fit(self, train: SampleSet, *, settings: Any) -> TrainPriors:
        return TrainPriors.fit(row.target for row in train.rows)

    def train(
        self, train: SampleSet, val: SampleSet, *, fitted: TrainPriors, settings: Any, log: TrainingLog
    ) -> TrainingFacts:
        state = log.resume / "state.json"
        first = log.rewind([json.loads(state.read_text())["step"]] if state.is_file() else [])
        if first == 0:
            log.progress("start", step=0, total_steps=settings.training.steps)
        rows = train.rows
        for step in range(first + 1, settings.training.steps + 1):
            time.sleep(settings.training.pause_s)
            if step == settings.training.fails_at:
                raise RuntimeError(f"told to fail at step {step}")
            batch = [rows[(step * 7 + k) % len(rows)] for k in range(settings.training.batch_size)]
            log.consumed([row.sample.id for row in batch], step=step)
            log.progress("step", step=step, loss=1.0 / step)
            log.measured({"step_s": 0.001 * step}, step=step)
            if step % 5 == 0:
                log.progress("checkpoint", step=step)
                write_document(state, {"step": step})
        model = {"action": most_common(fitted.action), "seed": settings.training.seed}
        write_document(log.checkpoint / "model.json", model)
        return TrainingFacts(base_model="none", base_revision="none")

    def load(self, checkpoint: Path, *, media_root: Path, settings: Any, generated: Path) -> Predictor:
        return Predictor(json.loads((checkpoint / "model.json").read_text()))

    def answer_parts(self, checkpoint: Path, *, settings: Any) -> Mapping[str, str]:
        return {}

    def control(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        return [sample.model_copy(update={"inputs": {}}) for sample in samples]

    def score(self, exam: Exam, *, settings: Any) -> Scores:
        rows = []
        for sample, target, answer in zip(exam.samples, exam.targets, exam.answers, strict=True):
            predicted = json.loads(answer.raw)["action"]
            rows.append(
                {
                    "id": sample.id,
                    "episode_id": sample.episode_id,
                    "split": sample.split,
                    "anchor": sample.anchor,
                    "outcome": answer.outcome,
                    "true_json": {
                        "action": target.labels.action,
                        "contact": yes_no(target.labels.in_contact),
                    },
                    "pred_json": {"action": predicted},
                    "raw_prediction": answer.raw,
                    "true_label": target.labels.action,
                    "predicted_label": predicted,
                    "correct": int(predicted == target.labels.action),
                    "true_label_seen_in_train": int(target.labels.action in exam.fitted.action),
                }
            )
        accuracy = sum(row["correct"] for row in rows) / len(rows)
        episodes = len({row["episode_id"] for row in rows})
        foretold = np.array([answer.values["anchor"] for answer in exam.answers])
        error = float(np.abs(foretold - exam.arrays["anchor"]).mean())
        metrics = {
            "action_accuracy": accuracy,
            "anchor_error": error,
            "held_out_episode_count": episodes,
            "num_rows": len(rows),
            "verdicts": {"action": {"verdict": "beats_floor", "metric": "action_accuracy", "floor": "none"}},
        }
        return Scores(
            metrics=metrics,
            predictions=rows,
            documents={"anchors.json": {"shape": list(exam.arrays["anchor"].shape)}},
            headline={"action_accuracy": accuracy},
        )

    def check_outputs(self, evaluation: Path, *, settings: Any) -> list[Check]:
        rows = len((evaluation / self.predictions_file).read_text().splitlines())
        return [
            Check(
                rule="something_was_predicted",
                subject=self.predictions_file,
                expected="rows",
                found=str(rows),
                ok=rows > 0,
            )
        ]

    def _gate(self, test: CheckpointUnderTest) -> list[Check]:
        found = json.loads((test.folder / "model.json").read_text())["action"]
        expected = most_common(test.fitted.action)
        return [
            Check(
                rule="model_answers_the_majority",
                subject="model.json",
                expected=str(expected),
                found=str(found),
                ok=found == expected,
            )
        ]


BACKBONE = Trivial()
