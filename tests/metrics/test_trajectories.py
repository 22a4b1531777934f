"""Errors of hand trajectories, by hand-worked answers."""

from __future__ import annotations

import numpy as np
import pytest

from omni_mlflow.metrics.errors import NothingToScoreError, UnpairedError
from omni_mlflow.metrics.motions import MOTIONS
from omni_mlflow.metrics.trajectories import (
    BEFORE_UNKNOWN,
    FARTHEST_MM,
    HAND_UNKNOWN,
    TRAJECTORY_METRICS,
    scored_steps,
    trajectory_errors,
    trajectory_scores,
)
from omni_mlflow.metrics.uncertainty import interval

H, FPS = 16, 20.0


def truth(samples: int = 1, horizon: int = H) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (samples, horizon, 2, 21, 3))


def everywhere(hands: np.ndarray) -> np.ndarray:
    return np.ones(hands.shape[:3], dtype=bool)


def value(errors, metric: str, episodes=("a",)) -> float:
    return errors.estimate(metric, list(episodes)).value


def test_a_hand_that_is_ten_millimetres_off_as_a_whole_keeps_its_shape():
    expected = truth()
    errors = trajectory_errors(
        expected, expected + np.array([0.006, 0.0, 0.008]), everywhere(expected), fps=FPS
    )
    assert value(errors, "trajectory_mpjpe") == pytest.approx(10.0)
    assert value(errors, "wrist_error") == pytest.approx(10.0)
    assert value(errors, "wrist_relative_mpjpe") == pytest.approx(0.0, abs=1e-9)


def test_one_joint_of_twenty_one_counts_for_one_twenty_first():
    expected = truth()
    predicted = expected.copy()
    predicted[..., 4, 1] += 0.042
    errors = trajectory_errors(expected, predicted, everywhere(expected), fps=FPS)
    assert value(errors, "trajectory_mpjpe") == pytest.approx(2.0)
    assert value(errors, "wrist_relative_mpjpe") == pytest.approx(2.0)
    assert value(errors, "wrist_error") == pytest.approx(0.0, abs=1e-9)


def test_an_error_that_grows_by_a_millimetre_per_step_is_five_after_a_quarter_second():
    expected = truth()
    predicted = expected.copy()
    predicted[..., 0] += 0.001 * np.arange(1, H + 1)[None, :, None, None]
    errors = trajectory_errors(expected, predicted, everywhere(expected), fps=FPS)
    by_horizon = {name: value(errors, name) for name in TRAJECTORY_METRICS if "_at_" in name}
    assert by_horizon == pytest.approx(
        {
            "trajectory_mpjpe_at_250_ms": 5.0,
            "trajectory_mpjpe_at_500_ms": 10.0,
            "trajectory_mpjpe_at_800_ms": 16.0,
            "trajectory_mpjpe_at_last_step": 16.0,
        }
    )
    assert value(errors, "trajectory_mpjpe") == pytest.approx(8.5)


def test_a_step_beyond_the_horizon_has_no_number():
    expected = truth(horizon=6)
    errors = trajectory_errors(expected, expected, everywhere(expected), fps=FPS)
    assert value(errors, "trajectory_mpjpe_at_250_ms") == 0
    with pytest.raises(NothingToScoreError, match="trajectory_mpjpe_at_500_ms: the step lies beyond"):
        value(errors, "trajectory_mpjpe_at_500_ms")


def test_what_is_not_valid_counts_nowhere_whatever_it_holds():
    """The left hand is 4 mm off at one valid step, the right hand 10 mm at three: mean 34 / 4."""
    expected = truth(horizon=3)
    predicted = expected.copy()
    predicted[:, :, 0, :, 0] += 0.004
    predicted[:, :, 1, :, 0] += 0.010
    valid = everywhere(expected)
    valid[0, 1:, 0] = False
    expected[0, 1:, 0] = np.nan
    predicted[0, 2, 0] = 1e9
    errors = trajectory_errors(expected, predicted, valid, fps=FPS)
    assert value(errors, "trajectory_mpjpe") == pytest.approx(8.5)
    assert errors.per_sample("trajectory_mpjpe").tolist() == pytest.approx([8.5])


def test_an_answer_that_is_no_number_costs_an_arm_s_reach_and_is_never_dropped():
    expected = truth(samples=4)
    predicted = expected.copy()
    predicted[0] = np.nan
    predicted[1] = 50.0
    errors = trajectory_errors(expected, predicted, everywhere(expected), fps=FPS)
    assert errors.per_sample("trajectory_mpjpe").tolist() == [FARTHEST_MM, FARTHEST_MM, 0, 0]
    assert value(errors, "trajectory_mpjpe", "abab") == pytest.approx(FARTHEST_MM / 2)


