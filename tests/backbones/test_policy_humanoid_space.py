"""The humanoid as an action space: what is exported, fitted, refused, scored and audited."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from policy_exports import exported_from, truthful

from omni_mlflow.backbones.policy_vla_branch import humanoid_space
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.action_space_file import CheckpointSpace
from omni_mlflow.backbones.policy_vla_branch.fitted import ACTION_SPACE_NAME, MAPS_NAME, PolicyFitted
from omni_mlflow.backbones.policy_vla_branch.gate import data_checks
from omni_mlflow.backbones.policy_vla_branch.humanoid import (
    Follower,
)
from omni_mlflow.backbones.policy_vla_branch.humanoid_space import (
    NO_BODY_AFTER,
    NO_BODY_NOW,
    NUM_ROOT,
    BodyMaps,
    NotFollowedError,
)
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.backbones.policy_vla_branch.round_trip import load_maps, save_maps
from omni_mlflow.backbones.policy_vla_branch.scoring import check_outputs, score_exam
from omni_mlflow.backbones.policy_vla_branch.statistics import STATS_NAME
from omni_mlflow.metrics.trajectories import FARTHEST_MM
from omni_mlflow.spine.rows import read_document, write_document, writing_json_rows
from omni_mlflow.spine.types import Split, broken
from tests.conftest import PROJECT, Place

EXTRA = ("mujoco", "mink", "daqp", "dm_control")
missing = [name for name in EXTRA if find_spec(name) is None]
needs_the_extra = pytest.mark.skipif(
    bool(missing), reason=f"needs {', '.join(missing)}: pip install 'omni-mlflow[humanoid]'"
)
SPACE = SPACES["humanoid65"]
POLICY = PROJECT / "contracts/policy_vla_branch.yaml"


@pytest.fixture(scope="module")
def bodies(finished):
    return exported_from(finished, **{"settings.action.space": "humanoid65"})


@pytest.fixture(scope="module")
def truth(bodies):
    return score_exam(bodies.exam(), bodies.settings)


@pytest.fixture
def folder(bodies, tmp_path) -> Path:
    """The data's half of a sound checkpoint."""
    fitted = bodies.fitted()
    fitted.save(tmp_path)
    write_document(tmp_path / STATS_NAME, fitted.normalization)
    write_document(tmp_path / "fitted.json", fitted)
    return tmp_path


@needs_the_extra
def test_a_sample_states_the_kind_and_where_it_comes_from(bodies):
    made = bodies.made[0]
    inputs = Inputs.model_validate(made.sample.inputs)
    assert inputs.target_kinds[-1] == "retargeted_humanoid_action"
    assert not {"hand_trajectory", "robot_action_token"} & {*inputs.target_kinds}
    source = inputs.provenance[-1]
    assert source.fields == ("full_body_mocap/keypoints",)
    assert source.window.start == made.sample.anchor
    assert "valid at t and at the step" in source.rule
    shapes = {name: array.shape for name, array in made.arrays.items()}
    assert shapes == {
        "future_body": (16, 14, 3),
        "future_pose": (16, 65),
        "future_valid": (16,),
        "future_reason": (16,),
    }


@pytest.fixture
def altered(finished, bodies, tmp_path):
    """Ask for frame 20 of an episode after its trajectories were changed."""

    def ask(change):
        folder = finished.workspace / "index/episodes/train"
        with np.load(min(folder.glob("*/trajectories.npz"))) as arrays:
            tracks = dict(arrays)
        change(tracks)
        np.savez(tmp_path / "trajectories.npz", **tracks)
        return SPACE.ahead(tmp_path / "trajectories.npz", 20, 16)

    return ask


@needs_the_extra
def test_a_window_without_a_body_now_or_after_is_skipped_with_its_reason(altered):
    def lose(frames):
        return lambda tracks: tracks["body_valid"].__setitem__(frames, False)

    assert altered(lose(20)) == NO_BODY_NOW
    assert altered(lose(slice(21, None))) == NO_BODY_AFTER


@needs_the_extra
def test_a_step_without_a_body_is_masked_and_a_person_without_legs_is_none(altered):
    ahead = altered(lambda tracks: tracks["body_in_world"].__setitem__(slice(23, 25), 0.0))
    valid = ahead.arrays["future_valid"]
    assert np.flatnonzero(~valid).tolist() == [2, 3]  # frames 23 and 24: zeros in the file look like that
    assert ahead.arrays["future_reason"].tolist() == (~valid).astype(int).tolist()
    assert not ahead.arrays["future_body"][~valid].any()
    assert np.isfinite(ahead.arrays["future_pose"]).all()


