"""Which episodes are taken, and why others are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from damage import corrupt_chunk, huge
from handmade import STAMPS_NS, caption, segment, write_video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_mlflow.inspection import inspect_episode
from omni_mlflow.spine.fingerprints import print_of
from omni_mlflow.spine.rows import write_rows
from omni_mlflow.spine.selection import (
    DataRootError,
    list_episode_folders,
    scan_data_root,
    state_of_files,
    wanted_bytes,
)
from omni_mlflow.spine.types import CAMERAS


def only_reason(root):
    episodes, skips = scan_data_root(root)
    assert episodes == []
    (skip,) = skips
    assert skip.stage == "select"
    return skip.reason


def test_episodes_are_named_by_session_and_number_and_sorted_as_people_count(make_episode):
    for name in ("ep10", "ep2"):
        root = make_episode("kitchen", name).parents[1]
    make_episode("garage", "ep1")
    episodes, skips = scan_data_root(root)
    assert [each.episode_id for each in episodes] == ["garage__ep1", "kitchen__ep2", "kitchen__ep10"]
    assert skips == []
    assert episodes[1].session_id == "kitchen"
    assert episodes[1].path == "kitchen/ep2"


def test_a_manifest_row_says_what_is_there(make_episode):
    folder = make_episode(changes={"imu/accel_xyz": None})
    (episode,), _ = scan_data_root(folder.parents[1])
    assert episode.num_frames == 8
    assert episode.fps == 20.0
    assert episode.main_task == "Sorting blocks"
    assert episode.device_id == "7211577584"
    assert episode.device_clock_ns == (STAMPS_NS[0], STAMPS_NS[-1])
    assert set(episode.bytes_by_file) == {"annotation.hdf5", *(f"{camera}.mp4" for camera in CAMERAS)}
    assert episode.bytes_by_file["annotation.hdf5"] == (folder / "annotation.hdf5").stat().st_size
    assert episode.missing_modalities == {"imu": "annotation lacks imu/accel_xyz"}
    assert episode.coverage["body_mocap"] == 1.0
    assert episode.coverage_sampled == {}, "of 8 frames all were looked at"
    assert episode.digest is None
    assert episode.split is None
    assert not episode.synthetic


def test_a_manifest_row_says_which_array_cost_how_many_frames(make_episode):
    betas = np.ones((6, 10), dtype=np.float32)
    folder = make_episode(changes={"hand_mocap/left_mano_hand_betas": betas})
    [episode], _ = scan_data_root(folder.parents[1])
    assert episode.num_frames == 6
    assert episode.lost_frames is not None
    assert (episode.lost_frames.num_frames, episode.lost_frames.num_labelled) == (2, 2)
    assert episode.lost_frames.short_arrays == {"hand_mocap/left_mano_hand_betas": 6}


def test_a_manifest_row_says_which_coverage_is_an_estimate(make_episode):
    folder = make_episode(num_frames=60)
    (episode,), _ = scan_data_root(folder.parents[1])
    assert episode.coverage_sampled == {"depth": 16}


def test_a_manifest_row_says_how_much_of_the_episode_each_camera_s_file_holds(make_episode):
    folder = make_episode(num_frames=60)
    write_video(folder / "fisheye_cam3.mp4", 54)
    (episode,), _ = scan_data_root(folder.parents[1])
    assert {camera: episode.coverage[camera] for camera in CAMERAS} == {
        **dict.fromkeys(CAMERAS, 1.0),
        "fisheye_cam3": 0.9,
    }


def test_a_manifest_row_says_for_how_much_of_the_episode_there_is_sound(make_episode):
    folder = make_episode(num_frames=60)
    write_video(folder / "fisheye_cam0.mp4", 61, audio_s=1.5)
    (episode,), _ = scan_data_root(folder.parents[1])
    assert episode.coverage["audio"] == pytest.approx(0.5, abs=0.02)
    write_video(folder / "fisheye_cam0.mp4", 61)
    (episode,), _ = scan_data_root(folder.parents[1])
    assert (episode.coverage["audio"], list(episode.missing_modalities)) == (0.0, ["audio"])


def test_a_camera_with_three_pictures_for_sixty_frames_is_no_whole_one(make_episode):
    make_episode("garage", num_frames=60)
    folder = make_episode("kitchen", num_frames=60)
    write_video(folder / "fisheye_cam1.mp4", 3)
    write_video(folder / "stereo_left.mp4", 53)
    episodes, [skip] = scan_data_root(folder.parents[1])
    assert [each.episode_id for each in episodes] == ["garage__ep1"]
    assert (skip.subject, skip.reason) == (
        "kitchen__ep1",
        "fisheye_cam1.mp4 holds 3 of 60 frames; stereo_left.mp4 holds 53 of 60 frames",
    )


def test_a_video_in_fragments_is_counted_to_its_end(make_episode):
    """It has no table of all its frames, but one for each fragment."""
    folder = make_episode(num_frames=60)
    path = folder / "fisheye_cam1.mp4"
    remuxed(path, path, options={"movflags": "frag_every_frame+empty_moov"})
    assert scan_data_root(folder.parents[1])[1] == []


@pytest.mark.parametrize("muxer", ["matroska", "mpegts"])
def test_a_file_of_another_container_is_no_mp4_whatever_its_name(make_episode, muxer):
    folder = make_episode()
    path = folder / "fisheye_cam1.mp4"
    remuxed(path, path, muxer=muxer)
    assert only_reason(folder.parents[1]).startswith(
        f"kitchen/ep1/fisheye_cam1.mp4: it is no MP4 but {muxer};"
    )


def remuxed(source: Path, out: Path, *, muxer: str = "mp4", options: dict[str, str] | None = None) -> None:
    """Write the packets of a video into another container."""
    aside = source.with_name("aside")
    with av.open(str(source)) as given, av.open(str(aside), "w", format=muxer, options=options or {}) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    aside.replace(out)


def test_an_episode_that_a_generator_wrote_says_so(make_episode):
    root = make_episode(changes={"metadata/other": '{"synthetic": true}'}).parents[1]
    assert scan_data_root(root)[0][0].synthetic


def test_an_absent_file_is_named(make_episode):
    folder = make_episode()
    (folder / "fisheye_cam3.mp4").unlink()
    (folder / "stereo_left.mp4").unlink()
    assert only_reason(folder.parents[1]) == "missing fisheye_cam3.mp4, stereo_left.mp4"


def test_a_damaged_annotation_is_named_with_what_to_do(make_episode):
    folder = make_episode()
    file = folder / "annotation.hdf5"
    file.write_bytes(file.read_bytes()[:-1])
    reason = only_reason(folder.parents[1])
    assert reason.startswith("kitchen/ep1/annotation.hdf5: it cannot be read as HDF5: ")
    assert "truncated file" in reason
    assert reason.endswith("download it again")


def test_a_damaged_video_is_named(make_episode):
    folder = make_episode()
    (folder / "fisheye_cam1.mp4").write_bytes(b"\0" * 100)
    assert only_reason(folder.parents[1]).startswith("kitchen/ep1/fisheye_cam1.mp4: it cannot be decoded")


@pytest.mark.parametrize("text", [None, "", "{broken"])
def test_an_episode_without_a_caption_has_nothing_to_learn_from(make_episode, text):
    assert "no caption" in only_reason(make_episode(changes={"caption": text}).parents[1])


def test_an_episode_whose_actions_are_all_unlabelled_has_nothing_to_learn_from(make_episode):
    nothing = caption(segment(STAMPS_NS[0], STAMPS_NS[7], ("N/A", STAMPS_NS[0], STAMPS_NS[7])))
    assert "labels no action" in only_reason(make_episode(changes={"caption": nothing}).parents[1])


def test_a_folder_with_another_name_is_not_dropped_in_silence(make_episode):
    root = make_episode("kitchen", "take_1").parents[1]
    assert only_reason(root) == "the folder of an episode is called ep<number>"


def test_every_folder_becomes_an_episode_or_a_skip_and_is_announced(make_episode):
    root = make_episode("a", "ep1").parents[1]
    (make_episode("b", "ep1") / "stereo_left.mp4").unlink()
    seen = []
    episodes, skips = scan_data_root(root, on_episode=seen.append)
    assert seen == ["a__ep1", "b__ep1"]
    assert len(episodes) + len(skips) == len(list_episode_folders(root))


def test_an_absent_or_empty_data_root_says_what_it_should_be(tmp_path):
    with pytest.raises(DataRootError, match=r"no data root at .*'omni-mlflow synthesize --out"):
        scan_data_root(tmp_path / "nowhere")
    with pytest.raises(DataRootError, match="no folder <session>/ep<number>"):
        scan_data_root(tmp_path)


def test_an_episode_given_as_data_root_is_recognised(make_episode, tmp_path):
    shutil.copytree(make_episode(), tmp_path / "alone")
    with pytest.raises(DataRootError, match="move them to <session>/ep1"):
        scan_data_root(tmp_path / "alone")


def test_a_selection_takes_only_what_it_names_and_says_what_is_not_there(make_episode):
    for session in ("a", "b", "c"):
        root = make_episode(session, "ep1").parents[1]
    wanted = {"a__ep1": {}, "b__ep1": {}, "d__ep2": {}}
    episodes, skips = scan_data_root(root, wanted=wanted)
    assert [each.episode_id for each in episodes] == ["a__ep1", "b__ep1"]
    assert {skip.subject: skip.reason for skip in skips} == {
        "c__ep1": "not needed: the selection does not name it",
        "d__ep2": "the selection names it, but it is not under the data root: download it",
    }


@pytest.mark.parametrize("column", ["annotation_bytes", "training_bytes_excluding_visualization_rrd"])
def test_a_download_that_stopped_early_differs_from_the_selection(make_episode, column):
    folder = make_episode()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    right = {"annotation_bytes": sizes["annotation.hdf5"]}
    right["training_bytes_excluding_visualization_rrd"] = sum(sizes.values())
    known = wanted_bytes({key: str(value) for key, value in right.items()})
    assert scan_data_root(folder.parents[1], wanted={"kitchen__ep1": known})[1] == []
    known[column] += 1
    (skip,) = scan_data_root(folder.parents[1], wanted={"kitchen__ep1": known})[1]
    assert skip.reason == f"{column} {right[column]} differs from {right[column] + 1} in the selection; " + (
        "download it again"
    )


def damage_folder(name):
    """Ways to spoil a whole episode; each leaves something under the session that is called like one."""

    def to_file(folder):
        shutil.rmtree(folder)
        folder.write_bytes(b"")

    def to_loop(folder):
        shutil.rmtree(folder)
        folder.symlink_to(folder)

    def to_dangling(folder):
        shutil.rmtree(folder)
        folder.symlink_to("nowhere")

    def to_empty(folder):
        shutil.rmtree(folder)
        folder.mkdir()

    def to_bad_name(folder):
        folder.rename(os.fsdecode(os.fsencode(folder.parent) + b"/ep1\xff"))

    return {f.__name__: f for f in (to_file, to_loop, to_dangling, to_empty, to_bad_name)}[name]


def damage_file(how):
    def to_directory(path):
        path.unlink()
        path.mkdir()

    def to_loop(path):
        path.unlink()
        path.symlink_to(path)

    def truncated(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def empty(path):
        path.write_bytes(b"")

    def noise(path):
        path.write_bytes(bytes(range(256)) * 8)

    def gone(path):
        path.unlink()

    return {f.__name__: f for f in (to_directory, to_loop, truncated, empty, noise, gone)}[how]


@pytest.mark.parametrize("how", ["to_file", "to_loop", "to_dangling", "to_empty", "to_bad_name"])
def test_a_spoilt_episode_folder_is_counted_with_a_reason(make_episode, how, tmp_path):
    damage_folder(how)(make_episode("a", "ep1"))
    root = make_episode("b", "ep1").parents[1]
    episodes, skips = scan_data_root(root)
    assert [each.episode_id for each in episodes] == ["b__ep1"]
    (skip,) = skips
    assert skip.subject.startswith("a__ep1")
    assert skip.reason
    assert write_rows(tmp_path / "skipped.jsonl", skips) == 1
    assert len(state_of_files(root)) >= 7


@pytest.mark.parametrize("name", ["annotation.hdf5", "fisheye_cam0.mp4", "stereo_right.mp4"])
@pytest.mark.parametrize("how", ["to_directory", "to_loop", "truncated", "empty", "noise", "gone"])
def test_a_spoilt_file_is_a_reason_that_names_it(make_episode, name, how):
    folder = make_episode("a", "ep1")
    damage_file(how)(folder / name)
    assert name in only_reason(folder.parents[1])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("place", ["", "ep1", "ep1/annotation.hdf5", "ep1/stereo_left.mp4"])
def test_what_may_not_be_read_is_counted_with_a_reason(make_episode, place):
    session = make_episode("a", "ep1").parent
    (session / place).chmod(0)
    try:
        assert only_reason(session.parent)
    finally:
        (session / place).chmod(0o755)


@given(st.binary(max_size=4096), st.sampled_from(["annotation.hdf5", "stereo_left.mp4"]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_a_file_holds_the_episode_is_taken_or_skipped(make_episode, head, name):
    """The head of a sound file replaced by anything: never an error, never one episode more or less."""
    folder = make_episode()
    path = folder / name
    path.write_bytes(head + path.read_bytes()[len(head) :])
    episodes, skips = scan_data_root(folder.parents[1])
    assert len(episodes) + len(skips) == 1


def test_an_episode_whose_map_later_stages_cannot_read_is_rejected_by_its_name(make_episode):
    root = make_episode(changes={"slam/point_cloud": np.ones((50, 4))}).parents[1]
    assert "slam/point_cloud has the unknown shape (50, 4); leave" in only_reason(root)


def test_a_corrupt_chunk_of_what_only_later_stages_read_is_found_by_select(make_episode):
    folder = make_episode()
    with h5py.File(folder / "annotation.hdf5", "a") as file:
        corrupt_chunk(file, "slam/point_cloud")
    assert "slam/point_cloud cannot be read as HDF5" in only_reason(folder.parents[1])


@pytest.mark.parametrize("frame", [0, 3, 7])
def test_damage_in_the_first_the_middle_or_the_last_depth_image_is_found_by_select(make_episode, frame):
    folder = make_episode(changes={"depth/depth": None})
    with h5py.File(folder / "annotation.hdf5", "a") as file:
        depth = file.create_dataset(
            "depth/depth", data=np.full((8, 4, 4), 2.0), chunks=(1, 4, 4), compression="gzip"
        )
        depth.id.write_direct_chunk((frame, 0, 0), b"\xff" * 16)
    assert "depth/depth cannot be read" in only_reason(folder.parents[1])


@pytest.mark.parametrize("name", ["imu/accel_xyz", "slam/quat_wxyz", "full_body_mocap/keypoints"])
def test_a_declared_size_that_no_recording_has_is_refused_before_it_is_read(make_episode, name):
    folder = make_episode()
    with h5py.File(folder / "annotation.hdf5", "a") as file:
        huge(file, name)
    reason = only_reason(folder.parents[1])
    assert f"{name} declares the size (1000000000000, " in reason
    assert "no recording has" in reason


def test_texts_of_a_width_that_would_fill_the_memory_are_refused_before_they_are_read(make_episode):
    folder = make_episode(changes={"slam/frame_names": None, "metadata/device_id": None})
    path = folder / "annotation.hdf5"
    with h5py.File(path, "a") as file:
        file.create_dataset("slam/frame_names", (8,), dtype="S100000000", chunks=(1,))
    assert "slam/frame_names declares 800,000,000 bytes, at most 268,435,456 are read" in only_reason(
        folder.parents[1]
    )
    with h5py.File(path, "a") as file:
        del file["slam/frame_names"]
        file.create_dataset("metadata/device_id", (10**12,), dtype=h5py.string_dtype(), chunks=(1024,))
    assert "metadata/device_id holds 1000000000000 values where one text" in only_reason(folder.parents[1])


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        ('{"recordings": 1e400}', "1e400 is beyond a double"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("{broken", "Expecting property name"),
        ("[]", "no JSON object but a list"),
        (np.bytes_(b'{"\xff": NaN}'), "NaN is not JSON"),
    ],
)
def test_a_health_report_that_is_no_json_costs_only_what_it_would_have_told(make_episode, report, problem):
    folder = make_episode(changes={"metadata/health_report": report, "metadata/other": report})
    (episode,), skips = scan_data_root(folder.parents[1])
    assert skips == []
    assert not episode.synthetic
    assert print_of(folder / "annotation.hdf5").recording.recorded_ns is None
    told = [
        each for each in inspect_episode(folder).anomalies if each.startswith("metadata/health_report is")
    ]
    assert len(told) == 1
    assert problem in told[0]


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (lambda stamps: [*stamps[:3], 10**17, *stamps[4:]], "it does not advance after frame 3"),
        (lambda stamps: stamps[::-1], "it does not advance after frame 0"),
        (
            lambda stamps: [*stamps[:-1], stamps[-1] + 3_600 * 10**9],
            "3600.35 s are not credible for 8 frames",
        ),
    ],
)
def test_a_clock_that_tells_no_moment_costs_its_episode_and_not_the_run(make_episode, damaged, why):
    make_episode("garage", "ep1")
    stamps = damaged(STAMPS_NS)
    changes = {
        "video/device_timestamp": np.array([str(stamp) for stamp in stamps], "S18"),
        "slam/frame_names": np.array([f"{stamp}.jpg" for stamp in stamps], "S22"),
    }
    root = make_episode("kitchen", "ep1", changes).parents[1]
    (episode,), (skip,) = scan_data_root(root)
    assert (episode.episode_id, skip.subject, skip.stage) == ("garage__ep1", "kitchen__ep1", "select")
    assert skip.reason.startswith(f"unknown device clock in video/device_timestamp ({why})")


def test_frame_names_that_repeat_cost_their_episode(make_episode):
    names = [f"{stamp}.jpg" for stamp in STAMPS_NS]
    changes = {"slam/frame_names": np.array([*names[:-1], names[0]], "S18")}
    reason = only_reason(make_episode(changes=changes).parents[1])
    assert reason.startswith("unknown frame names in slam/frame_names (7 different ones for 8 frames)")
