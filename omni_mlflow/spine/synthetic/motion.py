"""How the wearer moves: the head along a smooth path, the body below it, the right hand at its work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.spatial.transform import Rotation

from omni_mlflow.spine.synthetic.rig import FloatArray, rigid
from omni_mlflow.spine.synthetic.skeleton import (
    HEAD,
    LEFT_ARM,
    OFFSETS,
    RIG_ABOVE_PELVIS_M,
    RIGHT_ARM,
    STANDING_M,
    Arm,
    Pose,
    forward_kinematics,
)
from omni_mlflow.spine.synthetic.world import FPS, SessionWorld

HEAD_PITCH_DEG = 25.0  # the wearer looks down at the table
PELVIS_BEHIND_RIG_M = 0.08
BLEND_FRAMES = 9  # one stroke fades into the next

STROKES = {  # of each common tool: sideways and forward swing in degrees, strokes per second
    "bright": (12.0, 2.0, 0.8),
    "dark": (2.0, 12.0, 1.2),
}
PRIVATE_STROKE = (8.0, 8.0, 0.5)
CONTACT_LOWERS_DEG = 6.0  # the forearm: the hand goes down to the object
OPEN_CURL_DEG, CONTACT_CURL_DEG = 15.0, 20.0  # every finger joint: always, and more in contact


@dataclass(frozen=True)
class HeadPath:
    """A smooth path of the rig through the world, known at every time.

    Attributes:
        amplitudes, hertz, phases: waves of x, y, z (metres) and yaw (radians), shape (4, waves).
        heading: mean yaw, radians from world x to world y.
    """

    amplitudes: FloatArray
    hertz: FloatArray
    phases: FloatArray
    heading: float

    def position(self, seconds: FloatArray) -> FloatArray:
        """Return the rig's place in the world in metres, shape (times, 3)."""
        return self._sway(seconds)[:, :3]

    def yaw(self, seconds: FloatArray) -> FloatArray:
        return self.heading + self._sway(seconds)[:, 3]

    def rig_to_world(self, seconds: FloatArray) -> FloatArray:
        """Return ``T_w_b`` at each time, shape (times, 4, 4)."""
        return rigid(facing(self.yaw(seconds), pitch_deg=HEAD_PITCH_DEG), self.position(seconds))

    def _sway(self, seconds: FloatArray) -> FloatArray:
        waves = np.sin(2 * np.pi * self.hertz * seconds[:, None, None] + self.phases)
        return np.asarray((self.amplitudes * waves).sum(axis=2))


def draw_head_path(rng: np.random.Generator) -> HeadPath:
    reach = np.array([[0.10], [0.10], [0.005], [0.15]])  # hardly any up and down: the feet stay on the floor
    return HeadPath(
        amplitudes=reach * rng.uniform(0.3, 1.0, (4, 3)),
        hertz=rng.uniform(0.03, 0.2, (4, 3)),
        phases=rng.uniform(0, 2 * np.pi, (4, 3)),
        heading=float(rng.uniform(-np.pi, np.pi)),
    )


def facing(yaw: FloatArray, *, pitch_deg: float) -> FloatArray:
    """Return rotations to the world of a frame (x right, y down, z forward) that looks along each yaw.

    Args:
        yaw: radians from world x to world y, shape (times,).
        pitch_deg: how far it looks down.
    """
    level = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # looks along world x
    turns = Rotation.from_euler("z", yaw[:, None]).as_matrix()
    nod = Rotation.from_euler("x", -pitch_deg, degrees=True).as_matrix()
    return np.asarray(turns @ level @ nod)


def body_pose(world: SessionWorld, path: HeadPath, *, body_height_m: float) -> Pose:
    """Pose the wearer at every annotated frame: head under the rig, feet on the floor, hands before them.

    The right hand strokes as the tool asks, the left one holds. In contact both go down and close.
    """
    seconds = np.arange(world.frames) / FPS
    scale = body_height_m / STANDING_M
    yaw = path.yaw(seconds)
    local = np.tile(np.eye(3), (world.frames, len(OFFSETS), 1, 1))
    local[:, 0] = facing(yaw, pitch_deg=0) @ np.diag([-1.0, -1.0, 1.0])  # x left, y up, z forward
    local[:, HEAD] = Rotation.from_euler("x", HEAD_PITCH_DEG, degrees=True).as_matrix()
    touch = _blended(world.contacts()[: world.frames].astype(float))
    _bend(local, LEFT_ARM, np.zeros((world.frames, 2)), touch)
    _bend(local, RIGHT_ARM, swings(world), touch)
    ahead = np.stack([np.cos(yaw), np.sin(yaw), np.zeros(world.frames)], axis=1)
    pelvis = path.position(seconds) - PELVIS_BEHIND_RIG_M * ahead - [0, 0, scale * RIG_ABOVE_PELVIS_M]
    return forward_kinematics(local, pelvis, scale=scale)


def swings(world: SessionWorld) -> FloatArray:
    """Return how far the right hand swings sideways and forward, in degrees, shape (frames, 2)."""
    actions = [world.segment_at(frame).action for frame in range(world.frames)]
    strokes = np.array([STROKES.get(action.tool, PRIVATE_STROKE) for action in actions])
    beat = np.cos(2 * np.pi * np.cumsum(strokes[:, 2]) / FPS)
    return _blended(strokes[:, :2]) * beat[:, None]


def _bend(local: FloatArray, arm: Arm, swing: FloatArray, touch: FloatArray) -> None:
    """Write the rotations of one arm; ``swing`` as from :func:`swings`, ``touch`` 0 (no contact) to 1."""
    sideways, forward = swing.T
    hang = np.full(len(local), -70.0 * arm.side)
    upper_arm = _euler("XZ", -25.0 - 0.6 * forward, hang)
    forearm = _euler("XY", 12.0 + CONTACT_LOWERS_DEG * touch - 0.4 * forward, -100.0 * arm.side + sideways)
    local[:, arm.shoulder] = upper_arm
    local[:, arm.elbow] = np.swapaxes(upper_arm, 1, 2) @ forearm
    curl = -arm.side * (OPEN_CURL_DEG + CONTACT_CURL_DEG * touch)
    local[:, arm.fingers] = Rotation.from_euler("z", curl[:, None], degrees=True).as_matrix()[:, None]


def _euler(axes: str, first: FloatArray, second: FloatArray) -> FloatArray:
    return np.asarray(Rotation.from_euler(axes, np.stack([first, second], axis=1), degrees=True).as_matrix())


def _blended(values: FloatArray) -> FloatArray:
    return np.asarray(uniform_filter1d(values, BLEND_FRAMES, axis=0, mode="nearest"))
