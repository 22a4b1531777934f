"""What is kept of prediction rows: sums by episode and counts by label, never a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omni_mlflow.metrics.answers import (
    LABEL_QUESTIONS,
    NOW_OF,
    UNKNOWN,
    PredictionRow,
    RowScore,
    is_unknown_now,
    true_answer,
)
from omni_mlflow.metrics.class_counts import ClassCounts
from omni_mlflow.metrics.episode_sums import EpisodeSums
from omni_mlflow.metrics.errors import NothingToScoreError, or_none
from omni_mlflow.metrics.uncertainty import EpisodeEstimate

_DEGENERATE_SHARE = 0.95
_MOST_COUNTED = 4096
_IN_TRUE_JSON = (*(name for name in LABEL_QUESTIONS if name != "action"), "objects", "evidence_window")


_Graded = tuple[str, str, str | None, tuple[tuple[float, float] | None, ...]]
"""All that is kept of a row: its episode, true and predicted action, and what it adds to each metric."""


class RowTally:
    """The rows of one model, a floor or a control, added up.

    Args:
        scores: how rows are graded, by metric.
        over_fewer: the same, by metric, over those rows alone that a floor answers.

    Attributes:
        truths: number of rows by true answer, for each question with labels.
        unannotated_actions: number of rows whose action nobody annotated; no number about it includes them.
        untold: number of rows that hold no truth of a question, not even that nobody annotated it.
        unknown_now: number of rows by question about the future, of those with its truth, in which nobody
            annotated what is now.
        unseen_labels: number of rows by true action that train does not show.
        outcomes: number of rows by outcome.
    """

    def __init__(
        self, scores: Mapping[str, RowScore], *, over_fewer: Mapping[str, RowScore] | None = None
    ) -> None:
        fewer = over_fewer or {}
        self._scores = (*scores.values(), *fewer.values())
        self._graded: dict[_Graded, int] = {}  # number of rows, for the few kinds that most rows are of
        self._sums = {name: EpisodeSums() for name in scores}
        self._sums_over_fewer = {name: EpisodeSums() for name in fewer}
        self._classes = ClassCounts()
        self._samples_per_episode: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str | None]] = Counter()
        self.truths: dict[str, Counter[str]] = {question: Counter() for question in LABEL_QUESTIONS}
        self.unannotated_actions = 0
        self.untold: Counter[str] = Counter()
        self.unknown_now: Counter[str] = Counter()
        self.unseen_labels: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    @classmethod
    def over(cls, rows: Iterable[PredictionRow], scores: Mapping[str, RowScore]) -> RowTally:
        tally = cls(scores)
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: PredictionRow) -> None:
        """Take in a prediction row with the published columns."""
        self.add_answers(row)
        self.outcomes[str(row.get("outcome", "not_recorded"))] += 1
        for question, counts in self.truths.items():
            truth = true_answer(row, question)
            if truth is not None:
                counts[truth] += 1
                self.unknown_now[question] += question in NOW_OF and is_unknown_now(row, question)
        self.untold.update(name for name in _IN_TRUE_JSON if row["true_json"].get(name) is None)
        if row["true_label"] == UNKNOWN:
            self.unannotated_actions += 1
        elif not row["true_label_seen_in_train"]:
            self.unseen_labels[row["true_label"]] += 1

    def add_answers(self, row: PredictionRow) -> None:
        """Take in what metrics need; truths that a floor or control shares are counted there."""
        parts = tuple([score(row) for score in self._scores])
        graded = (row["episode_id"], row["true_label"], row["predicted_label"], parts)
        count = self._graded.get(graded)
        if count is not None:
            self._graded[graded] = count + 1
            return
        self._graded[graded] = 1
        if len(self._graded) > _MOST_COUNTED:
            self._settle()

    def _settle(self) -> None:
        for (episode, truth, given, parts), count in self._graded.items():
            every = (*self._sums.values(), *self._sums_over_fewer.values())
            for sums, part in zip(every, parts, strict=True):
                sums.add(episode, part, times=count)
            self._classes.add(episode, truth, given, times=count)
            self._samples_per_episode[episode] += count
            if truth != UNKNOWN:
                self._pairs[truth, given] += count
        self._graded.clear()

    @property
    def sums(self) -> Mapping[str, EpisodeSums]:
        self._settle()
        return self._sums

    @property
    def classes(self) -> ClassCounts:
        self._settle()
        return self._classes

    @property
    def samples_per_episode(self) -> Counter[str]:
        """Number of rows by episode."""
        self._settle()
        return self._samples_per_episode

    @property
    def pairs(self) -> Counter[tuple[str, str | None]]:
        """Number of rows by true and predicted action label, in order of appearance.

        None where no label could be read; rows whose action nobody annotated are not among them.
        """
        self._settle()
        return self._pairs

    @property
    def true_labels(self) -> Counter[str]:
        """Number of rows by true action label, in order of appearance."""
        counts: Counter[str] = Counter()
        for (truth, _), count in self.pairs.items():
            counts[truth] += count
        return counts

    @property
    def predicted_labels(self) -> Counter[str]:
        """Number of rows by predicted action label, in order of appearance."""
        counts: Counter[str] = Counter()
        for (_, given), count in self.pairs.items():
            if given is not None:
                counts[given] += count
        return counts

    @property
    def num_samples(self) -> int:
        return self.samples_per_episode.total()

    def published(self, *, label_options: Sequence[str]) -> dict[str, Any]:
        """Every published metric under its published name; null where no row qualifies."""
        labels = self.published_classes(label_options)
        true_labels = self.true_labels
        macro_f1 = _value(or_none(self.classes.macro_f1, labels))
        return {
            **{name: _value(or_none(self.estimate, name)) for name in self.sums},
            "macro_f1": macro_f1,
            "action_macro_f1": macro_f1,
            "labels": labels,
            "num_samples": self.num_samples,
            "num_eval_episodes": len(self.samples_per_episode),
            "held_out_episode_count": len(self.samples_per_episode),
            "num_unseen_label_samples": self.unseen_labels.total(),
            "unseen_eval_labels": sorted(self.unseen_labels),
            "eval_label_counts": dict(true_labels.most_common()),
        }

    def published_classes(self, label_options: Sequence[str]) -> list[str]:
        """The options, then true, then predicted action labels that are no option, in order of appearance."""
        return list(dict.fromkeys([*label_options, *self.true_labels, *self.predicted_labels]))

    def supported_classes(self, declared: Sequence[str]) -> list[str]:
        """The declared action classes that the truth names at least once; predictions have no say."""
        true_labels = self.true_labels
        return [label for label in dict.fromkeys(declared) if label in true_labels]

    def closed_vocabulary_ceiling(self) -> float:
        """Share of annotated actions that train shows: no model that only says those can be more accurate.

        Raises:
            NothingToScoreError: no action is annotated.
        """
        annotated = self.pairs.total()
        if not annotated:
            raise NothingToScoreError("no sample to average over")
        return (annotated - self.unseen_labels.total()) / annotated

    def estimate(self, metric: str) -> EpisodeEstimate:
        """Estimate one of the metrics that rows are graded by.

        Raises:
            NothingToScoreError: no row has a truth for it.
        """
        if metric == "object_micro_f1" and 0 < self.untold["objects"] == self.num_samples:
            raise NothingToScoreError("no row says which objects there are")
        return self.sums[metric].estimate()

    def estimate_over_fewer(self, metric: str) -> EpisodeEstimate:
        """Estimate a metric over the rows that the floor answers.

        Raises:
            NothingToScoreError: it answers none.
        """
        self._settle()
        return self._sums_over_fewer[metric].estimate()

    def truths_missing(self) -> dict[str, int]:
        """Number of rows by question whose truth they lack, of the questions that any row has."""
        return {name: count for name, count in sorted(self.untold.items()) if count < self.num_samples}

    def degenerate_questions(self) -> dict[str, dict[str, Any]]:
        """Questions of which one true answer makes up more than 95 %: a constant looks excellent there."""
        return {
            question: {"answer": answer, "share": count / counts.total()}
            for question, counts in self.truths.items()
            for answer, count in counts.most_common(1)
            if count / counts.total() > _DEGENERATE_SHARE
        }


def _value(estimate: EpisodeEstimate | None) -> float | None:
    return None if estimate is None else estimate.value
