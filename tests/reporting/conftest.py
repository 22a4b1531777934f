"""A small evaluation, scored by the real metrics: six episodes of six samples, with one control."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from omni_mlflow.metrics.label_scores import label_scores
from omni_mlflow.metrics.metric import LABEL_METRICS
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.reporting.facts import Flow, ReportedFile, RunFacts
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.types import Labels, Skip, Span, Target

ACTIONS = ("Cut", "Stir", "Wash")
Row = dict[str, Any]


@pytest.fixture
def priors() -> TrainPriors:
    targets = [
        Target(
            id=f"t{i}",
            episode_id="train__ep1",
            anchor=9,
            span=Span(start=0, stop=9),
            labels=Labels(
                action=ACTIONS[i % 3],
                next_action=ACTIONS[i % 3],
                in_contact=i % 3 != 0,
                transition=False,
                objects=("knife",),
            ),
        )
        for i in range(12)
    ]
    return TrainPriors.fit(targets)


def prediction(episode: int, number: int, *, is_right: bool) -> Row:
    window = {"start_frame": 10 * number, "end_frame": 10 * number + 19}
    action = ACTIONS[number % 3]
    truth = {
        "action": action,
        "subtask": "unknown",
        "objects": ["knife"],
        "contact": "yes" if number % 2 else "no",
        "transition": "no",
        "next_action": action,
        "evidence_window": window,
    }
    said = truth if is_right else {**truth, "action": "Dance", "contact": "yes", "next_action": "Dance"}
    return {
        "id": f"room{episode}__ep1:{number}",
        "episode_id": f"room{episode}__ep1",
        "center_window": window,
        "true_json": truth,
        "pred_json": said,
        "raw_prediction": json.dumps(said),
        "true_label": action,
        "predicted_label": said["action"],
        "true_label_seen_in_train": int(number != 5),
        "outcome": "answered",
    }


@pytest.fixture
def rows() -> list[Row]:
    return [prediction(e, i, is_right=i != 4 or e % 2 == 0) for e in range(6) for i in range(6)]


@pytest.fixture
def metrics(rows, priors) -> dict[str, Any]:
    blind = [prediction(e, i, is_right=i == 0) for e in range(6) for i in range(6)]
    return label_scores(
        rows, priors=priors, controls={"other_video": blind}, label_options=ACTIONS, declared=ACTIONS
    )[0]


@pytest.fixture
def make_facts(metrics) -> Callable[..., RunFacts]:
    """Build the facts of a report; keywords replace single ones."""

    def make(**changes: Any) -> RunFacts:
        facts: dict[str, Any] = {
            "evidence": Evidence.HELD_OUT,
            "backbone": "qwen3_omni_lora",
            "display_name": "Qwen3-Omni LoRA",
            "base_model": "base/model",
            "base_revision": "0123abc",
            "checkpoint_digest": "a" * 64,
            "split_digest": "b" * 64,
            "dataset_digest": "c" * 64,
            "contract_digest": "d" * 64,
            "train_episodes": 14,
            "split_episodes": 6,
            "split_samples": 36,
            "answered_episodes": 6,
            "answered_samples": 36,
            "questions": ("action", "contact", "next_action"),
            "metrics": metrics,
            "kinds": LABEL_METRICS,
            "primary_metrics": ("json_validity_rate", "contact_accuracy", "held_out_episode_count"),
            "seal_openings": 3,
            "flows": (Flow(stage="select", unit="episodes", taken=26, made=24, skipped=2),),
            "skipped": (
                Skip(subject="s2/ep1", stage="select", reason="no caption"),
                Skip(subject="s1/ep1", stage="select", reason="no caption"),
            ),
            "files": (ReportedFile(name="metrics.json", sha256="e" * 64, size_bytes=1234, holds="metrics"),),
        }
        return RunFacts.model_validate({**facts, **changes})

    return make
