"""Body motion becomes poses of the CMU humanoid, and comes back by forward kinematics."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.humanoid import (
    JOINT_OF_BODY,
    NUM_ANGLES,
    Follower,
    Humanoid,
    HumanoidExtraMissingError,
    HumanoidMotion,
    NoBodyError,
    followed_joints,
    the_humanoid,
)
from omni_mlflow.backbones.policy_vla_branch.humanoid_space import (
    NUM_ROOT,
    Bodies,
    relative_poses,
)
from omni_mlflow.backbones.policy_vla_branch.motion import Motion
from omni_mlflow.backbones.policy_vla_branch.settings import Action
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.synthetic.skeleton import forward_kinematics
from tests.conftest import PROJECT

EXTRA = ("mujoco", "mink", "daqp", "dm_control")
missing = [name for name in EXTRA if find_spec(name) is None]
needs_the_extra = pytest.mark.skipif(
    bool(missing), reason=f"needs {', '.join(missing)}: pip install 'omni-mlflow[humanoid]'"
)
SPACE = SPACES["humanoid65"]
POLICY = PROJECT / "contracts/policy_vla_branch.yaml"


@pytest.fixture(scope="module")
def humanoid() -> Humanoid:
    return the_humanoid()


def walker(frames: int = 6) -> np.ndarray:
    """SMPL-H joints of someone who walks along world x and lowers the arms, z up, shape (frames, 52, 3)."""
    swing = np.linspace(-0.4, 0.4, frames)
    local = np.broadcast_to(np.eye(3), (frames, 52, 3, 3)).copy()
    local[:, 0] = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # its z (forward) is world x
    for joint, angles in ((1, swing), (2, -swing)):
        local[:, joint] = Rotation.from_euler("x", angles[:, None]).as_matrix()
    for joint, side in ((16, 1), (17, -1)):
        local[:, joint] = Rotation.from_euler("z", np.full((frames, 1), -side * 1.0)).as_matrix()
    pelvis = np.stack([np.linspace(0, 0.2, frames), np.zeros(frames), np.full(frames, 0.95)], axis=1)
    return forward_kinematics(local, pelvis, scale=1.0).joints


def errors_mm(humanoid: Humanoid, body: np.ndarray, motion: HumanoidMotion) -> np.ndarray:
    """How far each body of the model is from its joint, shape (frames, 14)."""
    reached = humanoid.bodies(motion.root, motion.angles)[..., :3, 3] / motion.scale
    return 1000 * np.linalg.norm(reached - followed_joints(body), axis=-1)


def motion(frames: int = 8) -> HumanoidMotion:
    rng = np.random.default_rng(0)
    root = np.tile(np.eye(4), (frames, 1, 1))
    root[:, :3, :3] = Rotation.random(frames, random_state=rng).as_matrix()
    root[:, :3, 3] = rng.normal(size=(frames, 3))
    return HumanoidMotion(root, rng.uniform(-1, 1, (frames, NUM_ANGLES)), scale=1.1)


def moving(whole: HumanoidMotion, t: int) -> Motion[Bodies]:
    """One sample whose true motion is ``whole`` from ``t`` on; only its poses matter."""
    poses = relative_poses(HumanoidMotion(whole.root[t:], whole.angles[t:], whole.scale))
    steps = len(poses) - 1
    scale = np.array([whole.scale])

    def bodies(given: np.ndarray) -> Bodies:
        shape = given.shape[:-1]
        return Bodies(np.zeros((*shape, 1, 14, 3)), np.ones((*shape, 1), dtype=bool), given, scale)

    now = bodies(poses[:1])
    return Motion(bodies(poses[None, 1:]), np.zeros((1, steps, 1), np.uint8), now, now)


# The model and its space.


def test_without_the_extra_the_model_says_what_to_install():
    if not missing:
        pytest.skip("the extra is installed")
    with pytest.raises(HumanoidExtraMissingError, match=r"pip install 'omni-mlflow\[humanoid\]'"):
        Humanoid()


def test_a_contract_that_names_the_space_is_refused_before_any_work_where_the_extra_is_missing(monkeypatch):
    monkeypatch.setattr("omni_mlflow.backbones.policy_vla_branch.settings.find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"needs daqp, .*mujoco: pip install 'omni-mlflow\[humanoid\]'"):
        Action(space="humanoid65", horizon_frames=16)
    assert Action(space="synergy32", horizon_frames=16).space == "synergy32"


def test_a_root_that_goes_a_metre_ahead_is_written_in_its_own_axes():
    """The root's x looks along world y, and it goes 1 m along it; the first angle grows by 0.3."""
    whole = motion(2)
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    whole.root[:, :3, :3] = quarter
    whole.root[1, :3, 3] = whole.root[0, :3, 3] + [0, 1, 0]
    whole.angles[1] = whole.angles[0] + [0.3, *[0.0] * (NUM_ANGLES - 1)]
    [[action]] = SPACE.actions(moving(whole, 0), None)
    np.testing.assert_allclose(action[:NUM_ROOT], [1, 0, 0, 1, 0, 0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(action[NUM_ROOT:], [0.3, *[0.0] * (NUM_ANGLES - 1)], atol=1e-12)


def test_an_action_added_to_the_pose_of_now_is_the_pose_it_was_made_from():
    true = moving(motion(), 2)
    reached = SPACE.reached(SPACE.actions(true, None), true.now)
    np.testing.assert_allclose(reached, true.future.poses, atol=1e-12)


def wearing(whole: HumanoidMotion, markers: np.ndarray, t: int) -> tuple[Motion[Bodies], np.ndarray]:
    """The same sample of a person whose joints are ``markers`` away from the bodies, in their own axes."""
    bodies = the_humanoid().bodies(whole.root, whole.angles)
    world = (bodies[..., :3, :3] @ markers[..., None])[..., 0] + bodies[..., :3, 3]
    seen = (world - whole.root[t, :3, 3]) @ whole.root[t, :3, :3] / whole.scale
    sample = moving(whole, t)
    return replace(sample, now=replace(sample.now, joints=seen[[t], None])), seen[t + 1 :]


@needs_the_extra
def test_joints_that_ride_on_the_bodies_of_the_model_come_back_exactly():
    sample, future = wearing(motion(), np.random.default_rng(1).normal(0, 0.05, (14, 3)), t=2)
    points = SPACE.decode(SPACE.actions(sample, None), sample.now, None)
    np.testing.assert_allclose(points[0, :, 0], future, atol=1e-9)


@needs_the_extra
def test_an_action_that_the_body_stays_leaves_every_joint_where_it_is():
    sample, _ = wearing(motion(), np.random.default_rng(1).normal(0, 0.05, (14, 3)), t=2)
    still = np.zeros((1, 3, 65))
    still[..., [3, 7]] = 1.0  # no rotation: r11 = r22 = 1
    points = SPACE.decode(still, sample.now, None)
    np.testing.assert_allclose(points, np.tile(sample.now.joints[:, None], (1, 3, 1, 1, 1)), atol=1e-12)


@needs_the_extra
def test_a_chunk_that_is_no_number_decodes_to_none():
    true = moving(motion(), 2)
    actions = SPACE.actions(true, None)
    actions[0, 1, 0] = np.nan
    known = np.isfinite(SPACE.decode(actions, true.now, None)).all(axis=(0, 2, 3, 4))
    assert known.tolist() == [True, False, True, True, True]


@needs_the_extra
def test_angles_that_lead_beyond_the_limits_of_their_joint_are_counted(humanoid):
    whole = motion(3)
    whole.angles[:] = humanoid.limits.mean(axis=1)
    whole.angles[2, :4] = humanoid.limits[:4, 1] + 0.1
    true = moving(whole, 0)
    beyond = SPACE.beyond_limits(SPACE.actions(true, None), true.now)
    assert beyond.sum(axis=-1).tolist() == [[0, 4]]


@needs_the_extra
def test_the_humanoid_follows_a_walker_within_its_joint_limits(humanoid):
    body = walker()
    valid = np.array([True, True, False, True, True, True])
    followed = Follower(humanoid, np.where(valid[:, None, None], body, np.nan), valid).between(0, 6)
    assert followed.angles.shape == (6, NUM_ANGLES)
    low, high = humanoid.limits.T
    assert ((followed.angles >= low - 1e-6) & (followed.angles <= high + 1e-6)).all()
    np.testing.assert_array_equal(followed.angles[2], followed.angles[1])
    assert errors_mm(humanoid, body, followed)[valid].mean() < 40
    ahead = humanoid.bodies(followed.root, followed.angles)[:, 0, :3, 3] / followed.scale
    assert ahead[-1, 0] - ahead[0, 0] == pytest.approx(0.2, abs=0.03)  # the pelvis walks as far as the person


@needs_the_extra
def test_the_pose_at_a_frame_hangs_on_no_later_one(humanoid):
    body, valid = walker(), np.ones(6, dtype=bool)
    whole = Follower(humanoid, body, valid).between(0, 6)
    changed = np.concatenate([body[:4], 1.5 * body[4:]])
    early = Follower(humanoid, changed, valid).between(0, 6)
    assert early.scale == whole.scale
    np.testing.assert_array_equal(early.angles[:4], whole.angles[:4])
    np.testing.assert_array_equal(early.root[:4], whole.root[:4])
    assert not np.array_equal(early.angles[4:], whole.angles[4:])


@needs_the_extra
def test_nobody_is_not_followed(humanoid):
    with pytest.raises(NoBodyError, match="none of the first 3 frames has a body"):
        Follower(humanoid, np.full((3, 52, 3), np.nan), np.zeros(3, dtype=bool)).between(0, 3)


@needs_the_extra
def test_the_humanoid_follows_the_wearer_of_the_real_sample(humanoid, tmp_path):
    default = Path(__file__).parents[3] / "shared" / "reference"
    file = Path(os.environ.get("OMNI_REFERENCE_DIR", default)) / "annotation_sample8.hdf5"
    if not file.is_file():
        pytest.skip(f"no real sample at {file}; set OMNI_REFERENCE_DIR")
    (tmp_path / "annotation.hdf5").symlink_to(file.resolve())
    with open_episode(tmp_path) as episode:
        body, valid = episode.body()
    followed = Follower(humanoid, body.astype(np.float64), valid).between(0, len(body))
    by_body = dict(zip(JOINT_OF_BODY, errors_mm(humanoid, body, followed).mean(axis=0)))
    assert np.mean(list(by_body.values())) < 20
    assert max(by_body["ltibia"], by_body["rtibia"]) < 10
