"""Fine-tunes the LoRA adapter on the answers of the train samples."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from omni_mlflow.backbones.base import SampleSet, TrainingFacts, TrainingLog
from omni_mlflow.backbones.libraries import device
from omni_mlflow.backbones.optimisation import (
    evenly,
    learning_rate,
    optimise,
    prefetched,
    training_order,
)
from omni_mlflow.backbones.peft_adapter import add_adapter, save_adapter
from omni_mlflow.backbones.qwen3_omni_lora.adapter import lora_config
from omni_mlflow.backbones.qwen3_omni_lora.base_model import (
    identify,
    load_processor,
    load_thinker,
    locate_base,
)
from omni_mlflow.backbones.qwen3_omni_lora.optimisation import answer_loss
from omni_mlflow.backbones.qwen3_omni_lora.processing import IGNORED, Processing
from omni_mlflow.backbones.qwen3_omni_lora.prompt import label_options
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings, Training
from omni_mlflow.backbones.resume import (
    TrainingState,
    drop_states,
    load_state,
    save_state,
    saved_steps,
)
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import LabelledSample


def train_adapter(
    train_set: SampleSet, val_set: SampleSet, *, priors: TrainPriors, settings: Settings, log: TrainingLog
) -> TrainingFacts:
    """Train the adapter and leave it in ``log.checkpoint``; go on from ``log.resume`` when it holds state.

    Raises:
        TooFewSamplesError: fewer train samples than one batch holds.
    """
    location = locate_base(
        settings.base,
        on_step=lambda done, total: log.preparing("build the tiny base, once", done=done, total=total),
    )
    model = load_thinker(location, settings.base)
    identity = identify(model, location, settings.base)
    model = add_adapter(model, lora_config(settings.lora, settings.base), seed=settings.training.seed)
    if settings.training.gradient_checkpointing:
        _recompute_activations(model.get_base_model())
    options = label_options(priors, max_options=settings.prompt.max_label_options)
    processor = load_processor(location, settings.base)
    pixels = settings.prompt.max_frame_pixels
    train, val = (
        _Lessons(each.rows, Processing(processor, each.media_root, options=options, max_frame_pixels=pixels))
        for each in (train_set, val_set)
    )
    final = _Loop(model, train, val, training=settings.training, log=log).run()
    save_adapter(model, log.checkpoint)
    write_document(log.checkpoint / "base.json", identity)
    facts = {
        "base_fingerprint": identity.fingerprint,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "label_options": list(options),
        "steps": final.step,
        "last_loss": final.last_loss,
        "device": str(device()),
    }
    return TrainingFacts(
        base_model=identity.model, base_revision=identity.commit or identity.revision, **facts
    )


def _recompute_activations(thinker: Any) -> None:
    thinker.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    thinker.enable_input_require_grads()  # the frozen embeddings would cut the recomputed graph off


class _Lessons(NamedTuple):
    """Samples of one split, and what turns them into batches from that split's media."""

    rows: Sequence[LabelledSample]
    processing: Processing


class _Loop:
    """The optimisation of one adapter."""

    def __init__(
        self, model: Any, train: _Lessons, val: _Lessons, *, training: Training, log: TrainingLog
    ) -> None:
        import torch

        self._model = model
        self._rows, self._processing = train
        self._validation = evenly(val.rows, training.max_val_samples)
        self._val_processing = val.processing
        self._training = training
        self._log = log
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=0.0)

    def run(self) -> TrainingState:
        training, log = self._training, self._log
        begin = log.rewind(saved_steps(log.resume))
        drop_states(log.resume, after=begin)
        if begin:
            state = load_state(log.resume, begin, self._model, self._optimizer)
        else:
            state = TrainingState(step=0, last_loss=math.nan)
            log.progress("start", step=0, total_steps=training.steps, samples=len(self._rows))
        self._model.train()
        steps = training_order(len(self._rows), training, start=state.step)
        waiting_since = time.perf_counter()
        for (step, chosen), batch in prefetched(self._lesson, steps, workers=training.data_workers):
            begun = time.perf_counter()
            loss, rate = self._learn(batch, step)
            ended = time.perf_counter()
            log.progress("step", step=step, loss=loss, learning_rate=rate)
            log.consumed([self._rows[index].sample.id for index in chosen], step=step)
            whole = ended - waiting_since
            log.measured({"step_s": whole, "data_wait_share": (begun - waiting_since) / whole}, step=step)
            if step % training.validate_every == 0 or step == training.steps:
                self._validate(step)
            state = TrainingState(step=step, last_loss=loss)
            if step % training.checkpoint_every == 0 or step == training.steps:
                log.progress("checkpoint", step=step)
                save_state(log.resume, self._model, self._optimizer, state)
            waiting_since = time.perf_counter()
        return state

    def _lesson(self, planned: tuple[int, Sequence[int]]) -> Any:
        _, chosen = planned
        return self._processing.lessons([self._rows[index] for index in chosen])

    def _learn(self, batch: Any, step: int) -> tuple[float, float]:
        training = self._training
        rate = learning_rate(
            step, peak=training.learning_rate, warmup_steps=training.warmup_steps, steps=training.steps
        )
        loss = answer_loss(self._model.get_base_model(), batch)
        return optimise(self._optimizer, loss, rate), rate

    def _validate(self, step: int) -> None:
        """Report the mean loss per answer token over the validation samples."""
        import torch

        if not self._validation:
            return
        self._model.eval()
        size = self._training.batch_size
        total, tokens = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(self._validation), size):
                batch = self._val_processing.lessons(self._validation[start : start + size])
                count = int((batch["labels"] != IGNORED).sum())
                total += float(answer_loss(self._model.get_base_model(), batch)) * count
                tokens += count
        self._model.train()
        self._log.progress("validation", step=step, loss=total / tokens)
