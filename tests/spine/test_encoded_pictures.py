"""A video is known again by its encoded pictures, whatever file they lie in."""

from __future__ import annotations

import av
import numpy as np
import pytest

from omni_mlflow.spine.encoded_pictures import encoded_pictures
from omni_mlflow.spine.exact_leaks import MIN_SHARED_ROWS
from omni_mlflow.spine.video import UnreadableVideoError


def film(path, pictures, *, gop=10):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "30", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = 64, 64, "yuv420p", gop
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def noise(seed, num_pictures=60):
    return np.random.default_rng(seed).integers(0, 255, (num_pictures, 64, 64, 3), np.uint8)


def copied(path, out, *, first):
    """The packets of ``path`` from picture ``first``, a key frame, in a new file."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for packet in packets[first:]:
            packet.stream = stream
            target.mux(packet)
    return out


def test_a_cut_that_was_not_encoded_anew_holds_some_of_the_same_and_another_video_none(tmp_path):
    whole = set(encoded_pictures(film(tmp_path / "whole.mp4", noise(1))))
    assert len(whole) >= 50
    assert whole == set(encoded_pictures(copied(tmp_path / "whole.mp4", tmp_path / "same.mp4", first=0)))
    cut = set(encoded_pictures(copied(tmp_path / "whole.mp4", tmp_path / "cut.mp4", first=30)))
    assert 25 <= len(cut) < len(whole)
    assert cut < whole
    assert not whole & set(encoded_pictures(film(tmp_path / "other.mp4", noise(2))))


def test_what_a_still_or_covered_lens_gives_again_and_again_is_not_remembered(tmp_path):
    still = np.repeat(noise(1, 1), 60, axis=0)
    covered = np.zeros((60, 64, 64, 3), np.uint8)
    only_the_first = 1  # the encoder's settings stand before it
    assert len(encoded_pictures(film(tmp_path / "still.mp4", still, gop=1))) <= only_the_first
    assert len(encoded_pictures(film(tmp_path / "covered.mp4", covered))) <= only_the_first < MIN_SHARED_ROWS


def test_a_file_that_holds_no_video_is_refused(tmp_path):
    (tmp_path / "none.mp4").write_bytes(b"none")
    with pytest.raises(UnreadableVideoError):
        encoded_pictures(tmp_path / "none.mp4")
