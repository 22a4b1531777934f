"""What the policy may see of a window, and why some windows cannot be asked about."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from omni_mlflow.backbones.policy_vla_branch.camera import HORIZON_LEAVES, NO_HAND_NOW, NO_POSE_NOW
from omni_mlflow.backbones.policy_vla_branch.hands import Hands
from omni_mlflow.backbones.policy_vla_branch.inputs import STATE_NAMES, Inputs
from omni_mlflow.backbones.policy_vla_branch.sample import export_window, state_of
from omni_mlflow.spine.adapter_views import as_asked
from omni_mlflow.spine.rows import read_rows
from omni_mlflow.spine.types import Span, Window

SETTINGS = SimpleNamespace(action=SimpleNamespace(space="synergy32", horizon_frames=16))


@pytest.fixture(scope="module")
def windows(finished) -> list[Window]:
    index = finished.workspace / "index"
    return [
        as_asked(each, frame_grid=each.modalities.media.grid_stride, context_frames=1)
        for each in read_rows(index / "window_index.jsonl", Window)
    ]


@pytest.fixture
def export(finished):
    media = finished.workspace / "index" / "episodes"
    return lambda window, root=media: export_window(window, media_root=root / window.split, settings=SETTINGS)


@pytest.fixture
def altered(finished, tmp_path, export):
    """Export a window after its episode's trajectories were changed."""

    def made(window: Window, change):
        pointer = window.adapter_views["policy_vla_branch"]["observation"]["state"]["path"]
        with np.load(finished.workspace / "index/episodes" / window.split / pointer) as arrays:
            tracks = dict(arrays)
        change(tracks)
        path = tmp_path / window.split / pointer
        path.parent.mkdir(parents=True)
        np.savez(path, **tracks)
        return export(window, tmp_path)

    return made


def test_a_sample_shows_one_camera_in_the_last_proxy_frame_before_the_anchor(windows, export):
    window = windows[0]
    inputs = Inputs.model_validate(export(window).sample.inputs)
    shown = inputs.observation.proxy_frame * window.modalities.media.grid_stride
    assert window.anchor - window.modalities.media.grid_stride <= shown < window.anchor
    assert inputs.observation.tile.camera == "stereo_left"
    assert inputs.instruction == window.modalities.language.main_task


def test_every_target_kind_says_from_which_fields_and_frames_it_comes(windows, export):
    window = windows[0]
    inputs = Inputs.model_validate(export(window).sample.inputs)
    source = {each.kind: each for each in inputs.provenance}
    assert tuple(source) == inputs.target_kinds
    assert source["hand_trajectory"].window == Span(start=window.anchor, stop=window.anchor + 16)
    tokens, motion = source["robot_action_token"], source["hand_trajectory"]
    assert tokens == motion.model_copy(update={"kind": "robot_action_token"})
    assert "slam/quat_wxyz" in source["hand_trajectory"].fields
    assert source["action_class"].window == window.span
    assert source["next_action"].window.start == window.anchor
    assert source["contact_event"].fields == ("full_body_mocap/contacts",)


def test_the_chunk_begins_at_the_anchor_and_is_as_long_as_the_contract_says(windows, export):
    made = export(windows[0])
    assert made.arrays["future_hands"].shape == (16, 2, 21, 3)
    assert made.arrays["future_valid"].shape == (16, 2)
    assert made.sample.forecast_from == windows[0].anchor


def test_a_window_whose_chunk_leaves_the_episode_is_skipped(windows, export):
    last = max(windows, key=lambda window: window.anchor)
    assert export(last).reason == HORIZON_LEAVES


def test_motion_is_a_kind_of_target_wherever_the_chunk_is_whole(windows, altered):
    """The index says so where a whole window follows; a chunk needs 16 frames, a window here 20."""
    window = windows[0]
    view = window.adapter_views["policy_vla_branch"]
    labels = ["action_class", "next_action", "contact_event"]
    assert view["target_kinds"][:3] == labels
    shorter = {**window.adapter_views, "policy_vla_branch": {**view, "target_kinds": labels}}

    def end(tracks):
        for name, track in tracks.items():
            frames = (
                np.s_[:, : window.anchor + 16] if name.startswith("hands") else np.s_[: window.anchor + 16]
            )
            tracks[name] = track[frames]

    made = altered(window.model_copy(update={"adapter_views": shorter}), end)
    inputs = Inputs.model_validate(made.sample.inputs)
    assert made.arrays["future_valid"].all()
    assert inputs.target_kinds == (*labels, "hand_trajectory", "robot_action_token")
    assert tuple(each.kind for each in inputs.provenance) == inputs.target_kinds


def test_a_window_without_a_camera_pose_at_its_last_frame_is_skipped(windows, altered):
    def lose(tracks):
        tracks["camera_valid"][windows[0].anchor - 1] = False

    assert altered(windows[0], lose).reason == NO_POSE_NOW


def test_a_window_without_a_valid_hand_is_skipped(windows, altered):
    def lose(tracks):
        tracks["hands_in_camera"][:] = 0.0

    assert altered(windows[0], lose).reason == NO_HAND_NOW


def test_the_state_names_what_it_holds():
    joints = np.random.default_rng(0).normal(0, 0.05, (2, 21, 3))
    now, before = Hands(joints, np.array([True, False])), Hands(joints - [0.01, 0, 0], np.array([True, True]))
    state = dict(zip(STATE_NAMES, state_of(now, before, fps=20.0), strict=True))
    assert state["left_x"] == joints[0, 0, 0]
    assert state["left_aperture"] == np.linalg.norm(joints[0, 4] - joints[0, 8])
    assert state["left_velocity_x"] == pytest.approx(0.2)
    assert (state["left_valid"], state["right_valid"]) == (1, 0)
    assert not any(value for name, value in state.items() if name.startswith("right"))


def test_without_an_earlier_frame_no_velocity_is_made_up():
    hands = Hands(np.random.default_rng(0).normal(0, 0.05, (2, 21, 3)), np.array([True, True]))
    assert not state_of(hands, None, fps=20.0)[20:26].any()
