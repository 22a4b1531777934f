"""What a run may claim, computed from facts and never typed in."""

from __future__ import annotations

from enum import StrEnum

from omni_mlflow.spine.types import Row


class Evidence(StrEnum):
    """Class of a run; only ``held_out`` may make a statement about a model's quality."""

    SYNTHETIC = "synthetic"
    SMOKE = "smoke"
    HELD_OUT = "held_out"


class EvidenceFacts(Row):
    """What is known about an evaluation when its class is computed.

    Attributes:
        synthetic: at least one episode was written by this project's generator.
        guarded: the guard sealed the manifest without a finding.
        limit: the evaluation was told to stop after so many samples, even where there are not more.
        num_train_episodes: episodes that the training ledger says were learned from.
        num_test_episodes, num_test_samples: what the split holds out.
        num_evaluated_episodes, num_evaluated_samples: what was really answered.
        episodes_in_training: ids that appear in the training ledger and in the test split.
        overlapping_episodes: test episodes that share a recording with train or val, whether or not the
            contract lets such a leak stop the pipeline.
        seal_recorded: opening the sealed targets was written to the seal ledger.
    """

    synthetic: bool
    guarded: bool
    limit: int | None
    num_train_episodes: int
    num_test_episodes: int
    num_evaluated_episodes: int
    num_test_samples: int
    num_evaluated_samples: int
    episodes_in_training: tuple[str, ...] = ()
    overlapping_episodes: tuple[str, ...] = ()
    seal_recorded: bool


def evidence_of(facts: EvidenceFacts) -> Evidence:
    """Return ``held_out`` only for a full pass over every held-out sample of a guarded real split.

    What one episode taught, or what one episode is asked about, is no result.
    """
    if facts.synthetic:
        return Evidence.SYNTHETIC
    whole = (
        facts.limit is None
        and facts.num_evaluated_samples == facts.num_test_samples > 0
        and facts.num_evaluated_episodes == facts.num_test_episodes > 1
        and facts.num_train_episodes > 1
    )
    apart = not facts.episodes_in_training and not facts.overlapping_episodes
    if whole and apart and facts.guarded and facts.seal_recorded:
        return Evidence.HELD_OUT
    return Evidence.SMOKE
