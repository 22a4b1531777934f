"""Finds and loads a pi0 checkpoint: hub, folder, tiny, or one trained here, all by the same call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base_identity import BaseIdentity, fingerprint, source_of
from omni_mlflow.backbones.base_weights import BaseModelError, local_copy_or_model
from omni_mlflow.backbones.libraries import device, prepare_libraries
from omni_mlflow.backbones.policy_vla_branch.settings import TINY, Base, Settings
from omni_mlflow.backbones.policy_vla_branch.statistics import NormalizationStats
from omni_mlflow.backbones.policy_vla_branch.tiny_base import tiny_base

WEIGHTS_NAME = "model.safetensors"
PALIGEMMA = "google/paligemma-3b-pt-224"
"""Whose tokenizer pi0 was trained with; base repositories hold none."""

_WRONG = ("missing_keys", "unexpected_keys", "mismatched_keys")
_TEXT = "model.paligemma_with_expert.paligemma"


def locate_base(base: Base, *, num_dims: int) -> str:
    """Return the hub id or folder to load ``base`` from; builds the tiny base when it is not cached.

    Args:
        num_dims: dimensions of the action space.

    Raises:
        BaseModelError: the local copy of the weights is none.
    """
    if base.model == TINY:
        return str(tiny_base(num_dims))
    return local_copy_or_model(base.model, base.local_copy)


def stored_dtype(settings: Settings) -> str:
    """Full training keeps float32 whatever it computes in; below an adapter the base keeps its precision."""
    return settings.base.precision if settings.training.mode == "lora" else "float32"


def load_model(location: str | Path, *, revision: str, horizon: int, dtype: str) -> Any:
    """Load a checkpoint whose every tensor is there and none is left over.

    The number of steps of a chunk is no shape of any weight, so a base takes the horizon of the contract.

    Raises:
        BaseModelError: tensors are missing, left over, or of another shape.
    """
    prepare_libraries()
    from transformers import PI0ForConditionalGeneration

    # The class is named because a configuration that lerobot wrote has no model_type.
    try:
        model, report = PI0ForConditionalGeneration.from_pretrained(
            location,
            revision=revision,
            dtype=dtype,
            device_map=str(device()),
            chunk_size=horizon,
            loss_reduction="none",
            output_loading_info=True,
        )
    except RuntimeError as error:
        raise BaseModelError(f"{location}: {error}") from error
    wrong = [f"{len(report[kind])} {kind}, e.g. {min(report[kind])}" for kind in _WRONG if report[kind]]
    if wrong:
        raise BaseModelError(
            f"{location} is not the checkpoint that its config.json describes: {'; '.join(wrong)}"
        )
    if model.is_gradient_checkpointing:  # a configuration may ask for it, and then no layer has a cache
        model.activation_checkpointing_disable()
    _take_lerobots_embedding(model, location, revision)
    return model.eval()


def _take_lerobots_embedding(model: Any, location: str | Path, revision: str) -> None:
    """Where a file holds both ends of the tied embedding, use the one that lerobot computes with.

    lerobot saves the tie as two tensors and may let them drift apart; transformers would take ``lm_head``.
    """
    import torch
    from safetensors import safe_open
    from transformers.utils import cached_file

    path = cached_file(location, WEIGHTS_NAME, revision=revision, _raise_exceptions_for_missing_entries=False)
    if path is None:  # split into several files: lerobot never writes these
        return
    name = f"{_TEXT}.model.language_model.embed_tokens.weight"
    with safe_open(path, "pt") as weights:
        if {name, f"{_TEXT}.lm_head.weight"} <= set(weights.keys()):
            with torch.no_grad():
                model.get_input_embeddings().weight.copy_(weights.get_tensor(name))


def load_processor(location: str | Path, *, revision: str) -> Any:
    """Load the processor of a checkpoint, or build the one that pi0 was trained with where it holds none."""
    prepare_libraries()
    from transformers import AutoTokenizer, PI0ImageProcessor, PI0Processor

    if _holds(location, "processor_config.json", revision):
        return PI0Processor.from_pretrained(location, revision=revision)
    has_tokenizer = _holds(location, "tokenizer.json", revision)
    tokenizer = AutoTokenizer.from_pretrained(location if has_tokenizer else PALIGEMMA)
    return PI0Processor(PI0ImageProcessor(), tokenizer)


def fit_processor(processor: Any, config: Any, statistics: NormalizationStats) -> Any:
    """Give a processor the widths of its model and the statistics of the train episodes.

    Raises:
        BaseModelError: the model is too narrow for the action space or the state.
    """
    width = config.max_action_dim
    widest = max(len(statistics.actions.mean), len(statistics.state.mean))
    if config.max_state_dim != width or widest > width:
        raise BaseModelError(
            f"this base holds {config.max_state_dim} state and {width} action dimensions, {widest} are "
            "needed; choose another settings.action.space or another base"
        )
    processor.max_state_dim, processor.chunk_size = width, config.chunk_size
    processor.state_mean, processor.state_std = list(statistics.state.mean), list(statistics.state.std)
    processor.actions_mean, processor.actions_std = (
        list(statistics.actions.mean),
        list(statistics.actions.std),
    )
    return processor


def identify(model: Any, location: str, base: Base) -> BaseIdentity:
    """Say which weights ``model``, loaded from ``location``, has before it is trained."""
    return BaseIdentity(
        model=base.model,
        revision=base.revision,
        source=source_of(location, base.revision),
        fingerprint=fingerprint(model),
    )


def _holds(location: str | Path, name: str, revision: str) -> bool:
    from transformers.utils import cached_file

    found = cached_file(location, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return found is not None
