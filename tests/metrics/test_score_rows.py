"""How a difference to answers without a model is written down."""

import json
from dataclasses import replace
from math import inf

import pytest

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
