"""What is said about videos that are longer, shorter or faster than they should be."""

from __future__ import annotations

from handmade import write_video

from omni_mlflow.inspection import inspect_episode


def about_videos(folder):
    return [each for each in inspect_episode(folder).anomalies if ".mp4" in each]


def test_videos_of_one_picture_more_than_there_are_frames_are_as_they_should_be(make_episode):
    assert about_videos(make_episode()) == []


def test_a_video_without_the_surplus_picture_is_told_and_so_is_one_with_more(make_episode):
    folder = make_episode()
    write_video(folder / "fisheye_cam3.mp4", 3)
    write_video(folder / "stereo_left.mp4", 8)
    write_video(folder / "stereo_right.mp4", 11)
    assert about_videos(folder) == [
        "fisheye_cam3.mp4 holds 3 pictures for 8 frames: its last one stands for 5",
        "stereo_left.mp4 holds 8 pictures for 8 frames: the usual one more at the end is missing",
        "stereo_right.mp4 holds 11 pictures for 8 frames",
    ]


def test_videos_that_claim_another_rate_are_told_together(make_episode):
    folder = make_episode()
    for camera in ("fisheye_cam1", "stereo_left"):
        write_video(folder / f"{camera}.mp4", 9, fps=19)
    assert about_videos(folder) == [
        "19 frames per second claimed by fisheye_cam1.mp4, stereo_left.mp4: frames are counted, not timed"
    ]


def test_an_episode_of_one_frame_is_inspected(make_episode):
    found = inspect_episode(make_episode(num_frames=1))
    assert (found.num_frames, found.fps) == (1, 20.0)
    assert found.anomalies == (
        "the sound of fisheye_cam0.mp4 is digital silence",  # as the encoder begins every track
        "contact label is degenerate (100 % no)",
    )
