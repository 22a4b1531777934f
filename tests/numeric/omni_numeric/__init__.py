"""A backbone whose answers are numbers and never labels: it foretells the depth in front of the wearer.

Its error has no upper end, a floor that is as good as the model of the first training, and a control; its
overshoot has none of them. It makes no use of the label library: what its report says, shared code says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Literal

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
from omni_mlflow.metrics.score_rows import against, difference_row, interval_row
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, mean_estimate
from omni_mlflow.spine.modalities import Modality, ModelTarget
from omni_mlflow.spine.rows import digest_of, write_document
from omni_mlflow.spine.types import Answer, Check, FittedOnTrain, Outcome, Sample, Skip, Target, Window


class TrainingSettings(Section):
    seed: int
    offset_m: float  # added to every answer, so that trainings differ


class ScoringSettings(Section):
    says: Literal["a number", "null with a reason", "null", "nothing", "a text", "an interval of nothing"]
    rows_hold_errors: bool


class Settings(Section):
    training: TrainingSettings
    scoring: ScoringSettings


class Fitted(FittedOnTrain):
    mean_depth_m: float


class Predictor:
    batch_size = 8

    def __init__(self, model: dict[str, float]) -> None:
        self._model = model

    def answer(self, samples: Sequence[Sample]) -> list[Answer]:
        return [
            Answer(
                id=sample.id,
                episode_id=sample.episode_id,
                anchor=sample.anchor,
                outcome=Outcome.ANSWERED,
                values={"depth_m": self._model["depth_m"] + sample.inputs["lean_m"]},
            )
            for sample in samples
        ]


class Numeric:
    id = "numeric"
    settings_type = Settings
    fitted_type = Fitted
    shown: frozenset[Modality] = frozenset()
    targets: frozenset[ModelTarget] = frozenset()
    metrics: Mapping[str, Metric] = {
        "depth_mae_m": Metric(title="Mean error of the depth", better="lower", unit="m", at_least=0.0),
        "depth_overshoot_m": Metric(title="Mean overshoot of the depth", better="lower", unit="m"),
        "held_out_episode_count": HELD_OUT_EPISODES,
    }
    training_files = frozenset({"training_metadata.json", "progress.jsonl", "model.json"})
    eval_files = frozenset({"metrics.json", "predictions.jsonl", "RUN_REPORT.md"})
    predictions_file = "predictions.jsonl"
    controls: tuple[str, ...] = ("leaning_forward",)
    stage_settings: Mapping[str, tuple[str, ...]] = {
        "export": (),
        "train": ("training",),
        "gate": (),
        "evaluate": ("scoring",),
    }

    @property
    def gates(self) -> Mapping[str, Any]:
        return {"numeric_gate": self._gate}

    def export(self, window: Window, *, media_root: Path, settings: Any) -> Exported | Skip:
        sample = Sample(
            id=window.id,
            episode_id=window.episode_id,
            split=window.split,
            anchor=window.anchor,
            observed=window.span,
            forecast_from=window.anchor,
            inputs={"lean_m": 0.0},
        )
        target = Target(
            id=window.id,
            episode_id=window.episode_id,
            anchor=window.anchor,
            window=window.span,
            labels=window.supervision,
        )
        return Exported(sample, target, {"depth_m": np.array(window.anchor / 100)})

    def fit(self, train: SampleSet, *, settings: Any) -> Fitted:
        episodes = tuple(sorted({row.sample.episode_id for row in train.rows}))
        return Fitted(
            episode_ids=episodes,
            episodes_digest=digest_of(list(episodes)),
            mean_depth_m=float(train.arrays["depth_m"].mean()),
        )

    def train(
        self, train: SampleSet, val: SampleSet, *, fitted: Fitted, settings: Any, log: TrainingLog
    ) -> TrainingFacts:
        log.progress("start", step=0, total_steps=1)
        log.consumed([row.sample.id for row in train.rows], step=1)
        log.progress("step", step=1, loss=0.5)
        depth_m = fitted.mean_depth_m + settings.training.offset_m
        write_document(log.checkpoint / "model.json", {"depth_m": depth_m})
        return TrainingFacts(base_model="none", base_revision="none")

    def load(self, checkpoint: Path, *, media_root: Path, settings: Any, generated: Path) -> Predictor:
        return Predictor(json.loads((checkpoint / "model.json").read_text()))

    def answer_parts(self, checkpoint: Path, *, settings: Any) -> Mapping[str, str]:
        return {}

    def control(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        return [sample.model_copy(update={"inputs": {"lean_m": 0.1}}) for sample in samples]

    def score(self, exam: Exam, *, settings: Any) -> Scores:
        rows = []
        for sample, answer, true_m in zip(exam.samples, exam.answers, exam.arrays["depth_m"], strict=True):
            given_m = answer.values["depth_m"]
            errors = {
                "depth_mae_m": abs(given_m - float(true_m)),
                "depth_overshoot_m": given_m - float(true_m),
            }
            rows.append(
                {
                    "id": sample.id,
                    "episode_id": sample.episode_id,
                    "split": sample.split,
                    "anchor": sample.anchor,
                    "outcome": answer.outcome,
                    "given_m": given_m,
                    **(errors if settings.scoring.rows_hold_errors else {}),
                }
            )
        given = np.array([row["given_m"] for row in rows])
        errors_m = given - exam.arrays["depth_m"]
        metrics: dict[str, Any] = {
            "depth_mae_m": float(np.abs(errors_m).mean()),
            "depth_overshoot_m": float(errors_m.mean()),
            "held_out_episode_count": len({row["episode_id"] for row in rows}),
            **_held_against(exam),
        }
        return Scores(metrics=_as_told(metrics, settings.scoring.says), predictions=rows)

    def check_outputs(self, evaluation: Path, *, settings: Any) -> list[Check]:
        return []

    def _gate(self, test: CheckpointUnderTest) -> list[Check]:
        found = json.loads((test.folder / "model.json").read_text())["depth_m"]
        expected = test.fitted.mean_depth_m + test.settings.training.offset_m
        return [
            Check(
                rule="model_is_the_mean_of_train",
                subject="model.json",
                expected=str(expected),
                found=str(found),
                ok=found == expected,
            )
        ]


def _held_against(exam: Exam) -> dict[str, Any]:
    """The interval of the error, its floor and its control; each difference is positive where an answer gets
    worse than the model's, or the model is better than the floor."""
    model = _error(exam, [answer.values["depth_m"] for answer in exam.answers])
    floor = _error(exam, [exam.fitted.mean_depth_m] * len(exam.answers))
    leaning = _error(exam, [answer.values["depth_m"] for answer in exam.controls["leaning_forward"]])
    return {
        "intervals": {"depth_mae_m": interval_row(model)},
        "baselines": {
            "depth_mae_m": against(
                {"mean_of_train": floor.value}, {"mean_of_train": difference_row(floor - model)}
            )
        },
        "controls": {
            "leaning_forward": {
                "depth_mae_m": {
                    "value": leaning.value,
                    "difference": difference_row(leaning - model),
                    "over_floor": difference_row(floor - leaning),
                }
            }
        },
    }


def _error(exam: Exam, given_m: Sequence[float]) -> EpisodeEstimate:
    errors_m = np.abs(np.array(given_m) - exam.arrays["depth_m"]).tolist()
    found = mean_estimate(errors_m, [sample.episode_id for sample in exam.samples])
    return replace(found, low=0.0, high=inf)


def _as_told(metrics: dict[str, Any], says: str) -> dict[str, Any]:
    """The metrics, or what an author may get wrong about the primary one."""
    others = {name: value for name, value in metrics.items() if name != "depth_mae_m"}
    match says:
        case "null with a reason":
            reasons = {"depth_mae_m": "no pixel of any sample has a depth"}
            alone = {**others, "intervals": {}, "baselines": {}, "controls": {}}
            return {**alone, "depth_mae_m": None, "more": {"reasons": reasons}}
        case "null":
            return {**others, "depth_mae_m": None}
        case "nothing":
            return others
        case "a text":
            return {**others, "depth_mae_m": str(metrics["depth_mae_m"])}
        case "an interval of nothing":
            return {**metrics, "intervals": {"depth_rmse_m": {"low": 0.1, "high": 0.2}}}
    return metrics


BACKBONE = Numeric()