def test_steps_count_alike_however_many_a_sample_has():
    """Sample 0 has 2 valid (step, hand) at 1 mm, sample 1 has 6 at 5 mm: 32 / 8."""
    expected = truth(samples=3, horizon=3)
    predicted = expected + np.array([0.001, 0.005, 0.1])[:, None, None, None, None] * [1, 0, 0]
    valid = everywhere(expected)
    valid[0, 1:] = False
    valid[2] = False
    errors = trajectory_errors(expected, predicted, valid, fps=FPS)
    estimate = errors.estimate("trajectory_mpjpe", ["a", "b", "c"])
    assert estimate.value == pytest.approx(4.0)
    assert estimate.episodes == ("a", "b")
    with pytest.raises(NothingToScoreError, match="no sample to average over"):
        trajectory_errors(expected, predicted, valid & False, fps=FPS).estimate("wrist_error", ["a"] * 3)


def test_joints_of_another_shape_are_refused():
    expected = truth()
    with pytest.raises(UnpairedError, match="do not match"):
        trajectory_errors(expected, expected[:, :8], everywhere(expected), fps=FPS)


def test_the_hand_stays_goes_on_or_slows_down():
    """The wrist moved 10 mm in the last frame. Damped: 10, 10 + 8, 10 + 8 + 6.4 mm farther."""
    now = np.zeros((1, 2, 21, 3))
    before = now - [0.010, 0, 0]
    after = {name: 1000 * motion(now, before, 3)[0, :, 0, 0, 0] for name, motion in MOTIONS.items()}
    assert after["constant_position"] == pytest.approx([0, 0, 0])
    assert after["constant_velocity"] == pytest.approx([10, 20, 30])
    assert after["damped_velocity"] == pytest.approx([10, 18, 24.4])


def test_all_methods_are_scored_where_all_have_an_answer_and_the_rest_is_counted():
    valid = np.ones((2, 3, 2), dtype=bool)
    valid[0, 1, 0] = False
    before = np.array([[True, True], [True, False]])
    scored, dropped = scored_steps(valid, before)
    assert dropped == {HAND_UNKNOWN: 1, BEFORE_UNKNOWN: 3}
    assert scored.sum() == 12 - 4
    assert not scored[1, :, 1].any()


def test_a_model_is_better_than_a_baseline_by_so_many_millimetres_with_an_interval_over_episodes():
    rng = np.random.default_rng(3)
    expected = truth(samples=40)
    episodes = [f"e{row // 5}" for row in range(40)]
    model = expected + rng.uniform(0.003, 0.005, (40, 1, 1, 1, 1)) * [1, 0, 0]
    baseline = expected + rng.uniform(0.018, 0.022, (40, 1, 1, 1, 1)) * [0, 1, 0]
    valid = everywhere(expected)
    worse = expected + np.array([0, 0, 0.04])
    errors = [trajectory_errors(expected, each, valid, fps=FPS) for each in (model, baseline, worse)]
    baselines = {"constant_velocity": errors[2], "constant_position": errors[1]}
    scores = trajectory_scores(errors[0], baselines, episodes)
    assert scores["trajectory_mpjpe"] == pytest.approx(4.0, abs=0.4)
    against = scores["baselines"]["trajectory_mpjpe"]
    assert against["best"] == "constant_position"
    assert against["difference"]["value"] == pytest.approx(16.0, abs=0.8)
    assert against["floors"]["constant_velocity"] == pytest.approx(40.0)
    assert against["differences"]["constant_velocity"]["value"] == pytest.approx(36.0, abs=0.4)
    assert 14 < against["difference"]["low"] < against["difference"]["value"]
    assert against["difference"]["p_value"] == pytest.approx(2 / 2**8)
    assert scores["reasons"] == {}


def test_a_model_equal_to_its_baseline_is_no_better_and_what_cannot_be_scored_says_why():
    expected = truth(samples=4, horizon=6)
    errors = trajectory_errors(expected, expected + 0.01, everywhere(expected), fps=FPS)
    scores = trajectory_scores(errors, {"damped_velocity": errors}, list("aabb"))
    assert scores["baselines"]["trajectory_mpjpe"]["difference"]["value"] == 0
    assert scores["trajectory_mpjpe_at_800_ms"] is None
    assert scores["reasons"] == {
        "trajectory_mpjpe_at_500_ms": "trajectory_mpjpe_at_500_ms: the step lies beyond the horizon",
        "trajectory_mpjpe_at_800_ms": "trajectory_mpjpe_at_800_ms: the step lies beyond the horizon",
    }


def test_every_trajectory_metric_is_in_millimetres_and_lower_is_better():
    assert {metric.better for metric in TRAJECTORY_METRICS.values()} == {"lower"}
    assert {metric.unit for metric in TRAJECTORY_METRICS.values()} == {"mm"}
    expected = truth(samples=6)
    errors = trajectory_errors(expected, expected + 0.01, everywhere(expected), fps=FPS)
    limits = interval(errors.estimate("trajectory_mpjpe", list("aabbcc")))
    assert limits.low < 17.33 < limits.high <= FARTHEST_MM  # no episode differs: what is unseen may be bad
