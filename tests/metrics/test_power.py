"""The power planner: by hand, and against simulated splits."""

import numpy as np
import pytest
from scipy import stats

from omni_mlflow.metrics.comparison import Verdict, verdict_of
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.power import detectable_difference, fewest_episodes, power_of
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, interval, mean_estimate, sign_flip_p_value


def test_the_detectable_difference_by_hand():
    """16 episodes: (2.13145 + 0.86624) x 0.4 / 4, quantiles of t with 15 degrees of freedom from a table."""
    assert detectable_difference(0.4, 16) == pytest.approx(0.299769, abs=1e-5)


def test_four_times_the_episodes_buy_a_little_more_than_half_the_difference():
    assert 0.40 < detectable_difference(0.3, 64) / detectable_difference(0.3, 16) < 0.5


@pytest.mark.parametrize("episodes", [8, 16, 32])
def test_the_planned_power_is_reached_in_simulated_splits(episodes):
    random = np.random.default_rng(5)
    truth = detectable_difference(0.25, episodes)
    found = stats.ttest_1samp(random.normal(truth, 0.25, size=(20_000, episodes)), 0.0, axis=1).pvalue
    assert float((found <= 0.05).mean()) == pytest.approx(0.8, abs=0.02)


def test_a_verdict_asks_for_more_than_the_plan_and_is_reached_less_often():
    """At the planned difference, 16 episodes and one metric: three of four splits, not four of five."""
    random = np.random.default_rng(3)
    names = tuple(f"e{place:02}" for place in range(16))
    draws = random.normal(detectable_difference(0.1, 16), 0.1, size=(300, 16))
    found = 0
    for scores in draws:
        estimate = EpisodeEstimate(float(scores.mean()), scores - scores.mean(), names, -1.0, 1.0)
        limits = interval(estimate)
        found += verdict_of(limits.low, limits.high, sign_flip_p_value(estimate)) is Verdict.BETTER
    assert 0.68 < found / len(draws) < 0.80


def test_a_plan_begins_with_this_split_and_goes_on_with_larger_ones():
    """Episode differences 0.1, 0.3, 0.5, 0.1: deviation sqrt(0.11 / 3)."""
    difference = mean_estimate([0.1, 0.3, 0.5, 0.1], ["a", "b", "c", "d"])
    plan = power_of(difference, metric="accuracy", row="B", against="A")
    assert plan.deviation == pytest.approx((0.11 / 3) ** 0.5)
    assert list(plan.detectable) == [4, 32, 64]
    assert plan.detectable[32] == pytest.approx(detectable_difference(plan.deviation, 32))


def test_a_split_of_forty_is_not_told_what_thirty_two_would_show():
    difference = mean_estimate([k % 3 / 10 for k in range(40)], [f"e{k:02}" for k in range(40)])
    assert list(power_of(difference, metric="accuracy", row="B", against="A").detectable) == [40, 64]


@pytest.mark.parametrize("values", [[0.2], [0.2, 0.2, 0.2]])
def test_without_a_spread_between_episodes_there_is_nothing_to_plan_with(values):
    difference = mean_estimate(values, [f"e{place}" for place in range(len(values))])
    with pytest.raises(NothingToScoreError):
        power_of(difference, metric="accuracy", row="B", against="A")


@pytest.mark.parametrize(("tests", "episodes"), [(1, 6), (2, 7), (7, 9), (12, 9), (13, 10)])
def test_how_many_episodes_any_verdict_needs(tests, episodes):
    """The smallest sign-flip p-value, 2 ** (1 - episodes), times the number of tests must be at most 0.05."""
    assert fewest_episodes(tests) == episodes
    assert 2.0 ** (1 - episodes) * tests <= 0.05 < 2.0 ** (2 - episodes) * tests
