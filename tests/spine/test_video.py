"""The proxy mosaic shows the right frame of the right camera at the right place."""

from __future__ import annotations

import pickle
from fractions import Fraction

import av
import numpy as np
import pytest
from handmade import grey_of, write_video

from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.frame_plan import FramePlan
from omni_mlflow.spine.mosaic import FRAMES_PER_GROUP
from omni_mlflow.spine.types import CAMERAS, Media, Span
from omni_mlflow.spine.video import ProxyReader, UnreadableVideoError, probe_video, read_frames, write_proxy

TILE = (16, 16)


def middles(frames, camera=0):
    """Grey level in the middle of one camera's tile, for each frame."""
    row, column = divmod(camera, 3)
    return frames[:, row * 16 + 8, column * 16 + 8].mean(axis=-1)


@pytest.fixture
def proxy_of(tmp_path):
    def write(streams, grid, tile=TILE):
        out = tmp_path / "mosaic.mp4"
        return out, write_proxy(streams, out, frame_grid=grid, tile=tile)

    return write


def test_every_proxy_frame_shows_its_source_frame_of_every_camera(tmp_path, proxy_of):
    streams = {
        camera: write_video(tmp_path / f"{camera}.mp4", 61, seed=place)
        for place, camera in enumerate(CAMERAS)
    }
    out, proxy = proxy_of(streams, range(0, 60, 4))
    frames = read_frames(out, range(15))
    assert frames.shape == (15, 32, 48, 3)
    for place in range(6):
        expected = [grey_of(frame + place) for frame in range(0, 60, 4)]
        np.testing.assert_allclose(middles(frames, place), expected, atol=2.5)
    assert proxy.repeated_frames == {}


def test_tiles_say_where_each_camera_lies(tmp_path, proxy_of):
    _, proxy = proxy_of({"fisheye_cam0": write_video(tmp_path / "a.mp4", 2)}, range(1))
    assert [(tile.camera, tile.x, tile.y) for tile in proxy.plan.tiles] == [
        ("fisheye_cam0", 0, 0),
        ("fisheye_cam1", 16, 0),
        ("fisheye_cam2", 32, 0),
        ("fisheye_cam3", 0, 16),
        ("stereo_left", 16, 16),
        ("stereo_right", 32, 16),
    ]


def test_a_missing_camera_stays_black(tmp_path, proxy_of):
    out, _ = proxy_of({"stereo_right": write_video(tmp_path / "a.mp4", 3)}, range(3))
    frames = read_frames(out, [0, 2])
    np.testing.assert_allclose(middles(frames, camera=5), [grey_of(0), grey_of(2)], atol=2.5)
    assert frames[:, :, :16].max() <= 2


def test_a_picture_keeps_its_aspect_ratio_between_black_bars(tmp_path, proxy_of):
    out, _ = proxy_of({"fisheye_cam0": write_video(tmp_path / "a.mp4", 1, size=(32, 64))}, range(1), (16, 16))
    tile = read_frames(out, [0])[0, :16, :16].mean(axis=-1)
    assert (tile[:, 5:11] > 20).all()  # 8 of 16 columns are picture
    assert (tile[:, :3] < 8).all()
    assert (tile[:, 13:] < 8).all()


def test_a_wrist_that_is_projected_with_the_calibration_is_carried_to_the_pixels_of_the_proxy(
    tmp_path, proxy_of, write_annotation
):
    """The left camera sees 8 x 8 white pixels where the left wrist is; its portrait is letterboxed."""
    hand = np.zeros((8, 21, 3), dtype=np.float32)
    hand[:, 0] = (0.1, -0.4, 1.0)
    intrinsics = np.array([120.0, 120.0, 47.5, 95.5])
    changes = {"hand_mocap/left_joints_3d": hand, "calibration/cam01/K": intrinsics}
    with open_episode(write_annotation(changes)) as episode:
        wrist = episode.hands()[0][0, 0, 0]
        focal, centre = np.split(episode.camera("stereo_left").intrinsics, 2)
    seen = focal * wrist[:2] / wrist[2] + centre
    np.testing.assert_allclose(seen, [59.5, 47.5], atol=1e-5)
    shown = np.zeros((192, 96, 3), dtype=np.uint8)
    shown[44:52, 56:64] = 255
    out, proxy = proxy_of({"stereo_left": write_picture(tmp_path / "a.mp4", shown)}, range(1), (64, 48))
    picture = proxy.plan.pictures["stereo_left"]
    assert (picture.source_width, picture.source_height) == (96, 192)
    assert (picture.x, picture.y, picture.width, picture.height) == (64 + 20, 48, 24, 48)
    light = read_frames(out, [0])[0].mean(axis=-1) - 16
    rows, columns = np.nonzero(light > 100)
    np.testing.assert_allclose(picture.on_proxy(seen), [columns.mean(), rows.mean()], atol=0.05)
    assert FramePlan.model_validate_json(proxy.plan.model_dump_json()) == proxy.plan


def write_picture(path, pixels):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "4"})
        stream.height, stream.width, _ = pixels.shape
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_plan_from_before_places_were_recorded_can_still_be_read(tmp_path, proxy_of):
    _, proxy = proxy_of({"fisheye_cam0": write_video(tmp_path / "a.mp4", 2)}, range(1))
    older = proxy.plan.model_dump(mode="json", exclude={"pictures"})
    assert FramePlan.model_validate(older).pictures == {}
    assert FramePlan.model_validate(older).tiles == proxy.plan.tiles


