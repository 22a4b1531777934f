"""The contract of the numeric backbone, and where its package lies."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.conftest import TRIVIAL

NUMERIC = Path(__file__).parent / "numeric"


def write_numeric_contract(path: Path) -> Path:
    """The trivial contract with another model, no question and one number to be judged by."""
    document = yaml.safe_load((TRIVIAL / "trivial.yaml").read_text())
    document |= {
        "id": "numeric",
        "display_name": "Depth ahead",
        "questions": {},
        "primary_metrics": ["depth_mae_m", "held_out_episode_count"],
        "settings": {
            "training": {"seed": 0, "offset_m": 0.0},
            "scoring": {"says": "a number", "rows_hold_errors": True},
        },
    }
    document["artifact_contract"] |= {
        "checkpoint_gate": "numeric_gate",
        "required_training_files": ["training_metadata.json", "progress.jsonl", "model.json"],
        "required_eval_files": ["metrics.json", "predictions.jsonl", "RUN_REPORT.md"],
    }
    path.write_text(yaml.safe_dump(document))
    return path
