"""Synthetic episodes in the real on-disk format, with a world in them that can be learned."""

from omni_mlflow.spine.synthetic.anomalies import PLANTINGS, Anomaly, Planting
from omni_mlflow.spine.synthetic.episode_set import write_episode_set, write_planned
from omni_mlflow.spine.synthetic.plan import (
    Anomalies,
    EpisodePlan,
    Source,
    Synthesis,
    SynthesisError,
    plan_episode_set,
)

__all__ = [
    "PLANTINGS",
    "Anomalies",
    "Anomaly",
    "EpisodePlan",
    "Planting",
    "Source",
    "Synthesis",
    "SynthesisError",
    "plan_episode_set",
    "write_episode_set",
    "write_planned",
]
