"""The LoRA adapter as PEFT knows it: configuration, and its two files in a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.qwen3_omni_lora.settings import Base, Lora
from omni_mlflow.spine.rows import write_document

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"


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


def add_adapter(model: Any, lora: Lora, base: Base, *, seed: int) -> Any:
    """Wrap ``model`` with an untrained adapter; the same seed draws the same weights."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(seed)
    wrapped = get_peft_model(model, lora_config(lora, base))
    adapter = wrapped.peft_config["default"]
    adapter.base_model_name_or_path, adapter.revision = base.model, base.revision
    return wrapped


def adapter_weights(model: Any) -> dict[str, Any]:
    """Return the adapter's tensors by the names that PEFT stores them under."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def save_adapter(model: Any, folder: Path) -> None:
    """Write both files, for ``PeftModel.from_pretrained`` to load; same adapter, same bytes."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_weights(model).items()}
    save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    config = {**model.peft_config["default"].to_dict(), "inference_mode": True}
    write_document(folder / CONFIG_NAME, json.loads(json.dumps(config, default=sorted)))


def expected_shapes(base_config: Any, lora: Lora, base: Base) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every adapter tensor as PEFT makes them; needs no weights.

    Args:
        base_config: configuration of the thinker.
    """
    import torch
    from peft import get_peft_model
    from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

    with torch.device("meta"):
        model = Qwen3OmniMoeThinkerForConditionalGeneration._from_config(base_config)
    wrapped = get_peft_model(model, lora_config(lora, base), low_cpu_mem_usage=True)
    return {name: tuple(tensor.shape) for name, tensor in adapter_weights(wrapped).items()}
