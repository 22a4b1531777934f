"""The leak graph: every rule is applied, those the contract names block, unknown identity always does."""

from __future__ import annotations

import pytest

from omni_mlflow.spine.fingerprints import Fingerprint
from omni_mlflow.spine.leaks import LEAK_RULES, find_leaks
from omni_mlflow.spine.types import Episode, Split

CLOCK_NS = (1_000, 2_000)


def an_episode(name, split, *, session=None):
    return Episode(
        episode_id=name,
        session_id=name if session is None else session,
        path=name,
        split=split,
        num_frames=8,
        fps=20,
        bytes_by_file={},
    )


def a_fingerprint(name, **changes):
    """Of an episode that has nothing in common with any other name."""
    facts = {
        "files": {"annotation.hdf5": f"file of {name}"},
        "datasets": {"imu/accel_xyz": f"array of {name}"},
        "device_id": f"device of {name}",
        "device_clock_ns": CLOCK_NS,
    }
    return Fingerprint(**{**facts, **changes})


def leaks_of(episodes, fingerprints):
    return list(find_leaks(episodes, fingerprints, blocking=LEAK_RULES).edges)


@pytest.fixture
def leaks_between():
    """Leaks of a train episode and a test episode whose fingerprints have these changes."""

    def find(changes=(), other_changes=(), *, split=Split.TEST):
        episodes = [an_episode("a", Split.TRAIN), an_episode("b", split)]
        fingerprints = {
            "a": a_fingerprint("a", **dict(changes)),
            "b": a_fingerprint("b", **dict(other_changes)),
        }
        return leaks_of(episodes, fingerprints)

    return find


def test_clean_episodes_have_no_leak():
    names = [f"episode_{number}" for number in range(60)]
    episodes = [an_episode(name, list(Split)[number % 3]) for number, name in enumerate(names)]
    assert leaks_of(episodes, {name: a_fingerprint(name) for name in names}) == []


def test_a_session_in_two_splits_is_a_leak():
    episodes = [an_episode("a", Split.TRAIN, session="s"), an_episode("b", Split.VAL, session="s")]
    (leak,) = leaks_of(episodes, {name: a_fingerprint(name) for name in "ab"})
    assert (leak.rule, leak.layer) == ("session_disjoint", "identity")
    assert (leak.first, leak.first_split, leak.second, leak.second_split) == (
        "a",
        Split.TRAIN,
        "b",
        Split.VAL,
    )
    assert leak.evidence == "both belong to session s"


def test_a_device_at_the_same_moment_in_two_splits_is_a_leak(leaks_between):
    device = {"device_id": "7211577584"}
    (leak,) = leaks_between(device, {**device, "device_clock_ns": (2_000, 3_000)})
    assert leak.rule == "device_clock_disjoint"
    assert leak.evidence == "device 7211577584 recorded both at (1000, 2000) and (2000, 3000) ns"
    assert leaks_between(device, {**device, "device_clock_ns": (2_001, 3_000)}) == []


def test_a_clock_that_started_again_is_no_leak_where_the_host_knows_that_the_times_are_apart(leaks_between):
    device = {"device_id": "7211577584"}
    monday, tuesday = {"recorded_ns": (10**18, 10**18 + 5)}, {"recorded_ns": (10**18 + 9, 10**18 + 12)}
    assert leaks_between({**device, **monday}, {**device, **tuesday}) == []
    assert len(leaks_between({**device, **monday}, {**device, **monday})) == 1
    assert len(leaks_between({**device, **monday}, device)) == 1


def test_the_same_file_or_array_in_two_splits_is_one_leak_that_lists_them(leaks_between):
    (leak,) = leaks_between(
        {"files": {"fisheye_cam0.mp4": "x"}, "datasets": {"slam/quat_wxyz": "y", "imu/gyro_xyz": "p"}},
        {"files": {"fisheye_cam2.mp4": "x"}, "datasets": {"slam/quat_wxyz": "y", "imu/gyro_xyz": "q"}},
    )
    assert (leak.rule, leak.layer) == ("content_disjoint", "bytes")
    assert leak.evidence == "same content: fisheye_cam0.mp4 = fisheye_cam2.mp4, slam/quat_wxyz"


def test_encoded_pictures_are_known_again_under_the_name_of_another_camera(leaks_between):
    ours = {"rows": {"fisheye_cam1.mp4": (1, 2, 3, 4, 5), "stereo_left.mp4": (6, 7, 8)}}
    theirs = {"rows": {"fisheye_cam2.mp4": (2, 3, 4, 5, 9), "stereo_right.mp4": (6, 7, 8)}}
    (leak,) = leaks_between(ours, theirs)
    assert leak.evidence == "same content: fisheye_cam1.mp4 = fisheye_cam2.mp4 (4 of 64 remembered parts)"


