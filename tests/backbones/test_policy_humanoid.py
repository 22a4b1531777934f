"""Body motion becomes joint angles of the CMU humanoid and comes back by forward kinematics."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from omni_mlflow.backbones.policy_vla_branch.humanoid import (
    JOINT_OF_BODY,
    NUM_ANGLES,
    Humanoid,
    HumanoidExtraMissingError,
    HumanoidMotion,
    NoBodyError,
    decode,
    encode,
)
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.synthetic.skeleton import forward_kinematics

EXTRA = ("mujoco", "mink", "daqp", "dm_control")
missing = [name for name in EXTRA if find_spec(name) is None]
needs_the_extra = pytest.mark.skipif(
    bool(missing), reason=f"needs {', '.join(missing)}: pip install 'omni-mlflow[humanoid]'"
)


@pytest.fixture(scope="module")
def humanoid() -> Humanoid:
    return Humanoid()


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


def motion(frames: int = 8) -> HumanoidMotion:
    rng = np.random.default_rng(0)
    root = np.tile(np.eye(4), (frames, 1, 1))
    root[:, :3, :3] = Rotation.random(frames, random_state=rng).as_matrix()
    root[:, :3, 3] = rng.normal(size=(frames, 3))
    valid = np.ones(frames, dtype=bool)
    valid[4:5] = False
    return HumanoidMotion(root, rng.uniform(-1, 1, (frames, NUM_ANGLES)), valid, scale=1.1)


def test_without_the_extra_the_error_says_what_to_install():
    if not missing:
        pytest.skip("the extra is installed")
    with pytest.raises(HumanoidExtraMissingError, match=r"pip install 'omni-mlflow\[humanoid\]'"):
        Humanoid()


def test_an_action_of_the_humanoid_is_the_same_after_it_was_decoded():
    whole = motion()
    actions, valid = encode(whole, 1, 5)
    assert actions.shape == (5, 9 + NUM_ANGLES)
    assert valid.tolist() == [True, True, False, True, True]
    back = decode(actions, whole.root[1], valid=valid, scale=whole.scale)
    np.testing.assert_allclose(back.root, whole.root[2:7], atol=1e-12)
    np.testing.assert_array_equal(back.angles, whole.angles[2:7])


def test_no_step_is_valid_when_the_body_is_unknown_now():
    assert not encode(motion(), 4, 3)[1].any()


def test_a_root_that_goes_a_metre_ahead_is_written_in_its_own_axes():
    """The root looks along world y and goes 1 m along it: 1 m along its own x."""
    whole = motion(2)
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    whole.root[:, :3, :3] = quarter
    whole.root[1, :3, 3] = whole.root[0, :3, 3] + [0, 1, 0]
    np.testing.assert_allclose(encode(whole, 0, 1)[0][0, :9], [1, 0, 0, 1, 0, 0, 0, 1, 0], atol=1e-12)


@needs_the_extra
def test_the_humanoid_follows_a_walker_within_its_joint_limits(humanoid):
    body = walker()
    valid = np.array([True, True, False, True, True, True])
    followed = humanoid.retarget(np.where(valid[:, None, None], body, np.nan), valid)
    assert followed.angles.shape == (6, NUM_ANGLES)
    assert humanoid.joint_limit_violations(followed) == 0
    np.testing.assert_array_equal(followed.angles[2], followed.angles[1])
    errors = humanoid.errors_mm(body, followed)
    assert errors.shape == (5, len(JOINT_OF_BODY))
    assert errors.mean() < 40
    ahead = humanoid.positions(followed)[:, 0]
    assert ahead[-1, 0] - ahead[0, 0] == pytest.approx(0.2, abs=0.03)  # the pelvis walks as far as the person


@needs_the_extra
def test_angles_outside_the_limits_are_counted(humanoid):
    followed = humanoid.retarget(walker(2), np.ones(2, dtype=bool))
    followed.angles[1, :3] = humanoid.limits[:3, 1] + 0.1
    assert humanoid.joint_limit_violations(followed) == 3


@needs_the_extra
def test_the_action_space_of_the_humanoid_names_every_joint_and_its_limits(humanoid):
    file = humanoid.action_space(horizon=16, fps=20.0)
    assert (file.kind, file.dim) == ("retargeted_humanoid_action", 9 + NUM_ANGLES)
    knee = next(each for each in file.dimensions if each.name == "ltibiarx")
    assert (knee.unit, knee.low) == ("rad", pytest.approx(0.01, abs=0.02))


@needs_the_extra
def test_nobody_is_not_retargeted(humanoid):
    with pytest.raises(NoBodyError, match="no frame has a body"):
        humanoid.retarget(np.full((3, 52, 3), np.nan), np.zeros(3, dtype=bool))


@needs_the_extra
def test_the_humanoid_follows_the_wearer_of_the_real_sample(humanoid, tmp_path):
    default = Path(__file__).parents[3] / "shared" / "reference"
    file = Path(os.environ.get("OMNI_REFERENCE_DIR", default)) / "annotation_sample8.hdf5"
    if not file.is_file():
        pytest.skip(f"no real sample at {file}; set OMNI_REFERENCE_DIR")
    (tmp_path / "annotation.hdf5").symlink_to(file.resolve())
    with open_episode(tmp_path) as episode:
        body, valid = episode.body()
    followed = humanoid.retarget(body.astype(np.float64), valid)
    by_body = dict(zip(JOINT_OF_BODY, humanoid.errors_mm(body, followed).mean(axis=0)))
    assert np.mean(list(by_body.values())) < 20
    assert max(by_body["ltibia"], by_body["rtibia"]) < 10
    assert humanoid.joint_limit_violations(followed) == 0
