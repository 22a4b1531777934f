"""Qwen3-Omni with a LoRA adapter: video, sound and text in, one strict JSON answer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import (
    Backbone,
    CheckpointUnderTest,
    Exam,
    Exported,
    Gate,
    Predictor,
    SampleSet,
    Scores,
    TrainingFacts,
    TrainingLog,
)
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.contract import Section
from omni_mlflow.metrics.metric import HELD_OUT_EPISODES, LABEL_METRICS, Metric
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.modalities import Modality, ModelTarget
from omni_mlflow.spine.types import Check, FittedOnTrain, Sample, Skip, Window


def _gate(checkpoint: CheckpointUnderTest) -> list[Check]:
    from omni_mlflow.backbones.qwen3_omni_lora.gate import lora_safetensors_shape_check

    return lora_safetensors_shape_check(checkpoint)


class Qwen3OmniLora:
    """Fulfils the backbone protocol; every model library is imported behind its methods."""

    id = "qwen3_omni_lora"
    settings_type: type[Section] = Settings
    fitted_type: type[FittedOnTrain] = TrainPriors
    shown: frozenset[Modality] = frozenset(
        {"mosaic_video", "audio", "language", "depth", "camera_pose", "body_mocap", "hand_mocap", "imu"}
    )
    targets: frozenset[ModelTarget] = frozenset()
    gates: Mapping[str, Gate] = {"lora_safetensors_shape_check": _gate}
    metrics: Mapping[str, Metric] = {
        **{name: metric for name, metric in LABEL_METRICS.items() if metric.question != "next_contact"},
        "held_out_episode_count": HELD_OUT_EPISODES,
    }
    training_files = frozenset(
        {
            "training_metadata.json",
            "progress.jsonl",
            "adapter_config.json",
            "adapter_model.safetensors",
            "base.json",
            "fitted.json",
        }
    )
    eval_files = frozenset(
        {
            "metrics.json",
            "predictions.jsonl",
            "predictions.csv",
            "per_class_metrics.csv",
            "confusion_matrix.csv",
            "RUN_REPORT.md",
        }
    )
    predictions_file = "predictions.jsonl"
    controls: tuple[str, ...] = ("other_video", "other_audio", "text_only")
    stage_settings: Mapping[str, tuple[str, ...]] = {
        "export": ("prompt",),
        "train": ("base", "lora", "training", "prompt"),
        "gate": ("base", "lora", "prompt"),
        "evaluate": ("base", "prompt", "decoding"),
        **dict.fromkeys(("validate", "report", "register", "publish"), ()),
    }

    def export(self, window: Window, *, media_root: Path, settings: Any) -> Exported | Skip:
        from omni_mlflow.backbones.qwen3_omni_lora.sample import export_window

        return export_window(window, media_root=media_root, settings=settings)

    def fit(self, train: SampleSet, *, settings: Any) -> FittedOnTrain:
        return TrainPriors.fit(row.target for row in train.rows)

    def train(
        self, train: SampleSet, val: SampleSet, *, fitted: Any, settings: Any, log: TrainingLog
    ) -> TrainingFacts:
        from omni_mlflow.backbones.qwen3_omni_lora.training import train_adapter

        return train_adapter(train, val, priors=fitted, settings=settings, log=log)

    def load(self, checkpoint: Path, *, media_root: Path, settings: Any, generated: Path) -> Predictor:
        from omni_mlflow.backbones.qwen3_omni_lora.inference import load_predictor

        return load_predictor(checkpoint, media_root=media_root, settings=settings)

    def answer_parts(self, checkpoint: Path, *, settings: Any) -> Mapping[str, str]:
        from omni_mlflow.backbones.qwen3_omni_lora.answer_parts import answer_parts

        return answer_parts(checkpoint, settings)

    def control(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        from omni_mlflow.backbones.qwen3_omni_lora.controls import controlled

        return controlled(name, samples)

    def score(self, exam: Exam, *, settings: Any) -> Scores:
        from omni_mlflow.backbones.qwen3_omni_lora.scoring import score_exam

        return score_exam(exam, settings)

    def check_outputs(self, evaluation: Path, *, settings: Any) -> list[Check]:
        from omni_mlflow.backbones.recomputed_metrics import recomputed_metrics_check

        return [recomputed_metrics_check(evaluation)]


BACKBONE: Backbone = Qwen3OmniLora()