def test_what_has_one_name_on_both_sides_is_told_by_it_alone(leaks_between):
    twice = {"rows": {"stereo_left.mp4": (1, 2, 3, 4), "stereo_right.mp4": (1, 2, 3, 4)}}
    once = {"rows": {"stereo_left.mp4": (1, 2, 3, 4)}, "files": {"stereo_left.mp4": "x"}}
    (leak,) = leaks_between(once, {**twice, "files": {"fisheye_cam0.mp4": "x"}})
    assert leak.evidence == (
        "same content: stereo_left.mp4 (4 of 64 remembered parts), stereo_left.mp4 = fisheye_cam0.mp4"
    )


def test_a_blank_video_is_left_out_of_the_comparison_of_files(leaks_between):
    same = {"files": {"stereo_left.mp4": "x", "stereo_right.mp4": "y"}}
    (leak,) = leaks_between({**same, "blank": ("stereo_left.mp4",)}, {**same, "blank": ("stereo_left.mp4",)})
    assert leak.evidence == "same content: stereo_right.mp4"


def test_what_one_split_shares_with_itself_is_no_leak(leaks_between):
    same = {"device_id": "d", "files": {"annotation.hdf5": "x"}}
    assert leaks_between(same, same, split=Split.TRAIN) == []


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [({"device_id": None}, "device id"), ({"device_clock_ns": None}, "device clock")],
)
def test_an_unknown_identity_is_a_failure(leaks_between, changes, unknown):
    (leak,) = leaks_between(changes)
    assert (leak.rule, leak.first, leak.second) == ("identity_known", "a", None)
    assert leak.evidence.startswith(f"unknown {unknown}:")


def test_an_episode_without_session_or_fingerprint_is_a_failure():
    (leak,) = leaks_of([an_episode("a", Split.TEST, session=" ")], {})
    assert leak.evidence.startswith("unknown session, fingerprint, device id, device clock:")


def test_an_episode_in_no_split_is_not_compared():
    episodes = [an_episode("a", Split.TRAIN, session="s"), an_episode("b", None, session="s")]
    assert leaks_of(episodes, {name: a_fingerprint(name) for name in "ab"}) == []


def test_every_rule_is_applied_and_those_that_the_contract_names_block():
    episodes = [an_episode("a", Split.TRAIN, session="s"), an_episode("b", Split.VAL, session="s")]
    fingerprints = {name: a_fingerprint(name, files={"annotation.hdf5": "x"}) for name in "ab"}
    graph = find_leaks(episodes, fingerprints, blocking=["content_disjoint"])
    assert [(leak.rule, leak.blocks) for leak in graph.edges] == [
        ("session_disjoint", False),
        ("content_disjoint", True),
    ]
    assert [leak.rule for leak in graph.blocking] == ["content_disjoint"]
    assert [(each.rule, each.blocks) for each in graph.rules if each.blocks] == [
        ("identity_known", True),
        ("content_disjoint", True),
    ]


def test_the_graph_names_every_episode_and_says_what_was_compared_and_what_abstained():
    episodes = [an_episode(name, split) for name, split in zip("abcd", [*Split, Split.TEST], strict=True)]
    graph = find_leaks(episodes, {name: a_fingerprint(name) for name in "abcd"}, blocking=LEAK_RULES)
    assert [(node.episode_id, node.split) for node in graph.nodes] == [
        ("a", Split.TRAIN),
        ("b", Split.VAL),
        ("c", Split.TEST),
        ("d", Split.TEST),
    ]
    pairs = {each.rule: each.pairs for each in graph.rules}
    assert pairs["content_disjoint"] == 5  # all six but c and d, which share a split
    assert pairs["motion_disjoint"] == 0
    [motion] = [each for each in graph.rules if each.rule == "motion_disjoint"]
    assert {each.episode_id: each.reason for each in motion.abstained} == dict.fromkeys(
        "abcd", "it has no such signal"
    )


def test_the_order_of_the_episodes_changes_nothing():
    episodes = [an_episode(name, split, session="s") for name, split in zip("abc", Split, strict=True)]
    fingerprints = {name: a_fingerprint(name, datasets={"slam/quat_wxyz": "y"}) for name in "abc"}
    leaks = leaks_of(episodes, fingerprints)
    assert len(leaks) == 6
    assert leaks_of(episodes[::-1], fingerprints) == leaks
