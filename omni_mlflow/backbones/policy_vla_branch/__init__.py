"""A vision-language-action model that turns what the wearer sees into the next motion of both hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

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
from omni_mlflow.backbones.policy_vla_branch.action_space_file import TargetKind
from omni_mlflow.backbones.policy_vla_branch.fitted import PolicyFitted
from omni_mlflow.backbones.policy_vla_branch.label_scoring import LABELS
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.tokens import TOKEN_METRICS
from omni_mlflow.contract import Section
from omni_mlflow.metrics.metric import HELD_OUT_EPISODES, Metric
from omni_mlflow.metrics.trajectories import TRAJECTORY_METRICS
from omni_mlflow.spine.modalities import Modality, ModelTarget
from omni_mlflow.spine.types import Check, FittedOnTrain, Sample, Skip, Split, Window


def _gate(checkpoint: CheckpointUnderTest) -> list[Check]:
    from omni_mlflow.backbones.policy_vla_branch.gate import checkpoint_checks

    return checkpoint_checks(checkpoint)


class PolicyVlaBranch:
    """Fulfils the backbone protocol; every model library is imported behind its methods."""

    id = "policy_vla_branch"
    settings_type: type[Section] = Settings
    fitted_type: type[FittedOnTrain] = PolicyFitted
    shown: frozenset[Modality] = frozenset({"camera_video", "language", "camera_pose", "hand_mocap"})
    targets: frozenset[ModelTarget] = frozenset(get_args(TargetKind))
    gates: Mapping[str, Gate] = {"policy_checkpoint_action_space_and_normalizer": _gate}
    metrics: Mapping[str, Metric] = {
        **LABELS,
        **TRAJECTORY_METRICS,
        **TOKEN_METRICS,
        "held_out_episode_count": HELD_OUT_EPISODES,
    }
    training_files = frozenset(
        {
            "training_metadata.json",
            "progress.jsonl",
            "action_space.json",
            "normalization_stats.json",
            "retarget.safetensors",
            "model.safetensors",
            "heads.safetensors",
            "heads.json",
            "base.json",
            "fitted.json",
            "checkpoint_manifest.json",
        }
    )
    eval_files = frozenset(
        {
            "metrics.json",
            "policy_predictions.jsonl",
            "trajectory_metrics.csv",
            "action_confusion_matrix.csv",
            "retargeting_audit.json",
            "hand_paths.json",
            "RUN_REPORT.md",
        }
    )
    predictions_file = "policy_predictions.jsonl"
    controls: tuple[str, ...] = ("blank_image", "shuffled_text", "state_only")
    stage_settings: Mapping[str, tuple[str, ...]] = {
        "export": ("action",),
        "train": ("base", "action", "targets", "training", "lora"),
        "gate": ("base", "action", "targets", "training", "lora"),
        "evaluate": ("base", "action", "targets", "decoding"),
        "register": ("base", "action", "decoding"),
        **dict.fromkeys(("validate", "report", "publish"), ()),
    }
    episodes_folder = "lerobot"

    def export(self, window: Window, *, media_root: Path, settings: Any) -> Exported | Skip:
        from omni_mlflow.backbones.policy_vla_branch.sample import export_window

        return export_window(window, media_root=media_root, settings=settings)

    def export_episodes(
        self,
        episodes: Mapping[Split, Sequence[Window]],
        *,
        media: Mapping[Split, Path],
        out: Mapping[Split, Path],
    ) -> None:
        from omni_mlflow.backbones.policy_vla_branch.whole_episodes import export_episodes

        export_episodes(episodes, media=media, out=out)

    def fit(self, train: SampleSet, *, settings: Any) -> FittedOnTrain:
        return PolicyFitted.fit_samples(train, settings)

    def train(
        self, train: SampleSet, val: SampleSet, *, fitted: Any, settings: Any, log: TrainingLog
    ) -> TrainingFacts:
        from omni_mlflow.backbones.policy_vla_branch.fitted import head_labels
        from omni_mlflow.backbones.policy_vla_branch.learning_data import policy_data
        from omni_mlflow.backbones.policy_vla_branch.training import train_policy

        facts = train_policy(
            policy_data(train, fitted, settings),
            policy_data(val, fitted, settings),
            statistics=fitted.normalization,
            labels=head_labels(fitted),
            settings=settings,
            log=log,
        )
        fitted.save(log.checkpoint)
        return facts

    def load(self, checkpoint: Path, *, media_root: Path, settings: Any, generated: Path) -> Predictor:
        from omni_mlflow.backbones.policy_vla_branch.inference import load_predictor
        from omni_mlflow.backbones.policy_vla_branch.observing import Pictures, observed

        pictures = Pictures(media_root)
        return load_predictor(
            checkpoint, observe=lambda samples: observed(samples, pictures), settings=settings
        )

    def answer_parts(self, checkpoint: Path, *, settings: Any) -> Mapping[str, str]:
        from omni_mlflow.backbones.policy_vla_branch.answer_parts import answer_parts

        return answer_parts(checkpoint, settings)

    def control(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        from omni_mlflow.backbones.policy_vla_branch.controls import controlled

        return controlled(name, samples)

    def score(self, exam: Exam, *, settings: Any) -> Scores:
        from omni_mlflow.backbones.policy_vla_branch.scoring import score_exam

        return score_exam(exam, settings)

    def describe_served(self, folder: Path, *, settings: Any) -> None:
        from omni_mlflow.backbones.policy_vla_branch.served import describe

        describe(folder, settings)

    def check_outputs(self, evaluation: Path, *, settings: Any) -> list[Check]:
        from omni_mlflow.backbones.policy_vla_branch.scoring import check_outputs

        return check_outputs(evaluation)


BACKBONE: Backbone = PolicyVlaBranch()
