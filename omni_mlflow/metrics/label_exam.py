"""The answers of a model and of every floor to the same samples, taken in row by row."""

from __future__ import annotations

from collections.abc import Sequence

from omni_mlflow.metrics.answers import NOW_OF, PredictionRow
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.floors import SAME_AS_NOW, floor_scores, floors_of, score_against
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.questions import METRIC_OF, ROW_SCORES
from omni_mlflow.metrics.row_tally import RowTally
from omni_mlflow.metrics.uncertainty import EpisodeEstimate


def answers_tally() -> RowTally:
    """Return what adds up the rows of a model or a control, so that it can be held against every floor."""
    later = (METRIC_OF[question] for question in NOW_OF)
    return RowTally(ROW_SCORES, over_fewer={name: score_against(SAME_AS_NOW, name) for name in later})


class LabelExam:
    """The rows of a model and of every floor on the same samples, added up one by one.

    Args:
        priors: fitted on the train episodes; None when unknown, then only the floors without a fit are used.
        label_options: action labels offered in the prompt.
        declared: the action classes of our own averages, fixed before the first row, so no prediction and no
            truth adds one. None when nobody declared any: then there is no such average.
    """

    def __init__(
        self,
        priors: TrainPriors | None,
        *,
        label_options: Sequence[str],
        declared: Sequence[str] | None = None,
    ) -> None:
        self.priors = priors
        self.label_options = label_options
        self.declared = None if declared is None else list(dict.fromkeys(declared))
        self.model = answers_tally()
        self._answer_as = floors_of(priors or TrainPriors.fit([]))
        self.floors = {name: RowTally(floor_scores(name, priors)) for name in self._answer_as}

    def add(self, row: PredictionRow) -> None:
        """Take in a prediction row with the published columns."""
        self.model.add(row)
        for name, answer in self._answer_as.items():
            self.floors[name].add_answers(answer(row))

    def better_by(self, metric: str, tally: RowTally, floor: str) -> EpisodeEstimate:
        """How far a model or a control lies above a floor, over the rows that the floor answers.

        Raises:
            NothingToScoreError: there is none.
        """
        is_over_fewer = floor == SAME_AS_NOW
        own = tally.estimate_over_fewer(metric) if is_over_fewer else self.measure(metric, tally)
        return own - self.measure(metric, self.floors[floor])

    def measure(self, metric: str, tally: RowTally) -> EpisodeEstimate:
        """Estimate a metric of the model, a floor or a control.

        Raises:
            NothingToScoreError: no row has a truth for it, or no class is there to average over.
        """
        if metric == "action_macro_f1":
            return tally.classes.macro_f1(tally.published_classes(self.label_options))
        if metric == "supported_class_macro_f1":
            if self.declared is None:
                raise NothingToScoreError("no action classes are declared")
            return tally.classes.macro_f1(self.model.supported_classes(self.declared))
        return tally.estimate(metric)
