"""Targets that are a class: the action now, the next action, and whether a hand touches something next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import ConfigDict, model_validator

from omni_mlflow.backbones.policy_vla_branch.action_space_file import (
    LAST_OBSERVED,
    ActionDimension,
    ActionSpaceFile,
)
from omni_mlflow.metrics.priors import yes_no
from omni_mlflow.spine.types import Row

UNKNOWN = -1
"""Index of a target that nobody annotated, or that no train sample has: nothing is learned from it."""

ClassKind = Literal["action_class", "next_action", "contact_event"]

_SOURCES: dict[ClassKind, tuple[str, ...]] = {
    "action_class": ("caption: action of the window before the anchor",),
    "next_action": ("caption: action of the window after the anchor",),
    "contact_event": ("full_body_mocap/contacts: joints 20 and 21 in the window after the anchor",),
}


class ClassTarget(Row):
    """The labels of a target, in the order of their indices.

    Attributes:
        labels: those of the train samples, sorted; a held-out label that is not among them cannot be
            answered and counts as wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassKind
    labels: tuple[str, ...]

    @model_validator(mode="after")
    def _labels_are_sorted_and_distinct(self) -> Self:
        if list(self.labels) != sorted(set(self.labels)):
            raise ValueError(f"labels of {self.kind} must be sorted and distinct: {self.labels}")
        return self

    @classmethod
    def of(cls, kind: ClassKind, train_labels: Iterable[str]) -> Self:
        return cls(kind=kind, labels=tuple(sorted(set(train_labels))))

    def encode(self, label: str | None) -> int:
        """Return the index of a label; :data:`UNKNOWN` for none and for one that train does not have."""
        return self.labels.index(label) if label in self.labels else UNKNOWN

    def decode(self, index: int) -> str | None:
        """Return the label at an index: the inverse of :meth:`encode`; None for :data:`UNKNOWN`.

        Raises:
            IndexError: there is no such class.
        """
        if index == UNKNOWN:
            return None
        if not 0 <= index < len(self.labels):
            raise IndexError(f"{self.kind} has {len(self.labels)} classes, none with index {index}")
        return self.labels[index]

    def file(self, *, fps: float) -> ActionSpaceFile:
        """Define this target as an action space of one code."""
        return ActionSpaceFile(
            kind=self.kind,
            space=f"{self.kind}_of_train",
            dimensions=(ActionDimension(name=self.kind, unit="index into classes"),),
            frame_of_reference=None,
            anchor=LAST_OBSERVED,
            reference="absolute",
            rotation_convention=None,
            order="classes sorted by name",
            horizon=1,
            fps=fps,
            classes=self.labels,
            validity_rule=f"annotated, and a label of the train episodes; otherwise the code is {UNKNOWN}",
            source_fields=_SOURCES[self.kind],
        )


def contact_label(touches: bool | None) -> str | None:
    """Return the class of a contact event: ``yes``, ``no``, or None where it is not known."""
    return yes_no(touches)
