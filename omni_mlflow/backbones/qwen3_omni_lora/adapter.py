"""What of the thinker a LoRA adapter changes, in PEFT's terms."""

from __future__ import annotations

from typing import Any

from omni_mlflow.backbones.peft_adapter import adapter_shapes
from omni_mlflow.backbones.qwen3_omni_lora.settings import Base, Lora


def lora_config(lora: Lora, base: Base) -> Any:
    """Return the PEFT configuration. No dropout: expert weights are parameters and see no input to drop."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=list(lora.target_modules),
        target_parameters=list(lora.target_parameters) or None,
        exclude_modules=lora.exclude_modules,
        base_model_name_or_path=base.model,
        revision=base.revision,
    )


def expected_shapes(base_config: Any, lora: Lora, base: Base) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every adapter tensor as PEFT makes them; needs no weights.

    Args:
        base_config: configuration of the thinker.
    """
    from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

    thinker = Qwen3OmniMoeThinkerForConditionalGeneration
    return adapter_shapes(lambda: thinker._from_config(base_config), lora_config(lora, base))
