from fractions import Fraction

import av
import numpy as np
import pytest

from omni_mlflow.spine.synthetic.videos import write_video, write_videos
from omni_mlflow.spine.synthetic.vocabulary import (
    COMMON_COLOURS,
    COMMON_TOOLS,
    PRIVATE_COLOURS,
    PRIVATE_TOOLS,
)
from omni_mlflow.spine.synthetic.world import BAR_PIXELS, FRAME_SIZES, make_session
from omni_mlflow.spine.types import CAMERAS

FRAMES = 60


@pytest.fixture(scope="module")
def world():
    return make_session(2, frames=FRAMES)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, world)
    return folder


def test_every_camera_has_an_h264_video_at_20_fps_with_one_frame_more_than_the_annotation(folder):
    for camera in CAMERAS:
        with av.open(str(folder / f"{camera}.mp4")) as video:
            stream = video.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == Fraction(20)
            assert (stream.height, stream.width) == FRAME_SIZES[camera]
            assert sum(1 for _ in video.decode(stream)) == FRAMES + 1


def test_cam0_alone_carries_the_sound_as_mono_aac_and_it_lines_up_with_contact(folder, world):
    for camera in CAMERAS[1:]:
        with av.open(str(folder / f"{camera}.mp4")) as video:
            assert not video.streams.audio
    with av.open(str(folder / "fisheye_cam0.mp4")) as video:
        stream = video.streams.audio[0]
        assert (stream.codec_context.name, stream.rate, stream.layout.name) == ("aac", 44_100, "mono")
        sound = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(stream)])
    assert len(sound) == pytest.approx((FRAMES + 1) * 2205, abs=1024)
    loudness = np.sqrt((sound[: FRAMES * 2205].reshape(FRAMES, 2205) ** 2).mean(axis=1))
    np.testing.assert_array_equal(loudness > 0.1, world.contacts()[:FRAMES])


@pytest.mark.parametrize("camera", ["fisheye_cam1", "stereo_right"])
def test_block_and_tool_can_still_be_told_in_a_tile_of_32_pixels_coded_twice(camera, tmp_path):
    world = make_session(0, frames=400)
    assert any(segment.action.private for segment in world.segments)
    height, width = FRAME_SIZES[camera]
    scale = 32 / height
    write_video(tmp_path / "camera.mp4", world, camera, sound=None)
    shrunk = {"width": 2 * round(width * scale / 2), "height": 32, "format": "rgb24"}
    encode(tmp_path / "tile.mp4", [frame.reformat(**shrunk) for frame in decoded(tmp_path / "camera.mp4")])
    tiles = decoded(tmp_path / "tile.mp4")
    blocks, tools = COMMON_COLOURS | PRIVATE_COLOURS, dict([*COMMON_TOOLS.values(), *PRIVATE_TOOLS.values()])
    for segment in world.segments:
        middle = (segment.start + segment.stop) // 2
        image = tiles[middle].to_ndarray(format="rgb24")
        rows, columns = (inner(pixels, scale) for pixels in world.block_at(camera, middle))
        bar = inner(slice(width - BAR_PIXELS, width), scale)
        assert nearest(image[rows, columns].mean(axis=(0, 1)), blocks) == segment.action.colour
        assert nearest(image[4:28, bar].mean(axis=(0, 1)), tools) == segment.action.tool


def test_no_common_block_looks_like_another_one():
    for name, colour in COMMON_COLOURS.items():
        others = [rgb for other, rgb in (COMMON_COLOURS | PRIVATE_COLOURS).items() if other != name]
        assert min(np.abs(np.subtract(colour, other)).max() for other in others) >= 75


def test_the_same_world_gives_the_same_bytes(folder, world, tmp_path):
    write_video(tmp_path / "again.mp4", world, "fisheye_cam0", sound=world.audio(44_100))
    assert (tmp_path / "again.mp4").read_bytes() == (folder / "fisheye_cam0.mp4").read_bytes()


def decoded(path):
    with av.open(str(path)) as video:
        return list(video.decode(video=0))


def encode(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(), format="rgb24")))
        container.mux(stream.encode(None))


def inner(pixels, scale):
    """The same part of the tile, without the border that scaling blurs."""
    return slice(int(pixels.start * scale) + 2, int(pixels.stop * scale) - 1)


def nearest(rgb, names):
    return min(names, key=lambda name: np.abs(rgb - names[name]).sum())
