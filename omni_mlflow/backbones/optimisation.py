"""Order of the samples, learning rate, a step, and batches made ahead: what every training shares."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
U = TypeVar("U")

FLOOR_SHARE = 0.05
"""Share of the peak learning rate at which the cosine ends."""


class TooFewSamplesError(Exception):
    """There are not enough train samples for one batch."""


class DivergedGradientsError(Exception):
    """A gradient is infinite or no number; following it would spoil every weight."""


class Pace(Protocol):
    """The part of a training's settings that its order of samples follows from."""

    @property
    def steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def seed(self) -> int: ...


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Rate of step ``step`` (from 1): linear warm-up, then a cosine down to ``FLOOR_SHARE`` of the peak."""
    rise = min(1.0, step / max(1, warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * rise * (FLOOR_SHARE + (1 - FLOOR_SHARE) * cosine)


def optimise(optimizer: Any, loss: Any, rate: float) -> float:
    """Take one step at learning rate ``rate``, gradients clipped to norm 1; return the loss."""
    optimizer.zero_grad()
    loss.backward()
    take_step(optimizer, rate)
    return float(loss.detach())


def take_step(optimizer: Any, rate: float) -> None:
    """Follow the gradients that there are, clipped to norm 1, at learning rate ``rate``.

    Raises:
        DivergedGradientsError: their norm is not finite; no weight was changed.
    """
    import torch

    weights = []
    for group in optimizer.param_groups:
        group["lr"] = rate
        weights += group["params"]
    norm = float(torch.nn.utils.clip_grad_norm_(weights, 1.0))
    if not math.isfinite(norm):
        raise DivergedGradientsError(
            f"the norm of this step's gradients is {norm}, so no weight was changed; lower the learning "
            "rate, use a wider precision, or look at the samples after the last of training_ledger.jsonl"
        )
    optimizer.step()


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


def training_order(num_samples: int, training: Pace, *, start: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (step, sample indices) for the steps after ``start``.

    Every pass over the samples is shuffled by (seed, pass) alone, so that a resumed training sees
    what an uninterrupted one sees. The rest of a pass that fills no batch is left out of it.

    Raises:
        TooFewSamplesError: not one batch can be filled.
    """
    per_pass = num_samples // training.batch_size
    if per_pass == 0:
        raise TooFewSamplesError(
            f"{num_samples} train samples cannot fill a batch of {training.batch_size}; "
            "lower settings.training.batch_size or index more episodes"
        )
    order: list[int] = []
    for step in range(start + 1, training.steps + 1):
        number, place = divmod(step - 1, per_pass)
        if place == 0 or not order:
            order = list(range(num_samples))
            random.Random(f"{training.seed}:{number}").shuffle(order)
        begin = place * training.batch_size
        yield step, tuple(order[begin : begin + training.batch_size])


def evenly(rows: Sequence[T], count: int) -> Sequence[T]:
    """Return at most ``count`` rows, evenly spread, so that every episode is among them."""
    if len(rows) <= count:
        return rows
    return [rows[index * len(rows) // count] for index in range(count)]