@needs_the_extra
def test_a_body_needs_no_hand_and_no_camera(altered):
    def lose(tracks):
        tracks["hands_valid"][:] = False
        tracks["camera_valid"][:] = False

    ahead = altered(lose)
    assert not ahead.now.valid.any()
    assert ahead.before is None
    assert ahead.arrays["future_valid"].all()


@needs_the_extra
def test_what_a_sample_says_of_the_body_hangs_on_no_frame_from_the_anchor_on(altered):
    def spoil(tracks):
        tracks["body_in_world"][21:] *= 1.3

    one, other = altered(lambda tracks: None), altered(spoil)
    assert one.body == other.body
    assert not np.array_equal(one.arrays["future_pose"], other.arrays["future_pose"])


@needs_the_extra
def test_a_person_is_followed_once_however_many_windows_ask(finished, bodies, monkeypatch):
    """Windows overlap; the model moves once for each frame, and no further than the last one asked for."""
    frames = []
    monkeypatch.setattr(humanoid_space, "Follower", _counting(frames))
    humanoid_space._person.cache_clear()
    path = min((finished.workspace / "index/episodes/train").glob("*/trajectories.npz"))
    for t in (20, 30, 40):
        SPACE.ahead(path, t, 16)
    humanoid_space._person.cache_clear()
    assert frames == [*range(57)]


def _counting(frames: list[int]) -> type[Follower]:
    class Counting(Follower):
        def _follow(self, frame: int) -> None:
            frames.append(frame)
            super()._follow(frame)

    return Counting


@needs_the_extra
def test_the_checkpoint_defines_the_space_its_limits_and_every_other_kind(folder):
    space = read_document(folder / ACTION_SPACE_NAME, CheckpointSpace)
    assert (space.kind, space.space, space.dim) == ("retargeted_humanoid_action", "humanoid65", 65)
    assert space.kinds == ("retargeted_humanoid_action", "action_class", "next_action", "contact_event")
    knee = next(each for each in space.dimensions if each.name == "ltibiarx")
    assert (knee.unit, knee.limits[0]) == ("rad", pytest.approx(0.01, abs=0.02))
    assert space.dimensions[0].limits is None
    assert "root" in space.frame_of_reference


@needs_the_extra
def test_a_sound_checkpoint_passes_in_any_order_of_episodes(folder, bodies):
    again = PolicyFitted.fit_samples(bodies.train(lambda made: made[::-1]), bodies.settings)
    assert broken(data_checks(folder, again, bodies.settings)) == []
    assert load_maps(folder / MAPS_NAME, BodyMaps) == again.maps


def _fitted_with(bodies, poses):
    """Fit on the train samples after the poses of the humanoid that follows were exchanged."""
    train = bodies.train()
    inputs = [Inputs.model_validate(row.sample.inputs) for row in train.rows]
    motion = SPACE.read(train.arrays, inputs)
    changed = replace(motion, future=replace(motion.future, poses=poses(motion)))
    return SPACE.fit(changed, episodes=[row.sample.episode_id for row in train.rows])


@needs_the_extra
def test_a_humanoid_that_follows_is_clearly_better_than_a_body_that_stands_still(bodies):
    maps = _fitted_with(bodies, lambda motion: motion.future.poses)
    assert maps == bodies.fitted().maps
    assert maps.following_mm < 18
    assert maps.round_trip["humanoid65"].mean_mm < 3


@needs_the_extra
def test_a_humanoid_that_stands_still_while_people_move_is_not_fitted(bodies):
    def still(motion):
        return np.broadcast_to(motion.now.poses[:, None], motion.future.poses.shape)

    with pytest.raises(NotFollowedError, match="a body that stands still loses"):
        _fitted_with(bodies, still)


@needs_the_extra
def test_a_humanoid_whose_joints_never_turn_is_not_fitted_though_its_root_follows(bodies):
    def stiff(motion):
        poses = motion.future.poses.copy()
        poses[..., NUM_ROOT:] = 0.0
        return poses

    with pytest.raises(NotFollowedError, match=r"stays \d{3}\.\d mm from train people \(25 at most"):
        _fitted_with(bodies, stiff)


