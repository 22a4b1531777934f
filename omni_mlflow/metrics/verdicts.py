"""Which numbers may be read as a model's quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni_mlflow.spine.evidence import Evidence


def without_unfounded_verdicts(metrics: Mapping[str, Any], evidence: str) -> dict[str, Any]:
    """Take the verdicts out of ``metrics.json`` where they would be read as a model's quality.

    Only held-out evidence has verdicts; of any other each is null with the reason, and the numbers stay.
    """
    if evidence == Evidence.HELD_OUT or not metrics.get("verdicts"):
        return dict(metrics)
    more = metrics.get("more", {})
    reason = f"the evaluation is {evidence}, and only held_out evidence is judged"
    return {
        **metrics,
        "verdicts": {name: {**told, "verdict": None} for name, told in metrics["verdicts"].items()},
        "more": {**more, "reasons": {**more.get("reasons", {}), "verdicts": reason}},
    }
