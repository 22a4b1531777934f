"""A damaged MP4 is named; it takes neither the selection nor the other episodes with it."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from omni_mlflow.spine.audio import extract_audio
from omni_mlflow.spine.fingerprints import print_of
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.video import UnreadableVideoError, container_fps, write_proxy


def spoil(folder, name, old, new):
    content = (folder / name).read_bytes()
    assert old in content
    (folder / name).write_bytes(content.replace(old, new))


@pytest.mark.parametrize("codec", [b"av9Z", b"\xff\x00\xfe1"])
def test_a_video_of_an_unknown_codec_is_named_and_the_other_episode_is_taken(make_episode, codec):
    make_episode("garage")
    folder = make_episode("kitchen")
    spoil(folder, "fisheye_cam1.mp4", b"avc1", codec)
    [episode], [skip] = scan_data_root(folder.parents[1])
    assert episode.session_id == "garage"
    assert skip.reason.startswith("kitchen/ep1/fisheye_cam1.mp4: FFmpeg does not know the codec of its video")


def test_a_name_in_a_video_that_is_not_utf8_is_no_damage(make_episode):
    folder = make_episode()
    spoil(folder, "fisheye_cam1.mp4", b"VideoHandler", b"Kam\xe9raHandle")
    [episode], skips = scan_data_root(folder.parents[1])
    assert (episode.session_id, skips) == ("kitchen", [])


@pytest.mark.parametrize("seed", range(40))
def test_damaged_tables_of_a_video_are_read_around_or_named_by_every_reader(make_episode, tmp_path, seed):
    folder = make_episode()
    video, chance = folder / "fisheye_cam0.mp4", random.Random(seed)
    content = bytearray(video.read_bytes())
    tables = content.index(b"moov")
    for _ in range(chance.choice((1, 4, 30))):
        content[chance.randrange(tables, len(content))] = chance.randrange(256)
    video.write_bytes(content)
    selected, rejected = scan_data_root(folder.parents[1])
    assert len(selected) + len(rejected) == 1
    assert all("fisheye_cam0.mp4" in skip.reason for skip in rejected)
    readers = (
        print_of,
        container_fps,
        lambda path: extract_audio(path, tmp_path / "audio.wav"),
        lambda path: write_proxy(
            {"fisheye_cam0": path}, tmp_path / "mosaic.mp4", frame_grid=range(0, 8, 2), tile=(16, 16)
        ),
    )
    for read in readers:
        with suppress(UnreadableVideoError):
            read(video)