def _looser(folder: Path) -> None:
    maps = load_maps(folder / MAPS_NAME, BodyMaps)
    bound = maps.round_trip["humanoid65"].model_copy(update={"max_mm": 1e3, "episode_mean_mm": 1e3})
    save_maps(folder / MAPS_NAME, maps.model_copy(update={"round_trip": {"humanoid65": bound}}))


def _other_model(folder: Path) -> None:
    maps = load_maps(folder / MAPS_NAME, BodyMaps)
    save_maps(folder / MAPS_NAME, maps.model_copy(update={"limits": ((-9.0, 9.0), *maps.limits[1:])}))


def _hand_maps(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / MAPS_NAME)
    save_file({"mean": arrays["rest"], "round_trip.ee20": np.zeros(3)}, folder / MAPS_NAME)


def _mislabelled(folder: Path) -> None:
    document = json.loads((folder / ACTION_SPACE_NAME).read_text())
    write_document(folder / ACTION_SPACE_NAME, {**document, "kind": "hand_trajectory"})


def _without_limits(folder: Path) -> None:
    document = json.loads((folder / ACTION_SPACE_NAME).read_text())
    document["dimensions"][-1]["limits"] = None
    write_document(folder / ACTION_SPACE_NAME, document)


def _degrees(folder: Path) -> None:
    document = json.loads((folder / STATS_NAME).read_text())
    document["actions"]["std"][NUM_ROOT:] = np.degrees(document["actions"]["std"][NUM_ROOT:]).tolist()
    write_document(folder / STATS_NAME, document)


@needs_the_extra
@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (_looser, "maps_fitted_again"),
        (_other_model, "maps_fitted_again"),
        (_hand_maps, "file_is_readable"),
        (_mislabelled, "action_space_kind"),
        (_without_limits, "action_space_fitted_again"),
        (_degrees, "actions_statistics_again"),
    ],
)
def test_a_broken_checkpoint_of_the_humanoid_is_refused_for_its_own_reason(folder, bodies, damage, rule):
    damage(folder)
    assert rule in [check.rule for check in broken(data_checks(folder, bodies.fitted(), bodies.settings))]


@needs_the_extra
def test_a_checkpoint_of_hands_is_none_of_the_humanoid(policy_folder, bodies):
    rules = {check.rule for check in broken(data_checks(policy_folder, bodies.fitted(), bodies.settings))}
    assert {"action_space_is_that_of_the_contract", "action_space_kind", "action_space_width"} <= rules


@needs_the_extra
def test_the_true_actions_lose_what_the_model_cannot_reach_and_stay_within_its_limits(truth):
    metrics = truth.metrics
    lost = metrics["trajectories"]["round_trip"]["trajectory_mpjpe"]
    assert 0 < metrics["trajectory_mpjpe"] == pytest.approx(lost, abs=1e-3)
    assert lost <= metrics["retargeting"]["bound"]["max_mm"]
    assert metrics["retargeting"]["joint_limit_violations"] == 0
    assert metrics["retargeting"]["share_of_foretold_beyond_limits"] == 0
    assert metrics["verdicts"]["retargeted_humanoid_action"]["metric"] == "trajectory_mpjpe"
    assert metrics["trajectory_mpjpe_at_250_ms"] > 0
    assert metrics["action_accuracy"] == 1.0


@needs_the_extra
def test_an_answer_that_the_body_stays_scores_as_the_baseline_that_says_so(bodies):
    def stay(_, made, chunk):
        still = np.zeros_like(chunk)
        still[:, [3, 7]] = 1.0
        return truthful(made, still)

    metrics = score_exam(bodies.exam(stay), bodies.settings).metrics
    floors = metrics["baselines"]["trajectory_mpjpe"]["floors"]
    assert {*floors} == {"constant_position", "constant_velocity", "damped_velocity", "train_mean_action"}
    assert metrics["trajectory_mpjpe"] == pytest.approx(floors["constant_position"], abs=1e-6)


@needs_the_extra
def test_an_answer_that_turns_the_root_nowhere_is_as_wrong_as_can_be_and_ends_nothing(bodies):
    def nowhere(row, made, chunk):
        chunk[:, 3:9] = 0.0 if row == 0 else chunk[:, 3:9]
        return truthful(made, chunk)

    first = score_exam(bodies.exam(nowhere), bodies.settings).predictions[0]["trajectory_mpjpe"]
    assert first["sum"] == pytest.approx(FARTHEST_MM * first["of"])


