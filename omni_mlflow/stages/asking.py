"""What becomes of one batch of samples: each is answered, answered in vain, or not answered at all.

This decides what an answer is, so it is a part of an evaluation's identity, and imports little.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omni_mlflow.backbones.base import Predictor
from omni_mlflow.loaded_code import EditedCodeError
from omni_mlflow.spine.types import Answer, Outcome, Sample


class WrongAnswersError(Exception):
    """A predictor did not answer the samples that it was asked."""


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


def _judged(answer: Answer) -> Answer:
    says_nothing = not answer.raw.strip() and not answer.values
    if says_nothing and answer.outcome is Outcome.ANSWERED:
        return answer.model_copy(update={"outcome": Outcome.MODEL_INVALID})
    return answer
