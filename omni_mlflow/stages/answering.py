"""Ask a checkpoint every held-out sample once; what it said survives ``kill -9``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Predictor
from omni_mlflow.journal import Journal
from omni_mlflow.spine.types import Answer, Sample


class ForeignAnswersError(Exception):
    """A journal of answers belongs to another checkpoint, dataset, prompt or code."""


class AnswerJournal:
    """Answers by pass (``intact`` or a control) and sample id, and the identity they belong to."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Open the journal, or begin it with ``identity``.

        Raises:
            ForeignAnswersError: it was begun with another identity; the differing parts are named.
        """
        self._journal = Journal(path)
        rows = self._journal.rows()
        if not rows:
            self._journal.append({"identity": identity})
        elif rows[0].get("identity") != identity:
            found = rows[0].get("identity") or {}
            differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
            self._journal.close()
            raise ForeignAnswersError(
                f"{path} holds answers of another evaluation (different: {', '.join(differing)}); "
                "move the file away to start over"
            )
        self._answers = {(row["pass"], row["id"]): Answer.model_validate(row) for row in rows[1:]}

    def missing(self, name: str, samples: Sequence[Sample]) -> list[Sample]:
        return [sample for sample in samples if (name, sample.id) not in self._answers]

    def add(self, name: str, answers: Sequence[Answer]) -> None:
        rows = [{"pass": name, **answer.model_dump(mode="json")} for answer in answers]
        self._journal.extend(rows)
        self._answers.update({(name, answer.id): answer for answer in answers})

    def answers(self, name: str, samples: Sequence[Sample]) -> list[Answer]:
        """Return the answers of one pass in the order of ``samples``."""
        return [self._answers[name, sample.id] for sample in samples]

    def close(self) -> None:
        self._journal.close()


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
    batch_size = predictor().batch_size if journal.missing(name, samples) else 1
    for start in range(0, len(samples), batch_size):
        # Batches are cut from the whole list, so a resumed evaluation repeats the same batches.
        batch = samples[start : start + batch_size]
        unanswered = journal.missing(name, batch)
        if unanswered:
            said = {answer.id: answer for answer in predictor().answer(batch)}
            journal.add(name, [said[sample.id] for sample in unanswered])
        on_batch(min(start + batch_size, len(samples)))
    return journal.answers(name, samples)
