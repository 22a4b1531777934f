"""LoRA on both transformers of pi0; what translates state and actions is trained whole.

An adapter is merged into the checkpoint, which loads like any other; the adapter itself lies in a folder of
its own beside it, as PEFT writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.policy_vla_branch.settings import Base, Lora
from omni_mlflow.spine.rows import write_document

FOLDER = "adapter"
CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
TARGETS = (
    r"model\.(vlm\.language_model|dit)\.layers\.\d+\."
    r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)
"""The vision tower stays as it is; bare names such as ``q_proj`` would adapt it too."""

WHOLE = ("state_proj", "action_in_proj", "action_time_mlp_in", "action_time_mlp_out", "action_out_proj")


def lora_config(lora: Lora, base: Base) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=TARGETS,
        modules_to_save=list(WHOLE),
        base_model_name_or_path=base.model,
        revision=base.revision,
    )


def add_adapter(model: Any, lora: Lora, base: Base, *, seed: int) -> Any:
    """Wrap ``model`` with an untrained adapter in float32; the same seed draws the same weights."""
    import torch
    from peft import get_peft_model

    torch.manual_seed(seed)
    wrapped = get_peft_model(model, lora_config(lora, base))
    adapter = wrapped.peft_config["default"]
    adapter.base_model_name_or_path, adapter.revision = base.model, base.revision
    for weight in wrapped.parameters():
        if weight.requires_grad:  # what is trained whole is a copy of the base's, in its precision
            weight.data = weight.data.float()
    return wrapped


def adapter_weights(wrapped: Any) -> dict[str, Any]:
    """Return the adapter's tensors by the names that PEFT stores them under."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(wrapped, save_embedding_layers=False))


def save_adapter(wrapped: Any, folder: Path) -> None:
    """Write both files; same adapter, same bytes."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_weights(wrapped).items()}
    save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    config = {**wrapped.peft_config["default"].to_dict(), "inference_mode": True}
    write_document(folder / CONFIG_NAME, json.loads(json.dumps(config, default=sorted)))


def expected_shapes(config: Any, lora: Lora, base: Base) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every adapter tensor as PEFT makes them; needs no weights.

    Args:
        config: of the pi0 model.
    """
    import torch
    from peft import get_peft_model
    from transformers import PI0ForConditionalGeneration

    with torch.device("meta"):
        model = PI0ForConditionalGeneration(config)
    wrapped = get_peft_model(model, lora_config(lora, base), low_cpu_mem_usage=True)
    return {name: tuple(tensor.shape) for name, tensor in adapter_weights(wrapped).items()}