def test_a_video_that_is_too_short_repeats_its_last_frame_and_says_how_often(tmp_path, proxy_of):
    streams = {
        "fisheye_cam0": write_video(tmp_path / "short.mp4", 5),
        "fisheye_cam1": write_video(tmp_path / "whole.mp4", 9),
    }
    out, proxy = proxy_of(streams, range(0, 9, 2))
    assert proxy.repeated_frames == {"fisheye_cam0": 2}
    frames = read_frames(out, range(5))
    np.testing.assert_allclose(middles(frames), [grey_of(frame) for frame in (0, 2, 4, 4, 4)], atol=2.5)
    np.testing.assert_allclose(middles(frames, 1), [grey_of(frame) for frame in (0, 2, 4, 6, 8)], atol=2.5)


def test_frames_are_counted_and_not_timed(tmp_path, proxy_of):
    """The container's clock jumps by 3 frames and by 7; frame i is still the i-th one."""
    path = tmp_path / "gaps.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "4"})
        stream.width = stream.height = 32
        for number, time in enumerate([0, 1, 4, 5, 6, 13, 14]):
            image = np.full((32, 32, 3), grey_of(number), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    out, proxy = proxy_of({"fisheye_cam0": path}, range(7))
    np.testing.assert_allclose(middles(read_frames(out, range(7))), [grey_of(i) for i in range(7)], atol=2.5)
    assert proxy.repeated_frames == {}


def test_the_same_videos_give_the_same_bytes(tmp_path, proxy_of):
    streams = {"fisheye_cam0": write_video(tmp_path / "a.mp4", 30)}
    first = proxy_of(streams, range(30))[0].read_bytes()
    assert proxy_of(streams, range(30))[0].read_bytes() == first


def test_a_damaged_video_is_named_and_leaves_no_proxy(tmp_path, proxy_of):
    path = write_video(tmp_path / "fisheye_cam2.mp4", 30)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableVideoError, match=r"fisheye_cam2\.mp4: .*download it again") as caught:
        proxy_of({"fisheye_cam2": path}, range(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fisheye_cam2.mp4"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a video at all"])
def test_a_file_that_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "stereo_left.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError, match=r"stereo_left\.mp4"):
        probe_video(path)


def test_a_video_cut_short_behind_its_table_of_frames_is_named(tmp_path):
    path = write_video(tmp_path / "stereo_left.mp4", 60)
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole = (tmp_path / "a.mp4").read_bytes()
    probe_video(tmp_path / "a.mp4")
    path.write_bytes(whole[:-100])
    with pytest.raises(UnreadableVideoError, match=r"stereo_left\.mp4: it ends at byte \d+ of \d+"):
        probe_video(path)


def test_h264_needs_even_tiles(tmp_path, proxy_of):
    with pytest.raises(ValueError, match="15 x 16 pixels"):
        proxy_of({}, range(3), (15, 16))


def test_frames_are_read_in_any_order_and_repeatedly(tmp_path, proxy_of):
    out, _ = proxy_of({"fisheye_cam0": write_video(tmp_path / "a.mp4", 26)}, range(26))
    order = [25, 0, 17, 0, 8, 7, 16]
    np.testing.assert_allclose(middles(read_frames(out, order)), [grey_of(i) for i in order], atol=2.5)
    assert read_frames(out, []).shape == (0, 32, 48, 3)


def test_a_frame_that_the_proxy_does_not_have_is_an_error(tmp_path, proxy_of):
    out, _ = proxy_of({"fisheye_cam0": write_video(tmp_path / "a.mp4", 4)}, range(4))
    with pytest.raises(IndexError, match=r"has frames 0\.\.3, not \[4, -1\]"):
        read_frames(out, [0, 4, -1])


def test_a_reader_decodes_a_group_once_while_the_cache_holds_it(tmp_path, proxy_of):
    out, _ = proxy_of({"fisheye_cam0": write_video(tmp_path / "a.mp4", 40)}, range(40))
    group_bytes = FRAMES_PER_GROUP * 32 * 48 * 3
    with ProxyReader(out, cache_bytes=2 * group_bytes) as reader:
        for place in (0, 1, 8, 7, 0):
            reader.frames([place])
        assert reader.num_decoded_frames == 16
        reader.frames([16, 0])  # a third group takes the place of the one used longest ago
        assert reader.num_decoded_frames == 24
        reader.frames([8])
        assert reader.num_decoded_frames == 32


def test_no_proxy_frame_of_a_span_shows_a_source_frame_outside_it():
    media = Media(proxy_video="mosaic.mp4", grid_stride=4, num_proxy_frames=10)  # source frames 0, 4, ... 36
    assert list(media.proxy_frames(Span(start=4, stop=12))) == [1, 2]
    assert list(media.proxy_frames(Span(start=5, stop=13))) == [2, 3]
    assert list(media.proxy_frames(Span(start=5, stop=8))) == []
    assert list(media.proxy_frames(Span(start=30, stop=60))) == [8, 9]
