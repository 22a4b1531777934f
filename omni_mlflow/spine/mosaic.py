"""The mosaic of the six cameras: its geometry, its pixels, and the MP4 it is written to."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from omni_mlflow.spine.types import CAMERAS, Row, Tile

Image = NDArray[np.uint8]

COLUMNS = 3
FRAMES_PER_GROUP = 8
"""Every eighth proxy frame is a key frame, so that reading one frame decodes at most eight."""

_CONTAINER = {"movflags": "+faststart", "fflags": "+bitexact"}
# Averages all source pixels of a target pixel; the two flags make the result the same on every CPU.
_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_BLACK = (16, 128, 128)  # Y, U, V in the limited range of BT.601


def mosaic_tiles(tile: tuple[int, int]) -> tuple[Tile, ...]:
    """Return the places of the six cameras: two rows of three tiles of (width, height) pixels.

    Raises:
        ValueError: a number of pixels is odd.
    """
    width, height = tile
    if width % 2 or height % 2 or min(tile) < 2:
        raise ValueError(f"a tile of {width} x {height} pixels; H.264 needs even numbers")
    return tuple(
        Tile(
            camera=camera,
            x=place % COLUMNS * width,
            y=place // COLUMNS * height,
            width=width,
            height=height,
        )
        for place, camera in enumerate(CAMERAS)
    )


class Picture(Row):
    """Where the picture of one camera lies in the proxy video; the rest of its tile is black.

    Attributes:
        source_width, source_height: size of the picture in the camera's file, in pixels.
        x, y, width, height: its place in the proxy video, in pixels; the two scales differ by the rounding
            to even numbers.
    """

    source_width: int
    source_height: int
    x: int
    y: int
    width: int
    height: int

    def on_proxy(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Carry points of the camera's picture to the proxy video.

        Args:
            pixels: u, v, shape (..., 2); whole numbers are the middles of pixels, as in the calibration.
        """
        scale = np.array([self.width / self.source_width, self.height / self.source_height])
        carried: NDArray[np.float64] = np.array([self.x, self.y]) + (pixels + 0.5) * scale - 0.5
        return carried


def picture_in(place: Tile, width: int, height: int) -> Picture:
    """Return where a picture of (width, height) pixels lies, whole, in the middle of its tile."""
    scale = min(place.width / width, place.height / height)
    fitted_width, fitted_height = _even(width * scale), _even(height * scale)
    return Picture(
        source_width=width,
        source_height=height,
        x=place.x + (place.width - fitted_width) // 4 * 2,
        y=place.y + (place.height - fitted_height) // 4 * 2,
        width=fitted_width,
        height=fitted_height,
    )


class Mosaic:
    """One picture in YUV 4:2:0; cameras are pasted in without a detour over RGB."""

    def __init__(self, width: int, height: int) -> None:
        self._buffer = np.empty((height * 3 // 2, width), dtype=np.uint8)
        self._planes = _planes(self._buffer, width, height)
        for plane, value in zip(self._planes, _BLACK, strict=True):
            plane[:] = value

    def paste(self, fitted: Fitted) -> None:
        width, height = fitted.place.width, fitted.place.height
        for shrink, target, plane in zip(
            (1, 2, 2), self._planes, _planes(fitted.pixels, width, height), strict=True
        ):
            y, x = fitted.place.y // shrink, fitted.place.x // shrink
            target[y : y + plane.shape[0], x : x + plane.shape[1]] = plane

    def frame(self) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(self._buffer, format="yuv420p")


@dataclass(frozen=True)
class RgbPicture:
    """One picture as RGB, shape (height, width, 3), both even."""

    pixels: Image

    def frame(self) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(self.pixels)).reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
        )


class Fitted(NamedTuple):
    """A picture of one camera, ready to be pasted: ``pixels`` has the shape (height * 3 / 2, width)."""

    place: Picture
    pixels: Image


class TileScaler:
    """Scales the pictures of one camera to its tile."""

    def __init__(self, place: Tile) -> None:
        self._place = place
        self._scaler = VideoReformatter()

    def fit(self, picture: av.VideoFrame) -> Fitted:
        """Return the whole picture in its own aspect ratio, as YUV 4:2:0."""
        place = picture_in(self._place, picture.width, picture.height)
        scaled = self._scaler.reformat(
            picture,
            place.width,
            place.height,
            "yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=_SCALING,
        )
        return Fitted(place, scaled.to_ndarray())


def _encoding(group: int) -> dict[str, str]:
    # Key frames at fixed places, and the same bytes every time: with its macroblock tree, x264 made other
    # bytes of the same pictures in 10 of 300 runs. Without CABAC, at this quality, the same pictures are
    # written in half the time and read in a third of it, in files an eighth larger.
    fixed = f"keyint={group}:min-keyint={group}:scenecut=0:bframes=0:mbtree=0:cabac=0"
    return {"preset": "superfast", "crf": "13", "x264-params": fixed}


class Encoder:
    """Writes pictures to an MP4 at ``path``."""

    def __init__(
        self, path: Path, width: int, height: int, fps: Fraction, *, group: int = FRAMES_PER_GROUP
    ) -> None:
        """``group``: every so many frames one is a key frame."""
        self._container = av.open(str(path), "w", format="mp4", options=_CONTAINER)
        self._stream = self._container.add_stream("libx264", rate=fps, options=_encoding(group))
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = 1
        self._num_frames = 0

    def write(self, picture: Mosaic | RgbPicture) -> None:
        frame = picture.frame()
        frame.pts = self._num_frames
        frame.time_base = 1 / self._stream.codec_context.framerate
        self._num_frames += 1
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def _planes(buffer: Image, width: int, height: int) -> tuple[Image, Image, Image]:
    """Views of the Y, U and V planes of a picture in YUV 4:2:0."""
    flat = buffer.reshape(-1)
    luma, chroma = width * height, width * height // 4
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(height // 2, width // 2),
        flat[luma + chroma :].reshape(height // 2, width // 2),
    )


def _even(pixels: float) -> int:
    return max(2, round(pixels / 2) * 2)
