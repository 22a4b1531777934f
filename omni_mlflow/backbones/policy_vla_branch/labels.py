"""Targets that are a class: the action now, the next action, and whether a hand touches something next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, Self

from pydantic import ConfigDict, model_validator

from omni_mlflow.backbones.policy_vla_branch.action_space_file import ActionDimension, ActionSpaceFile
from omni_mlflow.backbones.policy_vla_branch.inputs import Source
from omni_mlflow.metrics.priors import yes_no
from omni_mlflow.spine.types import Row

UNKNOWN = -1
"""Index of a target that nobody annotated, or that no train sample has: nothing is learned from it."""

ClassKind = Literal["action_class", "next_action", "contact_event"]

_BEFORE = "the one step is the window that ends at the anchor: frames anchor - {0} to anchor - 1"
_AFTER = "the one step is the window that begins at the anchor: frames anchor to anchor + {0} - 1"
_ANCHORS: dict[ClassKind, str] = {
    "action_class": _BEFORE,
    "next_action": _AFTER,
    "contact_event": _AFTER,
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

    def file(self, sources: Sequence[Source], *, fps: float) -> ActionSpaceFile:
        """Define this target as an action space of one code, whose one step is as long as a window.

        Args:
            sources: of this target, of the train samples that have it.
            fps: source frames per second.
        """
        frames = round(median(len(each.window) for each in sources))
        rules = " or ".join(sorted({each.rule for each in sources}))
        return ActionSpaceFile(
            kind=self.kind,
            space=f"{self.kind}_of_train",
            dimensions=(ActionDimension(name=self.kind, unit="index into classes"),),
            frame_of_reference=None,
            anchor=_ANCHORS[self.kind].format(frames),
            reference="absolute",
            rotation_convention=None,
            order="classes sorted by name",
            horizon=1,
            fps=fps / frames,
            classes=self.labels,
            validity_rule=f"{rules}; the code is {UNKNOWN} where there is none, or none that train has",
            source_fields=tuple(sorted({field for each in sources for field in each.fields})),
        )


def contact_label(touches: bool | None) -> str | None:
    """Return the class of a contact event: ``yes``, ``no``, or None where it is not known."""
    return yes_no(touches)