@needs_the_extra
def test_what_only_hands_have_is_null_with_its_reason(truth):
    reasons = truth.metrics["more"]["reasons"]
    assert truth.metrics["robot_action_token_accuracy"] is None
    assert reasons["robot_action_token_accuracy"] == (
        "an action of humanoid65 moves no hand that a gripper could follow"
    )
    assert truth.metrics["wrist_relative_mpjpe"] is None
    assert reasons["wrist_relative_mpjpe"] == "wrist_relative_mpjpe: no single wrist holds what moves"
    assert truth.metrics["wrist_error"] > 0
    assert json.loads(json.dumps(truth.metrics, allow_nan=False))


@needs_the_extra
def test_the_audit_tells_error_limits_and_masked_steps_of_each_episode(truth, bodies, tmp_path):
    audit = truth.documents["retargeting_audit.json"]
    assert audit["action_space"] == "humanoid65"
    assert audit["fitted_on_digest"] == bodies.fitted().episodes_digest
    assert {each["episode_id"] for each in audit["episodes"]} == {
        each.sample.episode_id for each in bodies.of(Split.TEST)
    }
    for each in audit["episodes"]:
        assert each["joint_limit_violations"] == 0
        assert 5 < each["following_mm"] < 30
        assert each["within_bound"]
        assert each["masked_steps"] == {"the body is unknown at the step": 0}
    with writing_json_rows(tmp_path / "policy_predictions.jsonl") as write:
        for row in truth.predictions:
            write(row)
    write_document(tmp_path / "metrics.json", truth.metrics)
    write_document(tmp_path / "retargeting_audit.json", audit)
    assert broken(check_outputs(tmp_path)) == []


@needs_the_extra
def test_a_report_shows_both_wrists_from_behind(truth):
    from omni_mlflow.reporting.hand_paths import hand_paths_figure

    document = truth.documents["hand_paths.json"]
    first = document["samples"][0]["hands"]
    assert first["left"]["now"][0] < first["right"]["now"][0]
    figure = hand_paths_figure(document)
    assert "behind the person" in figure.caption


# The whole way.


CHANGES = (
    "action.space=humanoid65,training.steps=3,training.batch_size=4,training.warmup_steps=0,decoding.steps=2"
)


def main_job(place: Place) -> list[str]:
    options = {"--backbone": "policy_vla_branch", "--contract": str(POLICY), "--profile": "demo"}
    options |= {"--sizes": "3/1/2", "--limit": "4", "--set": CHANGES}
    return place.arguments("main", *(word for pair in options.items() for word in pair))[3:]


@pytest.mark.slow
@needs_the_extra
def test_a_job_of_the_humanoid_trains_passes_its_gate_and_is_scored(finished, tmp_path):
    place = Place(tmp_path, finished.data_root)
    done = place.run_as_typed(*main_job(place))
    assert done.returncode == 0, done.stderr
    folder = place.workspace / "policy_vla_branch"
    space = read_document(folder / "train/checkpoint" / ACTION_SPACE_NAME, CheckpointSpace)
    assert (space.kind, space.dim) == ("retargeted_humanoid_action", 65)
    assert json.loads((folder / "gate/gate.json").read_text())["ok"]
    assert json.loads((folder / "validate/validation.json").read_text())["ok"]
    metrics = json.loads((folder / "evaluate/metrics.json").read_text())
    assert metrics["trajectory_mpjpe"] > metrics["trajectories"]["round_trip"]["trajectory_mpjpe"] > 0
    assert metrics["verdicts"]["retargeted_humanoid_action"]["metric"] == "trajectory_mpjpe"
    audit = json.loads((folder / "evaluate/retargeting_audit.json").read_text())
    assert {each["joint_limit_violations"] for each in audit["episodes"]} == {0}


@pytest.mark.slow
def test_without_the_extra_no_stage_of_such_a_job_begins(finished, tmp_path):
    if not missing:
        pytest.skip("the extra is installed")
    place = Place(tmp_path, finished.data_root)
    refused = place.run_as_typed(*main_job(place))
    assert refused.returncode == 1
    assert "pip install 'omni-mlflow[humanoid]'" in refused.stderr
    assert not place.workspace.exists()
