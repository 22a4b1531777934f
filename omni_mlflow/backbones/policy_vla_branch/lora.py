"""LoRA on both transformers of pi0; what translates state and actions is trained whole.

An adapter is merged into the checkpoint, which loads like any other; the adapter itself lies in a folder of
its own beside it, as PEFT writes it.
"""

from __future__ import annotations

from typing import Any

from omni_mlflow.backbones.peft_adapter import adapter_shapes, add_adapter
from omni_mlflow.backbones.policy_vla_branch.settings import Base, Lora

FOLDER = "adapter"
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


def add_policy_adapter(model: Any, lora: Lora, base: Base, *, seed: int) -> Any:
    """Wrap ``model`` with an untrained adapter in float32; the same seed draws the same weights."""
    wrapped = add_adapter(model, lora_config(lora, base), seed=seed)
    for weight in wrapped.parameters():
        if weight.requires_grad:  # what is trained whole is a copy of the base's, in its precision
            weight.data = weight.data.float()
    return wrapped


def expected_shapes(config: Any, lora: Lora, base: Base) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every adapter tensor as PEFT makes them; needs no weights.

    Args:
        config: of the pi0 model.
    """
    from transformers import PI0ForConditionalGeneration

    return adapter_shapes(lambda: PI0ForConditionalGeneration(config), lora_config(lora, base))
