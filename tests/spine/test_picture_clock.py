"""Sound belongs to the pictures it was recorded with, also where the file's clock is not the device's."""

from __future__ import annotations

from fractions import Fraction

import av
import h5py
import numpy as np
import pytest

from omni_mlflow.inspection import inspect_episode
from omni_mlflow.spine.audio import extract_audio, read_audio
from omni_mlflow.spine.indexing import IndexPlan, index_episode
from omni_mlflow.spine.picture_clock import JITTER_S, LATE_S, clock_off_s, joints_of, picture_times
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.sound import NO_JOINT, Joint, Sound
from omni_mlflow.spine.soundtrack import write_soundtrack
from omni_mlflow.spine.types import Scale, Split

FLASH, PICTURES, RATE = 30, 61, 16_000


def write_flash_and_beep(path, *, fps=20):
    """Pictures at a constant rate, one of them white; a tone of 80 ms begins with it, and noise hums."""
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(PICTURES):
            image = np.full((32, 32, 3), 255 if number == FLASH else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.random.default_rng(0).normal(0, 0.01, (1, PICTURES * RATE // fps)).astype(np.float32)
        start = FLASH * RATE // fps
        samples[0, start : start + 1280] = 0.8 * np.sin(np.arange(1280) * 2 * np.pi * 1000 / RATE)
        heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return path


def beep_s(wav):
    return int(np.argmax(np.abs(read_audio(wav, start_s=0, stop_s=10)) > 0.3)) / RATE


DEVICE = {
    "the same clock": lambda frame: frame / 20,
    "frames lost at the flash": lambda frame: frame / 20 + 0.5 * (frame >= FLASH),
    "frames lost before": lambda frame: frame / 20 + 0.5 * (frame >= 11),
    "frames lost after": lambda frame: frame / 20 + 0.5 * (frame >= 50),
    "slower": lambda frame: frame / 16,
    "faster": lambda frame: frame / 25,
    "drifting": lambda frame: frame / 20 * 1.03,
    "trembling": lambda frame: frame / 20 + 0.02 * (frame % 2),
}


@pytest.mark.parametrize("device", DEVICE)
@pytest.mark.parametrize("fps", [20, 25])
def test_a_beep_is_heard_with_its_flash_by_the_clock_of_the_device(tmp_path, device, fps):
    video, wav = write_flash_and_beep(tmp_path / "a.mp4", fps=fps), tmp_path / "a.wav"
    seconds_at = DEVICE[device]
    write_soundtrack({"a": video}, wav, length_s=seconds_at(60), seconds_of=seconds_at)
    assert -JITTER_S - 0.003 <= beep_s(wav) - seconds_at(FLASH) <= LATE_S + 0.003


def test_where_the_clocks_agree_not_a_byte_changes(tmp_path):
    video = write_flash_and_beep(tmp_path / "a.mp4")
    jitter_s = np.random.default_rng(0).uniform(-0.005, 0.005, PICTURES)
    extract_audio(video, tmp_path / "plain.wav")
    track, _ = write_soundtrack(
        {"a": video},
        tmp_path / "a.wav",
        length_s=3,
        seconds_of=lambda frames: frames / 20 + np.where(frames > 0, jitter_s[frames], 0),
    )
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "plain.wav").read_bytes()
    assert track.clock_off_s == 0


def test_a_joint_is_where_the_clocks_part(tmp_path):
    video = write_flash_and_beep(tmp_path / "a.mp4")
    frames = np.arange(PICTURES)
    assert joints_of(picture_times(video), DEVICE["the same clock"](frames)) == NO_JOINT
    _, joint = joints_of(picture_times(video), DEVICE["frames lost before"](frames))
    assert joint == pytest.approx((0.55, 1.05 + JITTER_S))
    assert clock_off_s((*NO_JOINT, joint)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("joint", "spans"),
    [((1.0, 1.5), ((0.0, 1.0), (1.5, 2.5))), ((1.0, 0.5), ((0.0, 1.5),)), ((2.5, 9.0), ((0.0, 2.0),))],
)
def test_a_joint_leaves_silence_or_cuts(joint, spans):
    assert Sound(spans=((0.0, 2.0),)).joined((*NO_JOINT, Joint(*joint))).spans == spans


def test_no_window_hears_what_happens_after_its_anchor(make_episode, tmp_path):
    """The device lost half a second before frame 11; its container, at a constant rate, tells nothing."""
    folder = make_episode(num_frames=60)
    write_flash_and_beep(folder / "fisheye_cam0.mp4")
    with h5py.File(folder / "annotation.hdf5", "a") as file:
        for name, end in (("video/device_timestamp", ""), ("slam/frame_names", ".jpg")):
            stamps = [int(each.decode().removesuffix(".jpg")) for each in file[name][()]]
            late = [stamp + 500_000_000 * (frame >= 11) for frame, stamp in enumerate(stamps)]
            file[name][...] = np.array([f"{stamp}{end}" for stamp in late], dtype=file[name].dtype)
    (episode,), _ = scan_data_root(folder.parents[1])
    placed = episode.model_copy(update={"split": Split.TEST})
    scales = (Scale(frames=10, stride=10),)
    plan = IndexPlan(scales=scales, frame_grid=5, context_frames=4, tile=(16, 16), min_label_share=0.5)
    index = index_episode(placed, data_root=folder.parents[1], out=tmp_path / "index", plan=plan)
    wav = tmp_path / "index" / episode.episode_id / "audio.wav"
    loudest = {
        window.anchor: np.abs(read_audio(wav, start_s=0, stop_s=window.anchor_s)).max()
        for window in index.windows
    }
    assert loudest[FLASH] < 0.1
    assert loudest[FLASH + 10] > 0.5
    assert index.windows[0].provenance["sound"]["clock_off_s"] == pytest.approx(0.5)
    assert any("from the device's" in each for each in inspect_episode(folder).anomalies)
