"""Parameters, tags, metrics, datasets and the status of a run."""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from omni_mlflow.events import DatasetInput, Ended, Metrics, RunOutcome, Started
from omni_mlflow.tracking.connection import store_name
from omni_mlflow.tracking.delta import Delta
from omni_mlflow.tracking.follow import RunJournal
from omni_mlflow.tracking.outer_runs import OUTCOME_TAG, UPSTREAM_TAG
from omni_mlflow.tracking.signs_of_life import HEARTBEAT_TAG, PROCESS_TAG
from omni_mlflow.tracking.stored_run import StoredRun
from omni_mlflow.tracking.stored_runs import StoredRuns
from omni_mlflow.tracking.watermark import PROJECTED_TAG

if TYPE_CHECKING:
    import mlflow.entities
    from mlflow import MlflowClient

T = TypeVar("T")

NOTE_TAG = "mlflow.note.content"
_MAX_PARAM, _MAX_TAG = 6000, 8000  # characters; MLflow cuts longer values itself, with a warning each
_METRICS_AT_ONCE, _NAMES_AT_ONCE = 1000, 100  # what one log_batch takes


class RunWriter:
    """Writes the values of runs, never a value that is already there."""

    def __init__(self, client: MlflowClient, runs: StoredRuns) -> None:
        self._client = client
        self._runs = runs
        self._kept: dict[tuple[str, str], str] = {}

    def write(self, stored: StoredRun, journal: RunJournal, delta: Delta, *, told: str) -> None:
        """Write everything of ``delta`` but files, models and the status; ``told`` is how far that is."""
        if delta.entered:
            self._runs.place(stored, journal)
            if journal.process is not None:
                self._write_tags(stored, {PROCESS_TAG: journal.process.model_dump_json()})
        self._write_params(stored, delta.params)
        self._write_tags(stored, {**_coloured(delta.tags), **self._upstream(delta.upstream)})
        self._write_points(stored, self._new_points(stored, journal, delta), told=told)
        if delta.datasets:
            self._client.log_inputs(stored.run_id, datasets=[_dataset(each) for each in delta.datasets])

    def set_status(self, stored: StoredRun, journal: RunJournal, delta: Delta) -> None:
        """Say RUNNING again for a run that was entered again, or end it with its reason."""
        mark = delta.mark
        if isinstance(mark, Ended):
            self._end(stored, journal, mark)
        elif (
            isinstance(mark, Started)
            and not journal.ended
            and stored.status != "RUNNING"
            and not _went_on_elsewhere(stored, journal, mark)
        ):
            self._run_again(stored)

    def show_alive(self, stored: StoredRun, signs: Mapping[str, str]) -> None:
        """Write that the process of a run lives, and undo that somebody took it for dead."""
        self._runs.read_again(stored)
        if stored.status != "RUNNING" and stored.tags.get(OUTCOME_TAG) == RunOutcome.KILLED:
            self._run_again(stored)
        self._write_tags(stored, signs)

    def notes(self) -> list[str]:
        return list(self._kept.values())

    def _run_again(self, stored: StoredRun) -> None:
        self._forget_end(stored)
        self._client.update_run(stored.run_id, status="RUNNING")
        stored.status = "RUNNING"

    def _end(self, stored: StoredRun, journal: RunJournal, ended: Ended) -> None:
        self._runs.read_again(stored)  # another machine may have taken it for dead meanwhile
        if ended.outcome is RunOutcome.KILLED and _went_on_elsewhere(stored, journal, ended):
            return
        self._forget_end(stored)
        self._runs.untag(stored, HEARTBEAT_TAG)
        note = {NOTE_TAG: ended.reason} if ended.reason else {}
        self._write_tags(stored, {**note, OUTCOME_TAG: ended.outcome})
        self._client.set_terminated(stored.run_id, ended.status, end_time=ended.at_ms)
        stored.status = ended.status

    def _forget_end(self, stored: StoredRun) -> None:
        """Remove why the run ended before; a description that a person wrote on a good run stays."""
        if stored.tags.get(OUTCOME_TAG, RunOutcome.OK) != RunOutcome.OK:
            self._runs.untag(stored, NOTE_TAG, OUTCOME_TAG)

    def _new_points(
        self, stored: StoredRun, journal: RunJournal, delta: Delta
    ) -> list[mlflow.entities.Metric]:
        return [
            point
            for row in delta.metrics
            for point in _points(row)
            if not journal.compared or self._lacks(stored, point, last_counts=row.last_counts)
        ]

    def _write_points(
        self, stored: StoredRun, points: Sequence[mlflow.entities.Metric], *, told: str
    ) -> None:
        """Write points and, in the request of the last of them, how far the run is projected."""
        from mlflow.entities import RunTag

        *parts, last = _in_parts(points, _METRICS_AT_ONCE) if points else [points]
        for part in parts:
            self._client.log_batch(stored.run_id, metrics=part)
        self._client.log_batch(stored.run_id, metrics=last, tags=[RunTag(PROJECTED_TAG, told)])
        stored.tags[PROJECTED_TAG] = told

    def _lacks(self, stored: StoredRun, point: mlflow.entities.Metric, *, last_counts: bool) -> bool:
        """Tell whether the run has no point at this step; a result, which has no step, may be replaced, and
        so may one of a curve, but not by a point that the run has had since it was projected first."""
        if point.key not in stored.held:
            history = self._client.get_metric_history(stored.run_id, point.key)
            latest = sorted(history, key=lambda each: (each.step, each.timestamp))
            stored.held[point.key] = {each.step: repr(each.value) for each in latest}
            stored.seen[point.key] = {_exactly(each) for each in latest}
        held = stored.held[point.key]
        if _exactly(point) in stored.seen[point.key]:
            return False
        may_be_replaced = last_counts or point.step == 0
        lacks = point.step not in held or (may_be_replaced and held[point.step] != repr(point.value))
        held[point.step] = repr(point.value) if lacks else held[point.step]
        return lacks

    def _write_params(self, stored: StoredRun, params: Mapping[str, str]) -> None:
        """MLflow parameters never change: one that the run has stays, and a difference is noted."""
        from mlflow.entities import Param

        new = []
        for name, value in params.items():
            key, text = store_name(name), value[:_MAX_PARAM]
            has = stored.params.get(key)
            if has is None:
                stored.params[key] = text
                new.append(Param(key, text))
            elif text not in (has, _unquoted(has)):
                self._kept[stored.run_id, key] = (
                    f"run {stored.run_id} keeps parameter {key}={has!r}; the journal says {text!r}"
                )
        for part in _in_parts(new, _NAMES_AT_ONCE):
            self._client.log_batch(stored.run_id, params=part)

    def _write_tags(self, stored: StoredRun, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        wanted = {store_name(key): str(value)[:_MAX_TAG] for key, value in tags.items()}
        new = [RunTag(key, value) for key, value in wanted.items() if stored.tags.get(key) != value]
        for part in _in_parts(new, _NAMES_AT_ONCE):
            self._client.log_batch(stored.run_id, tags=part)
        stored.tags.update(wanted)

    def _upstream(self, keys: Mapping[str, str]) -> dict[str, str]:
        ids = {stage: self._runs.id_of(key) for stage, key in keys.items()}
        return {f"{UPSTREAM_TAG}{stage}": ids[stage] or f"key {keys[stage]}" for stage in keys}


def _went_on_elsewhere(stored: StoredRun, journal: RunJournal, mark: Started | Ended) -> bool:
    """Whether this run ended after all that a copied workspace, left behind, knows of it."""
    told = stored.tags.get(OUTCOME_TAG)
    known = told in (None, RunOutcome.KILLED) or stored.ended_ms in journal.ends_ms
    return not known and stored.ended_ms > mark.at_ms


def _coloured(tags: Mapping[str, str]) -> dict[str, str]:
    backbone = tags.get("omni.backbone")
    return {**tags, "mlflow.runColor": colour_of(backbone)} if backbone else dict(tags)


def colour_of(backbone: str) -> str:
    """Return the colour of a backbone's runs, the same on every machine, as ``#rrggbb``."""
    hue = int.from_bytes(hashlib.sha256(backbone.encode()).digest()[:4]) / 2**32
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.42, 0.65))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _points(row: Metrics) -> list[mlflow.entities.Metric]:
    """Infinity is shown as NaN: MLflow would draw it as 1.8e308, and the chart's other points as a line."""
    from mlflow.entities import Metric

    return [
        Metric(store_name(key), value if math.isfinite(value) else math.nan, row.at_ms, row.step)
        for key, value in row.values.items()
    ]


def _exactly(point: mlflow.entities.Metric) -> tuple[int, int, str]:
    return point.step, point.timestamp, repr(point.value)


def _dataset(row: DatasetInput) -> mlflow.entities.DatasetInput:
    """The UI shows every key of the profile but not the source, so the profile repeats it."""
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as Input

    columns = [{"type": kind, "name": name, "required": True} for name, kind in row.columns.items()]
    entity = Dataset(
        name=row.name,
        digest=row.digest,
        source_type="local",
        source=json.dumps({"uri": row.source}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({**row.profile, "source": row.source}),
    )
    return Input(entity, [InputTag("mlflow.data.context", row.context)])


def _unquoted(text: str) -> str | None:
    """``mlflow run`` stores a parameter as it typed it for the shell; return what it stands for."""
    try:
        parts = shlex.split(text)
    except ValueError:
        return None
    return parts[0] if len(parts) == 1 else None


def _in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
