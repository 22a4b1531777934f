"""Which objects a window affords an action on, derived from its labels by the rule that a contract names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from omni_mlflow.spine.types import Labels, Target

Rule = Literal["objects_in_action", "objects_of_window"]


def _of_window(labels: Labels) -> tuple[str, ...] | None:
    return labels.objects


def _in_action(labels: Labels) -> tuple[str, ...] | None:
    if labels.objects is None or labels.action is None:
        return None
    words = set(labels.action.casefold().split())
    return tuple(name for name in labels.objects if set(name.casefold().split()) <= words)


_RULES: Mapping[Rule, Callable[[Labels], tuple[str, ...] | None]] = {
    "objects_in_action": _in_action,
    "objects_of_window": _of_window,
}


def with_afforded(target: Target, rule: Rule) -> Target:
    """Return a target whose objects are those that the rule leaves; None where it cannot tell.

    - ``objects_in_action``: annotated objects all of whose words are in the label of the window's action.
    - ``objects_of_window``: every annotated object of the window.
    """
    objects = _RULES[rule](target.labels)
    return target.model_copy(update={"labels": target.labels.model_copy(update={"objects": objects})})
