"""Ask a checkpoint every held-out sample once; what it said survives ``kill -9``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from omni_mlflow.backbones.base import Predictor
from omni_mlflow.journal import Journal, follow_open_journal
from omni_mlflow.spine.types import Answer, Sample
from omni_mlflow.stages.answer_sheets import Head, read_head
from omni_mlflow.stages.asking import ask, batches
from omni_mlflow.stages.evaluation_identity import Identity, differing
from omni_mlflow.stages.kept_answers import KeptAnswers


class ForeignAnswersError(Exception):
    """A journal of answers belongs to another checkpoint, dataset, prompt or code."""


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
            BadRowError: no evaluation begins with its first row.
        """
        self._journal = journal
        self._kept = KeptAnswers()
        self._file = journal.path.open("rb")
        rows = follow_open_journal(self._file, start=0)
        row, start = next(rows, (None, 0))
        if row is None:
            begun = Head(identity=identity, batch_size=batch_size())
            journal.append(begun.model_dump())
        else:
            begun = read_head(row, path=journal.path)
        if parts := differing(begun.identity, identity):
            raise ForeignAnswersError(
                f"{journal.path} holds answers of another evaluation (different: {', '.join(parts)}); "
                "move the file away to start over"
            )
        self.batch_size: int = begun.batch_size
        for row, end in rows:
            self._kept.put_row(self._file, start, row)
            start = end

    def missing(self, name: str, ids: Sequence[str]) -> list[str]:
        """Samples without an answer, and those that a failure of ours left without one: asked again."""
        return [each for each in ids if not self._kept.is_given((name, each))]

    def add(self, name: str, answers: Sequence[Answer]) -> None:
        """Keep what was answered, and return once it is on the disk."""
        rows = [{"pass": name, **answer.model_dump(mode="json")} for answer in answers]
        if rows:
            for start, row in zip(self._journal.extend(rows), rows, strict=True):
                self._kept.put_row(self._file, start, row)

    def take_over(self, name: str, ids: Sequence[str], known: KeptAnswers) -> None:
        """Keep what another journal holds as well: nothing is lost that would have to be asked again.

        Raises:
            BadRowError: one of the rows is no longer what it was; none of them is kept.
        """
        starts = self._journal.copy([known.line((name, each)) for each in ids])
        for start, each in zip(starts, ids, strict=True):
            key = (name, each)
            self._kept.put(key, self._file, start, given=known.is_given(key))

    def answers(self, name: str, ids: Sequence[str]) -> Sequence[Answer]:
        """Return the answers of one pass in the order of ``ids``; each is read when it is asked for."""
        return self._kept.of_one_journal(self._journal.path, name, ids)

    def lost(self, ids: Iterable[str], passes: Sequence[str]) -> dict[str, str]:
        """Return by id why a sample has no answer in one of ``passes``: the last such one counts."""
        wanted = set(ids) if self._kept.failed else set()
        failed = [key for key in self._kept.failed if key[0] in passes and key[1] in wanted]
        return {
            key[1]: f"no answer ({key[0]}): {self._kept[key].reason}"
            for key in sorted(failed, key=lambda key: passes.index(key[0]))
        }


def answer_all(
    journal: AnswerJournal,
    name: str,
    ids: Sequence[str],
    *,
    as_asked: Callable[[Sequence[str]], Sequence[Sample]],
    predictor: Callable[[], Predictor] | None,
    batch_size: int,
    on_batch: Callable[[int], None],
    known: KeptAnswers | None = None,
    max_retries: int = 0,
) -> Sequence[Answer]:
    """Answer what the journal does not hold yet, batch by batch, and return all answers in order.

    Args:
        as_asked: returns the samples of these ids as this pass asks them; called only with ids that are
            still unanswered.
        predictor: loads the checkpoint; called only when a sample is still unanswered. None: nobody is asked,
            and ``known`` must hold every sample.
        batch_size: how many are asked together.
        on_batch: told after every batch of the first round how many samples of this pass were seen to.
        known: answers of other journals with the same identity; they are taken over, never asked again.
        max_retries: further rounds over the samples that the infrastructure left unanswered.
    """
    known = known or KeptAnswers()
    for attempt in range(1 + max_retries):
        done = 0
        for batch in batches(ids, size=batch_size):
            missing = journal.missing(name, batch)
            unanswered = [each for each in missing if not known.is_given((name, each))]
            if unanswered and predictor is not None:
                said = {answer.id: answer for answer in ask(predictor(), as_asked(unanswered))}
                journal.add(name, [said[each] if each in said else known[name, each] for each in missing])
            elif missing:
                journal.take_over(name, missing, known)
            done += len(batch)
            if attempt == 0:
                on_batch(done)
        if predictor is None or not journal.missing(name, ids):
            break
    return journal.answers(name, ids)
