"""Hands after the anchor, carried into the camera of the last observed frame."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from policy_hands import wearer

from omni_mlflow.backbones.policy_vla_branch.camera import (
    HORIZON_LEAVES,
    MASK_REASONS,
    NO_HAND_AFTER,
    NO_HAND_NOW,
    NO_POSE_NOW,
    HandsAhead,
    future_in_anchor_camera,
)
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.poses import inverse, moved
from omni_mlflow.spine.synthetic.annotation import write_annotation
from omni_mlflow.spine.synthetic.world import make_session


def ahead(trajectories, t=10, horizon=8) -> HandsAhead:
    found = future_in_anchor_camera(trajectories, t, horizon)
    assert isinstance(found, HandsAhead), found
    return found


def test_a_hand_that_rests_while_the_head_turns_moves_through_the_camera():
    """The camera turns by 90 degrees about its y (down): what lay 1 m ahead now lies 1 m to its left.

    The wrist rests at world (0, 0, 1). At frame 1 the camera looks along world x, so the wrist is at
    (-1, 0, 0) there. Carried into the camera of frame 0, it is where it was.
    """
    hand = np.zeros((21, 3))
    hand[5:9, 0], hand[9:13, 1], hand[17:21, 0] = 0.05, 0.1, -0.05
    hand += [0, 0, 1]
    camera = np.stack([np.eye(4)] * 2)
    camera[1, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # columns: its right, down, forward in the world
    own = np.stack([hand, hand @ camera[1, :3, :3]])
    assert own[1, 0].tolist() == [-1, 0, 0]
    found = ahead(
        {
            "camera_to_world": camera,
            "camera_valid": np.ones(2, bool),
            "hands_in_camera": np.stack([own, np.zeros((2, 21, 3))]),
            "hands_valid": np.array([[True, True], [False, False]]),
        },
        t=0,
        horizon=1,
    )
    np.testing.assert_allclose(found.future_hands[0, 0], hand, atol=1e-6)
    assert found.future_valid.tolist() == [[True, False]]
    assert found.before is None


def test_every_frame_of_a_moving_head_agrees_with_the_world():
    trajectories, world = wearer(seed=1)
    found = ahead(trajectories)
    to_now = inverse(trajectories["camera_to_world"][10:11])
    for joints, frame in ((found.now.joints, 10), (found.before.joints, 9)):
        truth = moved(to_now, world[frame].reshape(1, -1, 3)).reshape(2, 21, 3)
        np.testing.assert_allclose(joints, truth, atol=1e-12)
    truth = moved(np.repeat(to_now, 8, axis=0), world[11:19].reshape(8, -1, 3)).reshape(8, 2, 21, 3)
    np.testing.assert_allclose(found.future_hands, truth, atol=1e-6)
    still = np.stack([trajectories["hands_in_camera"][:, frame] for frame in range(11, 19)])
    assert np.linalg.norm(still - truth, axis=-1).mean() > 0.01  # the head's own motion is no small thing


def test_steps_are_left_out_for_the_first_reason_that_holds():
    trajectories, _ = wearer(seed=2)
    trajectories["hands_valid"][0, 10] = False  # the left hand is unknown now
    trajectories["camera_valid"][12] = False
    trajectories["camera_to_world"][12] = np.nan
    trajectories["hands_valid"][1, 13] = False
    trajectories["hands_in_camera"][1, 14] = 0.0  # recorded as zeros, though said to be valid
    trajectories["hands_in_camera"][1, 15] = np.nan
    found = ahead(trajectories)
    assert found.future_reason[:, 0].tolist() == [1] * 8
    assert found.future_reason[:, 1].tolist() == [0, 2, 3, 3, 3, 0, 0, 0]
    np.testing.assert_array_equal(found.future_valid, found.future_reason == 0)
    assert (found.future_hands[~found.future_valid] == 0).all()
    assert np.isfinite(found.future_hands).all()
    assert MASK_REASONS[2] == "the camera's pose is unknown at the step"
    assert found.now.valid.tolist() == [False, True]


def test_the_frame_before_is_unknown_without_a_pose_of_the_camera():
    trajectories, _ = wearer(seed=3)
    trajectories["camera_valid"][9] = False
    assert ahead(trajectories).before is None
    assert ahead(trajectories, t=0).before is None
    trajectories["hands_valid"][1, 10] = False
    assert ahead(trajectories, t=11).before.valid.tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"camera_valid": 10}, NO_POSE_NOW),
        ({"hands_valid": (slice(None), 10)}, NO_HAND_NOW),
        ({"hands_valid": (slice(None), slice(11, None))}, NO_HAND_AFTER),
        ({"camera_valid": slice(11, None)}, NO_HAND_AFTER),
    ],
)
def test_nothing_is_foretold_from_an_anchor_without_pose_or_hands(change, reason):
    trajectories, _ = wearer(seed=4)
    for name, where in change.items():
        trajectories[name][where] = False
    assert future_in_anchor_camera(trajectories, 10, 8) == reason


def test_a_horizon_may_end_with_the_episode_and_not_after_it():
    trajectories, _ = wearer(seed=5, frames=20)
    assert ahead(trajectories, t=11, horizon=8).future_valid.all()
    assert future_in_anchor_camera(trajectories, 12, 8) == HORIZON_LEAVES


def test_a_synthetic_episode_shows_the_wrists_where_its_body_has_them(tmp_path):
    """Hands are written with 1.5 mm of noise per axis and the body without, in the world."""
    write_annotation(tmp_path / "annotation.hdf5", make_session(seed=3, frames=40), invalid_body_share=0.0)
    with open_episode(tmp_path) as episode:
        (camera, posed), (hands, seen), (body, _) = episode.camera_to_world(), episode.hands(), episode.body()
    arrays = {"camera_to_world": camera, "camera_valid": posed, "hands_in_camera": hands, "hands_valid": seen}
    found = ahead(arrays, t=5, horizon=16)
    wrists = moved(np.repeat(inverse(camera[5:6]), 16, axis=0), body[6:22, 20:22])
    apart_mm = 1000 * np.linalg.norm(found.future_hands[:, :, 0] - wrists, axis=-1)
    assert found.future_valid.all()
    assert apart_mm.mean() < 4
    assert apart_mm.max() < 10


def test_the_real_left_wrist_stays_within_a_centimetre_of_the_body_s_in_the_camera_of_now(tmp_path):
    default = Path(__file__).parents[3] / "shared" / "reference"
    file = Path(os.environ.get("OMNI_REFERENCE_DIR", default)) / "annotation_sample8.hdf5"
    if not file.is_file():
        pytest.skip(f"no real sample at {file}; set OMNI_REFERENCE_DIR")
    (tmp_path / "annotation.hdf5").symlink_to(file.resolve())
    with open_episode(tmp_path) as episode:
        (camera, posed), (hands, seen), (body, _) = episode.camera_to_world(), episode.hands(), episode.body()
    arrays = {"camera_to_world": camera, "camera_valid": posed, "hands_in_camera": hands, "hands_valid": seen}
    found = ahead(arrays, t=1, horizon=6)
    assert found.future_valid.tolist() == [[True, False]] * 6
    wrists = moved(np.repeat(inverse(camera[1:2]), 6, axis=0), body[2:8, 20:21])[:, 0]
    apart_mm = 1000 * np.linalg.norm(found.future_hands[:, 0, 0] - wrists, axis=1)
    assert apart_mm.max() < 10
    moved_mm = 1000 * np.linalg.norm(found.future_hands[-1, 0, 0] - found.now.joints[0, 0])
    assert 20 < moved_mm < 60  # the wrist's own motion in 0.3 s
