"""The answers of a model and of every floor to the same samples, taken in row by row."""

from __future__ import annotations

from collections.abc import Sequence

from omni_mlflow.metrics.answers import PredictionRow
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
        declared: the action classes of our own averages, by default the options and every train label.
            They are fixed before the first row, so no prediction and no truth adds one.
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
        default = (*label_options, *(priors.action if priors else ()))
        self.declared = list(dict.fromkeys(default if declared is None else declared))
        self.model = RowTally(ROW_SCORES)
        self._answer_as = floors_of(priors or TrainPriors.fit([]))
        self.floors = {name: RowTally(floor_scores(name, priors)) for name in self._answer_as}

    def add(self, row: PredictionRow) -> None:
        """Take in a prediction row with the published columns."""
        self.model.add(row)
        for name, answer in self._answer_as.items():
            self.floors[name].add_answers(answer(row))

    def measure(self, metric: str, tally: RowTally) -> EpisodeEstimate:
        if metric == "action_macro_f1":
            return tally.classes.macro_f1(tally.published_classes(self.label_options))
        if metric == "supported_class_macro_f1":
            return tally.classes.macro_f1(self.supported)
        return tally.estimate(metric)

    @property
    def supported(self) -> list[str]:
        return self.model.supported_classes(self.declared)
