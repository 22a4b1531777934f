"""Synthetic episodes in the real on-disk format, with a world in them that can be learned."""

from omni_mlflow.spine.synthetic.episode_set import (
    Anomalies,
    Anomaly,
    EpisodePlan,
    Synthesis,
    SynthesisError,
    write_episode_set,
)

__all__ = ["Anomalies", "Anomaly", "EpisodePlan", "Synthesis", "SynthesisError", "write_episode_set"]
