"""The loss that the adapter's training and the tiny base's warm-up share."""

from __future__ import annotations

from typing import Any

from omni_mlflow.backbones.qwen3_omni_lora.processing import IGNORED


def answer_loss(thinker: Any, batch: Any) -> Any:
    """Return the mean cross entropy over the answer tokens.

    The language head runs on the last positions only: logits of a whole sequence over the real
    vocabulary would be the largest tensor of the training, and the model ignores ``logits_to_keep``.

    Args:
        thinker: the model without any wrapper around it; an adapter inside it takes part.
        batch: inputs padded on the left, and ``labels`` with ``IGNORED`` outside the answers.
    """
    import torch

    inputs = {name: value.to(thinker.device) for name, value in batch.items()}
    labels = inputs.pop("labels")
    hidden = thinker.model(**inputs, use_cache=False).last_hidden_state
    longest = int((labels != IGNORED).sum(dim=1).max())
    logits = thinker.lm_head(hidden[:, -longest - 1 : -1]).float()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, -longest:].flatten(), ignore_index=IGNORED
    )
