"""A second look at the published metrics of a backbone that answers label questions."""

from __future__ import annotations

import json
from pathlib import Path

from omni_mlflow.metrics.labels import published_metrics
from omni_mlflow.spine.rows import read_json_rows
from omni_mlflow.spine.types import Check


def recomputed_metrics_check(evaluation: Path) -> Check:
    """Compute every published metric again from ``predictions.jsonl``; ``metrics.json`` must say the same."""
    claimed = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    rows = list(read_json_rows(evaluation / "predictions.jsonl"))
    found = published_metrics(rows, label_options=claimed["labels"])
    differing = {key: (claimed.get(key), value) for key, value in found.items() if claimed.get(key) != value}
    return Check(
        rule="metrics_follow_from_predictions",
        subject="metrics.json",
        expected="what predictions.jsonl gives",
        found=f"{differing}" if differing else "the same",
        ok=not differing,
    )
