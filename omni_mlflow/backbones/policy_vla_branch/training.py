"""Trains pi0 and its heads, whole or by a LoRA adapter, and writes the checkpoint's model files."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from typing import Any

from omni_mlflow.backbones.base import TrainingFacts, TrainingLog
from omni_mlflow.backbones.libraries import device
from omni_mlflow.backbones.optimisation import (
    evenly,
    learning_rate,
    prefetched,
    take_step,
    training_order,
)
from omni_mlflow.backbones.peft_adapter import save_adapter
from omni_mlflow.backbones.policy_vla_branch.base_model import (
    fit_processor,
    identify,
    load_model,
    load_processor,
    locate_base,
    stored_dtype,
)
from omni_mlflow.backbones.policy_vla_branch.canary import save_canary
from omni_mlflow.backbones.policy_vla_branch.data import Batches, PolicyData
from omni_mlflow.backbones.policy_vla_branch.heads import HeadLabels, new_heads, num_features, save_heads
from omni_mlflow.backbones.policy_vla_branch.lora import FOLDER, add_policy_adapter
from omni_mlflow.backbones.policy_vla_branch.model import Policy
from omni_mlflow.backbones.policy_vla_branch.settings import Settings, Training
from omni_mlflow.backbones.policy_vla_branch.statistics import STATS_NAME, NormalizationStats
from omni_mlflow.backbones.resume import (
    TrainingState,
    drop_states,
    load_state,
    save_state,
    saved_steps,
)
from omni_mlflow.spine.rows import write_document

MAX_VAL_SAMPLES = 256
"""Validation looks at no more samples than these, evenly spread."""

_WORKERS = 1
"""Threads that make the next batches while a step runs."""


def train_policy(
    train: PolicyData,
    val: PolicyData,
    *,
    statistics: NormalizationStats,
    labels: HeadLabels,
    settings: Settings,
    log: TrainingLog,
) -> TrainingFacts:
    """Train and leave the model files in ``log.checkpoint``; go on from ``log.resume`` when it holds state.

    Args:
        statistics, labels: fitted on the train samples; the indices of both sets point into ``labels``.

    Raises:
        TooFewSamplesError: fewer train samples than one batch holds.
        BaseModelError: the base is not what the contract says, or too narrow for the action space.
    """
    location = locate_base(settings.base, num_dims=len(statistics.actions.mean))
    model = load_model(
        location,
        revision=settings.base.revision,
        horizon=settings.action.horizon_frames,
        dtype=stored_dtype(settings),
    )
    identity = identify(model, location, settings.base)
    processor = load_processor(location, revision=settings.base.revision)
    processor = fit_processor(processor, model.config, statistics)
    labels = labels.model_copy(update={"features": num_features(model.config)})
    policy = _trainable(model, labels, settings)
    count = sum(weight.numel() for _, weight in policy.named_parameters() if weight.requires_grad)
    final = _Loop(policy, Batches(processor), train, val, training=settings.training, log=log).run()
    write_document(log.checkpoint / "base.json", identity)
    write_document(log.checkpoint / STATS_NAME, statistics)
    _save(policy, processor, labels, log)
    facts = {
        "base_fingerprint": identity.fingerprint,
        "trainable_parameters": count,
        "steps": final.step,
        "last_loss": final.last_loss,
        "device": str(device()),
    }
    return TrainingFacts(
        base_model=identity.model, base_revision=identity.commit or identity.revision, **facts
    )


def _trainable(model: Any, labels: HeadLabels, settings: Settings) -> Policy:
    """Return the policy with untrained heads, all of it trainable or an adapter alone."""
    seed = settings.training.seed
    if settings.training.mode == "lora":
        model = add_policy_adapter(model, settings.lora, settings.base, seed=seed)
    else:
        model.model.dit.embed_tokens.weight.requires_grad_(False)  # the expert reads no tokens
    return Policy(model, new_heads(labels, seed=seed), half=settings.base.precision == "bfloat16")


def _save(policy: Policy, processor: Any, labels: HeadLabels, log: TrainingLog) -> None:
    """Write the plain pi0 folder, an adapter merged into it, the heads, and what all of it answers."""
    folder = log.checkpoint
    policy.eval()
    if hasattr(policy.pi0, "merge_and_unload"):
        save_adapter(policy.pi0, folder / FOLDER)
        policy = policy.merged()
    policy.plain.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_heads(folder, policy.heads, labels)
    save_canary(folder, policy, processor)


class _Loop:
    """The optimisation of one policy."""

    def __init__(
        self,
        policy: Policy,
        batches: Batches,
        train: PolicyData,
        val: PolicyData,
        *,
        training: Training,
        log: TrainingLog,
    ) -> None:
        import torch

        self._policy = policy
        self._batches = batches
        self._train, self._val = train, val
        self._training = training
        self._log = log
        self._rank = int(os.environ.get("RANK", "0"))
        weights = [weight for _, weight in policy.named_parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0.01)

    def run(self) -> TrainingState:
        training, log = self._training, self._log
        begin = log.rewind(saved_steps(log.resume))
        drop_states(log.resume, after=begin)
        if begin:
            state = load_state(log.resume, begin, self._policy, self._optimizer)
        else:
            state = TrainingState(step=0, last_loss=math.nan)
            log.progress("start", step=0, total_steps=training.steps, samples=len(self._train.ids))
        self._policy.train()
        steps = training_order(len(self._train.ids), _Pace(training), start=state.step)
        waiting_since = time.perf_counter()
        for (step, chosen), parts in prefetched(self._lesson, steps, workers=_WORKERS):
            begun = time.perf_counter()
            row = self._learn(parts, step)
            ended = time.perf_counter()
            log.progress("step", step=step, **row)
            log.consumed([self._train.ids[index] for index in chosen], step=step)
            whole = ended - waiting_since
            log.measured({"step_s": whole, "data_wait_share": (begun - waiting_since) / whole}, step=step)
            if step % training.validate_every == 0 or step == training.steps:
                self._validate(step)
            state = TrainingState(step=step, last_loss=row["loss"])
            if step % training.checkpoint_every == 0 or step == training.steps:
                log.progress("checkpoint", step=step)
                save_state(log.resume, self._policy, self._optimizer, state)
            waiting_since = time.perf_counter()
        return state

    def _lesson(self, planned: tuple[int, Sequence[int]]) -> list[Any]:
        """Make the batches of one step; ``accumulate`` of them share it."""
        step, chosen = planned
        size, seed = self._training.batch_size, self._training.seed
        return [
            self._batches.training(
                self._train, chosen[start : start + size], key=(seed, step, self._rank, start)
            )
            for start in range(0, len(chosen), size)
        ]

    def _learn(self, parts: list[Any], step: int) -> dict[str, float]:
        """Take one step on the mean of the parts' losses; each part weighs the same, whatever it knows."""
        training = self._training
        rate = learning_rate(
            step, peak=training.learning_rate, warmup_steps=training.warmup_steps, steps=training.steps
        )
        self._optimizer.zero_grad()
        flow_total = heads_total = 0.0
        for batch in parts:
            flow, heads = self._losses(batch)
            ((flow + training.head_weight * heads) / len(parts)).backward()
            flow_total += float(flow.detach()) / len(parts)
            heads_total += float(heads.detach()) / len(parts)
        take_step(self._optimizer, rate)
        loss = flow_total + training.head_weight * heads_total
        return {"loss": loss, "flow_loss": flow_total, "head_loss": heads_total, "learning_rate": rate}

    def _losses(self, batch: Any) -> tuple[Any, Any]:
        batch = batch.to(self._policy.device)
        return self._policy.losses(batch, next_action_weight=self._training.next_action_weight)

    def _validate(self, step: int) -> None:
        """Report the mean losses over the validation samples, always under the same noise."""
        import torch

        chosen = evenly(range(len(self._val.ids)), MAX_VAL_SAMPLES)
        if not chosen:
            return
        self._policy.eval()
        size = self._training.batch_size
        flow_total = heads_total = 0.0
        with torch.no_grad():
            for start in range(0, len(chosen), size):
                rows = chosen[start : start + size]
                flow, heads = self._losses(
                    self._batches.training(self._val, rows, key=(self._training.seed, 0, 0, start))
                )
                flow_total += float(flow) * len(rows) / len(chosen)
                heads_total += float(heads) * len(rows) / len(chosen)
        self._policy.train()
        self._log.progress(
            "validation",
            step=step,
            loss=flow_total + self._training.head_weight * heads_total,
            flow_loss=flow_total,
            head_loss=heads_total,
        )


class _Pace:
    """A step learns from ``accumulate`` batches at once."""

    def __init__(self, training: Training) -> None:
        self.steps = training.steps
        self.batch_size = training.batch_size * training.accumulate
        self.seed = training.seed
