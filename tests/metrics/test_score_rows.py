"""How a difference to answers without a model is written down."""

import pytest

from omni_mlflow.metrics.score_rows import against


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
