"""The printed interval is simulated at the numbers of episodes that test splits of this field have."""

import pytest

from benchmarks.interval_coverage import coverage

REPEATS = 800
TOLERANCE = 3 * (0.95 * 0.05 / REPEATS) ** 0.5  # three standard errors of the simulation itself


@pytest.mark.slow
@pytest.mark.parametrize("episodes", [8, 14, 16])
@pytest.mark.parametrize("shape", ["normal", "exponential"])
@pytest.mark.parametrize("icc", [0.0, 0.2, 0.5, 0.8])
def test_the_printed_interval_covers_the_truth_in_93_to_97_percent(episodes, shape, icc):
    found = coverage(shape, icc=icc, episodes=episodes, unequal=False, repeats=REPEATS, seed=episodes)
    assert 0.93 - TOLERANCE <= found["printed"][0] <= 0.97 + TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("episodes", [8, 14, 16])
def test_strong_skew_is_covered_better_than_by_cluster_t(episodes):
    found = coverage("lognormal", icc=0.5, episodes=episodes, unequal=False, repeats=REPEATS, seed=episodes)
    assert found["printed"][0] >= 0.9
    assert found["printed"][0] > found["cluster-t"][0]
