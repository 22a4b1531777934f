"""The answers of a model and of every floor to the same samples, taken in row by row."""

from __future__ import annotations

from collections.abc import Sequence

from omni_mlflow.metrics.answers import PredictionRow
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.floors import floor_scores, floors_of
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.questions import ROW_SCORES
from omni_mlflow.metrics.row_tally import RowTally
from omni_mlflow.metrics.uncertainty import EpisodeEstimate


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
        self.model = RowTally(ROW_SCORES)
        self._answer_as = floors_of(priors or TrainPriors.fit([]))
        self.floors = {name: RowTally(floor_scores(name, priors)) for name in self._answer_as}

    def add(self, row: PredictionRow) -> None:
        """Take in a prediction row with the published columns."""
        self.model.add(row)
        for name, answer in self._answer_as.items():
            self.floors[name].add_answers(answer(row))

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
