"""What people find when they open the experiment: its description, and two saved views of its runs.

The format of a saved view belongs to MLflow's UI and may change with it: a failure here is told, and
nothing depends on it.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

_VIEW_TAG = "mlflow.sharedViewState."
_MAX_COLUMNS = 12
_DESCRIPTION = (
    "Fine-tuned multimodal backbones on egocentric episodes. A row of stage `main` is one pipeline run; "
    "its stages are nested below it. Only runs tagged `omni.evidence = held_out` say how good a model is. "
    "Saved views: *Stages* (by stage) and *Backbones* (pipeline runs side by side)."
)


def provision_views(client: MlflowClient, experiment_id: str) -> list[str]:
    """Set what the experiment lacks; a description that people wrote stays. Return what went wrong.

    The columns of *Backbones* are the metrics of the pipeline runs: the headline of each evaluation.
    """
    try:
        tags = client.get_experiment(experiment_id).tags
        headline = _headline(client, experiment_id)
        wanted = {"mlflow.note.content": _DESCRIPTION, "mlflow.experimentKind": "custom_model_development"}
        if headline:
            wanted["mlflow.experiment.primaryMetric.name"] = headline[0]
        for key, value in wanted.items():
            if key not in tags:
                client.set_experiment_tag(experiment_id, key, value)
        for key, (name, state) in _views(headline).items():
            if not _shows(tags.get(_VIEW_TAG + key), state):
                client.set_experiment_tag(experiment_id, _VIEW_TAG + key, _packed(name, state))
    except Exception as error:  # the views are a convenience: they may not cost a projection
        return [
            f"the saved views of experiment {experiment_id} were not set: {type(error).__name__}: {error}"
        ]
    return []


def _headline(client: MlflowClient, experiment_id: str) -> list[str]:
    runs = client.search_runs([experiment_id], filter_string="tags.`omni.stage` = 'main'", max_results=20)
    return sorted({key for run in runs for key in run.data.metrics})[:_MAX_COLUMNS]


def _views(headline: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    tags = [_column("tags", f"omni.{name}") for name in ("stage", "backbone", "outcome", "evidence")]
    stages = _state(
        selectedColumns=[*tags, "attributes.`Dataset`", "attributes.`Models`", "attributes.`Description`"],
        groupBy={
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": "omni.stage"}],
        },
    )
    backbones = _state(
        searchFilter="tags.`omni.stage` = 'main'",
        selectedColumns=[*tags[1:], *(_column("metrics", key) for key in headline)],
        compareRunSections=[_section()],
        compareRunCharts=[_bar(number, key) for number, key in enumerate(headline)] + [_difference()],
    )
    return {"omni-stages": ("Stages", stages), "omni-backbones": ("Backbones", backbones)}


def _state(**changes: Any) -> dict[str, Any]:
    """The state of the runs page as the UI keeps it."""
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [],
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        **changes,
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _section() -> dict[str, Any]:
    return {
        "uuid": "headline",
        "name": "Headline",
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }


def _bar(number: int, metric: str) -> dict[str, Any]:
    return {
        "uuid": f"bar-{number}",
        "type": "BAR",
        "metricSectionId": "headline",
        "metricKey": metric,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
    }


def _difference() -> dict[str, Any]:
    return {
        "uuid": "difference",
        "type": "DIFFERENCE",
        "metricSectionId": "headline",
        "compareGroups": ["Model metrics", "Parameters", "Tags"],
        "showChangeFromBaseline": True,
        "showDifferencesOnly": True,
        "baselineColumnUuid": "",
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
    }


def _packed(name: str, state: Mapping[str, Any]) -> str:
    now_ms = int(time.time() * 1000)
    blob = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{blob}"})


def _shows(packed: str | None, state: Mapping[str, Any]) -> bool:
    """Tell whether a stored view holds ``state``."""
    try:
        blob = json.loads(packed or "")["state"].removeprefix("deflate;")
        return bool(json.loads(zlib.decompress(base64.b64decode(blob))) == state)
    except (ValueError, KeyError, zlib.error):
        return False
