"""Targets that are classes or tokens, and the audit of what an action space makes of hands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_hands import chunks, hands_in_world
from pydantic import ValidationError

from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.audit import RetargetingAudit, audit_retargeting, bound_check
from omni_mlflow.backbones.policy_vla_branch.camera import MASK_REASONS
from omni_mlflow.backbones.policy_vla_branch.hands import Hands
from omni_mlflow.backbones.policy_vla_branch.inputs import Source
from omni_mlflow.backbones.policy_vla_branch.labels import UNKNOWN, ClassTarget, contact_label
from omni_mlflow.backbones.policy_vla_branch.motion import Motion
from omni_mlflow.backbones.policy_vla_branch.retargeting import fit_maps
from omni_mlflow.backbones.policy_vla_branch.round_trip import Bound, RoundTrip
from omni_mlflow.backbones.policy_vla_branch.space import space_file
from omni_mlflow.backbones.policy_vla_branch.statistics import DimensionStats, fit_stats
from omni_mlflow.backbones.policy_vla_branch.tokens import TokenBins, token_accuracy, token_space_file
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.uncertainty import mean_estimate
from omni_mlflow.spine.types import Labels, Span, Target


@pytest.fixture(scope="module")
def maps():
    hands = np.concatenate([hands_in_world(np.random.default_rng(seed), 50) for seed in range(6)])
    episodes = [f"e{seed}" for seed in range(6) for _ in range(50)]
    return fit_maps(hands, np.ones(hands.shape[:2], dtype=bool), episodes=episodes)


@pytest.fixture(scope="module")
def stats(maps) -> DimensionStats:
    """Of the ``ee20`` actions of one train person."""
    future, now = chunks(seed=2, rows=200)
    actions = SPACES["ee20"].encode(future, now, maps)
    return fit_stats(actions, np.ones(actions.shape, dtype=bool), floors=SPACES["ee20"].std_floors())


def test_a_class_is_its_place_in_the_sorted_train_labels_and_comes_back():
    target = ClassTarget.of("next_action", ["pour", "grasp", "pour", "stir"])
    assert target.labels == ("grasp", "pour", "stir")
    assert [target.encode(label) for label in ("stir", "grasp", None, "juggle")] == [2, 0, UNKNOWN, UNKNOWN]
    assert [target.decode(index) for index in (2, 0, UNKNOWN)] == ["stir", "grasp", None]
    with pytest.raises(IndexError, match="has 3 classes, none with index 3"):
        target.decode(3)
    with pytest.raises(ValidationError, match="sorted and distinct"):
        ClassTarget(kind="next_action", labels=("b", "a"))


def test_a_contact_event_has_the_classes_of_the_published_json():
    target = ClassTarget.of("contact_event", ["yes", "no"])
    assert [target.encode(contact_label(touches)) for touches in (False, True, None)] == [0, 1, UNKNOWN]


def test_predicted_classes_are_scored_as_labels_and_an_unseen_one_is_always_wrong():
    """Three of the four annotated targets are among the train labels; two of them are answered right."""
    target = ClassTarget.of("action_class", ["grasp", "pour"])
    truth = ["grasp", "pour", "pour", "juggle", None]
    predicted = [0, 1, 0, 1, 1]
    right = [target.decode(index) == label for index, label in zip(predicted, truth) if label is not None]
    assert mean_estimate(right, list("aabb")).value == 0.5


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        ("action_class", "ends at the anchor: frames anchor - 40 to anchor - 1"),
        ("next_action", "begins at the anchor: frames anchor to anchor + 40 - 1"),
        ("contact_event", "begins at the anchor: frames anchor to anchor + 40 - 1"),
    ],
)
def test_the_file_of_a_class_target_says_which_frames_it_speaks_of_and_when_it_counts(kind, frames):
    """Windows of 2 s at 20 Hz: half a step per second."""
    sources = [
        Source(kind=kind, fields=("caption",), window=Span(start=start, stop=start + 40), rule="most frames")
        for start in (0, 20)
    ]
    file = ClassTarget.of(kind, ["no", "yes"]).file(sources, fps=20.0)
    assert (file.kind, file.classes, file.dim, file.horizon, file.fps) == (kind, ("no", "yes"), 1, 1, 0.5)
    assert frames in file.anchor
    assert file.validity_rule == "most frames; the code is -1 where there is none, or none that train has"
    assert file.source_fields == ("caption",)


def test_a_number_falls_into_one_of_256_bins_and_returns_as_its_middle():
    """The range is 0 .. 2.56: a bin is 0.01 wide."""
    bins = TokenBins(low=(0.0,), high=(2.56,))
    tokens = bins.encode(np.array([[-1.0], [0.0], [0.015], [2.555], [2.56], [9.0]]))
    assert tokens.ravel().tolist() == [0, 0, 1, 255, 255, 255]
    assert bins.decode(tokens).ravel() == pytest.approx([0.005, 0.005, 0.015, 2.555, 2.555, 2.555])


@given(st.lists(st.integers(0, 255), min_size=20, max_size=20))
def test_tokens_that_are_decoded_and_encoded_are_the_same_tokens(stats, numbers):
    bins, tokens = TokenBins.of(stats), np.array(numbers, dtype=np.uint8)
    np.testing.assert_array_equal(bins.encode(bins.decode(tokens)), tokens)


def test_a_dimension_that_never_changes_has_one_token_and_loses_nothing():
    bins = TokenBins(low=(0.5, 0.0), high=(0.5, 1.0))
    tokens = bins.encode(np.array([0.5, 0.5]))
    assert tokens[0] == 0
    assert bins.decode(tokens)[0] == 0.5


def test_tokens_lose_half_a_bin_at_most_and_hardly_more_than_ee20_itself(maps, stats):
    future, now = chunks(seed=2, rows=200)
    valid = np.ones(future.shape[:3], dtype=bool)
    error = TokenBins.of(stats).measure(future, now, valid, maps)
    assert 0.4 < error.largest_share_of_a_bin <= 0.5 + 1e-9
    assert 0 < error.outside_share < 0.03  # outside the 1 % and 99 % quantiles, on the hands they are from
    assert error.ee20_mpjpe_mm < error.tokens_mpjpe_mm < error.ee20_mpjpe_mm + 2
    with pytest.raises(NothingToScoreError):
        TokenBins.of(stats).measure(future, now, ~valid, maps)


def test_tokens_are_right_or_wrong_where_a_hand_is_valid_and_wrong_where_nothing_was_answered():
    """Two of three valid tokens of the first sample are right, and the one of the second."""
    expected = np.array([[[1, 2, 3, 4]], [[1, 2, 3, 4]]], dtype=np.uint8)
    predicted = np.array([[[1, 0, 3, 0]], [[1, 2, 3, 4]]], dtype=np.uint8)
    valid = np.array([[[True, True, True, False]], [[True, False, False, False]]])

    def accuracy(told, valid=valid):
        return token_accuracy(expected, predicted, valid, told=np.array(told), episodes=["a", "b"]).value

    assert accuracy([True, True]) == 3 / 4
    assert accuracy([True, False]) == 2 / 4
    with pytest.raises(NothingToScoreError):
        accuracy([True, True], valid=np.zeros((2, 1, 4), dtype=bool))


def test_the_file_of_the_tokens_keeps_the_range_of_each_bin(stats):
    hands = space_file(SPACES["ee20"], stats, horizon=16, fps=20.0)
    file = token_space_file(hands)
    assert (file.kind, file.space, len(file.classes)) == ("robot_action_token", "ee20_bins", 256)
    assert file.dimensions == hands.dimensions
    assert "256 equal bins" in file.reference


def fitted_on(*episodes: str) -> TrainPriors:
    targets = (
        Target(id=name, episode_id=name, anchor=5, window=Span(start=0, stop=5), labels=Labels())
        for name in episodes
    )
    return TrainPriors.fit(targets)


def moving(future: np.ndarray, reasons: np.ndarray, now: Hands) -> Motion[Hands]:
    return Motion(future=Hands(future, reasons == 0), reason=reasons, now=now, before=now)


@pytest.fixture
def audit(maps, stats) -> RetargetingAudit:
    """Episode "a" is a person like those of the fit; in "b" a hand of another size is masked now and then."""
    future, now = chunks(seed=8, rows=12)
    reasons = np.zeros(future.shape[:3], dtype=np.uint8)
    reasons[6:, 0, :] = 2
    reasons[6:, 1, 0] = 3
    wrist = future[6:, 2, 1, :1]
    future[6:, 2, 1] = wrist + 1.5 * (future[6:, 2, 1] - wrist)
    return audit_retargeting(
        moving(future, reasons, now),
        episodes=["a"] * 6 + ["b"] * 6,
        space=SPACES["ee20"],
        maps=maps,
        actions=stats,
        fitted=fitted_on("t1", "t2"),
        unasked={},
    )


def test_the_audit_names_the_episodes_that_the_maps_were_fitted_on(audit, maps):
    assert audit.fitted_on_episodes == 2
    assert audit.fitted_on_digest == fitted_on("t2", "t1").episodes_digest
    assert audit.bound == maps.round_trip["ee20"]
    assert RetargetingAudit.model_validate_json(audit.model_dump_json()) == audit


def test_the_audit_counts_what_is_masked_by_reason_in_each_episode(audit):
    first, second = audit.episodes
    assert first.masked_steps == dict.fromkeys(MASK_REASONS[1:], 0)
    assert second.masked_steps == {MASK_REASONS[1]: 0, MASK_REASONS[2]: 12, MASK_REASONS[3]: 6}
    assert (first.valid_steps, second.valid_steps) == (48, 30)
    assert (first.values, second.values) == (480, 300)


def test_the_audit_tells_the_episode_whose_hands_do_not_come_back(audit):
    first, second = audit.episodes
    assert first.within_bound
    assert 0 < first.round_trip.mean_mm < first.round_trip.max_mm
    assert not second.within_bound
    check = bound_check(audit)
    assert not check.ok
    assert "b: mean" in check.found
    assert "a: mean" not in check.found


@pytest.mark.parametrize(
    ("mean_mm", "max_mm", "holds"),
    [(3.3, 5.5, True), (3.31, 5.0, False), (2.0, 5.51, False), (4.9, 4.9, False)],
)
def test_a_mean_is_held_against_a_mean_and_a_worst_hand_against_the_worst_hand(mean_mm, max_mm, holds):
    """Ten per cent more than the worst train episode (3 mm) and the worst train hand (5 mm) are allowed."""
    bound = Bound(mean_mm=2.0, max_mm=5.0, episode_mean_mm=3.0, tolerance=1.1)
    assert bound.holds(RoundTrip(mean_mm=mean_mm, max_mm=max_mm)) == holds


def test_an_episode_is_not_believed_to_be_within_the_bound(audit):
    first, second = audit.episodes
    told = second.model_copy(update={"within_bound": True})
    assert not bound_check(audit.model_copy(update={"episodes": (first, told)})).ok
    assert bound_check(audit.model_copy(update={"episodes": (first,)})).ok


def test_the_bound_is_the_mean_of_the_worst_episode_that_was_left_out():
    """Five episodes of one person and one of another one, who loses most."""
    people = [3, 3, 3, 3, 3, 4]
    hands = np.concatenate([hands_in_world(np.random.default_rng(person), 20) for person in people])
    valid = np.ones((120, 2), dtype=bool)
    bound = fit_maps(hands, valid, episodes=[f"e{row // 20}" for row in range(120)]).round_trip["synergy32"]
    assert bound.mean_mm < bound.episode_mean_mm < bound.max_mm
    assert bound.episode_mean_mm > 5


def test_an_episode_without_a_valid_step_has_no_round_trip(maps, stats):
    future, now = chunks(seed=8, rows=2)
    audit = audit_retargeting(
        moving(future, np.full(future.shape[:3], 1, dtype=np.uint8), now),
        episodes=["a", "a"],
        space=SPACES["ee20"],
        maps=maps,
        actions=stats,
        fitted=fitted_on("t1"),
        unasked={},
    )
    [episode] = audit.episodes
    assert (episode.round_trip, episode.within_bound, episode.valid_steps) == (None, None, 0)
    assert episode.masked_steps[MASK_REASONS[1]] == 16


def test_numbers_beyond_the_quantiles_of_train_are_counted(maps):
    """The bounds of ``left_x`` are set so that exactly the valid actions above 5 mm lie outside."""
    future, now = chunks(seed=8, rows=6)
    space = SPACES["ee20"]
    actions = space.encode(future, now, maps)
    everything = fit_stats(actions, np.ones(actions.shape, dtype=bool), floors=space.std_floors())
    reasons = np.zeros(future.shape[:3], dtype=np.uint8)
    reasons[:2, 2:] = 3
    wide = {"q01": (-9.0,) * 20, "q99": (0.005, *(9.0,) * 19)}
    audit = audit_retargeting(
        moving(future, reasons, now),
        episodes=["a"] * 6,
        space=space,
        maps=maps,
        actions=everything.model_copy(update=wide),
        fitted=fitted_on("t1"),
        unasked={},
    )
    moved_right = future[:, :, 0, 0, 0] - now.joints[:, None, 0, 0, 0] > 0.005
    assert audit.episodes[0].values_outside == moved_right[reasons[..., 0] == 0].sum() > 0
    assert moved_right[reasons[..., 0] == 3].any()  # and those are not counted
