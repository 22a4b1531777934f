"""What installed packages of other people add to this project, through entry points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from omni_mlflow.contract import ContractError

BACKBONES = "omni_mlflow.backbones"
"""The group of entry points that add backbones."""


def added_by(group: str) -> dict[str, list[EntryPoint]]:
    """Every entry point of a group by name, not yet imported; two that differ under one name are a clash."""
    found: dict[str, list[EntryPoint]] = {}
    for each in entry_points(group=group):
        same_name = found.setdefault(each.name, [])
        if each.value not in [other.value for other in same_name]:
            same_name.append(each)
    return found


def the_one(kind: str, name: str, added: Mapping[str, Sequence[EntryPoint]]) -> EntryPoint:
    """Return the entry point of a name that is asked for.

    Raises:
        ContractError: two packages add it, or what it says can be no module; what nobody asks for stops
            nobody.
    """
    first, *others = added[name]
    if not is_written_well(first):
        raise ContractError(f"the {kind} {name!r} of an installed package is {first.value!r}, no module:name")
    if others:
        raise ContractError(
            f"two installed packages add the {kind} {name!r}: "
            f"{' and '.join(each.value for each in added[name])}; uninstall one of them"
        )
    return first


def is_written_well(entry: EntryPoint) -> bool:
    """Whether an entry point names a module."""
    return EntryPoint.pattern.match(entry.value) is not None
