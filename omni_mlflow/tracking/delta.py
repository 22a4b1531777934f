"""Many journal rows as one change of a run: applied once or again, the run ends the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from omni_mlflow.events import (
    Artifact,
    DatasetInput,
    Ended,
    Event,
    Metrics,
    ModelVersion,
    Params,
    Started,
    Tags,
    Upstream,
)


@dataclass
class Delta:
    """What a stretch of a journal changes.

    Attributes:
        params: the first value of each, for MLflow keeps that one.
        tags, upstream: the last value of each.
        artifacts: finished files by path and artifact folder; the last announcement of each.
        mark: whether the run was started (again) or ended last; None when neither.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    upstream: dict[str, str] = field(default_factory=dict)
    metrics: list[Metrics] = field(default_factory=list)
    datasets: list[DatasetInput] = field(default_factory=list)
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    models: list[ModelVersion] = field(default_factory=list)
    mark: Started | Ended | None = None
    entered: bool = False


def fold(events: Sequence[Event]) -> Delta:
    """Gather what ``events`` change, in their order."""
    delta = Delta()
    for event in events:
        match event:
            case Started():
                delta.entered = True
                delta.mark = event
            case Ended():
                delta.mark = event
            case Params():
                delta.params = {**event.values, **delta.params}
            case Tags():
                delta.tags |= event.values
            case Upstream():
                delta.upstream |= event.keys
            case Metrics():
                delta.metrics.append(event)
            case DatasetInput():
                delta.datasets.append(event)
            case Artifact():
                if not event.live:
                    delta.artifacts[event.path, event.folder] = event
            case ModelVersion():
                delta.models.append(event)
    return delta
