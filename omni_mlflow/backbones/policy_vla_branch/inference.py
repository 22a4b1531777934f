"""A trained checkpoint that answers: chunks of actions in physical units, and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.base_model import load_model, load_processor
from omni_mlflow.backbones.policy_vla_branch.data import Batches, noise_and_time
from omni_mlflow.backbones.policy_vla_branch.heads import HeadLabels, label_answers, load_heads
from omni_mlflow.backbones.policy_vla_branch.model import Policy
from omni_mlflow.backbones.policy_vla_branch.observations import Observations
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.spine.types import Answer, Outcome, Sample

BATCH_SIZE = 32
"""How many answers are kept at once; each sample is asked alone."""

DECIMALS = 6
"""Actions are told to a micrometre."""


Observe = Callable[[Sequence[Sample]], Observations]


@dataclass(frozen=True)
class LoadedPolicy:
    """A checkpoint in memory.

    Attributes:
        labels: what its heads choose from.
    """

    policy: Policy
    processor: Any
    labels: HeadLabels


class ActionSampler:
    """Draws chunks of actions, and answers labels, for what it is shown."""

    def __init__(self, loaded: LoadedPolicy, settings: Settings) -> None:
        self._loaded = loaded
        self._batches = Batches(loaded.processor)
        self._decoding = settings.decoding

    def sample_actions(self, ids: Sequence[str], seen: Observations) -> tuple[NDArray[np.float64], list[str]]:
        """Draw ``decoding.samples_for_mean`` chunks per sample; the noise of each follows from its id alone.

        Every sample has a pass of its own: the last bits of a product of matrices move with the number of
        their rows, so in a shared batch an answer would depend on the others, and shards of an evaluation
        would not give the bytes of one pass.

        Returns:
            Chunks (draws, samples, horizon, dimensions) in units of the action space, and the label answers.
        """
        told = [self._ask(each, seen, row) for row, each in enumerate(ids)]
        return np.stack([chunks for chunks, _ in told], axis=1), [labels for _, labels in told]

    def _ask(self, sample_id: str, seen: Observations, row: int) -> tuple[NDArray[np.float64], str]:
        policy, batches = self._loaded.policy, self._batches
        batch = batches.prediction([seen.images[row]], [seen.instructions[row]], seen.states[row : row + 1])
        noise, _ = noise_and_time(
            noise_key(sample_id), (self._decoding.samples_for_mean, batches.horizon, batches.width)
        )
        chunks, scores = policy.predict(
            batch.to(policy.device), noise[:, None].to(policy.device), steps=self._decoding.steps
        )
        [labels] = label_answers(scores, self._loaded.labels, rows=1)
        return batches.physical(chunks)[:, 0], labels


class PolicyPredictor:
    """Answers samples with one checkpoint.

    Args:
        observe: reads what the model may see of samples.
    """

    batch_size = BATCH_SIZE

    def __init__(self, sampler: ActionSampler, observe: Observe) -> None:
        self._sampler = sampler
        self._observe = observe

    def answer(self, samples: Sequence[Sample]) -> list[Answer]:
        """Answer ``samples`` in order; an answer does not depend on the others of its batch.

        Labels and chunk come out of one pass. Where a number of the chunk is none, that pass went wrong as a
        whole: nothing of it is an answer, labels included.
        """
        seen = self._observe(samples)
        chunks, labels = self._sampler.sample_actions([sample.id for sample in samples], seen)
        told = {"actions": chunks[0], f"actions_mean_of_{len(chunks)}": chunks.mean(axis=0)}
        answers = []
        for row, sample in enumerate(samples):
            is_finite = bool(np.isfinite(chunks[:, row]).all())
            values = {name: each[row].round(DECIMALS).tolist() for name, each in told.items()}
            answers.append(
                Answer(
                    id=sample.id,
                    episode_id=sample.episode_id,
                    anchor=sample.anchor,
                    outcome=Outcome.ANSWERED if is_finite else Outcome.MODEL_INVALID,
                    raw=labels[row] if is_finite else "",
                    values=values if is_finite else {},
                )
            )
        return answers


def noise_key(sample_id: str) -> list[int]:
    """Return the key of a sample's noise: the 32 bytes of the sha256 of its id."""
    return list(hashlib.sha256(sample_id.encode()).digest())


def load_policy(checkpoint: Path, settings: Settings) -> LoadedPolicy:
    """Load model, processor and heads of a checkpoint.

    Raises:
        BaseModelError: the weights are not those that its configuration describes.
    """
    model = load_model(
        checkpoint,
        revision="main",
        horizon=settings.action.horizon_frames,
        dtype=settings.base.precision,
    )
    heads, labels = load_heads(checkpoint)
    policy = Policy(model, heads, half=settings.base.precision == "bfloat16")
    policy.eval()
    return LoadedPolicy(policy, load_processor(checkpoint, revision="main"), labels)


def load_predictor(checkpoint: Path, *, observe: Observe, settings: Settings) -> PolicyPredictor:
    return PolicyPredictor(ActionSampler(load_policy(checkpoint, settings), settings), observe)
