"""What a number is called, what it grades, and whether more of it is better."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Literal, Self

from pydantic import model_validator

from omni_mlflow.spine.types import Row


class Metric(Row):
    """One metric of ``metrics.json``.

    Attributes:
        title: as a report calls it.
        unit: of its value; None where it has none.
        at_least, at_most: the range of its value; None where it has no end. A value with neither unit nor
            range is a share between 0 and 1.
        question: the one that it grades; None for the form of the reply, or where there is no question.
        truth: the key of ``true_json`` that it grades, where that is no question of a contract.
    """

    title: str
    better: Literal["higher", "lower"] = "higher"
    unit: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    question: str | None = None
    truth: str | None = None

    @model_validator(mode="after")
    def _range_has_room(self) -> Self:
        if self.limits[0] >= self.limits[1]:
            raise ValueError(f"{self.title}: no value lies between {self.limits[0]:g} and {self.limits[1]:g}")
        return self

    @property
    def full_title(self) -> str:
        """Its name for readers, with its unit, and a word where low values are good."""
        told = [self.unit, "lower is better" if self.better == "lower" else None]
        return f"{self.title} ({'; '.join(filter(None, told))})" if any(told) else self.title

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value that it can have."""
        if self.unit is None and self.at_least is None and self.at_most is None:
            return 0.0, 1.0
        return (
            -inf if self.at_least is None else self.at_least,
            inf if self.at_most is None else self.at_most,
        )


LABEL_METRICS: Mapping[str, Metric] = {
    name: Metric(title=title, question=question)
    for name, title, question in (
        ("accuracy", "Action accuracy", "action"),
        ("action_macro_f1", "Action macro-F1, published class set", "action"),
        ("supported_class_macro_f1", "Action macro-F1, declared classes with support", "action"),
        ("seen_label_accuracy", "Action accuracy, label seen in train", "action"),
        ("unseen_label_accuracy", "Action accuracy, label not in train", "action"),
        ("subtask_accuracy", "Subtask accuracy", "subtask"),
        ("object_micro_f1", "Object micro-F1", "objects"),
        ("contact_accuracy", "Contact accuracy", "contact"),
        ("transition_accuracy", "Transition accuracy", "transition"),
        ("next_action_accuracy", "Next-action accuracy", "next_action"),
        ("next_contact_accuracy", "Next-contact accuracy", "next_contact"),
        ("evidence_window_iou", "Evidence-window IoU", "evidence_window"),
        ("json_validity_rate", "JSON validity", None),
        ("strict_json_validity_rate", "JSON validity, nothing rescued", None),
    )
}
"""The metrics of answers to label questions, in the order in which reports list them."""

HELD_OUT_EPISODES = Metric(title="Held-out episodes", unit="episodes")
