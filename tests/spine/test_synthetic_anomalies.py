"""What the anomalies of the synthetic twin are, and that a set may hold any choice of them."""

from __future__ import annotations

import av
import h5py
import numpy as np
import pytest

from omni_mlflow.spine.captions import map_captions
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.fingerprints import FingerprintStore, fingerprint_episode
from omni_mlflow.spine.leaks import find_leaks
from omni_mlflow.spine.rows import read_document
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.synthetic import PLANTINGS, Anomaly, Synthesis, SynthesisError, write_episode_set
from omni_mlflow.spine.synthetic.copies import CUT_SHARE
from omni_mlflow.spine.synthetic.world import make_session
from omni_mlflow.spine.types import CAMERAS, Split

LATE = 60 // CUT_SHARE
NEAR_DUPLICATES = [each for each in Anomaly if PLANTINGS[each].kind == "near duplicate"]


@pytest.fixture(scope="module")
def plan_of(every_anomaly):
    return {episode.anomaly: episode for episode in every_anomaly[1].episodes}


@pytest.fixture(scope="module")
def folder_of(every_anomaly, plan_of):
    return {anomaly: every_anomaly[0] / plan.path for anomaly, plan in plan_of.items()}


@pytest.fixture
def source_of(every_anomaly, plan_of):
    return lambda anomaly: every_anomaly[0] / plan_of[anomaly].copied_from.path


def images(path):
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(int)


def dataset(folder, name):
    with h5py.File(folder / "annotation.hdf5") as file:
        return file[name][()]


def test_the_set_holds_the_clean_sessions_and_each_anomaly_once_in_a_session_of_its_own(every_anomaly):
    root, synthesis = every_anomaly
    assert read_document(root / "synthesis.json", Synthesis) == synthesis
    assert [episode.anomaly for episode in synthesis.episodes] == [None] * 3 + list(Anomaly)
    assert len({episode.session_id for episode in synthesis.episodes}) == len(synthesis.episodes)
    assert all((root / episode.path / "..").is_dir() for episode in synthesis.episodes)


def test_what_copies_says_from_which_clean_episode(every_anomaly):
    clean = {episode.path: episode.world_seed for episode in every_anomaly[1].episodes[:3]}
    for episode in every_anomaly[1].episodes:
        copies = episode.anomaly is not None and PLANTINGS[episode.anomaly].copy is not None
        assert (episode.copied_from is not None) == copies
        if episode.copied_from is not None:
            assert clean[episode.copied_from.path] == episode.copied_from.world_seed


