"""Planted leaks are found, whatever was done to hide them, and clean sessions are let through."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from planted_leaks import (
    CHANGES,
    VIDEO_CHANGES,
    Change,
    copy_pictures,
    disguised,
    give_sound,
    renamed,
    with_caption_of,
    with_copied_video,
    with_motion_of,
    with_new_ids,
    with_videos_of,
)

from omni_mlflow.contract.file import load_contract
from omni_mlflow.spine.fingerprints import FingerprintStore, fingerprint_episode
from omni_mlflow.spine.leaks import find_leaks
from omni_mlflow.spine.processes import each_in_a_process
from omni_mlflow.spine.synthetic import write_episode_set
from omni_mlflow.spine.types import CAMERAS, Episode, Split
from tests.lost_sound import lose_sound, silence

CONTRACT = Path(__file__).parents[2] / "contracts" / "qwen3_omni_lora.yaml"
BLOCKING = load_contract(CONTRACT).split_policy.leakage_guard


@pytest.fixture(scope="session")
def sessions(tmp_path_factory):
    """Clean sessions of 10 s, of which copies are made."""
    out = tmp_path_factory.mktemp("planted") / "episodes"
    write_episode_set(out, sessions=3, frames=200, seed=5, anomalies="none", workers=1)
    return sorted(out.glob("*/ep1"))


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return FingerprintStore(tmp_path_factory.mktemp("fingerprints"), code="this code")


def graph_of(folders, store, *, blocking=BLOCKING):
    """The leak graph of episodes that take turns in train, val and test, by their position."""
    prints = {f"e{place:03d}": fingerprint_episode(folder, store) for place, folder in enumerate(folders)}
    episodes = [
        Episode(
            episode_id=name,
            session_id=name,
            path=name,
            split=list(Split)[place % 3],
            num_frames=200,
            fps=20,
            bytes_by_file={},
        )
        for place, name in enumerate(prints)
    ]
    return find_leaks(episodes, prints, blocking=blocking)


def rules_between(graph, first, second):
    return {edge.rule for edge in graph.edges if (edge.first, edge.second) == (first, second)}


def test_clean_sessions_share_nothing(sessions, store):
    graph = graph_of(sessions, store)
    assert graph.edges == ()
    assert {rule.rule: rule.pairs for rule in graph.rules}["motion_disjoint"] == 3


def test_a_renamed_session_is_found_by_its_bytes_its_clock_and_its_signals(sessions, store, tmp_path):
    graph = graph_of([sessions[0], renamed(sessions[0], tmp_path / "other" / "ep9")], store)
    found = rules_between(graph, "e000", "e001")
    assert {"device_clock_disjoint", "content_disjoint", "motion_disjoint", "sound_disjoint"} <= found


@pytest.mark.parametrize("change", CHANGES)
def test_a_disguised_copy_is_found_by_its_signals_alone(sessions, store, tmp_path, change):
    copy = disguised(sessions[0], tmp_path / "copy", CHANGES[change])
    graph = graph_of([sessions[0], copy, sessions[1]], store)
    assert {edge.layer for edge in graph.edges} <= {"near_duplicate", "text"}
    kept = CHANGES[change]
    heard = {"sound_disjoint"} if kept.sound else set()
    assert {"motion_disjoint", *heard} <= rules_between(graph, "e000", "e001")
    assert {edge.second for edge in graph.blocking} == {"e001"}
    [motion] = [edge for edge in graph.edges if edge.rule == "motion_disjoint"]
    assert motion.offset_s == pytest.approx((kept.first - kept.lead) / 20, abs=0.05)


def test_arrays_copied_beside_new_attributes_and_ids_are_found(sessions, store, tmp_path):
    copy = with_new_ids(sessions[0], sessions[1], tmp_path / "copy")
    graph = graph_of([sessions[0], copy], store)
    [edge] = [edge for edge in graph.edges if edge.layer == "bytes"]
    assert edge.evidence == ("same content: imu/accel_xyz, imu/gyro_xyz, slam/quat_wxyz, slam/trans_xyz")


def test_one_video_under_another_name_is_found(sessions, store, tmp_path):
    graph = graph_of([sessions[0], with_copied_video(sessions[0], sessions[1], tmp_path / "copy")], store)
    [edge] = graph.edges
    assert edge.evidence == "same content: stereo_left.mp4 = fisheye_cam1.mp4"


def test_videos_of_one_session_beside_the_annotation_of_another_are_found_by_their_sound(
    sessions, store, tmp_path
):
    copy = with_videos_of(sessions[0], sessions[1], tmp_path / "copy", CHANGES["trimmed"])
    assert "sound_disjoint" in rules_between(graph_of([sessions[0], copy], store), "e000", "e001")


def test_a_leak_of_sound_hides_in_no_other_track(sessions, store, tmp_path):
    """The first camera is deaf: ``index`` takes the sound of another one, and so must the comparison."""
    heard, folders = sessions[0] / "fisheye_cam0.mp4", []
    for session in sessions[1:]:
        folders.append(shutil.copytree(session, tmp_path / session.parent.name))
        shutil.copy(session / "fisheye_cam1.mp4", folders[-1] / "fisheye_cam0.mp4")
        give_sound(heard, folders[-1] / "fisheye_cam2.mp4")
    lose_sound(folders[0] / "fisheye_cam2.mp4", lambda start_s: 1 <= start_s < 1.1)
    graph = graph_of(folders, store)
    assert "sound_disjoint" in {edge.rule for edge in graph.blocking}


def test_why_the_sound_of_an_episode_identifies_nothing_is_told_of_its_files(sessions, store, tmp_path):
    deaf = shutil.copytree(sessions[0], tmp_path / "deaf")
    shutil.copy(deaf / "fisheye_cam1.mp4", deaf / "fisheye_cam0.mp4")
    assert fingerprint_episode(deaf, store).sound.abstains == "no video has a sound track"
    spoilt = shutil.copytree(sessions[0], tmp_path / "spoilt")
    lose_sound(spoilt / "fisheye_cam0.mp4", lambda start_s: True, spoilt=True)
    found = fingerprint_episode(spoilt, store)
    assert found.sound.abstains.startswith("fisheye_cam0.mp4: its audio cannot be decoded: ")
    assert "fisheye_cam0" in found.key_frames, "its pictures are whole"
    silent = shutil.copytree(sessions[0], tmp_path / "silent")
    silence(silent / "fisheye_cam0.mp4")
    assert fingerprint_episode(silent, store).sound.abstains == "fisheye_cam0.mp4: it is silent"


def test_videos_without_their_sound_beside_another_annotation_are_found_by_their_encoded_pictures(
    sessions, store, tmp_path
):
    copy = with_videos_of(sessions[0], sessions[1], tmp_path / "copy", VIDEO_CHANGES["sound stripped"])
    graph = graph_of([sessions[0], copy], store)
    assert rules_between(graph, "e000", "e001") == {"content_disjoint", "pictures_disjoint"}
    [edge] = graph.blocking
    assert "stereo_left.mp4 (64 of 64 remembered parts)" in edge.evidence


def test_videos_without_their_sound_under_names_of_other_cameras_are_found(sessions, store, tmp_path):
    shuffled = shutil.copytree(sessions[1], tmp_path / "shuffled")
    for camera, other in zip(CAMERAS, reversed(CAMERAS), strict=True):
        copy_pictures(sessions[0] / f"{camera}.mp4", shuffled / f"{other}.mp4", Change())
    graph = graph_of([sessions[0], shuffled], store)
    assert rules_between(graph, "e000", "e001") == {"content_disjoint"}
    [edge] = graph.blocking
    assert "stereo_left.mp4 = fisheye_cam1.mp4 (64 of 64 remembered parts)" in edge.evidence


def test_videos_that_were_encoded_anew_without_their_sound_are_told_of_and_block_nothing(
    sessions, store, tmp_path
):
    copy = with_videos_of(sessions[0], sessions[1], tmp_path / "copy", VIDEO_CHANGES["trimmed"])
    graph = graph_of([sessions[0], copy], store)
    assert rules_between(graph, "e000", "e001") == {"pictures_disjoint"}
    assert graph.blocking == []


def test_an_annotation_beside_the_videos_of_another_session_is_found_by_its_motion(sessions, store, tmp_path):
    copy = with_motion_of(sessions[0], sessions[1], tmp_path / "copy", Change(first=37, stop=163))
    assert "motion_disjoint" in rules_between(graph_of([sessions[0], copy], store), "e000", "e001")


@pytest.fixture(scope="session")
def many_sessions(tmp_path_factory, store):
    """200 clean sessions of 10 s, already fingerprinted."""
    out = tmp_path_factory.mktemp("clean") / "episodes"
    workers = os.cpu_count() or 1
    write_episode_set(out, sessions=200, frames=200, seed=23, anomalies="none", workers=workers)
    folders = sorted(out.glob("*/ep1"))
    work = partial(fingerprint_episode, store=store)
    assert len(list(each_in_a_process(work, folders, workers=workers))) == 200
    return folders


@pytest.mark.slow
def test_200_clean_sessions_are_let_through(many_sessions, store):
    graph = graph_of(many_sessions, store)
    pairs = {rule.rule: rule.pairs for rule in graph.rules}
    assert pairs["motion_disjoint"] == pairs["sound_disjoint"] == 67 * 67 + 2 * 67 * 66
    assert graph.blocking == []


@pytest.mark.slow
def test_of_the_copies_of_24_sessions_at_least_95_in_100_are_found_by_near_duplicate_rules(
    many_sessions, store, tmp_path
):
    sources = many_sessions[:24]
    for name, change in CHANGES.items():
        copies = [disguised(each, tmp_path / name / each.parent.name, change) for each in sources]
        turns = [each for pair in zip(sources, copies, strict=True) for each in (*pair, many_sessions[-1])]
        found = {
            (edge.first, edge.second)
            for edge in graph_of(turns, store).edges
            if edge.layer == "near_duplicate" and edge.blocks
        }
        planted = {(f"e{place:03d}", f"e{place + 1:03d}") for place in range(0, len(turns), 3)}
        assert len(found & planted) >= 0.95 * len(planted), name


@pytest.fixture
def long_sessions(tmp_path):
    """Ten sessions of 50 s: enough sentences to know which are common, and enough changes of action."""
    out = tmp_path / "long"
    write_episode_set(out, sessions=10, frames=1000, seed=29, anomalies="none", workers=2)
    return sorted(out.glob("*/ep1"))


@pytest.mark.slow
@pytest.mark.parametrize("reworded", [False, True])
def test_a_caption_of_another_session_is_found_copied_and_reworded(long_sessions, store, tmp_path, reworded):
    copy = with_caption_of(long_sessions[0], long_sessions[1], tmp_path / "copy", reworded=reworded)
    graph = graph_of([long_sessions[0], copy, *long_sessions[2:]], store)
    [edge] = [edge for edge in graph.edges if edge.layer == "text"]
    assert (edge.first, edge.second, edge.blocks) == ("e000", "e001", False)
