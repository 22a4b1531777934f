"""How a difference to answers without a model is written down."""

import json
import math
from dataclasses import replace
from math import inf

import pytest
from pydantic import ValidationError

from omni_mlflow.metrics.metric import Metric
from omni_mlflow.metrics.metrics_file import metric_checks
from omni_mlflow.metrics.score_rows import against, difference_row, interval_row
from omni_mlflow.metrics.uncertainty import mean_estimate
from omni_mlflow.spine.rows import write_document


def difference(value: float, low: float | None) -> dict:
    return {"value": value, "low": low, "high": None, "p_value": 1.0}


def test_the_floor_that_is_shown_is_the_one_that_is_least_clearly_beaten():
    """The draw scores less, but nobody can say that the model lies above it."""
    told = against(
        {"majority": 0.5, "train_prior": 0.4},
        {"majority": difference(0.2, 0.1), "train_prior": difference(0.3, -0.1)},
    )
    assert (told["best"], told["difference"]["low"]) == ("train_prior", -0.1)


@pytest.mark.parametrize("low", [None, 0.0])
def test_without_intervals_or_with_equal_ones_it_is_the_one_with_the_smallest_difference(low):
    told = against(
        {"majority": 0.4, "same_as_now": 0.5},
        {"majority": difference(0.3, low), "same_as_now": difference(0.2, low)},
    )
    assert told["best"] == "same_as_now"


@pytest.mark.parametrize(("low", "best"), [(0.1, "same_as_now"), (0.0, "majority"), (-0.1, "majority")])
def test_a_difference_without_an_interval_is_harder_than_one_clearly_above_zero(low, best):
    told = against(
        {"majority": 0.4, "same_as_now": 0.5},
        {"majority": difference(0.3, low), "same_as_now": difference(0.9, None)},
    )
    assert told["best"] == best


def test_without_floors_there_is_nothing_to_be_held_against():
    assert against({}, {}) == {}


def test_identical_episodes_bound_nothing_where_the_metric_has_no_end(tmp_path):
    """A model that says what its floor says: a difference of zero everywhere, and errors without an end."""
    errors = replace(mean_estimate([0.2, 0.2, 0.2], ["a", "b", "c"]), low=0.0, high=inf)
    told = {"value": interval_row(errors), "difference": difference_row(errors - errors)}
    write_document(tmp_path / "metrics.json", told)
    no_limits = {"low": None, "high": None, "method": "no_variation_bound"}
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "value": no_limits,
        "difference": {"value": 0.0, **no_limits, "p_value": 1.0},
    }


def test_episodes_that_differ_bound_a_metric_without_an_end():
    found = interval_row(replace(mean_estimate([0.1, 0.2, 0.4], ["a", "b", "c"]), low=0.0, high=inf))
    assert (found["low"], found["high"] > 0.4) == (0.0, True)


@pytest.mark.parametrize(
    ("intervals", "baselines", "broken_rule"),
    [
        ({"error": {"low": 10.0, "high": 40.0}}, {}, None),
        ({"error": {"low": None, "high": None}}, {}, None),
        ({"error": {"low": 0.0, "high": 1.0}}, {}, "interval_of_a_metric"),
        ({"error": {"low": 10.26, "high": 1.0}}, {}, "interval_of_a_metric"),
        ({}, {"error": {"floors": {"mean": 0.03}}}, "baseline_of_a_metric"),
        ({}, {"error": {"mean": 0.03}}, "baseline_of_a_metric"),
        (
            {},
            {"error": against({"mean": 35.6}, {"mean": {"value": -2.2, "low": -1.0, "high": 1.0}})},
            "baseline_of_a_metric",
        ),
        ({}, {"error": against({"mean": 35.6}, {"mean": {"value": -2.2, "low": -3.0, "high": 1.0}})}, None),
    ],
)
def test_an_interval_that_is_not_around_its_value_is_refused(intervals, baselines, broken_rule):
    """A value in millimetres whose interval was taken for that of a share."""
    metrics = {"error": 37.8, "intervals": intervals, "baselines": baselines}
    refused = [check.rule for check in metric_checks(metrics, primary=["error"]) if not check.ok]
    assert refused == ([broken_rule] if broken_rule else [])


@pytest.mark.parametrize(
    ("declared", "limits"),
    [
        ({}, (0.0, 1.0)),
        ({"unit": "mm"}, (-math.inf, math.inf)),
        ({"at_least": -1.0, "at_most": 1.0}, (-1.0, 1.0)),
        ({"at_most": 1.0}, (-math.inf, 1.0)),
    ],
)
def test_a_metric_has_the_range_that_it_declares_with_a_unit_or_without(declared, limits):
    assert Metric(title="Correlation", **declared).limits == limits


def test_a_range_without_room_is_refused():
    with pytest.raises(ValidationError, match="no value lies between 3 and 1"):
        Metric(title="Correlation", at_least=3.0, at_most=1.0)
