"""The sound of an episode starts at frame 0."""

from __future__ import annotations

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from handmade import write_video

from omni_mlflow.spine.audio import extract_audio, read_audio
from omni_mlflow.spine.video import UnreadableVideoError


def onset_s(samples, rate=16_000):
    return int(np.argmax(np.abs(samples) > 0.3)) / rate


def test_the_sound_becomes_mono_16_khz_and_keeps_its_time(tmp_path):
    mp4 = write_video(tmp_path / "a.mp4", 21, audio_s=1.0)
    assert extract_audio(mp4, tmp_path / "audio.wav")
    with wave.open(str(tmp_path / "audio.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
    samples = read_audio(tmp_path / "audio.wav", start_s=0.0, stop_s=1.0)
    assert samples.shape == (16_000,)
    assert samples.dtype == np.float32
    assert onset_s(samples) == pytest.approx(0.1, abs=0.003)


def write_click(path, *, video_start, sound_start, rate=16_000, seconds=1.0):
    """One second of pictures and a click of 10 ms at the start of the sound; starts in seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=20)
        video.width = video.height = 32
        sound = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + round(video_start * 20), Fraction(1, 20)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.zeros((1, round(seconds * rate)), dtype=np.int16)
        samples[0, round(0.4 * rate) : round(0.41 * rate)] = 20_000
        click = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        click.sample_rate, click.pts, click.time_base = rate, round(sound_start * rate), Fraction(1, rate)
        container.mux(sound.encode(click))
        container.mux(sound.encode(None))


@pytest.mark.parametrize(
    ("video_start", "sound_start", "heard_at_s"),
    [(0, 0, 0.4), (0, 0.5, 0.9), (0.25, 0, 0.15), (0.5, 0.5, 0.4)],
)
def test_time_zero_is_the_first_frame_whichever_of_sound_and_video_starts_first(
    tmp_path, video_start, sound_start, heard_at_s
):
    write_click(tmp_path / "a.mkv", video_start=video_start, sound_start=sound_start)
    assert extract_audio(tmp_path / "a.mkv", tmp_path / "audio.wav")
    heard = read_audio(tmp_path / "audio.wav", start_s=0, stop_s=1.5)
    assert onset_s(heard) == pytest.approx(heard_at_s, abs=0.002)


def test_no_sample_is_lost_at_the_end(tmp_path):
    write_click(tmp_path / "a.mkv", video_start=0, sound_start=0, rate=44_100)
    extract_audio(tmp_path / "a.mkv", tmp_path / "audio.wav")
    with wave.open(str(tmp_path / "audio.wav")) as file:
        assert file.getnframes() == pytest.approx(16_000, abs=1)


def test_outside_the_recording_there_is_silence(tmp_path):
    with wave.open(str(tmp_path / "audio.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(10)
        file.writeframes(np.array([16384, -32768, 0], dtype="<i2").tobytes())
    samples = read_audio(tmp_path / "audio.wav", start_s=-0.2, stop_s=0.5)
    assert samples.tolist() == [0, 0, 0.5, -1, 0, 0, 0]
    assert read_audio(tmp_path / "audio.wav", start_s=7, stop_s=7.2).tolist() == [0, 0]


def test_a_video_without_a_sound_track_gives_no_file(tmp_path):
    mp4 = write_video(tmp_path / "a.mp4", 3)
    assert not extract_audio(mp4, tmp_path / "audio.wav")
    assert not (tmp_path / "audio.wav").exists()


def test_the_same_video_gives_the_same_bytes(tmp_path):
    mp4 = write_video(tmp_path / "a.mp4", 5, audio_s=0.25)
    for name in ("one.wav", "two.wav"):
        extract_audio(mp4, tmp_path / name)
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(UnreadableVideoError, match=r"a\.mp4: its audio cannot be decoded"):
        extract_audio(tmp_path / "a.mp4", tmp_path / "audio.wav")
