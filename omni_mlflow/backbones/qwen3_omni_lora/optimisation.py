"""Loss, learning rate and batch making that the adapter's training and the tiny base's warm-up share."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from omni_mlflow.backbones.qwen3_omni_lora.processing import IGNORED

T = TypeVar("T")
U = TypeVar("U")

FLOOR_SHARE = 0.05
"""Share of the peak learning rate at which the cosine ends."""


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


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Rate of step ``step`` (from 1): linear warm-up, then a cosine down to ``FLOOR_SHARE`` of the peak."""
    rise = min(1.0, step / max(1, warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * rise * (FLOOR_SHARE + (1 - FLOOR_SHARE) * cosine)


def optimise(optimizer: Any, loss: Any, rate: float) -> float:
    """Take one step at learning rate ``rate``, gradients clipped to norm 1; return the loss."""
    import torch

    weights = []
    for group in optimizer.param_groups:
        group["lr"] = rate
        weights += group["params"]
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    return float(loss.detach())


def prefetched(make: Callable[[T], U], items: Iterable[T], *, workers: int) -> Iterator[tuple[T, U]]:
    """Yield each item with what ``make`` made of it, in order, while the next ones are being made."""
    pending: deque[tuple[T, Future[U]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append((item, pool.submit(make, item)))
            if len(pending) > workers:
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
