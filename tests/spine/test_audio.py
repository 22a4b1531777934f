"""The sound of an episode starts at frame 0."""

from __future__ import annotations

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from handmade import write_video

from omni_mlflow.spine.audio import extract_audio, read_audio, read_sound
from omni_mlflow.spine.sound import Sound
from omni_mlflow.spine.sound_bits import THRESHOLD, sound_of
from omni_mlflow.spine.soundtrack import fullest_sound, write_soundtrack
from omni_mlflow.spine.video import UnreadableVideoError
from tests.lost_sound import lose_sound


def onset_s(samples, rate=16_000):
    return int(np.argmax(np.abs(samples) > 0.3)) / rate


def test_the_sound_becomes_mono_16_khz_and_keeps_its_time(tmp_path):
    mp4 = write_video(tmp_path / "a.mp4", 21, audio_s=1.0)
    assert extract_audio(mp4, tmp_path / "audio.wav").spans
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
    assert extract_audio(tmp_path / "a.mkv", tmp_path / "audio.wav").spans
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
    assert not extract_audio(mp4, tmp_path / "audio.wav").spans
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


RATE = 16_000


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 3000, round(seconds * RATE)).astype(np.int16)


def write_sound(path, samples, *, codec="aac", keep=lambda start_s: True, moved_s=lambda start_s: 0.0):
    """Write one picture for each second and the packets of the sound that are kept, some of them moved."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1)
        video.width = video.height = 32
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        for _ in range(len(samples) // RATE):
            picture = np.zeros((32, 32, 3), dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        for packet in encoded(sound, samples):
            start_s = float(packet.pts * packet.time_base)
            if keep(start_s):
                packet.pts += round(moved_s(start_s) / packet.time_base)
                packet.dts = packet.pts
                container.mux(packet)
    return path


def encoded(sound, samples):
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        yield from sound.encode(frame)
    yield from sound.encode(None)


def likeness(wav, samples, *, start_s, stop_s):
    """Correlation of what stands in the file with what sounded then."""
    heard = read_audio(wav, start_s=start_s, stop_s=stop_s)
    return np.corrcoef(heard, samples[round(start_s * RATE) : round(stop_s * RATE)])[0, 1]


def test_what_follows_lost_packets_sounds_when_it_did_and_the_hole_is_silence(tmp_path):
    samples, wav = noise(20), tmp_path / "a.wav"
    mp4 = write_sound(tmp_path / "a.mp4", samples, keep=lambda start_s: not 5 <= start_s < 8)
    sound = extract_audio(mp4, wav)
    assert likeness(wav, samples, start_s=2, stop_s=4) > 0.9
    assert likeness(wav, samples, start_s=12, stop_s=14) > 0.9
    assert not read_audio(wav, start_s=5.1, stop_s=7.9).any()
    [(start_s, stop_s)] = sound.silences(20)
    assert (start_s, stop_s) == (pytest.approx(5, abs=0.07), pytest.approx(8, abs=0.07))
    assert read_sound(mp4) == sound


def test_packets_that_cannot_be_decoded_are_a_hole_and_spoil_no_other(tmp_path):
    samples, wav = noise(20), tmp_path / "a.wav"
    mp4 = write_sound(tmp_path / "a.mp4", samples)
    lose_sound(mp4, lambda start_s: 5 <= start_s < 5.19, spoilt=True)  # 3 packets of 64 ms
    sound = extract_audio(mp4, wav)
    assert sound.num_broken == 3
    assert sound.silences(20) == [(pytest.approx(5.05, abs=0.02), pytest.approx(5.25, abs=0.02))]
    assert not read_audio(wav, start_s=5.1, stop_s=5.2).any()
    for start_s, stop_s in ((2, 4.9), (5.4, 8), (12, 14)):
        assert likeness(wav, samples, start_s=start_s, stop_s=stop_s) > 0.9
    assert read_sound(mp4) == sound


def test_a_copy_that_lost_packets_is_found_by_its_sound(tmp_path):
    samples = noise(20)
    _, whole = sound_of(write_sound(tmp_path / "whole.mp4", samples))
    _, lossy = sound_of(
        write_sound(tmp_path / "lossy.mp4", samples, keep=lambda start_s: not 5 <= start_s < 8)
    )
    one, other = whole.signal(), lossy.signal()
    after = slice(10 * 16, 18 * 16)
    assert (one[:, after] * other[:, after]).mean() > THRESHOLD
    assert len(lossy.bits) == pytest.approx(len(whole.bits), abs=1)


def test_a_clock_in_milliseconds_changes_no_sample(tmp_path):
    samples = noise(3)
    exact = write_sound(tmp_path / "a.mov", samples, codec="pcm_s16le")
    rounded = write_sound(
        tmp_path / "a.mkv", samples, codec="pcm_s16le", moved_s=lambda start_s: start_s % 0.004
    )
    for path in (exact, rounded):
        assert extract_audio(path, path.with_suffix(".wav")).spans == ((0.0, pytest.approx(3)),)
        written = read_audio(path.with_suffix(".wav"), start_s=0, stop_s=3)
        assert np.array_equal(written, samples / np.float32(32768))


def test_of_two_sounds_for_one_moment_the_second_is_cut(tmp_path):
    samples, wav = noise(4), tmp_path / "a.wav"
    path = write_sound(
        tmp_path / "a.mkv", samples, codec="pcm_s16le", moved_s=lambda start_s: -0.032 if start_s > 2 else 0
    )
    assert extract_audio(path, wav).overlap_s == pytest.approx(0.032, abs=0.002)
    assert likeness(wav, samples, start_s=0, stop_s=2) > 0.99
    early = np.concatenate([samples[:512], samples])[1024:]  # what was moved sounds 512 samples early
    assert likeness(wav, early, start_s=2.1, stop_s=3.5) > 0.99


def test_times_that_jump_back_are_refused(tmp_path):
    parts = [write_sound(tmp_path / f"{n}.ts", noise(2, n)).read_bytes() for n in range(2)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    with pytest.raises(
        UnreadableVideoError, match=r"a\.ts: the times of its sound jump back from 1\.\d+ s to"
    ):
        extract_audio(tmp_path / "a.ts", tmp_path / "a.wav")
    assert not (tmp_path / "a.wav").exists()


def test_a_hole_of_hours_is_refused(tmp_path):
    path = write_sound(
        tmp_path / "a.mkv", noise(2), codec="pcm_s16le", moved_s=lambda start_s: 7200 if start_s > 1 else 0
    )
    with pytest.raises(UnreadableVideoError, match=r"absurd: 1\.\d+ s of it and more at 7201\.\d+ s"):
        read_sound(path)


@pytest.mark.parametrize(
    ("spans", "silences"),
    [
        ((), [(0, 10)]),
        (((0.0, 12.0),), []),
        (((1.0, 4.0), (6.0, 9.5)), [(0, 1), (4, 6), (9.5, 10)]),
        (((0.0, 4.0), (11.0, 12.0)), [(4, 10)]),
    ],
)
def test_silence_is_what_no_span_covers(spans, silences):
    assert Sound(spans=spans).silences(10.0) == silences
    assert Sound(spans=spans).silence_s(10.0) == sum(stop - start for start, stop in silences)


def test_the_video_that_has_most_of_the_sound_gives_it(tmp_path):
    kept = {
        "short": lambda start_s: start_s < 2,
        "long": lambda start_s: start_s < 3,
        "same": None,
        "mute": None,
    }
    kept["same"], kept["mute"] = kept["long"], lambda start_s: False
    videos = {name: write_sound(tmp_path / f"{name}.mp4", noise(4), keep=keep) for name, keep in kept.items()}
    written, _ = write_soundtrack(videos, tmp_path / "a.wav", length_s=4, seconds_of=np.asarray)
    assert (written.file, written.silence_s) == ("long.mp4", pytest.approx(1, abs=0.1))
    assert likeness(tmp_path / "a.wav", noise(4), start_s=2, stop_s=2.9) > 0.9
    assert fullest_sound({"mute": videos["mute"]}, length_s=4, seconds_of=np.asarray).taken is None


def test_where_no_sound_is_left_none_of_an_earlier_run_stays(tmp_path):
    wav = tmp_path / "a.wav"
    write_soundtrack({"a": write_sound(tmp_path / "a.mp4", noise(2))}, wav, length_s=2, seconds_of=np.asarray)
    assert wav.is_file()
    deaf = write_sound(tmp_path / "b.mp4", noise(2), keep=lambda start_s: False)
    assert write_soundtrack({"b": deaf}, wav, length_s=2, seconds_of=np.asarray) == (None, {})
    assert not wav.exists()


def test_digital_silence_is_taken_only_where_nothing_else_is(tmp_path):
    zeros = np.zeros(4 * RATE, np.int16)
    videos = {
        "silent": write_sound(tmp_path / "silent.mp4", zeros),
        "half": write_sound(tmp_path / "half.mp4", noise(4), keep=lambda start_s: start_s < 2),
    }
    found = fullest_sound(videos, length_s=4, seconds_of=np.asarray).taken
    assert (found.camera, found.sound.mute) == ("half", False)
    found = fullest_sound({"silent": videos["silent"]}, length_s=4, seconds_of=np.asarray).taken
    assert (found.camera, found.sound.mute) == ("silent", True)
