"""A video is known again by its encoded pictures, whatever file they lie in."""

from __future__ import annotations

import av
import numpy as np
import pytest

from omni_mlflow.spine.encoded_pictures import encoded_pictures
from omni_mlflow.spine.exact_leaks import MIN_SHARED_ROWS
from omni_mlflow.spine.video import UnreadableVideoError


def film(path, pictures, *, gop=10, codec="libx264", bit_rate=None, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20, options={"crf": "30", "threads": "1"} | options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        if bit_rate:
            stream.bit_rate = bit_rate
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def noise(seed, num_pictures=60):
    return np.random.default_rng(seed).integers(0, 255, (num_pictures, 64, 64, 3), np.uint8)


def copied(path, out, *, first=0):
    """The packets of ``path`` from picture ``first``, a key frame, in a new file."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for packet in packets[first:]:
            packet.stream = stream
            target.mux(packet)
    return out


def covered_at_first(seed):
    """A lens that is covered for a second, then shows something of its own."""
    coarse = np.random.default_rng(seed).integers(0, 255, (20, 16, 16, 3), np.uint8)
    shown = coarse.repeat(16, 1).repeat(16, 2)
    return [*np.zeros_like(shown), *shown]


def test_a_cut_that_was_not_encoded_anew_holds_some_of_the_same_and_another_video_none(tmp_path):
    whole = set(encoded_pictures(film(tmp_path / "whole.mp4", noise(1))))
    assert len(whole) >= 50
    assert whole == set(encoded_pictures(copied(tmp_path / "whole.mp4", tmp_path / "same.mp4")))
    cut = set(encoded_pictures(copied(tmp_path / "whole.mp4", tmp_path / "cut.mp4", first=30)))
    assert 25 <= len(cut) < len(whole)
    assert cut < whole
    assert not whole & set(encoded_pictures(film(tmp_path / "other.mp4", noise(2))))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_what_a_container_puts_between_the_pictures_does_not_matter(tmp_path, codec):
    quiet = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {}
    original = encoded_pictures(film(tmp_path / "film.mp4", noise(1, 20), codec=codec, **quiet))
    assert len(original) == 20
    streamed = copied(tmp_path / "film.mp4", tmp_path / "film.ts")
    assert encoded_pictures(streamed) == original
    assert encoded_pictures(copied(streamed, tmp_path / "again.mp4")) == original


def test_what_a_still_or_covered_lens_gives_again_and_again_is_not_remembered(tmp_path):
    still = np.repeat(noise(1, 1), 60, axis=0)
    covered = np.zeros((60, 64, 64, 3), np.uint8)
    assert encoded_pictures(film(tmp_path / "covered.mp4", covered)) == ()
    assert len(encoded_pictures(film(tmp_path / "still.mp4", still, gop=1))) < MIN_SHARED_ROWS


CONSTANT_RATE = "nal-hrd=cbr:vbv-maxrate=1000:vbv-bufsize=1000:bitrate=1000:filler=1"


@pytest.mark.parametrize(
    "encoder",
    [
        {"codec": "libx264", "x264-params": CONSTANT_RATE, "bit_rate": 1_000_000},
        {"codec": "libx264", "x264-params": "cabac=0"},
        {"codec": "mpeg4", "bit_rate": 1_000_000},
        {"codec": "mpeg2video", "bit_rate": 1_000_000},
    ],
    ids=["constant rate", "each block written", "mpeg4", "mpeg2"],
)
def test_a_lens_that_was_covered_for_a_while_shares_nothing_with_another_recording(tmp_path, encoder):
    one, other = (
        set(encoded_pictures(film(tmp_path / f"{seed}.mp4", covered_at_first(seed), **encoder)))
        for seed in (1, 2)
    )
    assert min(len(one), len(other)) >= 10
    assert not one & other


def test_a_damaged_picture_is_left_out_and_the_others_are_remembered(tmp_path):
    whole = film(tmp_path / "film.mp4", noise(1, 20))
    before = set(encoded_pictures(whole))
    with av.open(str(whole)) as container:
        place = [packet.pos for packet in container.demux(video=0)][9]
    content = bytearray(whole.read_bytes())
    content[place : place + 4] = b"\x7f\xff\xff\xff"  # the unit is said to be longer than all of the file
    whole.write_bytes(content)
    assert len(before - set(encoded_pictures(whole))) == 1


def test_a_file_that_holds_no_video_is_refused(tmp_path):
    (tmp_path / "none.mp4").write_bytes(b"none")
    with pytest.raises(UnreadableVideoError):
        encoded_pictures(tmp_path / "none.mp4")
