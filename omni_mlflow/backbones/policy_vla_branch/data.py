"""What the model is given: batches for prediction, which cannot hold actions, and batches for training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.statistics import EPSILON

Image = NDArray[np.uint8]
NOT_ANNOTATED = -1
"""Index of a label that nobody annotated; it takes no part in a loss."""


@dataclass(frozen=True)
class PolicyData:
    """Samples to learn from, in physical units.

    Attributes:
        images: returns the images of some samples, each (height, width, 3).
        states: (samples, state dimensions) float32.
        actions: (samples, horizon, dimensions) float32, anything finite where invalid.
        valid: same shape; which numbers are known.
        action, next_action, next_contact: (samples,) index into the head's labels, or ``NOT_ANNOTATED``.
        objects: (samples, labels) 0 or 1; a row of NaN where nobody annotated the sample.
    """

    ids: Sequence[str]
    images: Callable[[Sequence[int]], list[Image]]
    instructions: Sequence[str]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    valid: NDArray[np.bool_]
    action: NDArray[np.int64]
    next_action: NDArray[np.int64]
    next_contact: NDArray[np.int64]
    objects: NDArray[np.float32]


@dataclass(frozen=True)
class PredictionBatch:
    """Everything the model may see. Actions left among its inputs would be mixed into every denoising step.

    Attributes:
        input_ids, attention_mask: (batch, tokens) int64; image tokens, then the text, padded on the right.
        pixel_values: (batch, 1, 3, height, width) from -1 to 1.
        pixel_attention_mask: (batch, 1) bool.
        state: (batch, width) normalised, zero beyond the state's dimensions.
    """

    input_ids: Any
    attention_mask: Any
    pixel_values: Any
    pixel_attention_mask: Any
    state: Any

    def to(self, device: Any) -> Self:
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def repeated(self, times: int) -> Self:
        """Return every row ``times`` times in a row."""
        return type(self)(
            **{
                field.name: getattr(self, field.name).repeat_interleave(times, dim=0)
                for field in fields(self)
            }
        )


@dataclass(frozen=True)
class TrainingBatch:
    """A prediction batch and its truth.

    Attributes:
        actions: (batch, horizon, width) normalised, zero where unknown.
        mask: same shape, bool; False beyond the action space and where the truth is unknown.
        noise: same shape; ``time``: (batch,) from 0 (actions) to 1 (noise).
        labels: of the heads by name, int64 (batch,), ``objects`` float32 (batch, labels).
    """

    inputs: PredictionBatch
    actions: Any
    mask: Any
    noise: Any
    time: Any
    labels: dict[str, Any]

    def to(self, device: Any) -> Self:
        moved = {name: getattr(self, name).to(device) for name in ("actions", "mask", "noise", "time")}
        labels = {name: values.to(device) for name, values in self.labels.items()}
        return type(self)(inputs=self.inputs.to(device), labels=labels, **moved)


class Batches:
    """Makes batches with the processor of one checkpoint."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._in_use = threading.Lock()  # a tokenizer cannot be set up for two batches at once
        self.horizon: int = processor.chunk_size
        self.width: int = processor.max_state_dim

    def physical(self, chunks: Any) -> NDArray[np.float64]:
        """Turn normalised chunks (..., horizon, width) into units of the action space (..., horizon, dims).

        The processor offers no way back.
        """
        mean, deviation = np.array(self._processor.actions_mean), np.array(self._processor.actions_std)
        values: NDArray[np.float64] = chunks[..., : len(mean)].double().cpu().numpy()
        return np.asarray(values * (deviation + EPSILON) + mean)

    def prediction(
        self, images: Sequence[Image], instructions: Sequence[str], states: NDArray[np.float32]
    ) -> PredictionBatch:
        """Process what a model may see: one square image per sample, text, physical states."""
        with self._in_use:
            made = self._processor(
                images=[[squared(image)] for image in images],
                text=list(instructions),
                state=states,
                padding="longest",  # the default of 48 tokens would have to hold the image tokens too
                return_tensors="pt",
            )
        return PredictionBatch(**{field.name: made[field.name] for field in fields(PredictionBatch)})

    def training(self, data: PolicyData, chosen: Sequence[int], *, key: Sequence[int]) -> TrainingBatch:
        """Process the ``chosen`` samples.

        Args:
            key: seed, step, rank and the like: alone decides noise and time.

        Raises:
            ValueError: a chunk has not as many steps as the checkpoint's.
        """
        import torch

        rows = list(chosen)
        truth, known = data.actions[rows], torch.from_numpy(data.valid[rows])
        if truth.shape[1] != self.horizon:
            raise ValueError(f"chunks of {truth.shape[1]} steps for a model of {self.horizon}")
        instructions = [data.instructions[row] for row in rows]
        normalised = self._processor.normalize(torch.from_numpy(truth), "actions")
        beyond = (0, self.width - truth.shape[2])
        noise, time = noise_and_time(key, (len(rows), self.horizon, self.width))
        return TrainingBatch(
            inputs=self.prediction(data.images(rows), instructions, data.states[rows]),
            actions=torch.nn.functional.pad(torch.where(known, normalised, 0.0), beyond),
            mask=torch.nn.functional.pad(known, beyond),
            noise=noise,
            time=time,
            labels={
                name: torch.from_numpy(getattr(data, name)[rows])
                for name in ("action", "next_action", "next_contact", "objects")
            },
        )


def noise_and_time(key: Sequence[int], shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Draw standard normal noise of ``shape`` and one time per row, by ``key`` alone.

    time = 0.999 Beta(1.5, 1) + 0.001, as pi0 was trained (Black et al. 2024, arXiv 2410.24164, appendix B);
    the power u^(1/1.5) of a uniform u has that distribution.
    """
    import torch

    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))
    noise = rng.standard_normal(shape, dtype=np.float32)
    time = (0.999 * rng.random(shape[0]) ** (1 / 1.5) + 0.001).astype(np.float32)
    return torch.from_numpy(noise), torch.from_numpy(time)


def squared(image: Image) -> Image:
    """Pad an image to a square, centred on black, as the images were that pi0 was trained on."""
    height, width = image.shape[:2]
    side = max(height, width)
    if height == width:
        return image
    padded = np.zeros((side, side, 3), dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    padded[top : top + height, left : left + width] = image
    return padded
