"""Ask a checkpoint every held-out sample once; what it said survives ``kill -9``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from omni_mlflow.backbones.base import Predictor
from omni_mlflow.journal import Journal
from omni_mlflow.spine.types import Answer, Outcome, Sample
from omni_mlflow.stages.evaluation_identity import Identity, differing

Key = tuple[str, str]
"""The pass (``intact`` or a control) and the sample's id."""


class ForeignAnswersError(Exception):
    """A journal of answers belongs to another checkpoint, dataset, prompt or code."""


class WrongAnswersError(Exception):
    """A predictor did not answer the samples that it was asked."""


class AnswerJournal:
    """Answers by pass and sample id, and the identity they belong to.

    Attributes:
        batch_size: how many samples are asked together, fixed when the journal is begun: a resumed
            evaluation cuts the same batches and tells the same progress.
    """

    def __init__(self, journal: Journal, identity: Identity, *, batch_size: Callable[[], int]) -> None:
        """Go on with the answers in ``journal``, or begin it with ``identity``.

        Args:
            journal: closed by the caller.
            batch_size: asked only when the journal is begun.

        Raises:
            ForeignAnswersError: it was begun with another identity; the differing parts are named.
        """
        self._journal = journal
        rows = journal.rows()
        if not rows:
            rows = [{"identity": identity, "batch_size": batch_size()}]
            journal.append(rows[0])
        elif parts := differing(rows[0].get("identity") or {}, identity):
            raise ForeignAnswersError(
                f"{journal.path} holds answers of another evaluation (different: {', '.join(parts)}); "
                "move the file away to start over"
            )
        self.batch_size: int = rows[0]["batch_size"]
        self._answers = answers_in(rows[1:])

    def missing(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        """Samples without an answer, and those that a failure of ours left without one: asked again."""
        return [sample for sample in samples if not is_given(self._answers.get((name, sample.id)))]

    def add(self, name: str, answers: Sequence[Answer]) -> None:
        """Keep what was answered, and return once it is on the disk."""
        if answers:
            self._journal.extend(self._rows(name, answers))

    def take_over(self, name: str, answers: Sequence[Answer]) -> None:
        """Keep what another journal holds as well: nothing is lost that would have to be asked again."""
        for row in self._rows(name, answers):
            self._journal.note(row)

    def _rows(self, name: str, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        self._answers.update({(name, answer.id): answer for answer in answers})
        return [{"pass": name, **answer.model_dump(mode="json")} for answer in answers]

    def answers(self, name: str, samples: Sequence[Sample]) -> list[Answer]:
        """Return the answers of one pass in the order of ``samples``."""
        return [self._answers[name, sample.id] for sample in samples]


def answers_in(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Answer]:
    """Read the rows of a journal of answers, its first one left out; the last word on a sample counts."""
    found = {}
    for row in rows:
        answer = Answer.model_validate({key: value for key, value in row.items() if key != "pass"})
        found[str(row["pass"]), answer.id] = answer
    return found


def is_given(answer: Answer | None) -> bool:
    """Tell whether the model was heard, whatever it said."""
    return answer is not None and answer.outcome is not Outcome.INFRASTRUCTURE_FAILED


def answer_all(
    journal: AnswerJournal,
    name: str,
    samples: Sequence[Sample],
    *,
    predictor: Callable[[], Predictor] | None,
    on_batch: Callable[[int], None],
    as_asked: Callable[[Sequence[Sample]], Sequence[Sample]] = lambda samples: samples,
    known: Mapping[Key, Answer] | None = None,
    max_retries: int = 0,
) -> list[Answer]:
    """Answer what the journal does not hold yet, batch by batch, and return all answers in order.

    Args:
        predictor: loads the checkpoint; called only when a sample is still unanswered. None: nobody is asked,
            and ``known`` must hold every sample.
        as_asked: turns samples into those of this pass; called only with samples that are still unanswered.
        on_batch: told after every batch of the first round how many samples of this pass were seen to.
        known: answers of other journals with the same identity; they are taken over, never asked again.
        max_retries: further rounds over the samples that the infrastructure left unanswered.
    """
    known = known or {}
    for attempt in range(1 + max_retries):
        for start in range(0, len(samples), journal.batch_size):
            # Batches are cut from the whole list, so a resumed evaluation cuts the same ones.
            batch = samples[start : start + journal.batch_size]
            missing = journal.missing(name, batch)
            said = {each.id: known[name, each.id] for each in missing if (name, each.id) in known}
            unanswered = [sample for sample in missing if not is_given(said.get(sample.id))]
            if unanswered and predictor is not None:
                said |= {answer.id: answer for answer in ask(predictor(), as_asked(unanswered))}
            keep = journal.add if unanswered else journal.take_over
            keep(name, [said[sample.id] for sample in missing])
            if attempt == 0:
                on_batch(start + len(batch))
        if predictor is None or not journal.missing(name, samples):
            break
    return journal.answers(name, samples)


def ask(predictor: Predictor, samples: Sequence[Sample]) -> list[Answer]:
    """Return one answer per sample, in order; an empty one is never taken for an answer.

    When a batch cannot be answered (out of memory, unreadable media), its samples are asked one by one, and
    those that still cannot be are ``infrastructure_failed`` with the reason.

    Raises:
        WrongAnswersError: other samples were answered than those asked: a defect of the backbone.
    """
    try:
        given = predictor.answer(samples)
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
