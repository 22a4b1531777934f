"""Intervals and tests over episodes, against hand-worked numbers and scipy."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from omni_mlflow.metrics.errors import NothingToScoreError, UnpairedError
from omni_mlflow.metrics.uncertainty import (
    cluster_t,
    effective_sample_size,
    interval,
    intraclass_correlation,
    jackknife_estimate,
    mean_estimate,
    ratio_estimate,
    sign_flip_p_value,
    studentised_bootstrap,
)

FOUR = ["a", "a", "b", "b", "c", "c", "d", "d"]


def test_the_mean_is_over_samples_and_its_error_over_episodes():
    estimate = mean_estimate([1, 1, 0, 1, 0, 0, 0, 1], FOUR)
    assert estimate.value == 0.5
    assert estimate.per_episode.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.5])
    assert estimate.standard_error == pytest.approx(stats.sem([1.0, 0.5, 0.0, 0.5]))


def test_cluster_t_is_the_t_interval_of_the_episode_means():
    estimate = mean_estimate([0.2, 0.4, 0.4, 0.6, 0.3, 0.5, 0.5, 0.5], FOUR)
    means = [0.3, 0.5, 0.4, 0.5]
    expected = stats.t.interval(0.95, 3, loc=np.mean(means), scale=stats.sem(means))
    found = cluster_t(estimate)
    assert (found.low, found.high) == pytest.approx(expected)


def test_a_longer_episode_pulls_harder():
    estimate = mean_estimate([1, 1, 1, 0], ["long", "long", "long", "short"])
    # Leave-one-out values: 0 without the long episode, 1 without the short one.
    assert estimate.value == 0.75
    assert estimate.influence.tolist() == pytest.approx([0.5, -0.5])


def test_micro_f1_is_a_ratio_of_sums():
    estimate = ratio_estimate([2, 2, 0], [4, 2, 4], ["a", "b", "c"])
    assert estimate.value == 0.4
    assert estimate.per_episode.mean() == pytest.approx(0.4)


def test_a_paired_difference_cancels_what_both_models_share():
    hard_and_easy = [0, 0, 1, 1, 0, 1, 1, 0]
    better = [1, 0, 1, 1, 1, 1, 1, 0]
    difference = mean_estimate(better, FOUR) - mean_estimate(hard_and_easy, FOUR)
    assert difference.value == 0.25
    assert difference.per_episode.tolist() == pytest.approx([0.5, 0.0, 0.5, 0.0])
    assert (difference.low, difference.high) == (-1.0, 1.0)


def test_a_difference_over_different_episodes_is_refused():
    with pytest.raises(UnpairedError, match="garden"):
        mean_estimate([1.0], ["kitchen"]) - mean_estimate([1.0], ["garden"])


def test_the_printed_interval_contains_both_of_its_parts():
    estimate = mean_estimate([0.9, 0.8, 0.9, 0.85, 0.2, 0.9], ["a", "b", "c", "d", "e", "f"])
    parts = [cluster_t(estimate), studentised_bootstrap(estimate)]
    found = interval(estimate)
    assert found.low == min(part.low for part in parts)
    assert found.high == max(part.high for part in parts) == 1.0  # an accuracy does not exceed 1


def test_a_skewed_sample_gets_an_asymmetric_interval():
    estimate = mean_estimate([0.9, 0.9, 0.88, 0.91, 0.9, 0.4], ["a", "b", "c", "d", "e", "f"])
    found = studentised_bootstrap(estimate)
    assert estimate.value - found.low > 2 * (found.high - estimate.value)


def test_eight_perfect_episodes_do_not_prove_perfection():
    found = interval(mean_estimate([1.0] * 8, list("abcdefgh")))
    assert found.high == 1.0
    assert found.low == pytest.approx(0.05 ** (1 / 8))


def test_one_episode_has_no_interval():
    with pytest.raises(NothingToScoreError, match="at least two"):
        interval(mean_estimate([1.0, 0.0], ["a", "a"]))


def test_no_sample_is_nothing_to_score():
    with pytest.raises(NothingToScoreError):
        mean_estimate([], [])


def test_the_jackknife_of_a_mean_is_the_mean():
    values = np.array([0.1, 0.5, 0.9])
    without = [(values.sum() - value) / 2 for value in values]
    estimate = jackknife_estimate(0.5, without, ["a", "b", "c"])
    assert estimate.per_episode.tolist() == pytest.approx(values.tolist())


def test_five_episodes_that_all_improve_have_two_of_thirty_two_sign_patterns():
    estimate = mean_estimate([0.1, 0.2, 0.1, 0.3, 0.2], list("abcde"))
    assert sign_flip_p_value(estimate) == 2 / 32


def test_no_difference_has_a_p_value_of_one():
    assert sign_flip_p_value(mean_estimate([0.0, 0.0, 0.0], list("abc"))) == 1.0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=2, max_size=9))
def test_the_sign_flip_test_agrees_with_scipy(differences):
    scores = [difference / 8 for difference in differences]
    names = [str(i) for i in range(len(scores))]
    expected = stats.permutation_test(
        (np.array(scores),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p_value(mean_estimate(scores, names)) == pytest.approx(expected.pvalue)


differences = st.lists(st.integers(-8, 8).map(lambda eighths: eighths / 8), min_size=2, max_size=10)


def difference_of(scores):
    """A paired difference with one sample in each episode."""
    names = [f"episode {place:02}" for place in range(len(scores))]
    zero = mean_estimate([0.0] * len(scores), names)
    return mean_estimate(scores, names) - zero


@settings(max_examples=25, deadline=None)
@given(differences)
def test_the_sign_flip_test_counts_every_pattern_of_signs(scores):
    """Eighths add up without rounding, so ties are ties."""
    patterns = list(product((-1, 1), repeat=len(scores)))
    sums = [abs(sum(sign * score for sign, score in zip(signs, scores, strict=True))) for signs in patterns]
    expected = sum(each >= abs(sum(scores)) for each in sums) / len(patterns)
    assert sign_flip_p_value(difference_of(scores)) == expected


@settings(max_examples=15, deadline=None)
@given(differences, st.sampled_from([0.125, 0.5]), st.randoms(use_true_random=False))
def test_neither_order_nor_scale_nor_side_changes_the_sign_flip_test(scores, scale, shuffler):
    expected = sign_flip_p_value(difference_of(scores))
    shuffled = list(scores)
    shuffler.shuffle(shuffled)
    assert sign_flip_p_value(difference_of(shuffled)) == expected
    assert sign_flip_p_value(difference_of([scale * score for score in scores])) == expected
    assert sign_flip_p_value(difference_of([-score for score in scores])) == expected


@given(st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_differences_that_cancel_have_a_p_value_of_one(gains):
    assert sign_flip_p_value(difference_of([*gains, *(-gain for gain in gains)])) == 1.0


INTERVALS = pytest.mark.parametrize("method", [cluster_t, studentised_bootstrap, interval])


@INTERVALS
@settings(max_examples=15, deadline=None)
@given(scores=differences)
def test_an_interval_holds_its_value_whatever_the_episodes(method, scores):
    estimate = difference_of(scores)
    found = method(estimate)
    assert found.low - 1e-12 <= estimate.value <= found.high + 1e-12
    assert estimate.low <= found.low <= found.high <= estimate.high


@INTERVALS
@settings(max_examples=15, deadline=None)
@given(scores=differences)
def test_half_the_difference_has_half_the_interval(method, scores):
    assume(len(set(scores)) > 1)
    estimate, half = difference_of(scores), difference_of([score / 2 for score in scores])
    whole = method(replace(estimate, low=-np.inf, high=np.inf))
    found = method(replace(half, low=-np.inf, high=np.inf))
    assert (found.low, found.high) == pytest.approx((whole.low / 2, whole.high / 2))


@INTERVALS
@settings(max_examples=15, deadline=None)
@given(scores=differences)
def test_the_other_run_first_gives_the_mirrored_interval(method, scores):
    """The bootstrap takes quantiles of one set of resamples, so both sides are read off the same ratios."""
    names = [f"episode {place:02}" for place in range(len(scores))]
    one, other = mean_estimate(scores, names), mean_estimate([0.0] * len(scores), names)
    there, back = method(one - other), method(other - one)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


@settings(max_examples=15, deadline=None)
@given(scores=differences, shuffler=st.randoms(use_true_random=False))
def test_cluster_t_knows_episodes_by_no_name(scores, shuffler):
    renamed = list(scores)
    shuffler.shuffle(renamed)
    one, other = cluster_t(difference_of(scores)), cluster_t(difference_of(renamed))
    assert (other.low, other.high) == pytest.approx((one.low, one.high))


def test_beyond_sixteen_episodes_flips_are_drawn_from_a_fixed_seed():
    scores = [0.1, -0.05, 0.2, 0.1] * 6
    estimate = mean_estimate(scores, [f"{i:02}" for i in range(24)])
    first = sign_flip_p_value(estimate)
    assert first == sign_flip_p_value(estimate)
    assert first < 0.01


def test_identical_samples_within_an_episode_are_worth_one():
    values = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert intraclass_correlation(values, FOUR) == pytest.approx(1.0)
    # Variance of 8 samples 2/7 over the squared error of 4 episode means (1/3)/4.
    assert effective_sample_size(values, FOUR) == pytest.approx((2 / 7) / (1 / 12))


def test_contact_windows_of_the_published_run_are_worth_about_fifty(qwen_v2):
    rows, _ = qwen_v2
    correct = [float(row["pred_json"].get("contact") == row["true_json"]["contact"]) for row in rows]
    episodes = [row["episode_id"] for row in rows]
    assert 40 < effective_sample_size(correct, episodes) < 60


@settings(max_examples=25, deadline=None)
@given(
    samples=st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcd")), min_size=6, max_size=24),
    shuffler=st.randoms(use_true_random=False),
)
def test_the_order_of_samples_changes_not_one_bit(samples, shuffler):
    shuffled = list(samples)
    shuffler.shuffle(shuffled)
    one, other = (mean_estimate(*map(list, zip(*order, strict=True))) for order in (samples, shuffled))
    assert one.value == other.value
    assert one.influence.tobytes() == other.influence.tobytes()
