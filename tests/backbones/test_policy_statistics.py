"""Normalisation is fitted on valid numbers of train episodes and undone exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_mlflow.backbones.policy_vla_branch.statistics import (
    NormalizationStats,
    NothingToNormaliseError,
    fit_stats,
)
from omni_mlflow.spine.rows import digest_of

FLOORS = np.array([0.005, 0.05])


def stats(values, valid=None):
    values = np.asarray(values, dtype=np.float32)
    valid = np.ones(values.shape, dtype=bool) if valid is None else np.asarray(valid)
    return fit_stats(values, valid, floors=FLOORS)


def test_only_valid_numbers_count():
    """Dimension 0 holds 1, 2, 3, 6: mean 3, std sqrt(14 / 4). The 100 and the NaN are masked."""
    found = stats([[1, 0], [2, 0], [3, 1], [6, 1], [100, np.nan]], [[True, True]] * 4 + [[False, False]])
    assert found.mean == (3.0, 0.5)
    assert found.std == pytest.approx((np.sqrt(3.5), 0.5))
    assert found.q01 == pytest.approx((1.03, 0.0))  # 3 % of the way from 1 to 2
    assert found.q99 == pytest.approx((5.91, 1.0))
    assert found.count == (4, 4)


def test_a_dimension_that_never_moves_is_divided_by_its_floor():
    found = stats([[2, 1], [2, 1]])
    assert found.std == (0.005, 0.05)
    assert found.normalised(np.array([2.005, 1.0])) == pytest.approx([1.0, 0.0], rel=1e-5)


def test_the_order_of_episodes_changes_no_bit():
    values = np.random.default_rng(0).normal(size=(500, 4, 2)).astype(np.float32)
    assert stats(values) == stats(values[::-1]) == stats(np.roll(values, 123, axis=0))


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=2))
def test_what_is_normalised_comes_back(numbers):
    found = stats([[1, 0], [2, 5], [4, 7]])
    values = np.array(numbers)
    np.testing.assert_allclose(found.denormalised(found.normalised(values)), values, atol=1e-12)


def test_a_dimension_without_a_valid_number_or_without_a_floor_is_refused():
    with pytest.raises(NothingToNormaliseError, match=r"dimensions \[1\] of 2 have no valid value"):
        stats([[1, 0]], [[True, False]])
    with pytest.raises(NothingToNormaliseError, match="must be above zero"):
        fit_stats(np.ones((2, 1)), np.ones((2, 1), dtype=bool), floors=np.zeros(1))


def test_the_file_names_the_episodes_that_contributed():
    found = stats([[1, 0], [2, 1]])
    file = NormalizationStats.of("ee20", found, found, episodes=["b", "a", "b"])
    assert file.episode_ids == ("a", "b")
    assert file.episodes_digest == digest_of(["a", "b"])
    assert NormalizationStats.model_validate_json(file.model_dump_json()) == file
