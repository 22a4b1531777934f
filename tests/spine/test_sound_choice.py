"""The track that holds most of an episode by the device's clock is taken, by ``index`` and by ``guard``."""

from __future__ import annotations

from fractions import Fraction

import av
import h5py
import numpy as np
import pytest

from omni_mlflow.inspection import inspect_episode
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.fingerprints import FingerprintStore, fingerprint_episode
from omni_mlflow.spine.sound import Sound
from omni_mlflow.spine.sound_bits import sound_of
from omni_mlflow.spine.sound_choice import Track, fullest
from omni_mlflow.spine.soundtrack import fullest_sound

FRAMES, RATE = 60, 16_000


def heard_until(stop_s, *, fps=20, pictures=200):
    return Track(sound=Sound(spans=((0.0, stop_s),)), pictures_s=np.arange(pictures) / fps)


def taken_of(**tracks):
    return fullest(tracks.items(), length_s=10, seconds_of=lambda frames: frames / 20).camera


def test_of_whole_tracks_the_first_is_taken():
    assert taken_of(part=heard_until(9), whole=heard_until(9.95), fuller=heard_until(10)) == "whole"


def test_nothing_is_asked_of_the_tracks_after_a_whole_one():
    def tracks():
        yield "whole", heard_until(10)
        raise AssertionError

    assert fullest(tracks(), length_s=10, seconds_of=lambda frames: frames / 20).camera == "whole"


@pytest.mark.parametrize("fps", [12, 16, 25, 30])
def test_a_track_is_as_full_as_the_device_hears_it(fps):
    """By the file's own clock, the first has all of ten seconds."""
    assert taken_of(fast=heard_until(10, fps=fps), right=heard_until(9.5)) == "right"


def test_a_track_that_is_short_by_its_own_clock_may_be_the_fullest():
    """Its pictures last 8 seconds by its clock, and so does its sound; nothing of the device's is in silence
    but what its joints leave."""
    assert taken_of(short=heard_until(5), fast=heard_until(8, fps=25)) == "fast"


def write_video(path, *, fps, sound_s, seed, pictures=FRAMES + 1):
    """Pictures at one rate, and noise that lasts as long as its own time says."""
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps)
        video.width = video.height = 32
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(pictures):
            image = np.full((32, 32, 3), (number * 7 + seed) % 255, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        noise = np.random.default_rng(seed).normal(0, 0.1, (1, round(sound_s * RATE))).astype(np.float32)
        heard = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))


EPISODES = {
    "the first runs fast": ([(25, 3.1), (20, 3.1), (20, 2.0)], "fisheye_cam1"),
    "all but the last run fast": ([(25, 3.1), (40, 3.1), (20, 2.9)], "fisheye_cam2"),
    "the first runs slow": ([(16, 3.1), (20, 2.95), (20, 2.0)], "fisheye_cam1"),
    "none is whole": ([(25, 3.1), (20, 1.0), (20, 2.7)], "fisheye_cam2"),
    "the same clocks": ([(20, 3.1), (20, 3.1), (20, 3.1)], "fisheye_cam0"),
}


@pytest.mark.parametrize("case", EPISODES)
def test_index_and_guard_take_the_same_track_whatever_the_clocks_of_the_files(make_episode, tmp_path, case):
    files, taken = EPISODES[case]
    folder = make_episode(num_frames=FRAMES)
    for number, (fps, sound_s) in enumerate(files):
        write_video(folder / f"fisheye_cam{number}.mp4", fps=fps, sound_s=sound_s, seed=number)
    with open_episode(folder) as source:
        videos = source.video_files()
        found = fullest_sound(videos, length_s=source.length_s, seconds_of=source.seconds_of)
    assert found.taken.camera == taken
    compared = fingerprint_episode(folder, FingerprintStore(tmp_path / "prints", code="this")).sound
    np.testing.assert_array_equal(compared.bits, sound_of(videos[taken])[1].bits)


def test_guard_takes_the_track_of_index_where_the_device_lost_frames(make_episode, tmp_path):
    """The first file ran on over the two seconds that the device lost; the second one stopped with it."""
    folder = make_episode(num_frames=FRAMES)
    with h5py.File(folder / "annotation.hdf5", "a") as file:
        for name, end in (("video/device_timestamp", ""), ("slam/frame_names", ".jpg")):
            stamps = [int(each.decode().removesuffix(".jpg")) for each in file[name][()]]
            late = [stamp + 2_000_000_000 * (frame >= 20) for frame, stamp in enumerate(stamps)]
            file[name][...] = np.array([f"{stamp}{end}" for stamp in late], dtype=file[name].dtype)
    write_video(folder / "fisheye_cam0.mp4", fps=20, sound_s=1.2, seed=0)
    write_video(folder / "fisheye_cam1.mp4", fps=12, sound_s=5.0, seed=1)
    with open_episode(folder) as source:
        videos = source.video_files()
        found = fullest_sound(videos, length_s=source.length_s, seconds_of=source.seconds_of)
    compared = fingerprint_episode(folder, FingerprintStore(tmp_path / "prints", code="this")).sound
    np.testing.assert_array_equal(compared.bits, sound_of(videos[found.taken.camera])[1].bits)


def test_inspect_tells_of_no_silence_where_another_file_has_all_of_the_sound(make_episode):
    folder = make_episode(num_frames=FRAMES)
    write_video(folder / "fisheye_cam0.mp4", fps=25, sound_s=3.1, seed=0)
    write_video(folder / "fisheye_cam1.mp4", fps=20, sound_s=3.1, seed=0)
    found = inspect_episode(folder)
    assert found.modalities["audio"] == 1.0
    assert not [each for each in found.anomalies if "no sound" in each]
