"""What a pass asks, in which batches, and what becomes of one: samples are answered, in vain, or not at all.

This decides what an answer is, so it is a part of an evaluation's identity, and imports little.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from heapq import nsmallest

from omni_mlflow.backbones.base import Predictor
from omni_mlflow.loaded_code import EditedCodeError
from omni_mlflow.spine.types import Answer, Outcome, Sample

INTACT = "intact"
ALONE = "alone"
NUM_ALONE = 16
"""So many samples that were asked in batches are asked once more, each by itself."""


class WrongAnswersError(Exception):
    """A predictor did not answer the samples that it was asked."""


def as_asked(
    name: str,
    ids: Sequence[str],
    samples: Sequence[Sample],
    control: Callable[[str, Sequence[Sample]], Sequence[Sample]],
) -> Callable[[Sequence[str]], list[Sample]]:
    """Return what gives the samples of some of ``ids`` as the pass ``name`` asks them.

    A control exchanges inputs between all samples, so it is made of all of them, once it is asked.
    """

    @cache
    def made() -> Sequence[Sample]:
        return samples if name in (INTACT, ALONE) else control(name, list(samples))

    @cache
    def place_of() -> dict[str, int]:
        return {each: place for place, each in enumerate(ids)}

    return lambda some: [made()[place_of()[each]] for each in some]


def drawn_alone(ids: Sequence[str]) -> frozenset[str]:
    """Return which of all samples are asked once more by themselves; their ids alone decide."""
    return frozenset(nsmallest(NUM_ALONE, ids, key=lambda each: sha256(each.encode()).digest()))


def batches(ids: Sequence[str], *, size: int) -> Iterator[Sequence[str]]:
    """Cut the samples of a pass into those that are asked together, whichever are answered already."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


def ask(predictor: Predictor, samples: Sequence[Sample]) -> list[Answer]:
    """Return one answer per sample, in order; an empty one is never taken for an answer.

    When a batch cannot be answered (out of memory, unreadable media), its samples are asked one by one, and
    those that still cannot be are ``infrastructure_failed`` with the reason.

    Raises:
        WrongAnswersError: other samples were answered than those asked: a defect of the backbone.
    """
    try:
        given = predictor.answer(samples)
    except EditedCodeError:
        raise
    except Exception as error:  # whatever a model library raises, the other samples must still be asked
        logging.getLogger(__name__).exception("no answer to %s", ", ".join(each.id for each in samples))
        if len(samples) > 1:
            return [answer for sample in samples for answer in ask(predictor, [sample])]
        return [_failed(samples[0], f"{type(error).__name__}: {error}")]
    answered = [each.id if isinstance(each, Answer) else repr(each) for each in given or ()]
    if answered != [each.id for each in samples]:
        raise WrongAnswersError(
            f"{type(predictor).__name__} was asked {[each.id for each in samples]} and answered "
            f"{answered}; it must return one Answer for each sample, in order"
        )
    return [_judged(answer) for answer in given]


def _failed(sample: Sample, reason: str) -> Answer:
    return Answer(
        id=sample.id,
        episode_id=sample.episode_id,
        anchor=sample.anchor,
        outcome=Outcome.INFRASTRUCTURE_FAILED,
        reason=reason,
    )


def says_nothing(answer: Answer) -> bool:
    """Tell whether an answer is called one and holds none."""
    return answer.outcome is Outcome.ANSWERED and not answer.raw.strip() and not answer.values


def _judged(answer: Answer) -> Answer:
    if says_nothing(answer):
        return answer.model_copy(update={"outcome": Outcome.MODEL_INVALID})
    return answer
