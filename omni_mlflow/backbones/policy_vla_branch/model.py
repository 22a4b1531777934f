"""pi0 and its heads: one pass over image and text serves the flow of actions, the heads, and every sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from omni_mlflow.backbones.policy_vla_branch.data import PredictionBatch, TrainingBatch
from omni_mlflow.backbones.policy_vla_branch.heads import head_features, head_loss


class Policy:
    """A pi0 model with its heads.

    Args:
        pi0: the model of transformers, or PEFT's wrapper around it.
        heads: a ``ModuleDict`` by question.
        half: compute in bfloat16; the weights keep their own type.
    """

    def __init__(self, pi0: Any, heads: Any, *, half: bool) -> None:
        import torch

        self.pi0 = pi0
        self.heads = heads
        self._parts = torch.nn.ModuleDict({"pi0": pi0, "heads": heads.to(pi0.device)})
        self._half = half

    @property
    def plain(self) -> Any:
        """The model itself, without a wrapper; adapters inside it take part."""
        return self.pi0.get_base_model() if hasattr(self.pi0, "get_base_model") else self.pi0

    @property
    def device(self) -> Any:
        return self.pi0.device

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        yield from self._parts.named_parameters()

    def train(self) -> None:
        self._parts.train()

    def eval(self) -> None:
        self._parts.eval()

    def merged(self) -> Policy:
        """Return the same policy with its adapter merged into the weights."""
        return Policy(self.pi0.merge_and_unload(), self.heads, half=self._half)

    def losses(self, batch: TrainingBatch, *, next_action_weight: float) -> tuple[Any, Any]:
        """Return the flow-matching loss over all that is known, and the loss of the heads.

        x_t = t noise + (1 - t) actions; the model must tell the velocity noise - actions. Averaged over the
        padded dimensions too, the loss would mostly measure them.
        """
        with self._precision():
            cache, scores = self._read(batch.inputs)
            out = self.plain(
                state=batch.inputs.state,
                noise=batch.noise,
                timestep=batch.time,
                actions=batch.actions,
                attention_mask=batch.inputs.attention_mask,
                pixel_attention_mask=batch.inputs.pixel_attention_mask,
                past_key_values=cache,
            )
        flow = (out.loss.float() * batch.mask).sum() / batch.mask.sum().clamp(min=1)
        return flow, head_loss(scores, batch.labels, next_action_weight=next_action_weight)

    def predict(self, batch: PredictionBatch, noise: Any, *, steps: int) -> tuple[Any, dict[str, Any]]:
        """Draw chunks of actions, and score every label.

        Args:
            noise: (draws, batch, horizon, width): where each chunk starts.
            steps: of the Euler integration from noise to actions.

        Returns:
            Normalised chunks, same shape as ``noise``, and the heads' scores by question.
        """
        import torch

        draws, rows = noise.shape[:2]
        with torch.inference_mode(), self._precision():
            cache, scores = self._read(batch)
            cache.batch_repeat_interleave(draws)  # one pass over the expert draws all chunks of a row
            chunks = self._denoised(batch.repeated(draws), noise.transpose(0, 1).flatten(0, 1), cache, steps)
        return chunks.unflatten(0, (rows, draws)).transpose(0, 1), scores

    def _denoised(self, batch: PredictionBatch, chunks: Any, cache: Any, steps: int) -> Any:
        """Integrate from time 1 to 0; after each step the cache is cut back to image and text."""
        import torch

        length = cache.get_seq_length()
        for step in range(steps):
            velocity = self.plain(
                state=batch.state,
                noise=chunks,
                timestep=torch.full((len(chunks),), 1.0 - step / steps, device=chunks.device),
                attention_mask=batch.attention_mask,
                pixel_attention_mask=batch.pixel_attention_mask,
                past_key_values=cache,
            ).logits
            cache.crop(length - cache.get_seq_length())
            chunks = chunks - velocity.float() / steps
        return chunks

    def _read(self, batch: PredictionBatch) -> tuple[Any, dict[str, Any]]:
        """Read image and text once: the keys and values that actions attend to, and the heads' scores."""
        import torch

        inner = self.plain.model
        embedded = inner.embed_prefix(batch.input_ids, batch.pixel_values, batch.pixel_attention_mask)
        read = inner.vlm(
            inputs_embeds=embedded,
            attention_mask=batch.attention_mask,
            position_ids=batch.attention_mask.cumsum(-1) - 1,
            token_type_ids=torch.zeros_like(batch.input_ids),
            use_cache=True,
        )
        image_token = self.plain.config.vlm_config.image_token_id
        features = head_features(read.last_hidden_state, batch, image_token=image_token)
        with torch.autocast(self.device.type, enabled=False):
            scores = {name: head(features) for name, head in self.heads.items()}
        return read.past_key_values, scores

    def _precision(self) -> Any:
        if not self._half:
            return nullcontext()
        import torch

        return torch.autocast(self.device.type, dtype=torch.bfloat16)
