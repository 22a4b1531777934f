"""Tiny prediction rows, and the real published ones where they are at hand."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Build a published prediction row; ``said`` and ``truth`` override single answers."""

    def make(
        sample_id: str,
        *,
        episode: str = "kitchen__ep1",
        truth: dict[str, Any] | None = None,
        said: dict[str, Any] | None = None,
        raw: str | None = None,
        seen: int = 1,
    ) -> Row:
        window = {"start_frame": 0, "end_frame": 19}
        answers = {
            "action": "Pour water",
            "subtask": "Make tea",
            "objects": ["kettle"],
            "contact": "yes",
            "transition": "no",
            "next_action": "Pour water",
            "evidence_window": window,
        }
        true_json = answers | (truth or {})
        pred_json = {} if raw is not None else true_json | (said or {})
        text = json.dumps(pred_json) if raw is None else raw
        action = pred_json.get("action", "")
        return {
            "id": sample_id,
            "episode_id": episode,
            "split": "test",
            "target": "episode_qa",
            "center_window": {**window, "num_frames": 20},
            "true_json": true_json,
            "pred_json": pred_json,
            "raw_prediction": text,
            "true_label": true_json["action"],
            "predicted_label": action,
            "correct": int(action == true_json["action"]),
            "true_label_seen_in_train": seen,
        }

    return make


@pytest.fixture(scope="session")
def qwen_v2() -> tuple[list[Row], Row]:
    """448 real predictions on 14 held-out episodes, and the metrics published for them."""
    default = Path(__file__).parents[2].parent / "shared" / "reference"
    folder = Path(os.environ.get("OMNI_REFERENCE_DIR", default)) / "qwen_v2"
    if not folder.is_dir():
        pytest.skip(f"no reference predictions at {folder}; set OMNI_REFERENCE_DIR")
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], json.loads((folder / "metrics.json").read_text())
