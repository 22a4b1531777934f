"""What a run may claim, computed from facts and never typed in."""

from __future__ import annotations

from enum import StrEnum

from omni_mlflow.spine.types import Row

_FEWEST = 2
"""Episodes to learn from, and to be asked about."""


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


def shortcomings_of(facts: EvidenceFacts) -> tuple[str, ...]:
    """Why an evaluation is no held-out result, whatever its episodes are; empty where nothing is amiss.

    What one episode taught, or what one episode is asked about, is no result.
    """
    samples, test_samples = facts.num_evaluated_samples, facts.num_test_samples
    episodes, test_episodes = facts.num_evaluated_episodes, facts.num_test_episodes
    trained_on, overlapping = len(facts.episodes_in_training), len(facts.overlapping_episodes)
    told = {
        f"it was told to stop after {facts.limit} samples": facts.limit is not None,
        f"{samples} of {test_samples} held-out samples were answered": not samples == test_samples > 0,
        f"{episodes} of {test_episodes} held-out episodes were answered": episodes != test_episodes,
        f"the split holds out {_episodes(test_episodes)}": test_episodes < _FEWEST,
        f"the model learned from {_episodes(facts.num_train_episodes)}": facts.num_train_episodes < _FEWEST,
        f"held-out episodes that were trained on: {trained_on}": trained_on > 0,
        f"held-out episodes that share a recording with train or val: {overlapping}": overlapping > 0,
        "the guard did not pass this split": not facts.guarded,
        "no look at the held-out truths is recorded": not facts.seal_recorded,
    }
    return tuple(reason for reason, holds in told.items() if holds)


def evidence_of(facts: EvidenceFacts) -> Evidence:
    """Return ``held_out`` only for a full pass over every held-out sample of a guarded real split."""
    if facts.synthetic:
        return Evidence.SYNTHETIC
    return Evidence.SMOKE if shortcomings_of(facts) else Evidence.HELD_OUT


def _episodes(number: int) -> str:
    return {0: "no episode", 1: "one episode"}.get(number, f"{number} episodes")
