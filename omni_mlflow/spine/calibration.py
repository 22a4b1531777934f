"""Where the six cameras sit on the rig, and how they see.

The rig was calibrated as a chain, each fisheye camera against the one before it, so a point of the body
frame reaches camera n through all cameras before it: T_cn_b = T_cn_c(n-1) T_c(n-1)_b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni_mlflow.spine.annotation import AnnotationFile
from omni_mlflow.spine.poses import Floats, is_rigid
from omni_mlflow.spine.types import CAMERAS

LEFT_FROM_BODY = "calibration/cam01/T_c0_b"


@dataclass(frozen=True)
class Camera:
    """One camera. Camera frame: x right, y down, z forward; body frame: the same axes of the rig; metres.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels of its video; None when not recorded.
        distortion: k1..k4 of the equidistant model (Kannala-Brandt, OpenCV's ``fisheye``) of a fisheye
            camera; None for the rectified stereo cameras, which have none, and when not recorded.
        from_body: T_camera_body, shape (4, 4); NaN when it is not recorded or no rigid motion.
    """

    intrinsics: Floats | None
    distortion: Floats | None
    from_body: Floats


def read_camera(annotation: AnnotationFile, name: str) -> Camera:
    """Read the calibration of one of :data:`CAMERAS`; raises KeyError for another name."""
    if name not in CAMERAS:
        raise KeyError(f"no camera is called {name!r}; known: {', '.join(CAMERAS)}")
    if name == "stereo_left":
        return Camera(_vector(annotation, "cam01/K"), None, _motion(annotation, "cam01/T_c0_b"))
    if name == "stereo_right":
        return Camera(_vector(annotation, "cam01/K"), None, _right_from_body(annotation))
    place = int(name[-1])
    return Camera(
        _vector(annotation, f"cam{place}/K"),
        _vector(annotation, f"cam{place}/D"),
        _fisheye_from_body(annotation, place),
    )


def depth_intrinsics(annotation: AnnotationFile) -> Floats | None:
    """Return fx, fy, cx, cy in pixels of the depth images; None when the camera or their scale is unknown.

    A depth image is the rectified left image shrunk by ``depth/scale``, and the intrinsics shrink with it.
    """
    intrinsics, scale = _vector(annotation, "cam01/K"), annotation.number("depth/scale")
    return None if intrinsics is None or scale is None else intrinsics * scale


def _fisheye_from_body(annotation: AnnotationFile, place: int) -> Floats:
    from_body = _motion(annotation, "cam0/T_c_b")
    for camera in range(1, place + 1):
        from_body = _motion(annotation, f"cam{camera}/T_cn_cnm1") @ from_body
    return from_body


def _right_from_body(annotation: AnnotationFile) -> Floats:
    """The right camera looks where the left one does, from a baseline to the right of it."""
    baseline = annotation.number("calibration/cam01/baseline")
    right_from_left = np.eye(4)
    right_from_left[0, 3] = np.nan if baseline is None else -baseline
    from_body: Floats = right_from_left @ _motion(annotation, "cam01/T_c0_b")
    return from_body if np.isfinite(from_body).all() else np.full((4, 4), np.nan)


def _motion(annotation: AnnotationFile, name: str) -> Floats:
    path = f"calibration/{name}"
    if path in annotation:
        motion = annotation.numbers(path)
        if is_rigid(motion):
            return motion
    return np.full((4, 4), np.nan)


def _vector(annotation: AnnotationFile, name: str) -> Floats | None:
    path = f"calibration/{name}"
    return annotation.numbers(path) if path in annotation else None
