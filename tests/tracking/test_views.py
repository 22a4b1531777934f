"""The experiment opens with views that show what people compare."""

from __future__ import annotations

import base64
import json
import zlib

import pytest

from omni_mlflow.tracking.views import provision_views


@pytest.fixture
def shown(pipeline, tracker, store):
    """The experiment's tags after its views were set."""
    tracker.project(store)
    client = tracker.client(store)
    assert provision_views(client, "1") == []
    return client.get_experiment("1").tags


def state_of(tags, key):
    view = json.loads(tags[f"mlflow.sharedViewState.{key}"])
    return view["name"], json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))


def test_stages_are_grouped_by_their_tag(shown):
    name, state = state_of(shown, "omni-stages")
    assert name == "Stages"
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "omni.stage"}]


def test_backbones_are_compared_by_the_headline_of_their_pipeline_runs(shown):
    name, state = state_of(shown, "omni-backbones")
    assert name == "Backbones"
    assert state["searchFilter"] == "tags.`omni.stage` = 'main'"
    assert "metrics.`test/action_accuracy`" in state["selectedColumns"]
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["BAR", "DIFFERENCE"]
    assert shown["mlflow.experiment.primaryMetric.name"] == "test/action_accuracy"


def test_what_a_person_wrote_about_the_experiment_stays(tracker, store):
    client = tracker.client(store)
    client.set_experiment_tag("1", "mlflow.note.content", "our notes")
    provision_views(client, "1")
    assert client.get_experiment("1").tags["mlflow.note.content"] == "our notes"


def test_views_are_written_once(shown, tracker, store):
    client = tracker.client(store)
    provision_views(client, "1")
    assert client.get_experiment("1").tags == shown


def test_a_view_that_cannot_be_set_is_told_and_costs_nothing(tracker, store):
    [note] = provision_views(tracker.client(store), "404")
    assert note.startswith("the saved views of experiment 404 were not set")