def test_a_choice_of_anomalies_may_repeat_and_gives_the_same_bytes_again(tmp_path):
    chosen = [Anomaly.MIRRORED_COPY, Anomaly.CAPTION_EMPTY, Anomaly.MIRRORED_COPY]
    for name in ("one", "other"):
        plan = write_episode_set(
            tmp_path / name, sessions=1, frames=60, seed=8, anomalies=chosen, workers=1, stickiness=0.5
        )
    written = [file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*") if file.is_file()]
    assert len(written) == 1 + 4 * 7
    for each in written:
        assert (tmp_path / "one" / each).read_bytes() == (tmp_path / "other" / each).read_bytes()
    first, *planted = plan.episodes
    assert [each.anomaly for each in planted] == chosen
    assert [each.copied_from and each.copied_from.path for each in planted] == [first.path, None, first.path]


def test_a_set_too_large_for_its_seeds_is_refused(tmp_path):
    with pytest.raises(SynthesisError, match=rf"choose 1 \.\. {1000 - len(Anomaly)}"):
        write_episode_set(tmp_path, sessions=999, frames=60, seed=1, anomalies="all", workers=1)


def leaks_into(root, synthesis, store):
    """Put the clean sessions into train and all others into test; return (layer, anomaly, its source)."""
    plan_of = {each.path: each for each in synthesis.episodes}
    episodes = [
        each.model_copy(update={"split": Split.TEST if plan_of[each.path].anomaly else Split.TRAIN})
        for each in scan_data_root(root)[0]
    ]
    prints = {each.episode_id: fingerprint_episode(root / each.path, store) for each in episodes}
    found = set()
    for edge in find_leaks(episodes, prints, blocking=()).edges:
        pair = sorted(
            (plan_of[each.replace("__", "/")] for each in (edge.first, edge.second)), key=is_planted
        )
        found.add((edge.layer, pair[1].anomaly, pair[0].path))
    return found


def is_planted(plan):
    return plan.anomaly is not None


def planted(synthesis, *kinds):
    return {
        (PLANTINGS[each.anomaly].kind.replace(" ", "_"), each.anomaly, each.copied_from.path)
        for each in synthesis.episodes
        if each.copied_from and PLANTINGS[each.anomaly].kind in kinds
    }


def test_the_rules_of_identity_and_bytes_find_their_leaks_and_no_other(every_anomaly, tmp_path):
    root, synthesis = every_anomaly
    found = leaks_into(root, synthesis, FingerprintStore(tmp_path, code="this code"))
    exact = {leak for leak in found if leak[0] in ("identity", "bytes")}
    assert exact == planted(synthesis, "identity", "bytes")


@pytest.mark.slow
def test_copies_of_twenty_seconds_are_found_by_what_they_share_and_nothing_else_is(tmp_path):
    """A paraphrase is found by when actions change, and in 20 s they change too seldom: it may be missed."""
    copies = [each for each in Anomaly if PLANTINGS[each].copy]
    root = tmp_path / "episodes"
    synthesis = write_episode_set(root, sessions=2, frames=400, seed=5, anomalies=copies, workers=1)
    found = leaks_into(root, synthesis, FingerprintStore(tmp_path / "store", code="this code"))
    wanted = planted(synthesis, "identity", "bytes", "near duplicate", "text")
    missed = {anomaly for _, anomaly, _ in wanted - found}
    assert missed <= {Anomaly.PARAPHRASED_CAPTION}
    source_of = {each.anomaly: each.copied_from.path for each in synthesis.episodes if each.copied_from}
    assert all(source == source_of[anomaly] for _, anomaly, source in found)


@pytest.mark.parametrize("anomaly", NEAR_DUPLICATES)
def test_a_near_duplicate_shares_no_array_of_a_sensor_with_its_source_yet_shows_the_same(
    folder_of, source_of, anomaly
):
    copy, source = folder_of[anomaly], source_of(anomaly)
    start = {Anomaly.TRIMMED_COPY: LATE, Anomaly.TIME_SHIFTED_COPY: -LATE}.get(anomaly, 0)
    for name in ("slam/quat_wxyz", "imu/accel_xyz", "full_body_mocap/keypoints", "hand_mocap/left_joints_3d"):
        mine, its = dataset(copy, name), dataset(source, name)
        sign, row, its_row = 1, 30, 30 + start
        if name == "imu/accel_xyz":
            row, its_row = (
                dataset(folder, "imu/keyframe_indices")[at] for folder, at in ((copy, row), (source, its_row))
            )
            sign = np.array([-1, 1, 1]) if anomaly is Anomaly.MIRRORED_COPY else 1
        assert (mine[row] != its[its_row]).any()
        np.testing.assert_allclose(mine[row], sign * its[its_row], rtol=1e-3)
    for camera in CAMERAS:
        mine, its = images(copy / f"{camera}.mp4")[30], images(source / f"{camera}.mp4")[30 + start]
        if anomaly is Anomaly.MIRRORED_COPY:
            its = its[:, ::-1]
        assert 0 < np.abs(mine - its).mean() < 8


def test_a_trimmed_copy_is_whole_in_itself(folder_of):
    folder = folder_of[Anomaly.TRIMMED_COPY]
    kept = 60 - 2 * LATE
    with open_episode(folder) as episode:
        assert episode.num_frames == kept
        assert set(episode.annotation.rows_by_array.values()) == {kept}
        assert episode.missing() == {}
        clock = episode.device_timestamps_ns
    nearest = dataset(folder, "imu/device_timestamp_ns")[dataset(folder, "imu/keyframe_indices")]
    assert np.abs(nearest - clock).max() < 4e6
    assert dataset(folder, "video/frame_number").tolist() == list(range(kept))
    assert len(images(folder / "stereo_left.mp4")) == kept + 1


def test_a_time_shifted_copy_waits_before_its_first_action(folder_of, source_of):
    with open_episode(folder_of[Anomaly.TIME_SHIFTED_COPY]) as copy:
        with open_episode(source_of(Anomaly.TIME_SHIFTED_COPY)) as source:
            its = source.captions().action
        assert copy.captions().action == (None,) * LATE + its[:-LATE]
        assert (np.diff(copy.device_timestamps_ns) > 0).all()
    assert (np.diff(dataset(folder_of[Anomaly.TIME_SHIFTED_COPY], "imu/device_timestamp_ns")) > 0).all()


def test_a_repeated_caption_says_word_for_word_the_same_at_its_own_times_and_a_paraphrase_no_label(
    folder_of, source_of
):
    with open_episode(source_of(Anomaly.REPEATED_CAPTION)) as source:
        its = source.captions()
    with open_episode(folder_of[Anomaly.REPEATED_CAPTION]) as repeated:
        assert repeated.captions() == its
    with open_episode(source_of(Anomaly.PARAPHRASED_CAPTION)) as source:
        its = source.captions()
    with open_episode(folder_of[Anomaly.PARAPHRASED_CAPTION]) as paraphrased:
        told = paraphrased.captions()
    assert set(told.action).isdisjoint(its.action)
    assert len(set(zip(told.action, its.action))) == len(set(its.action))


def test_label_drift_renames_every_action_one_to_one(folder_of, plan_of):
    world = make_session(plan_of[Anomaly.LABEL_DRIFT].world_seed, frames=60)
    done = [world.action_at(frame) for frame in range(60)]
    with open_episode(folder_of[Anomaly.LABEL_DRIFT]) as episode:
        told = episode.captions().action
    assert set(told).isdisjoint(done)
    assert len(set(zip(told, done))) == len(set(done))


def test_the_more_sticky_the_more_two_far_frames_of_an_episode_agree():
    """Frames 100 apart are in different segments, which last 30 to 89 frames, unless these go on."""

    def agreement(stickiness):
        worlds = [make_session(seed, frames=400, stickiness=stickiness) for seed in range(40)]
        return np.mean(
            [world.action_at(f) == world.action_at(f + 100) for world in worlds for f in range(0, 300, 10)]
        )

    none, half, most = (agreement(stickiness) for stickiness in (0.0, 0.5, 0.9))
    assert none < 0.3 < half < 0.7 < most


def test_dropped_frames_leave_three_gaps_of_100_ms_in_clock_and_videos_and_none_in_the_imu(folder_of):
    folder = folder_of[Anomaly.DROPPED_FRAMES]
    with open_episode(folder) as episode:
        gaps = np.diff(episode.device_timestamps_ns) / 1e6
        assert np.flatnonzero(gaps > 99).tolist() == [15, 30, 45]
        assert episode.fps == pytest.approx(20 * 59 / 62, abs=0.05)
        assert episode.coverage()["imu"] == 1
        assert all(episode.captions().action)
    assert np.diff(dataset(folder, "imu/device_timestamp_ns")).max() < 6e6
    for camera in CAMERAS:
        with av.open(str(folder / f"{camera}.mp4")) as video:
            times = [float(frame.time) for frame in video.decode(video=0)]
            assert len(times) == 61
            assert float(video.streams.video[0].average_rate) < 20
        assert np.flatnonzero(np.diff(times) > 0.099).tolist() == [15, 30, 45]


def test_videos_are_short_exact_exchanged_and_silent_as_planned(folder_of):
    pictures = dict.fromkeys(CAMERAS, 61)
    counted = {
        anomaly: {camera: len(images(folder_of[anomaly] / f"{camera}.mp4")) for camera in CAMERAS}
        for anomaly in (Anomaly.SHORT_VIDEO, Anomaly.EXACT_VIDEO)
    }
    assert counted[Anomaly.SHORT_VIDEO] == pictures | {"fisheye_cam3": 55}
    assert counted[Anomaly.EXACT_VIDEO] == pictures | {"stereo_left": 60}
    with av.open(str(folder_of[Anomaly.SILENT] / "fisheye_cam0.mp4")) as video:
        assert [stream.type for stream in video.streams] == ["video"]
    with av.open(str(folder_of[Anomaly.SWAPPED_FISHEYES] / "fisheye_cam2.mp4")) as video:
        assert video.streams.audio
    with av.open(str(folder_of[Anomaly.SWAPPED_FISHEYES] / "fisheye_cam0.mp4")) as video:
        assert not video.streams.audio


def test_a_tiny_episode_has_20_frames_and_the_header_of_tiny_captions(folder_of, plan_of):
    assert plan_of[Anomaly.TINY].frames == 20
    text = dataset(folder_of[Anomaly.TINY], "caption").decode()
    assert '"segment_sec": 20' in text
    assert '"global_summary"' in text
    assert '"frame_0000021"' in text
    assert "total_frames" not in text
    names = [name.decode() for name in dataset(folder_of[Anomaly.TINY], "slam/frame_names")]
    assert len(set(map_captions(text, names).action)) == 1


def test_edits_of_the_annotation_leave_what_they_say(folder_of):
    with h5py.File(folder_of[Anomaly.COMPRESSED] / "annotation.hdf5") as file:
        assert file["depth/depth"].compression == "gzip"
    assert dataset(folder_of[Anomaly.SAMPLE_AXIS], "full_body_mocap/keypoints").shape == (1, 60, 52, 3)
    assert dataset(folder_of[Anomaly.SAMPLE_AXIS], "full_body_mocap/contacts").shape == (1, 60, 21)
    assert dataset(folder_of[Anomaly.CAPTION_IN_ARRAY], "captions").shape == (1,)
    assert dataset(folder_of[Anomaly.CAPTION_IN_FILE], "caption") == b"caption.json"
    with pytest.raises(UnicodeDecodeError):
        dataset(folder_of[Anomaly.CAPTION_NOT_UTF8], "caption").decode()
    with open_episode(folder_of[Anomaly.ACTION_NOT_APPLICABLE]) as episode:
        labelled = [action is not None for action in episode.captions().action]
    assert labelled == [True] * 40 + [False] * 20


def test_no_anomaly_takes_away_that_an_episode_is_synthetic(every_anomaly):
    root, plan = every_anomaly
    readable, _ = scan_data_root(root)
    assert len(readable) > len(plan.episodes) / 2
    assert all(episode.synthetic for episode in readable)
