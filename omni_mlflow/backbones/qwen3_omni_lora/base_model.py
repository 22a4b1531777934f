"""Finds and loads the frozen model below the adapter: hub, folder or tiny, all by the same calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omni_mlflow.backbones.base_identity import BaseIdentity, fingerprint, source_of
from omni_mlflow.backbones.base_weights import BaseModelError, local_copy_or_model
from omni_mlflow.backbones.libraries import device, prepare_libraries
from omni_mlflow.backbones.qwen3_omni_lora.settings import TINY, Base


def locate_base(base: Base, *, on_step: Callable[[int, int], None] | None = None) -> str:
    """Return the hub id or folder to load ``base`` from; builds the tiny base when it is not cached.

    Args:
        on_step: told how many steps of that building are done, and how many there are.

    Raises:
        BaseModelError: the local copy of the weights is none.
    """
    if base.model == TINY:
        from omni_mlflow.backbones.qwen3_omni_lora.warm_base import warm_base

        return str(warm_base(on_step))
    return local_copy_or_model(base.model, base.local_copy)


def load_processor(location: str, base: Base) -> Any:
    prepare_libraries()
    from transformers import Qwen3OmniMoeProcessor

    return Qwen3OmniMoeProcessor.from_pretrained(location, revision=base.revision)


def load_config(location: str, base: Base) -> Any:
    """Return the configuration of the thinker, whichever layout the checkpoint has."""
    prepare_libraries()
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(location, revision=base.revision)
    return getattr(config, "thinker_config", config)


def load_thinker(location: str, base: Base) -> Any:
    """Load the thinker alone: the full class has no ``forward``, and speech is not wanted.

    Raises:
        BaseModelError: the checkpoint does not hold every weight of the thinker.
    """
    prepare_libraries()
    from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

    model, report = Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(
        location,
        revision=base.revision,
        dtype=base.precision,
        device_map=str(device()),
        experts_implementation="grouped_mm" if device().type == "cuda" else "eager",
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise BaseModelError(f"{location} lacks {len(missing)} weights of the thinker, e.g. {missing[0]}")
    return model.eval()


def identify(model: Any, location: str, base: Base) -> BaseIdentity:
    """Say which weights ``model`` (a thinker without adapter, loaded from ``location``) has."""
    return BaseIdentity(
        model=base.model,
        revision=base.revision,
        source=source_of(location, base.revision),
        fingerprint=fingerprint(model),
    )
