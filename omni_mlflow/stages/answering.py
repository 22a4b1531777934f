"""Ask a checkpoint every held-out sample once; what it said survives ``kill -9``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omni_mlflow.backbones.base import Predictor
from omni_mlflow.journal import Journal
from omni_mlflow.spine.types import Answer, Outcome, Sample


class ForeignAnswersError(Exception):
    """A journal of answers belongs to another checkpoint, dataset, prompt or code."""


class AnswerJournal:
    """Answers by pass (``intact`` or a control) and sample id, and the identity they belong to.

    Attributes:
        batch_size: how many samples are asked together, fixed when the journal is begun: a resumed
            evaluation repeats the same batches and tells the same progress.
    """

    def __init__(self, journal: Journal, identity: dict[str, Any], *, batch_size: Callable[[], int]) -> None:
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
        elif rows[0].get("identity") != identity:
            found = rows[0].get("identity") or {}
            differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
            raise ForeignAnswersError(
                f"{journal.path} holds answers of another evaluation (different: {', '.join(differing)}); "
                "move the file away to start over"
            )
        self.batch_size: int = rows[0]["batch_size"]
        self._answers = {(row.pop("pass"), row["id"]): Answer.model_validate(row) for row in rows[1:]}

    def missing(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        """Samples without an answer, and those that a failure of ours left without one: asked again."""
        return [sample for sample in samples if not self._is_answered(name, sample.id)]

    def _is_answered(self, name: str, sample_id: str) -> bool:
        answer = self._answers.get((name, sample_id))
        return answer is not None and answer.outcome is not Outcome.INFRASTRUCTURE_FAILED

    def add(self, name: str, answers: Sequence[Answer]) -> None:
        rows = [{"pass": name, **answer.model_dump(mode="json")} for answer in answers]
        self._journal.extend(rows)
        self._answers.update({(name, answer.id): answer for answer in answers})

    def answers(self, name: str, samples: Sequence[Sample]) -> list[Answer]:
        """Return the answers of one pass in the order of ``samples``."""
        return [self._answers[name, sample.id] for sample in samples]


def answer_all(
    journal: AnswerJournal,
    name: str,
    samples: Sequence[Sample],
    *,
    predictor: Callable[[], Predictor],
    on_batch: Callable[[int], None],
) -> list[Answer]:
    """Answer what the journal does not hold yet, batch by batch, and return all answers in order.

    Args:
        predictor: loads the checkpoint; called only when a sample is still unanswered.
        on_batch: told after every batch how many samples of this pass are answered.
    """
    for start in range(0, len(samples), journal.batch_size):
        # Batches are cut from the whole list, so a resumed evaluation repeats the same batches.
        batch = samples[start : start + journal.batch_size]
        unanswered = journal.missing(name, batch)
        if unanswered:
            said = {answer.id: answer for answer in predictor().answer(batch)}
            journal.add(name, [said[sample.id] for sample in unanswered])
        on_batch(start + len(batch))
    return journal.answers(name, samples)
