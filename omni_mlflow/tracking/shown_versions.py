"""What the model registry says of an evaluation: the versions that rest on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class ShownVersion:
    """A registered version of a model, as people find it.

    Attributes:
        aliases: those that point to it now.
    """

    name: str
    version: str
    aliases: frozenset[str]
    tags: Mapping[str, str]


def versions_of(client: MlflowClient, name: str, *, evaluation: str) -> list[ShownVersion]:
    """Return the versions of a model that were registered for an evaluation, by its run id."""
    query = f"name = '{name}' and tags.`omni.upstream.evaluate` = '{evaluation}'"
    found = client.search_model_versions(query)
    aliases = client.get_registered_model(name).aliases if found else {}
    return [
        ShownVersion(
            name=name,
            version=str(each.version),
            aliases=frozenset(alias for alias, number in aliases.items() if str(number) == str(each.version)),
            tags=each.tags,
        )
        for each in found
    ]
